"""Who is fetched, by how many calls, and what is remembered of it."""

import pytest
from sqlalchemy import Engine

from ghl_pipeline.crm.fetch_rules import FetchRules
from ghl_pipeline.crm.fetched import FetchMode
from ghl_pipeline.crm.identifiers import Side
from ghl_pipeline.ghl.errors import RequestRejected
from ghl_pipeline.sandbox.marketplace import marketplace
from ghl_pipeline_tests.crm.fetching import GET_CONTACT, OPPORTUNITIES, SEARCH, Market
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

LONG = f"{'x' * 80}@example.com"


@pytest.fixture
def market(engine: Engine, sandbox: Sandbox) -> Market:
    return Market(engine, sandbox)


async def test_nobody_known_and_nobody_wanted_is_no_call(market: Market) -> None:
    market.crowd(3)
    fetched = await market.run()
    assert (fetched.mode, dict(fetched.contacts), fetched.calls.total) == (FetchMode.NOTHING, {}, 0)
    assert market.asked() == {"requests": 0}


async def test_800_contacts_that_are_known_by_id_take_no_list_call(market: Market) -> None:
    people = market.crowd(800)
    market.vendors([{"ghl_contact_id": person.id} for person in people[:300]])
    market.leads([{"ghl_contact_id": person.id} for person in people[300:]])
    fetched = await market.run()
    assert fetched.contacts.keys() == {person.id for person in people}
    assert all(contact.details is not None for contact in fetched.contacts.values())
    assert len(fetched.found) == 800
    # The groups grow from 50 to 100: ten at a time of 50, then three of 100. One call tries dates for the next run.
    assert market.asked() == {"requests": 14, "ids": 13, "other": 1, SEARCH: 14}
    assert (fetched.calls.groups_by_id, fetched.calls.survey, fetched.calls.total) == (13, 1, 14)


async def test_800_contacts_that_are_known_by_email_take_no_list_call(market: Market) -> None:
    people = market.crowd(800)
    market.leads([{"email": person.email, "ghl_contact_id": f"junk_{n}"} for n, person in enumerate(people)])
    fetched = await market.run()
    assert fetched.contacts.keys() == {person.id for person in people}
    assert market.asked() == {"requests": 14, "emails": 13, "other": 1, SEARCH: 14}
    assert fetched.calls.groups_by_email == 13


@pytest.mark.parametrize("is_surveyed", [True, False])
async def test_the_fallback_for_800_contacts_takes_two_list_calls(market: Market, is_surveyed: bool) -> None:
    people = market.crowd(800)
    market.leads([{"email": person.email} for person in people[:799]])
    (stubborn,) = market.leads([{"email": "nobody.knows@example.com"}])
    if is_surveyed:
        market.survey()
    fetched = await market.run()
    asked = market.asked()
    assert (asked["none"], asked.get("dates", 0)) == (2, 0)
    assert fetched.calls.list_pages == 2
    assert fetched.not_found == {(Side.LEAD, stubborn)}
    assert fetched.contacts.keys() == {person.id for person in people}


async def test_a_lead_that_is_not_found_costs_one_scan_and_then_none_for_a_month(market: Market) -> None:
    market.survey()
    (person,) = market.crowd(1)
    market.leads([{"email": person.email}, {"email": "nobody.knows@example.com"}])
    assert (await market.run()).calls.list_pages == 1
    market.weeks_pass()
    again = await market.run()
    assert (again.mode, again.calls.list_pages) == (FetchMode.FULL, 0)
    market.weeks_pass()
    assert (await market.run(full=True)).calls.list_pages == 0
    market.weeks_pass(days=31)
    assert (await market.run()).calls.list_pages == 1


async def test_a_lead_whose_email_is_corrected_is_looked_for_by_a_scan_again(market: Market) -> None:
    market.survey()
    market.crowd(1)
    (lead,) = market.leads([{"email": "nobody.knows@example.com"}])
    await market.run()
    market.sql("UPDATE leads SET email = 'somebody.else@example.com'")
    assert market.known()[Side.LEAD, lead].looked_up is None
    assert (await market.run(full=True)).calls.list_pages == 1


