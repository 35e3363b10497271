"""What changes while drafts are written or wait: clients, messages, providers; and what is decided about old ones."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from ghl_pipeline.drafts.checks import judged
from ghl_pipeline.drafts.context import read_offer
from ghl_pipeline.drafts.deciding import DraftNotOpen, approve, find_draft, list_drafts, reject
from ghl_pipeline.drafts.outcomes import DraftState, SkipReason
from ghl_pipeline.drafts.shares import failed_shares
from ghl_pipeline.drafts.wanting import _CANDIDATES, candidates, skip_reason
from ghl_pipeline_tests.drafts.conftest import Agency, Place
from ghl_pipeline_tests.drafts.test_drafts import calendar, until

WEEK = timedelta(days=7)
OFF = "UPDATE draft_clients SET enabled = false WHERE client_id = :client_id"
INACTIVE = "UPDATE clients SET active = false WHERE id = :client_id"


@pytest.mark.parametrize("change", [OFF, INACTIVE])
async def test_a_client_that_is_switched_off_gets_no_more_drafts_of_the_run_under_way(
    place: Place, change: str
) -> None:
    for _ in range(4):
        place.sms()
    place.always("slow:0.6")

    async def later() -> None:
        await until(lambda: place.openai.calls > 0)
        place.sql(change)

    report, _ = await asyncio.gather(place.write(draft_concurrency=1), later())
    assert place.rows() == [], "not even the one that was being written"
    assert report.skipped == {"changed_meanwhile": 1, "not_switched_on": 3}
    assert place.calls == (1, 0)


async def test_a_link_and_times_that_change_during_a_run_are_seen_by_the_next_draft(place: Place) -> None:
    for _ in range(3):
        place.sms()
    calendar(place, "fresh", datetime.now(UTC) + timedelta(days=2))
    place.always("slow:0.4")

    async def later() -> None:
        await until(lambda: place.openai.calls > 0)
        place.sql("UPDATE booking_calendars SET booking_link = 'https://new.example.com/y', state = 'stale'")

    await asyncio.gather(place.write(draft_concurrency=1), later())
    first, *others = [request.prompt for request in place.openai.requests]
    assert "book.example.com/x" in first
    assert len(others) == 2
    assert all("new.example.com/y" in prompt and "none known" in prompt for prompt in others)


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_a_draft_is_not_stored_when_the_lead_wrote_on_or_was_answered_meanwhile(
    place: Place, direction: str
) -> None:
    lead = place.lead()
    place.message(lead)
    place.always("slow:0.6")

    async def later() -> None:
        await until(lambda: place.openai.calls > 0)
        place.message(lead, "And Wednesday?", minutes=0, direction=direction)

    report, _ = await asyncio.gather(place.write(), later())
    assert (report.skipped, place.rows()) == ({"changed_meanwhile": 1}, [])
    place.always("ok")
    assert (await place.write()).drafted == ({"sms": 1} if direction == "inbound" else {})


async def test_a_draft_whose_lead_wrote_on_is_outdated_and_cannot_be_approved(place: Place) -> None:
    lead = place.lead()
    for number in range(3):
        place.message(lead, f"Question {number}", minutes=5 - number)
        await place.write()
    first, second, last = (int(row["id"]) for row in place.rows())
    with place.engine.begin() as connection:
        assert [(each.id, each.outdated) for each in list_drafts(connection, WEEK)] == [
            (last, False), (second, True), (first, True),
        ]  # fmt: skip
        for outdated in (first, second):
            with pytest.raises(DraftNotOpen, match="wrote on"):
                approve(connection, outdated, WEEK)
        assert reject(connection, first, WEEK).state is DraftState.REJECTED
        with pytest.raises(DraftNotOpen, match="wrote on"):
            approve(connection, first, WEEK)
        assert approve(connection, last, WEEK).state is DraftState.APPROVED
    place.message(lead, "I am away", minutes=0, is_automated=True)
    with place.engine.connect() as connection:
        assert not find_draft(connection, last, WEEK).outdated


async def test_a_draft_for_a_message_of_long_ago_cannot_be_approved(place: Place) -> None:
    place.sms()
    await place.write()
    number = int(place.row()["id"])
    place.sql("UPDATE messages SET sent_at = now() - interval '8 days'")
    with place.engine.begin() as connection, pytest.raises(DraftNotOpen, match="DRAFT_MAX_AGE_DAYS"):
        approve(connection, number, WEEK)


async def test_a_lead_that_is_still_writing_is_waited_for(place: Place) -> None:
    lead = place.lead()
    place.message(lead, minutes=0.05)
    drafts = place.drafts()
    assert drafts.due() == []
    (report,) = (await drafts.write([place.id], patient=True)).reports
    assert (report.skipped, place.calls) == ({"settling": 1}, (0, 0))
    place.sql("UPDATE messages SET sent_at = now() - interval '21 seconds'")
    assert drafts.due() == [place.id]
    place.message(place.lead(), minutes=-60.0)
    (report,) = (await drafts.write([place.id], patient=True)).reports
    assert report.drafted == {"sms": 2}, "a clock that goes ahead makes nobody wait"


# --- which message counts


def only_reason(place: Place) -> tuple[int, SkipReason | None]:
    with place.engine.connect() as connection:
        (found,) = candidates(connection, WEEK, [place.id])
    return found.message_id, skip_reason(found, "setup")


def test_an_automatic_reply_does_not_hide_what_somebody_wrote_before(place: Place) -> None:
    lead = place.lead(email="ada@example.com")
    wanted = place.email(lead, "Yes, I am interested", minutes=10)
    place.email(lead, "I am out of the office", minutes=9, is_automated=True, is_interested=False)
    assert only_reason(place) == (wanted, None)
    later = place.email(lead, "My roof is 5 m high", minutes=8, is_interested=False)
    assert only_reason(place) == (later, None), "EmailBison marks one message of a conversation"
    place.email(lead, " ", minutes=7, is_interested=False)
    assert only_reason(place) == (later, None)
    stop = place.email(lead, "Leave me alone", minutes=6, is_interested=False)
    assert only_reason(place) == (stop, SkipReason.OPTED_OUT_IN_WORDS), "which hides what was wanted before"


async def test_an_email_by_way_of_ghl_takes_no_draft_away(place: Place) -> None:
    lead = place.lead(email="ada@example.com")
    place.email(lead)
    place.message(lead, "By the CRM", minutes=1, channel="email")
    assert (await place.write()).drafted == {"email": 1}


# --- providers


@pytest.mark.parametrize(("first", "second"), [("401", "ok"), ("401", "401"), ("404", "ok"), ("500", "403")])
async def test_a_wrong_key_is_refused_once_a_run_however_many_drafts_are_under_way(
    place: Place, first: str, second: str
) -> None:
    for _ in range(40):
        place.sms()
    place.always(first, second)
    await place.write(draft_concurrency=20)
    assert place.calls == (1 if first[0] == "4" else 40, 1 if second[0] == "4" else 40)


async def test_a_draft_that_waits_for_the_first_call_has_its_whole_time_afterwards(place: Place) -> None:
    for _ in range(3):
        place.sms()
    place.always("slow:1.2")
    report = await place.write(draft_concurrency=3, draft_sms_deadline_seconds=3.0)
    assert (report.drafted, place.calls) == ({"sms": 3}, (3, 0)), "1.2 s of waiting and 1.2 s of its own exceed 60 %"


async def test_a_provider_that_asks_for_a_pause_has_it_for_the_rest_of_the_run(place: Place) -> None:
    for _ in range(10):
        place.sms()
    place.always("429:300")
    report = await place.write(draft_concurrency=1)
    assert (report.drafted, place.calls) == ({"sms": 10}, (1, 10))


async def test_an_outage_costs_no_draft_while_its_message_is_young(place: Place) -> None:
    message = place.sms()
    place.always("500", "500")
    waits = []
    for _ in range(7):
        await place.write()
        row = place.row()
        waits.append(round((row["retry_at"] - row["updated_at"]).total_seconds()))
        place.sql("UPDATE reply_drafts SET retry_at = now()")
    assert waits == [60, 240, 960, 3840, 14400, 14400, 14400]
    place.sql("UPDATE messages SET sent_at = now() - interval '6 days 23 hours' WHERE id = :id", id=message)
    await place.write()
    assert place.row()["retry_at"] is None, "by then the message is too old"
    place.always("ok")
    await place.write(again=True)
    assert place.row()["state"] == "pending"


# --- the rest


@pytest.mark.parametrize(
    ("stored", "offered"),
    [
        ("book.example.com/widget/bookings/roof", "https://book.example.com/widget/bookings/roof"),
        ("//book.example.com/x", "https://book.example.com/x"),
        (" https://book.example.com/x ", "https://book.example.com/x"),
        ("http://book.example.com", "http://book.example.com"),
        ("ask us", None),
        ("", None),
    ],
)
async def test_a_link_without_its_scheme_is_a_link(place: Place, stored: str, offered: str | None) -> None:
    place.sql("INSERT INTO booking_calendars (client_id, booking_link) VALUES (:client_id, :link)", link=stored)
    with place.engine.connect() as connection:
        offer = read_offer(connection, place.client_id, datetime.now(UTC))
    assert offer is not None
    assert offer.booking_link == offered


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_a_refused_key_is_no_reason_for_alarm_once_its_message_wants_no_draft(
    place: Place, direction: str
) -> None:
    lead = place.lead()
    place.message(lead)
    place.always("401", "401")
    await place.write()
    with place.engine.connect() as connection:
        assert not judged(failed_shares(connection)).passed
    place.message(lead, minutes=0, direction=direction)
    with place.engine.connect() as connection:
        assert judged(failed_shares(connection)).passed


async def test_a_cost_that_is_known_in_part_is_not_told_as_the_whole(place: Place) -> None:
    place.sms()
    place.openai.plan("cut_off", "cut_off")
    prices = json.dumps({place.models()[1]: {"in": 1, "out": 10}})
    report = await place.write(draft_prices=prices)
    row = place.row()
    assert (row["provider"], row["cost_usd"]) == ("anthropic", None)
    assert list(report.cost_usd) == [place.models()[1]]
    assert list(report.unpriced) == [place.models()[0]]
    assert report.as_report().values["cost_is_incomplete"] is True


def test_the_look_for_messages_asks_once_for_a_client_and_uses_the_index(agency: Agency) -> None:
    place = agency.place()
    place.lead()
    place.sql("""
        INSERT INTO messages (client_id, lead_id, provider, external_id, channel, direction, body, source, sent_at)
        SELECT :client_id, lead.id, 'ghl', 'many-' || n, 'sms', CASE WHEN n % 3 = 0 THEN 'inbound' ELSE 'outbound' END,
            repeat('hello ', 40), 'import', now() - n * interval '8 minutes'
        FROM leads AS lead, generate_series(1, 20000) AS n WHERE lead.client_id = :client_id
    """)
    place.sql("ANALYZE messages")
    values = {
        "max_age": timedelta(days=1), "locations": None, "capability": "drafts", "setup_refused": "setup_refused",
        "start": 600, "settles": timedelta(seconds=20), "white_space": " ",
    }  # fmt: skip
    with place.engine.connect() as connection:
        explained = connection.execute(text(f"EXPLAIN (ANALYZE) {_CANDIDATES.text}"), values)
        plan = [str(line) for line in explained.scalars()]
    assert any("ix_messages_inbound" in line for line in plan)
    lookups = [line for line in plan if "location_attempts" in line]
    assert lookups
    assert all("loops=1)" in line for line in lookups), "not once for each message"
