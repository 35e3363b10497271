"""Who writes to a lead in EmailBison: told by events in any order, kept within a campaign, and healed for good."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from ghl_pipeline.database.tables import sender_accounts, sender_healings
from ghl_pipeline.webhooks.events import SentBy
from ghl_pipeline.webhooks.handling.lead_senders import Sighting, note_senders
from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.handling_tools import START, Inbox, bison, moment

_replies = itertools.count(900)


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


@pytest.fixture
def inbox(agency: Agency) -> Inbox:
    return Inbox(agency)


def event(
    sender: int | None, campaign: int | None = 1, *, minutes: float = 0, kind: str = "LEAD_REPLIED"
) -> dict[str, object]:
    """Of the lead 70, as told by an account for a campaign."""
    body: dict[str, Any] = bison(kind, reply_id=next(_replies), date_received=moment(minutes))
    if sender is not None:
        body["data"]["sender_email"] = {"id": sender, "email": "sam@example.net", "status": "Connected"}
    if campaign is not None:
        body["data"]["campaign"] = {"id": campaign, "name": "Spring Outreach"}
    return body


def told(agency: Agency, lead_id: int) -> tuple[object, object]:
    """The lead's campaign and account."""
    row = agency.row(lead_id)
    return row["emailbison_campaign_id"], row["emailbison_sender_id"]


def was_healed(agency: Agency, place: Place, lead_id: int, reason: str, *, of: int | None, gets: int) -> None:
    """The lead was given another account an hour after noon."""
    values = {"reason": reason, "replaced_sender_id": of, "sender_id": gets, "healed_at": START + timedelta(hours=1)}
    with agency.engine.begin() as connection:
        connection.execute(insert(sender_healings).values(client_id=place.client_id, lead_id=lead_id, **values))
    agency.sql("UPDATE leads SET emailbison_sender_id = :gets WHERE id = :id", gets=gets, id=lead_id)


async def test_a_reply_makes_a_lead_that_knows_who_writes_to_it(agency: Agency, place: Place, inbox: Inbox) -> None:
    (row,) = await inbox.handled(place, event(3, 8))

    assert told(agency, row["lead_id"]) == (8, 3)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_the_newest_event_wins_in_whatever_order_they_are_handled(
    agency: Agency, place: Place, inbox: Inbox, order: tuple[int, ...]
) -> None:
    lead_id = agency.lead(place, emailbison_lead_id=70, email="ada@example.com")
    events = [event(sender, campaign, minutes=at) for sender, campaign, at in ((3, 1, 0), (4, 2, 10), (5, 2, 5))]

    for number in order:
        await inbox.handled(place, events[number])

    assert told(agency, lead_id) == (2, 4)


async def test_events_of_one_batch_are_told_apart_by_their_time(agency: Agency, place: Place, inbox: Inbox) -> None:
    lead_id = agency.lead(place, emailbison_lead_id=70, email="ada@example.com")

    await inbox.handled(place, event(4, 2, minutes=10), event(3, 1, minutes=0, kind="LEAD_INTERESTED"))

    assert told(agency, lead_id) == (2, 4)


@pytest.mark.parametrize("kind", ["LEAD_INTERESTED", "MANUAL_EMAIL_SENT", "LEAD_UNSUBSCRIBED", "EMAIL_BOUNCED"])
async def test_every_event_about_a_lead_tells_who_writes_to_it(
    agency: Agency, place: Place, inbox: Inbox, kind: str
) -> None:
    lead_id = agency.lead(place, emailbison_lead_id=70, email="ada@example.com")

    await inbox.handled(place, event(3, 1, kind=kind))

    assert told(agency, lead_id) == (1, 3)


async def test_an_event_that_does_not_tell_empties_nothing(agency: Agency, place: Place, inbox: Inbox) -> None:
    lead_id = agency.lead(place, emailbison_lead_id=70, emailbison_campaign_id=1, emailbison_sender_id=3)

    await inbox.handled(place, event(None, 9, minutes=5), event(None, None, minutes=6))

    assert told(agency, lead_id) == (1, 3)