async def test_what_changes_did_not_find_is_scanned_for_by_the_next_full_pass(market: Market) -> None:
    market.survey()
    (person,) = market.crowd(1)
    market.leads([{"email": person.email}])
    await market.run()
    (lead,) = market.leads([{"email": "nobody.knows@example.com"}])
    changes = await market.run()
    assert (changes.mode, set(changes.not_found), changes.scanned) == (FetchMode.CHANGES, {(Side.LEAD, lead)}, False)
    market.asked()
    assert (await market.run()).calls.total == 1, "it is not looked up again by the next run"
    assert (await market.run(full=True)).calls.list_pages == 1


async def test_15000_contacts_and_as_many_rows_take_the_pages_of_the_list_and_then_one_call(market: Market) -> None:
    sample = marketplace(market.place.ghl, vendors=5_000, leads=10_000, seed=1, staff=0)
    market.vendors([{"ghl_contact_id": vendor.contact.id} for vendor in sample.vendors])
    market.leads([{"ghl_contact_id": lead.contact.id} for lead in sample.leads[:7_000]])
    market.leads([{"email": lead.contact.email} for lead in sample.leads[7_000:]])
    market.asked()
    fetched = await market.fetch(discover=True)
    assert (len(fetched.contacts), len(fetched.found)) == (15_000, 15_000)
    # The cap is reached with the 30th page; whether that was all is one call more.
    assert (fetched.calls.list_pages, fetched.scan_stopped_at_cap) == (31, False)
    assert market.asked() == {"requests": 32, "none": 31, "other": 1, SEARCH: 32}


async def test_the_second_run_takes_one_call_where_nothing_changed(market: Market) -> None:
    people = market.crowd(300)
    market.vendors([{"ghl_contact_id": person.id} for person in people[:100]])
    market.leads([{"email": person.email} for person in people[100:]])
    market.leads([{"email": "nobody.knows@example.com"}, {"ghl_contact_id": "0" * 20}, {"first_name": "Nameless"}])
    first = await market.run(discover=True)
    market.asked()
    second = await market.run(discover=True)
    assert (first.mode, second.mode) == (FetchMode.FULL, FetchMode.CHANGES)
    assert market.asked() == {"requests": 1, "dates": 1, SEARCH: 1}
    assert not any((second.contacts, second.found, second.not_found, second.gone, second.failed))


async def test_changes_bring_who_changed_and_look_up_who_is_new(market: Market) -> None:
    people = market.crowd(50)
    market.leads([{"ghl_contact_id": person.id} for person in people])
    deleted = market.add(email="deleted@example.com")
    market.leads([{"ghl_contact_id": deleted.id}])
    await market.run(rules=FetchRules(overlap=FetchRules().overlap * 0))
    market.place.ghl.remove(deleted.id)
    market.place.ghl.change(people[7].id, first_name="Renamed")
    newcomer = market.add(email="newcomer@example.com")
    (by_email,) = market.leads([{"email": "Newcomer@example.com "}])
    (by_id,) = market.vendors([{"ghl_contact_id": people[9].id}])
    (lost,) = market.vendors([{"ghl_contact_id": "1" * 20}])
    fetched = await market.run(rules=FetchRules(overlap=FetchRules().overlap * 0))
    assert fetched.mode is FetchMode.CHANGES
    assert {people[7].id, newcomer.id, people[9].id} <= fetched.contacts.keys()
    assert fetched.found == {(Side.LEAD, by_email), (Side.VENDOR, by_id)}
    assert fetched.not_found == {(Side.VENDOR, lost)}
    # Nobody is gone by being absent from changes; the link that is new was asked for by GET.
    assert fetched.gone == {"1" * 20}
    assert fetched.calls.list_pages == 0


async def test_after_a_week_everybody_is_looked_up_again(market: Market) -> None:
    people = market.crowd(20)
    market.leads([{"ghl_contact_id": person.id} for person in people])
    await market.run()
    market.place.ghl.remove(people[3].id)
    assert (await market.run()).gone == frozenset()
    market.weeks_pass()
    assert (await market.run()).gone == {people[3].id}


