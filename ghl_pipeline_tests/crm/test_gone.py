"""Who is gone: only on GHL's own word in the same run, whatever fails, and whoever is merely not shown."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from ghl_pipeline.crm.fetch_rules import FetchRules, Remembered
from ghl_pipeline.crm.fetched import FetchMode
from ghl_pipeline.crm.gathering import Gathering
from ghl_pipeline.crm.identifiers import Identifiers, KnownRow, Side
from ghl_pipeline.crm.missing import MISSING_STATUS, Missing, TooManyMissing, check_share
from ghl_pipeline.ghl.errors import GhlError, GhlUnreachable, TokenRejected
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.sandbox.contacts import Contact as Person
from ghl_pipeline_tests.crm.fetching import GET_CONTACT, Market
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

LOCATION = "Location000000000001"


@pytest.fixture
def market(engine: Engine, sandbox: Sandbox) -> Market:
    return Market(engine, sandbox)


def known_by_id(market: Market, people: list[Person]) -> None:
    """Vendors and leads by turns, linked to these contacts."""
    market.vendors([{"ghl_contact_id": person.id} for person in people[::2]])
    market.leads([{"ghl_contact_id": person.id} for person in people[1::2]])


async def test_a_deleted_contact_is_gone_and_one_that_the_search_does_not_show_is_not(market: Market) -> None:
    people = market.crowd(40)
    known_by_id(market, people)
    market.place.ghl.remove(people[3].id)
    market.faults(hidden_from_search=(people[4].id,))
    fetched = await market.run()
    assert fetched.gone == {people[3].id}
    assert fetched.contacts.keys() == {person.id for person in people} - {people[3].id}
    assert fetched.calls.single == 2


async def test_a_contact_that_is_gone_is_not_asked_for_by_get_again_and_comes_back_when_it_does(
    market: Market,
) -> None:
    people = market.crowd(40)
    known_by_id(market, people)
    market.place.ghl.remove(people[3].id)
    await market.run()
    market.asked()
    again = await market.run(full=True)
    assert not any((again.gone, again.failed))
    assert GET_CONTACT not in market.asked()
    market.place.ghl.load([people[3]])
    assert people[3].id in (await market.run(full=True)).contacts
    market.place.ghl.remove(people[3].id)
    assert (await market.run(full=True)).gone == {people[3].id}


async def test_after_a_month_ghl_is_asked_again_whether_a_contact_is_gone(market: Market) -> None:
    people = market.crowd(40)
    known_by_id(market, people)
    market.place.ghl.remove(people[3].id)
    await market.run()
    market.weeks_pass(days=31)
    assert (await market.run()).gone == {people[3].id}


async def test_a_gone_contact_whose_email_is_nobodys_costs_one_scan_and_then_none(market: Market) -> None:
    market.survey()
    people = market.crowd(40)
    market.leads([{"ghl_contact_id": person.id, "email": person.email} for person in people])
    market.place.ghl.remove(people[3].id)
    assert (await market.run()).calls.list_pages == 1
    for _ in range(3):
        market.weeks_pass()
        again = await market.run()
        assert (again.mode, again.calls.list_pages, again.calls.single) == (FetchMode.FULL, 0, 0)


def test_ghl_s_word_on_one_contact_goes_before_a_search_and_a_search_before_a_list() -> None:
    told, listed = Contact("ToldGone000000000001"), Contact("NotListed00000000001")
    at = Gathering(cast("Any", None), cast("Any", None), Identifiers(), Remembered(datetime.now(UTC)), FetchRules())
    at.gone.update((told.id, listed.id))
    at.told_gone.add(told.id)
    at.add([told, listed])
    assert at.contacts.keys() == {listed.id}
    assert at.gone == {told.id}


# --- the list as proof


async def many_known(market: Market, *, deleted: int, others: int = 0) -> list[Person]:
    """2,100 contacts, all known by id, so that the list comes first; the first few of them deleted by now."""
    people = market.crowd(2_100 + others)
    known_by_id(market, people[:2_100])
    for person in people[:deleted]:
        market.place.ghl.remove(person.id)
    market.survey()
    return people


async def test_where_groups_cost_far_more_the_list_comes_first_and_everything_else_is_asked(market: Market) -> None:
    people = await many_known(market, deleted=3)
    market.faults(hidden_from_search=(people[50].id,))
    fetched = await market.run()
    asked = market.asked()
    assert (asked["none"], asked["ids"], asked[GET_CONTACT]) == (5, 1, 4)
    assert fetched.gone == {person.id for person in people[:3]}
    assert len(fetched.contacts) == 2_097


async def test_150_contacts_that_a_complete_list_lacks_are_gone_when_100_of_them_are(market: Market) -> None:
    people = await many_known(market, deleted=150)
    fetched = await market.run()
    assert fetched.gone == {person.id for person in people[:150]}
    assert (fetched.calls.single, fetched.unconfirmed) == (100, 0)


async def test_when_one_of_them_is_alive_only_those_are_gone_that_were_verified(market: Market) -> None:
    people = await many_known(market, deleted=150)
    newest = people[2_099].id  # what an index does not know yet was written last
    market.faults(hidden_from_search=(newest,))
    fetched = await market.run()
    assert fetched.gone < {person.id for person in people[:150]}
    assert (len(fetched.gone), fetched.calls.single, fetched.unconfirmed) == (99, 100, 51)
    assert newest in fetched.contacts
    # The others are left as they are: neither found nor not found.
    assert (len(fetched.found), len(fetched.not_found)) == (2_100 - 150, 99)
    assert "51 linked contacts" in fetched.notes[0]


@pytest.mark.parametrize(
    "fault", [{"scan_ends_after": 500}, {"scan_ends_after": 1_250}, {"scan_ends_after": 0}, {"total_surplus": 50}]
)
async def test_a_list_that_is_cut_short_is_no_proof_of_anybody(market: Market, fault: dict[str, int]) -> None:
    people = await many_known(market, deleted=120)
    market.faults(**fault)
    fetched = await market.run()
    assert fetched.gone == {person.id for person in people[:120]}
    assert fetched.calls.single == 120, "each was verified"
    assert len(fetched.contacts) == 2_100 - 120


async def test_a_scan_ends_at_its_cap_and_says_so(market: Market) -> None:
    people = market.crowd(30)
    market.survey()
    (lead,) = market.leads([{"email": "nobody.knows@example.com"}])
    fetched = await market.run(rules=FetchRules(list_scan_cap=20))
    assert (fetched.scan_stopped_at_cap, len(fetched.contacts)) == (True, 20)
    assert (set(fetched.not_found), set(fetched.gone)) == ({(Side.LEAD, lead)}, set())
    assert len(people) == 30
    # As many contacts as the cap are a list that ended.
    market.weeks_pass(days=31)
    fetched = await market.run(rules=FetchRules(list_scan_cap=30))
    assert (fetched.scan_stopped_at_cap, fetched.calls.list_pages) == (False, 2)


async def test_a_location_beyond_the_cap_is_asked_in_groups(market: Market) -> None:
    people = await many_known(market, deleted=0)
    fetched = await market.run(rules=FetchRules(list_scan_cap=1_000))
    assert (fetched.calls.list_pages, fetched.calls.groups_by_id) == (1, 21)
    assert len(fetched.contacts) == len(people)


async def test_a_list_that_is_refused_fails_the_rows_that_wanted_it_and_no_others(market: Market) -> None:
    people = market.crowd(3)
    market.survey()
    market.vendors([{"ghl_contact_id": person.id} for person in people])
    (lead,) = market.leads([{"email": "nobody.knows@example.com"}])
    market.faults(unfiltered_status=422)
    fetched = await market.run()
    assert (set(fetched.failed), len(fetched.found)) == ({(Side.LEAD, lead)}, 3)
    assert (fetched.complete, fetched.scanned) == (False, False)
    market.faults()
    assert (await market.run()).mode is FetchMode.FULL


# --- outages


@pytest.mark.parametrize("status", [503, 401, 400, 429, None])
@pytest.mark.parametrize("lasting", [True, False])
async def test_whatever_call_fails_nobody_who_lives_is_gone(market: Market, status: int | None, lasting: bool) -> None:
    people = market.crowd(60)
    opportunity = market.place.ghl.opportunities.add(people[50].id)
    linked = people[:30]
    market.vendors([{"ghl_contact_id": person.id} for person in linked[::2]])
    market.leads([{"ghl_contact_id": person.id, "email": person.email} for person in linked[1::2]])
    market.leads([{"email": person.email} for person in people[30:40]])
    market.leads([{"email": LONG_ADDRESS}, {"email": "nobody@example.net"}, {"ghl_opportunity_id": opportunity.id}])
    deleted = {person.id for person in linked[:4]}
    for contact_id in deleted:
        market.place.ghl.remove(contact_id)
    hidden = (linked[10].id, linked[11].id)
    market.faults(hidden_from_search=hidden)
    calls = (await market.fetch(discover=True)).calls.total
    assert calls > 10
    for number in range(1, calls + 1):
        market.sql("DELETE FROM location_learning")
        market.faults(
            hidden_from_search=hidden, fail_at=number, fail_requests=None if lasting else 1, fail_status=status
        )
        try:
            fetched = await market.fetch(discover=True)
        except GhlError:
            continue
        assert fetched.gone <= deleted, number
        ended = fetched.found | fetched.not_found | fetched.failed.keys()
        assert ended == market.known().keys(), number
        if not fetched.failed and not lasting:
            assert fetched.gone == deleted, number


LONG_ADDRESS = f"{'y' * 80}@example.com"


async def test_an_outage_or_a_refused_token_ends_the_fetch(market: Market) -> None:
    known_by_id(market, market.crowd(5))
    market.faults(token_revoked=True)
    with pytest.raises(TokenRejected):
        await market.run()
    market.faults(drop_rate=1.0)
    with pytest.raises(GhlUnreachable):
        await market.run()
    assert all(row.looked_up is None for row in market.known().values())


# --- any world


FATES = st.sampled_from(["alive", "hidden", "deleted", "never was"])
LINKS = st.sampled_from(["id", "junk", "none", "dead id"])
ROWS = st.lists(st.tuples(FATES, LINKS, st.booleans(), st.booleans(), st.booleans()), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, strangers=st.integers(0, 5), surveyed=st.booleans(), discover=st.booleans())
async def test_in_any_world_the_living_are_found_and_the_deleted_are_gone(
    engine: Engine,
    sandbox: Sandbox,
    rows: list[tuple[str, str, bool, bool, bool]],
    strangers: int,
    surveyed: bool,
    discover: bool,
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE clients CASCADE")
    market = Market(engine, sandbox)
    ghl = market.place.ghl
    for number in range(strangers):
        ghl.add(email=f"stranger{number}@example.com")
    expected: dict[tuple[Side, int], bool] = {}
    gone: set[str] = set()
    hidden: list[str] = []
    for number, (fate, link, has_email, has_opportunity, is_vendor) in enumerate(rows):
        contact = ghl.add(email=f"row{number}@example.com")
        opportunity = ghl.opportunities.add(contact.id).id
        if fate in ("deleted", "never was"):
            ghl.remove(contact.id)
        if fate == "hidden":
            hidden.append(contact.id)
        contact_id = {"id": contact.id, "junk": f"junk_{number}", "none": None, "dead id": f"{number:0>20}"}[link]
        row: dict[str, object] = {"ghl_contact_id": contact_id, "email": contact.email if has_email else None}
        if is_vendor:
            key = Side.VENDOR, market.vendors([row])[0]
        else:
            key = Side.LEAD, market.leads([{**row, "ghl_opportunity_id": opportunity if has_opportunity else None}])[0]
        by_id = fate in ("alive", "hidden") and link == "id"
        by_search = fate == "alive" and (has_email or (has_opportunity and not is_vendor))
        expected[key] = by_id or by_search
        if contact_id is not None and (link == "dead id" or (link == "id" and fate in ("deleted", "never was"))):
            gone.add(contact_id)
    if surveyed:
        market.survey()
    market.faults(hidden_from_search=tuple(hidden))
    fetched = await market.run(discover=discover)
    assert fetched.gone == gone
    assert not fetched.failed
    assert fetched.found == {key for key, is_found in expected.items() if is_found}
    assert not fetched.gone & fetched.contacts.keys()
    assert fetched.calls.total == market.asked()["requests"]
    again = await market.run(discover=discover)
    assert not again.gone
    assert not again.failed


# --- is so much believed


def link_to(side: Side, number: int) -> str:
    return f"{side.value:x<10}{number:0>10}"


def rows_of(side: Side, number: int, *, marked: int = 0, unlinked: int = 0) -> tuple[KnownRow, ...]:
    statuses = [MISSING_STATUS] * marked + ["active"] * (number - marked)
    links = [None] * unlinked + [link_to(side, n) for n in range(unlinked, number)]
    return tuple(KnownRow(side, n, link, None, None, statuses[-n - 1]) for n, link in enumerate(links))


@pytest.mark.parametrize(("gone", "too_many"), [(0, False), (20, False), (21, True), (100, True)])
@pytest.mark.parametrize("side", list(Side))
def test_more_than_a_fifth_of_either_side_is_not_believed(gone: int, too_many: bool, side: Side) -> None:
    rows = rows_of(side, 100)
    identifiers = Identifiers(rows, rows_of(Side.LEAD, 1000)) if side is Side.VENDOR else Identifiers((), rows)
    ids = {link_to(side, n) for n in range(gone)}
    if not too_many:
        assert check_share(identifiers, ids, location_id=LOCATION)[side] == Missing(gone, 100)
        return
    with pytest.raises(TooManyMissing, match=f"{gone} of 100 {side.value}s") as caught:
        check_share(identifiers, ids, location_id=LOCATION)
    assert f"ghl-pipeline crm-sync --location {LOCATION} --accept-missing" in str(caught.value)
    assert check_share(identifiers, ids, location_id=LOCATION, accept=True)[side].gone == gone


def test_who_is_marked_already_or_has_no_link_counts_neither_way() -> None:
    rows = rows_of(Side.LEAD, 100, marked=50, unlinked=10)
    marked = {row.contact_id for row in rows if row.status == MISSING_STATUS and row.contact_id}
    assert check_share(Identifiers((), rows), marked, location_id=LOCATION)[Side.LEAD] == Missing(0, 40)


def test_what_can_be_no_contacts_id_does_not_make_the_share_smaller() -> None:
    junk = tuple(KnownRow(Side.VENDOR, 100 + n, "n/a", None, None, "active") for n in range(90))
    rows = (*rows_of(Side.VENDOR, 10), *junk)
    with pytest.raises(TooManyMissing, match="10 of 10 vendors"):
        check_share(Identifiers(rows), {link_to(Side.VENDOR, n) for n in range(10)}, location_id=LOCATION)


def test_nobody_linked_is_nobody_missing() -> None:
    assert check_share(Identifiers(), {"x"}, location_id=LOCATION)[Side.VENDOR].share == 0.0