async def test_a_mail_of_no_campaign_fills_what_is_empty_and_replaces_nothing(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    known = agency.lead(place, email="ada@example.com", emailbison_campaign_id=1, emailbison_sender_id=3)
    empty = agency.lead(place, email="bea@example.com")
    for address in ("ada@example.com", "bea@example.com"):
        body: dict[str, Any] = bison("UNTRACKED_REPLY_RECEIVED", reply_id=next(_replies), from_email_address=address)
        del body["data"]["lead"]
        body["data"]["sender_email"] = {"id": 6}
        await inbox.handled(place, body)

    assert told(agency, known) == (1, 3)
    assert told(agency, empty) == (None, 6)


async def test_replies_to_what_a_dead_account_once_sent_do_not_bring_it_back(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    lead_id = agency.lead(place, emailbison_lead_id=70, emailbison_campaign_id=1, emailbison_sender_id=3)
    was_healed(agency, place, lead_id, "refused", of=3, gets=4)

    await inbox.handled(place, event(3, 1, minutes=0))
    await inbox.handled(place, event(3, 1, minutes=90))
    assert told(agency, lead_id) == (1, 4)

    await inbox.handled(place, event(3, 2, minutes=100))
    assert told(agency, lead_id) == (2, 3), "another campaign writes by it again"


def listed(agency: Agency, place: Place, sender_id: int, *, minutes: float, **values: object) -> None:
    """The account as a listing so long after noon saw it."""
    row = {"can_send": True, "seen_at": START + timedelta(minutes=minutes), **values}
    with agency.engine.begin() as connection:
        connection.execute(insert(sender_accounts).values(client_id=place.client_id, sender_id=sender_id, **row))


async def test_no_event_brings_back_any_account_that_the_lead_was_healed_of(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    lead_id = agency.lead(place, emailbison_lead_id=70, emailbison_campaign_id=1, emailbison_sender_id=1)
    was_healed(agency, place, lead_id, "refused", of=1, gets=2)
    was_healed(agency, place, lead_id, "cannot_send", of=2, gets=3)
    with agency.engine.begin() as connection:  # there was nothing to give, once
        nothing = {"reason": "refused", "replaced_sender_id": 3, "healed_at": START + timedelta(minutes=70)}
        connection.execute(insert(sender_healings).values(client_id=place.client_id, lead_id=lead_id, **nothing))

    await inbox.handled(place, event(1, 1, minutes=90), event(2, 1, minutes=91))
    await inbox.handled(place, event(1, 1, minutes=92))
    assert told(agency, lead_id) == (1, 3)
    await inbox.handled(place, event(5, 1, minutes=30))
    assert told(agency, lead_id) == (1, 3), "an event from before the healing"


@pytest.mark.parametrize(
    ("seen", "values", "expected"),
    [
        (120, {}, 3),
        (30, {}, 4),  # the healing was after it
        (120, {"can_send": False}, 4),
        (120, {"gone_at": START + timedelta(minutes=110)}, 4),
        (120, {"refused_at": START + timedelta(minutes=125)}, 4),
    ],
)
async def test_an_account_that_a_later_listing_saw_able_may_come_back(
    agency: Agency, place: Place, inbox: Inbox, seen: float, values: dict[str, object], expected: int
) -> None:
    lead_id = agency.lead(place, emailbison_lead_id=70, emailbison_campaign_id=1, emailbison_sender_id=3)
    was_healed(agency, place, lead_id, "cannot_send", of=3, gets=4)
    listed(agency, place, 3, minutes=seen, **values)

    await inbox.handled(place, event(3, 1, minutes=130))

    assert told(agency, lead_id) == (1, expected)


async def test_an_event_from_before_a_healing_does_not_undo_it(agency: Agency, place: Place, inbox: Inbox) -> None:
    lead_id = agency.lead(place, emailbison_lead_id=70, emailbison_campaign_id=1, emailbison_sender_id=3)
    was_healed(agency, place, lead_id, "cannot_send", of=3, gets=4)

    await inbox.handled(place, event(5, 1, minutes=30))
    assert told(agency, lead_id) == (1, 4)
    await inbox.handled(place, event(5, 1, minutes=90))
    assert told(agency, lead_id) == (1, 5)


async def test_an_account_given_for_want_of_any_gives_way_to_what_an_event_knows(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    lead_id = agency.lead(place, emailbison_lead_id=70)
    was_healed(agency, place, lead_id, "missing", of=None, gets=4)

    await inbox.handled(place, event(3, 1, minutes=30))

    assert told(agency, lead_id) == (1, 3)


def test_another_clients_leads_are_not_touched(agency: Agency, place: Place) -> None:
    other = agency.place(name="Beta")
    theirs = agency.lead(other, emailbison_lead_id=70)

    with agency.engine.begin() as connection:
        note_senders(connection, place.client_id, [Sighting(theirs, SentBy(3, 1), START)])

    assert told(agency, theirs) == (None, None)