@pytest.mark.parametrize("fault", ["ranges_refused", "ranges_find_nothing"])
async def test_where_dates_cannot_be_searched_everybody_is_looked_up_every_time(market: Market, fault: str) -> None:
    people = market.crowd(20)
    market.leads([{"ghl_contact_id": person.id} for person in people])
    market.faults(**{fault: True})
    assert [(await market.run()).mode for _ in range(3)] == [FetchMode.FULL] * 3


async def test_changes_that_are_refused_all_at_once_lead_to_a_full_pass(market: Market) -> None:
    people = market.crowd(20)
    market.leads([{"ghl_contact_id": person.id} for person in people])
    await market.run()
    market.faults(ranges_refused=True)
    fetched = await market.run()
    assert (fetched.mode, len(fetched.found)) == (FetchMode.FULL, 20)
    assert "did not answer the search for changes" in fetched.notes[0]


async def test_changes_that_come_short_are_looked_for_again(market: Market) -> None:
    people = market.crowd(20)
    market.leads([{"ghl_contact_id": person.id} for person in people])
    await market.run()
    for person in people:
        market.place.ghl.change(person.id, first_name="Changed")
    market.faults(scan_ends_after=5)
    assert not (await market.run()).complete
    market.faults()
    again = await market.run()
    assert (again.mode, len(again.contacts)) == (FetchMode.CHANGES, 20)


async def test_each_contact_comes_once_and_is_one_rows_of_a_side_however_many_lead_to_it(market: Market) -> None:
    contact = market.add(email="both@example.com", additional_emails=("also@example.com",))
    market.vendors([{"ghl_contact_id": contact.id}, {"email": "both@example.com"}])
    market.leads([{"ghl_contact_id": contact.id, "email": "third@example.com"}, {"email": "also@example.com"}])
    fetched = await market.fetch()
    assert list(fetched.contacts) == [contact.id]
    known = {key: row.contact_id for key, row in market.known().items()}
    assert fetched.found == {key for key, link in known.items() if link is not None}
    assert fetched.not_found == {key for key, link in known.items() if link is None}


async def test_junk_in_a_link_is_never_sent_and_the_email_is_asked(market: Market) -> None:
    contact = market.add(email="ada@example.com")
    (lead,) = market.leads([{"ghl_contact_id": "test_contact_1", "email": "ada@example.com"}])
    fetched = await market.run()
    assert fetched.found == {(Side.LEAD, lead)}
    assert (list(fetched.contacts), fetched.gone) == ([contact.id], frozenset())
    assert GET_CONTACT not in market.asked()


async def test_a_row_whose_contact_is_gone_is_looked_for_by_its_email(market: Market) -> None:
    gone, alive = market.add(email="ada@example.com"), market.add(email="ADA@example.com ")
    market.place.ghl.remove(gone.id)
    (lead,) = market.leads([{"ghl_contact_id": gone.id, "email": "ada@example.com"}])
    fetched = await market.run()
    assert (set(fetched.gone), set(fetched.found)) == ({gone.id}, {(Side.LEAD, lead)})
    assert list(fetched.contacts) == [alive.id]


async def test_an_address_too_long_for_a_search_is_found_all_the_same(market: Market) -> None:
    contact = market.add(email=LONG)
    market.leads([{"email": LONG.upper()}])
    fetched = await market.run()
    assert list(fetched.contacts) == [contact.id]
    assert (fetched.calls.single, fetched.calls.list_pages) == (1, 0)


async def test_an_email_that_only_a_scan_can_find_is_found_by_it(market: Market) -> None:
    contact = market.add(email="own@example.com", additional_emails=("other@example.com",))
    (lead,) = market.leads([{"email": "other@example.com"}])
    market.survey()
    market.faults(primary_email_only=True)
    fetched = await market.run()
    assert (set(fetched.found), list(fetched.contacts)) == ({(Side.LEAD, lead)}, [contact.id])
    assert fetched.calls.list_pages == 1


