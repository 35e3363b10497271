"""What each kind of event does, as the tables and the requests show it, and that no order and no repetition matters."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from ghl_pipeline.ghl.errors import TokenRejected, TransientGhlError
from ghl_pipeline.webhooks.ensuring.ensure import ContactEnsurer, CreationUnsettled, Ensured
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.outcomes import EventOutcome
from ghl_pipeline_tests.hydration.conftest import COMPLETE, Agency, Place
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.ensuring import contacts, ensurer, writes
from ghl_pipeline_tests.webhooks.handling_tools import (
    START,
    Inbox,
    bison,
    contact_changed,
    contact_deleted,
    sms,
)


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


@pytest.fixture
def inbox(agency: Agency) -> Inbox:
    return Inbox(agency)


# --- contacts


async def test_a_changed_contact_fills_its_lead_without_a_request(agency: Agency, place: Place, inbox: Inbox) -> None:
    contact = place.ghl.add(email="ada@example.com", phone="(305) 555-0123", first_name="Ada", last_name="Byron")
    lead_id = agency.lead(place, ghl_contact_id=contact.id, email="ada@example.com", first_name="Augusta")
    (event,) = await inbox.handled(place, contact_changed(place, contact))
    row = agency.row(lead_id)
    assert (row["phone"], row["first_name"], row["last_name"]) == ("+13055550123", "Augusta", "Byron")
    assert (row["enrichment_status"], row["enrichment_source"]) == ("enriched", "ghl")
    assert (event["state"], event["outcome"], event["lead_id"]) == ("done", "lead_updated", lead_id)
    assert agency.requests(place) == 0
    assert agency.count("lead_lookups") == 0, "what an event tells is no lookup"


async def test_of_several_events_of_a_contact_the_latest_counts(agency: Agency, place: Place, inbox: Inbox) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, ghl_contact_id=contact.id, email="ada@example.com")
    late = contact_changed(place, contact, minutes=5, companyName="Engines")
    early = contact_changed(place, contact, minutes=1, companyName="Looms")
    await inbox.handled(place, late, early)
    assert agency.row(lead_id)["company_name"] == "Engines"


async def test_old_news_that_comes_late_changes_nothing(agency: Agency, place: Place, inbox: Inbox) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, ghl_contact_id=contact.id, email="ada@example.com")
    await inbox.handled(place, contact_changed(place, contact, minutes=5))
    (late,) = await inbox.handled(place, contact_changed(place, contact, minutes=1, companyName="Looms"))
    assert late["outcome"] == "unchanged"
    assert agency.row(lead_id)["company_name"] is None


async def test_a_lead_with_the_contacts_address_is_looked_up_and_linked(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email="ada@example.com", phone="(305) 555-0123", first_name="Ada")
    lead_id = agency.lead(place, email="Ada@Example.com")
    (event,) = await inbox.handled(place, contact_changed(place, contact))
    assert agency.row(lead_id)["ghl_contact_id"] == contact.id
    assert event["outcome"] == "lead_updated"
    assert agency.requests(place) == 1


async def test_of_two_contacts_with_one_address_an_event_links_none(agency: Agency, place: Place, inbox: Inbox) -> None:
    twins = agency.place("Twins", allow_duplicates=True)
    same = {"email": "ada@example.com", "date_updated": 1_700_000_000_000}
    contact = twins.ghl.add(**same)
    twins.ghl.add(**same)
    lead_id = agency.lead(twins, email="ada@example.com")
    (event,) = await inbox.handled(twins, contact_changed(twins, contact))
    assert event["outcome"] == "ambiguous"
    assert agency.row(lead_id)["ghl_contact_id"] is None


async def test_a_contact_of_nobody_makes_no_lead(agency: Agency, place: Place, inbox: Inbox) -> None:
    contact = place.ghl.add(email="nobody@example.com")
    events = await inbox.handled(place, contact_changed(place, contact), contact_deleted(place, contact.id))
    assert [event["outcome"] for event in events] == ["no_lead", "no_lead"]
    assert (agency.count("leads"), agency.requests(place)) == (0, 0)


async def test_another_clients_lead_with_the_same_contact_and_address_is_not_touched(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada", phone="(305) 555-0123")
    other = agency.place("Other")
    theirs = agency.lead(other, ghl_contact_id=contact.id, email="ada@example.com")
    before = agency.row(theirs)
    about_nobody = [
        contact_changed(place, contact),
        contact_deleted(place, contact.id, minutes=1),
        bison("LEAD_UNSUBSCRIBED", reply_id=None),
        bison("EMAIL_BOUNCED"),
        sms(place, contact.id, direction="outbound"),
    ]
    events = await inbox.handled(place, *about_nobody)
    assert {event["outcome"] for event in events} == {"no_lead"}
    await inbox.handled(place, sms(place, contact.id, "STOP"))
    assert agency.row(theirs) == before
    assert agency.count("leads") == 2


async def test_a_workflows_partial_contact_is_looked_up_for_the_rest(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email="ada@example.com", phone="(305) 555-0123", first_name="Ada", company_name="Engines")
    lead_id = agency.lead(place, ghl_contact_id=contact.id, email="ada@example.com")
    body: dict[str, object] = {"contact_id": contact.id, "first_name": "Ada"}
    (event,) = await inbox.handled(place, body, provider=Provider.GHL_WORKFLOW)
    assert agency.row(lead_id)["company_name"] == "Engines"
    assert (event["outcome"], agency.requests(place)) == ("lead_updated", 1)


async def test_a_broken_workflow_body_still_has_its_contact_looked_up(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, ghl_contact_id=contact.id, email="ada@example.com")
    body = f'{{"contact_id": "{contact.id}", "message": "she said "yes""}}'.encode()
    await inbox.handled(place, body, provider=Provider.GHL_WORKFLOW)
    assert agency.row(lead_id)["first_name"] == "Ada"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("deleted_at", "stays"), [(5, True), (1, False)])
async def test_a_deletion_and_a_change_end_alike_in_whatever_order_they_come(
    agency: Agency, place: Place, inbox: Inbox, order: tuple[int, int], together: bool, deleted_at: int, stays: bool
) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, ghl_contact_id=contact.id, email="ada@example.com")
    told = [contact_deleted(place, contact.id, minutes=deleted_at), contact_changed(place, contact, minutes=3)]
    if together:
        await inbox.handled(place, *(told[n] for n in order))
    else:
        for n in order:
            await inbox.handled(place, told[n])
    row = agency.row(lead_id)
    assert row["contact_deleted_at"] == (START + timedelta(minutes=deleted_at) if stays else None)
    assert row["ghl_contact_id"] == contact.id, "the next hydration asks GHL before it gives up a link"


# --- messages


async def test_an_inbound_sms_of_a_new_person_ends_as_a_hydrated_lead(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email="ada@example.com", phone="(305) 555-0123", first_name="Ada")
    (event,) = await inbox.handled(place, sms(place, contact.id))
    (row,) = agency.rows()
    assert (row["ghl_contact_id"], row["phone"], row["status"]) == (contact.id, "+13055550123", "replied")
    assert (event["outcome"], event["lead_id"]) == ("lead_updated", row["id"])
    assert agency.count("messages") == 1


async def test_many_messages_are_hydrated_with_few_requests(agency: Agency, place: Place, inbox: Inbox) -> None:
    agency.prefer_lookups(place)
    people = [place.ghl.add(email=f"p{n}@example.com", first_name=f"P{n}", phone="(305) 555-0123") for n in range(60)]
    inbox.deliver(place, *(sms(place, contact.id) for contact in people for _ in range(2)))
    report = await inbox.handle(place)
    assert (report.handled, report.requests) == (120, 2)
    assert all(row["first_name"] for row in agency.rows())


async def test_a_message_of_a_complete_lead_costs_no_request(agency: Agency, place: Place, inbox: Inbox) -> None:
    contact = place.ghl.add(email="ada@example.com")
    agency.lead(place, **COMPLETE, ghl_contact_id=contact.id, status="contacted")
    (event,) = await inbox.handled(place, sms(place, contact.id))
    assert (event["outcome"], agency.requests(place)) == ("unchanged", 0)


async def test_a_sent_message_is_kept_for_a_lead_and_for_nobody_else(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    lead_id = agency.lead(place, ghl_contact_id="A" * 20)
    first, second = await inbox.handled(
        place, sms(place, "A" * 20, direction="outbound"), sms(place, "B" * 20, direction="outbound")
    )
    assert (first["outcome"], first["lead_id"], second["outcome"]) == ("message_stored", lead_id, "no_lead")
    (message,) = agency.table("messages")
    assert (message["lead_id"], message["direction"], message["sent_at"]) == (lead_id, "outbound", START)


async def test_a_reply_to_no_campaign_is_kept_for_a_known_lead_only(agency: Agency, place: Place, inbox: Inbox) -> None:
    lead_id = agency.lead(place, email="ada@example.com", status="new")
    events = await inbox.handled(
        place,
        bison("UNTRACKED_REPLY_RECEIVED", reply_id=1),
        bison("UNTRACKED_REPLY_RECEIVED", lead_id=71, reply_id=2, email="newsletter@example.com"),
    )
    assert [event["outcome"] for event in events] == ["message_stored", "no_lead"]
    assert agency.row(lead_id)["status"] == "replied"
    assert agency.count("leads") == 1


@pytest.mark.parametrize("stop_first", [True, False])
async def test_stop_wins_over_interested_and_nothing_is_created(
    agency: Agency, place: Place, inbox: Inbox, stop_first: bool
) -> None:
    lead_id = agency.lead(place, email="ada@example.com", ghl_contact_id="A" * 20, emailbison_lead_id=70)
    told = [sms(place, "A" * 20, " stop. "), bison("LEAD_INTERESTED")]
    await inbox.handled(place, *(told if stop_first else told[::-1]))
    row = agency.row(lead_id)
    assert (row["status"], row["opted_out_at"]) == ("unsubscribed", START)
    assert writes(agency, place) == (0, 0)


async def test_a_person_who_opted_out_before_is_linked_and_not_created(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    lead_id = agency.lead(place, email="ada@example.com", status="new")
    await inbox.handled(place, bison("LEAD_UNSUBSCRIBED", reply_id=None))
    assert (agency.row(lead_id)["status"], agency.row(lead_id)["opted_out_at"] is not None) == ("unsubscribed", True)
    (event,) = await inbox.handled(place, bison("LEAD_INTERESTED"))
    assert (event["outcome"], writes(agency, place)) == ("not_found", (0, 0))
    contact = place.ghl.add(email="ada@example.com")
    await inbox.handled(place, bison("LEAD_REPLIED", reply_id=901))
    assert agency.row(lead_id)["ghl_contact_id"] == contact.id
    assert agency.row(lead_id)["status"] == "unsubscribed"


@pytest.mark.parametrize("status", ["unsubscribed", " Do_Not_Contact "])
async def test_whom_the_dashboard_says_not_to_contact_gets_no_contact(
    agency: Agency, place: Place, inbox: Inbox, status: str
) -> None:
    lead_id = agency.lead(place, email="ada@example.com", emailbison_lead_id=70, status=status)
    (event,) = await inbox.handled(place, bison("LEAD_INTERESTED"))
    assert (event["outcome"], writes(agency, place)) == ("not_found", (0, 0))
    assert (agency.row(lead_id)["status"], agency.row(lead_id)["opted_out_at"]) == (status, None)


async def test_an_opt_out_holds_for_every_lead_that_it_names(agency: Agency, place: Place, inbox: Inbox) -> None:
    by_number = agency.lead(place, email="old@example.com", emailbison_lead_id=70, status="interested")
    by_address = agency.lead(place, email="ada@example.com", status="unsubscribed")
    other = agency.lead(place, email="bob@example.com", status="interested")
    (event,) = await inbox.handled(place, bison("LEAD_UNSUBSCRIBED", reply_id=None))
    assert (event["outcome"], event["lead_id"]) == ("lead_updated", by_number)
    for lead_id in (by_number, by_address):
        row = agency.row(lead_id)
        assert (row["status"], row["opted_out_at"] is not None) == ("unsubscribed", True)
    assert (agency.row(other)["status"], agency.row(other)["opted_out_at"]) == ("interested", None)


async def test_a_reply_is_one_leads_only(agency: Agency, place: Place, inbox: Inbox) -> None:
    by_number = agency.lead(place, email="old@example.com", emailbison_lead_id=70, status="new")
    by_address = agency.lead(place, email="ada@example.com", status="new")
    await inbox.handled(place, bison("EMAIL_BOUNCED"))
    assert [agency.row(lead_id)["status"] for lead_id in (by_number, by_address)] == ["bounced", "new"]


@pytest.mark.parametrize(("channel", "status"), [("RCS", "unsubscribed"), ("WhatsApp", "replied")])
async def test_stop_is_an_opt_out_where_the_carriers_rule(
    agency: Agency, place: Place, inbox: Inbox, channel: str, status: str
) -> None:
    lead_id = agency.lead(place, **COMPLETE, ghl_contact_id="A" * 20, status="new")
    await inbox.handled(place, sms(place, "A" * 20, "STOP") | {"messageType": channel})
    assert agency.row(lead_id)["status"] == status


async def test_what_a_person_sets_while_ghl_is_down_outlives_the_next_attempt(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    replied = agency.lead(place, email="ada@example.com", emailbison_lead_id=70, status="new")
    stopped = agency.lead(place, ghl_contact_id="A" * 20, status="new")
    agency.sandbox.faults(error_rate=1.0)
    inbox.deliver(place, bison("LEAD_REPLIED"), sms(place, "A" * 20, "STOP"))
    with pytest.raises(TransientGhlError):
        await inbox.handle(place)
    assert [agency.row(id_)["status"] for id_ in (replied, stopped)] == ["replied", "unsubscribed"]
    agency.edit(replied, status="new")
    agency.edit(stopped, status="new", opted_out_at=None)
    agency.sandbox.faults()
    inbox.make_due()
    await inbox.handle(place)
    assert {event["state"] for event in inbox.events()} == {"done"}
    assert agency.row(replied)["status"] == "new"
    assert agency.row(stopped)["status"] == "unsubscribed", "an opt-out is not undone"
    await inbox.handled(place, bison("LEAD_REPLIED", reply_id=901))
    assert agency.row(replied)["status"] == "replied", "another reply is another event"


async def test_bounces_and_opt_outs_of_strangers_make_no_lead(agency: Agency, place: Place, inbox: Inbox) -> None:
    known = agency.lead(place, email="ada@example.com", status="contacted")
    events = await inbox.handled(
        place,
        bison("EMAIL_BOUNCED", reply_id=1),
        bison("EMAIL_BOUNCED", lead_id=71, reply_id=2, email="stranger@example.com"),
        bison("LEAD_UNSUBSCRIBED", lead_id=72, reply_id=None, email="other@example.com"),
    )
    assert [event["outcome"] for event in events] == ["lead_updated", "no_lead", "no_lead"]
    assert (agency.row(known)["status"], agency.count("leads")) == ("bounced", 1)


async def test_a_protected_status_is_left_alone(agency: Agency, place: Place, inbox: Inbox) -> None:
    lead_id = agency.lead(place, **COMPLETE, ghl_contact_id="A" * 20, status="booked", emailbison_lead_id=70)
    await inbox.handled(place, sms(place, "A" * 20), bison("EMAIL_BOUNCED"))
    assert agency.row(lead_id)["status"] == "booked"


# --- interested leads


async def test_an_interested_lead_without_contact_gets_one(agency: Agency, place: Place, inbox: Inbox) -> None:
    events = await inbox.handled(place, bison("LEAD_REPLIED"), bison("LEAD_INTERESTED"))
    assert [event["outcome"] for event in events] == ["lead_updated", "contact_created"]
    (row,), (contact,) = agency.rows(), contacts(place)
    assert (row["ghl_contact_id"], row["status"], contact.email) == (contact.id, "interested", "ada@example.com")
    assert writes(agency, place) == (1, 0)
    assert agency.count("messages") == 1


async def test_of_all_events_of_a_created_contact_one_counts_as_its_creation(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    told = [bison(kind, reply_id=number) for number in (1, 2) for kind in ("LEAD_REPLIED", "LEAD_INTERESTED")]
    inbox.deliver(place, *told)
    report = await inbox.handle(place)
    assert report.outcomes == {"contact_created": 1, "lead_updated": 3}
    (created,) = (event for event in inbox.events() if event["outcome"] == "contact_created")
    assert created["event_type"] == "LEAD_INTERESTED"
    assert writes(agency, place) == (1, 0)


async def test_five_deliveries_and_replays_create_one_contact(agency: Agency, place: Place, inbox: Inbox) -> None:
    for number in range(5):
        await inbox.handled(place, bison("LEAD_INTERESTED", reply_id=900 + number))
        agency.sql("UPDATE webhook_events SET state = 'pending', due_at = now()")
    await inbox.handle(place)
    assert (agency.sandbox.stats(place.id)["creates"], len(contacts(place))) == (1, 1)


class Stubborn:
    """An ensurer that raises what it is told, then gives way to the real one."""

    def __init__(self, real: ContactEnsurer, *errors: Callable[[int], Exception]) -> None:
        self._real, self._errors = real, list(errors)

    async def ensure(self, location_id: str, lead_id: int) -> Ensured:
        if self._errors:
            raise self._errors.pop(0)(lead_id)
        return await self._real.ensure(location_id, lead_id)


async def test_a_creation_of_unknown_fate_is_tried_again_later_without_counting(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    later = START + timedelta(days=3650)
    stubborn = Stubborn(ensurer(agency), lambda lead: CreationUnsettled(place.id, lead, "its create was lost", later))
    inbox.deliver(place, bison("LEAD_INTERESTED"))
    report = await inbox.handle(place, stubborn)
    (event,) = inbox.events()
    assert (report.postponed, event["state"], event["attempts"], event["due_at"]) == (1, "pending", 0, later)
    assert event["error_class"] == "CreationUnsettled"
    inbox.make_due()
    await inbox.handle(place, stubborn)
    assert inbox.outcomes() == [EventOutcome.CONTACT_CREATED]


async def test_a_bug_in_one_lead_postpones_its_event_only(agency: Agency, place: Place, inbox: Inbox) -> None:
    stubborn = Stubborn(ensurer(agency), *[lambda _lead: ValueError("ada@example.com is odd")] * 2)
    inbox.deliver(
        place,
        bison("LEAD_INTERESTED", lead_id=70, reply_id=1),
        bison("LEAD_INTERESTED", lead_id=71, reply_id=2, email="bob@example.com"),
    )
    report = await inbox.handle(place, stubborn)
    first, second = inbox.events()
    assert (report.postponed, report.handled) == (1, 1)
    assert (first["state"], first["attempts"], first["error_text"]) == ("pending", 1, "ValueError")
    assert second["outcome"] == "contact_created"


# --- when GHL or the location fails


async def test_while_ghl_is_down_nothing_dies_and_afterwards_all_is_done(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    agency.lead(place, ghl_contact_id="B" * 20)
    agency.sandbox.faults(error_rate=1.0)
    ids = inbox.deliver(
        place,
        sms(place, contact.id),
        sms(place, "B" * 20, direction="outbound"),
        bison("LEAD_INTERESTED", email="bob@example.com"),
    )
    for _ in range(inbox.rules.max_attempts + 2):
        inbox.make_due()
        with pytest.raises(TransientGhlError):
            await inbox.handle(place)
    states = [(event["state"], event["attempts"]) for event in inbox.events(ids)]
    assert states == [("pending", 0), ("done", 1), ("pending", 0)], "what needs no GHL is done at once"
    assert inbox.events(ids)[0]["error_class"] == "GhlServerError"
    agency.sandbox.faults()
    inbox.make_due()
    await inbox.handle(place)
    assert [event["outcome"] for event in inbox.events(ids)] == ["lead_updated", "message_stored", "contact_created"]


async def test_a_revoked_token_gives_events_back_for_ten_minutes(agency: Agency, place: Place, inbox: Inbox) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    agency.sandbox.faults(place.id, token_revoked=True)
    inbox.deliver(place, sms(place, contact.id))
    with pytest.raises(TokenRejected):
        await inbox.handle(place)
    (event,) = inbox.events()
    assert (event["state"], event["attempts"], event["error_class"]) == ("pending", 0, "TokenRejected")
    assert timedelta(minutes=9) < event["due_at"] - event["received_at"] < timedelta(minutes=11)
    assert agency.rows()[0]["status"] == "replied"
    agency.sandbox.faults()
    inbox.make_due()
    await inbox.handle(place)
    assert agency.rows()[0]["first_name"] == "Ada"


async def test_an_unreadable_body_dies_alone(agency: Agency, place: Place, inbox: Inbox) -> None:
    bad, good = inbox.deliver(place, sms(place, "A" * 20), sms(place, "B" * 20))
    agency.sql("UPDATE webhook_events SET body = 'x' WHERE id = :id", id=bad)
    for _ in range(inbox.rules.max_attempts):
        inbox.make_due()
        await inbox.handle(place)
    dead, done = inbox.events([bad, good])
    assert (dead["state"], dead["attempts"], done["state"]) == ("dead", inbox.rules.max_attempts, "done")
    assert dead["error_class"] == "UnreadableEvent"


async def test_the_report_adds_up(agency: Agency, place: Place, inbox: Inbox) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    inbox.deliver(place, sms(place, contact.id), contact_deleted(place, "C" * 20), bison("LEAD_INTERESTED"))
    report = await inbox.handle(place)
    counts: dict[str, Any] = report.counts()
    assert counts["events_handled"] == sum(counts[outcome.value] for outcome in EventOutcome) == 3
    assert report.types == {"InboundMessage": 1, "ContactDelete": 1, "LEAD_INTERESTED": 1}
    assert len(report.lags) == 3