async def test_groups_that_are_cut_off_in_silence_are_noticed(market: Market) -> None:
    people = market.crowd(60)
    market.vendors([{"ghl_contact_id": person.id} for person in people[:30]])
    market.leads([{"email": person.email} for person in people[30:]])
    market.faults(or_answers_first_leaf_only=True)
    fetched = await market.run()
    assert fetched.contacts.keys() >= {person.id for person in people}
    assert (fetched.gone, len(fetched.found)) == (frozenset(), 60)


async def test_smaller_groups_are_used_where_only_those_are_answered_rightly(market: Market) -> None:
    people = market.crowd(60)
    market.leads([{"ghl_contact_id": person.id} for person in people])
    market.faults(or_answers_first_leaves=10)
    fetched = await market.run()
    assert (len(fetched.found), fetched.calls.single) == (60, 0)
    # 50 and 10 at first, of which ten each were answered; then the 40 others, ten at a time.
    assert fetched.calls.groups_by_id == 6


# --- opportunities


async def test_a_lead_known_by_its_opportunity_is_found_in_the_contacts_that_came_anyway(market: Market) -> None:
    contact = market.add(email="ada@example.com")
    opportunity = market.place.ghl.opportunities.add(contact.id)
    named = market.add(email="bea@example.com", custom_fields=(("field0000000000000001", "opp00000000000000001"),))
    market.vendors([{"ghl_contact_id": contact.id}, {"ghl_contact_id": named.id}])
    market.leads([{"ghl_opportunity_id": opportunity.id}, {"ghl_opportunity_id": "opp00000000000000001"}])
    fetched = await market.run()
    assert fetched.contact_of_opportunity == {opportunity.id: contact.id, "opp00000000000000001": named.id}
    assert (fetched.calls.opportunities, fetched.calls.list_pages) == (0, 0)


async def test_opportunities_are_gone_through_until_all_are_found(market: Market) -> None:
    people = market.crowd(350)
    made = [market.place.ghl.opportunities.add(person.id, created_at=n) for n, person in enumerate(people)]
    (lead,) = market.leads([{"ghl_opportunity_id": made[-150].id}])
    fetched = await market.run()
    assert fetched.found == {(Side.LEAD, lead)}
    assert list(fetched.contacts) == [people[-150].id]
    assert (fetched.calls.opportunities, fetched.calls.groups_by_id, fetched.calls.list_pages) == (2, 1, 0)


async def test_an_opportunity_named_in_a_custom_field_is_found_by_the_scan(market: Market) -> None:
    market.crowd(3)
    named = market.add(email="bea@example.com", custom_fields=(("field0000000000000001", "opp00000000000000001"),))
    (lead,) = market.leads([{"ghl_opportunity_id": "opp00000000000000001"}])
    fetched = await market.run()
    assert fetched.contact_of_opportunity == {"opp00000000000000001": named.id}
    assert (set(fetched.found), fetched.calls.list_pages) == ({(Side.LEAD, lead)}, 1)


async def test_an_opportunity_that_two_contacts_name_is_nobodys(market: Market) -> None:
    for name in ("bea", "cal"):
        market.add(email=f"{name}@example.com", custom_fields=(("field0000000000000001", "opp00000000000000001"),))
    (lead,) = market.leads([{"ghl_opportunity_id": "opp00000000000000001"}])
    fetched = await market.run()
    assert (fetched.contact_of_opportunity, set(fetched.not_found)) == ({}, {(Side.LEAD, lead)})


async def test_without_the_scope_for_opportunities_the_rest_goes_on(market: Market) -> None:
    contact = market.add(email="ada@example.com")
    opportunity = market.place.ghl.opportunities.add(contact.id)
    (lead,) = market.leads([{"ghl_opportunity_id": opportunity.id}])
    market.faults(missing_scopes=("opportunities.readonly",))
    fetched = await market.run()
    # The scan brings the contact, which shows its own opportunities.
    assert fetched.found == {(Side.LEAD, lead)}
    assert any("opportunities.readonly" in note for note in fetched.notes)


async def test_opportunities_that_fail_fail_the_leads_that_needed_them_and_no_others(market: Market) -> None:
    named = market.add(email="bea@example.com", custom_fields=(("field0000000000000001", "opp00000000000000001"),))
    by_field, by_list, by_email = market.leads(
        [
            {"ghl_opportunity_id": "opp00000000000000001"},
            {"ghl_opportunity_id": "opp00000000000000002"},
            {"email": "nobody.knows@example.com"},
        ]
    )
    market.faults(routes=(OPPORTUNITIES,), error_rate=1.0)
    fetched = await market.run()
    assert fetched.contacts.keys() == {named.id}
    assert set(fetched.found) == {(Side.LEAD, by_field)}
    assert set(fetched.failed) == {(Side.LEAD, by_list)}
    assert set(fetched.not_found) == {(Side.LEAD, by_email)}


async def test_a_new_lead_known_by_its_opportunity_is_found_among_changes(market: Market) -> None:
    people = market.crowd(5)
    market.leads([{"ghl_contact_id": person.id} for person in people[:1]])
    await market.run()
    opportunity = market.place.ghl.opportunities.add(people[4].id)
    (lead,) = market.leads([{"ghl_opportunity_id": opportunity.id}])
    market.asked()
    fetched = await market.run()
    assert (fetched.mode, set(fetched.found)) == (FetchMode.CHANGES, {(Side.LEAD, lead)})
    assert market.asked() == {"requests": 3, "dates": 1, "ids": 1, SEARCH: 2, OPPORTUNITIES: 1}


# --- who is only known to GHL


async def test_discovery_is_one_search_for_tags_and_source(market: Market) -> None:
    market.crowd(30)
    by_tag = market.add(email="tag@example.com", tags=("Manually Approved",))
    by_source = market.add(email="source@example.com", source="Vendor Application - Web")
    lead = market.add(email="lead@example.com", tags=("new lead", "other"))
    fetched = await market.run(discover=True)
    assert fetched.mode is FetchMode.FULL
    assert fetched.contacts.keys() == {by_tag.id, by_source.id, lead.id}
    assert fetched.calls.discovery == 1
    market.asked()
    later = market.add(email="later@example.com", tags=("new vendor",))
    assert later.id in (await market.run(discover=True)).contacts
    assert market.asked() == {"requests": 1, "dates": 1, SEARCH: 1}


async def test_a_complete_scan_is_discovery_enough(market: Market) -> None:
    vendor = market.add(email="tag@example.com", tags=("new vendor",))
    market.leads([{"email": "nobody.knows@example.com"}])
    fetched = await market.run(discover=True)
    assert (fetched.calls.discovery, fetched.calls.list_pages) == (0, 1)
    assert vendor.id in fetched.contacts


async def test_discovery_that_is_refused_is_told_and_no_more(market: Market) -> None:
    people = market.crowd(3)
    market.leads([{"ghl_contact_id": person.id} for person in people])
    market.faults(max_or_leaves=4)
    fetched = await market.run(discover=True)
    assert (len(fetched.found), fetched.complete) == (3, True)
    assert any("were not looked for" in note for note in fetched.notes)


# --- single failures


async def test_a_row_that_cannot_be_asked_is_failed_and_asked_again_by_the_next_run(market: Market) -> None:
    people = market.crowd(3)
    ids = market.leads([{"ghl_contact_id": person.id} for person in people])
    await market.run()
    # The search does not show it, and its GET is refused.
    market.faults(hidden_from_search=(people[1].id,), fail_at=2, fail_status=400)
    fetched = await market.run(full=True)
    assert {key: type(error) for key, error in fetched.failed.items()} == {(Side.LEAD, ids[1]): RequestRejected}
    assert (fetched.gone, len(fetched.found)) == (frozenset(), 2)
    market.faults()
    again = await market.run()
    assert (again.mode, set(again.found)) == (FetchMode.CHANGES, {(Side.LEAD, ids[1])})
