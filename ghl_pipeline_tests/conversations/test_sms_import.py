"""A location's messages become rows of its leads: each once, none of anybody else's, whatever happens on the way."""

import logging
from datetime import timedelta

import pytest
from sqlalchemy import Engine, event, text

from ghl_pipeline.conversations import export_walk
from ghl_pipeline.conversations.export_walk import ExportStuck
from ghl_pipeline.conversations.import_report import MessageOutcome
from ghl_pipeline.conversations.sms_import import ImportRules, import_of_lead
from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.ghl.errors import ScopeMissing
from ghl_pipeline_tests.conversations.conftest import RULES, TELL, Agency, Place, ago, contact_ids

ADA, BEN, EVA = contact_ids(3)


class Killed(BaseException):
    """The process ends here: nothing that catches errors may catch it."""


def outcomes(report_outcomes: object) -> dict[str, int]:
    assert isinstance(report_outcomes, dict)
    return {name: count for name, count in report_outcomes.items() if count}


async def test_two_thousand_messages_come_in_pages_of_500_oldest_first(place: Place) -> None:
    people = contact_ids(40)
    for person in people:
        place.lead(person)
    sent = place.many(2000, people)
    report = await place.imported()
    assert outcomes(report.outcomes) == {"imported": 2000}
    assert (report.pages, report.requests, report.restarts) == (4, 4, 0)
    assert place.external_ids() == sent
    first = place.rows()[0]
    assert (first["body"], first["direction"], first["channel"], first["source"]) == (
        "text 0", "inbound", "sms", "import",
    )  # fmt: skip
    assert place.mark() == place.rows()[-1]["sent_at"]


async def test_the_second_import_asks_once_and_brings_nothing(place: Place) -> None:
    place.lead(ADA)
    place.many(700, [ADA], minutes=600)
    await place.imported()
    report = await place.imported()
    assert report.imported == 0
    assert set(outcomes(report.outcomes)) == {"known"}
    assert report.requests == 1
    assert len(place.rows()) == 700


async def test_ten_thousand_messages_cost_twenty_requests(place: Place) -> None:
    people = contact_ids(100)
    for person in people:
        place.lead(person)
    place.many(10_000, people)
    report = await place.imported()
    assert report.imported == 10_000
    assert report.requests == 20


async def test_a_message_of_the_marks_own_instant_is_not_lost(place: Place) -> None:
    place.lead(ADA)
    at = ago(hours=2)
    place.sms(ADA, "one", at=at)
    await place.imported(ImportRules(RULES.first, timedelta(0)))
    place.sms(ADA, "two", at=at)
    await place.imported(ImportRules(RULES.first, timedelta(0)))
    assert [row["body"] for row in place.rows()] == ["one", "two"]


async def test_a_message_that_the_export_shows_late_is_found_within_the_overlap(place: Place) -> None:
    place.lead(ADA)
    place.sms(ADA, "newer", at=ago(minutes=1))
    await place.imported()
    place.sms(ADA, "shown late", at=ago(minutes=8))
    assert (await place.imported()).imported == 1


async def test_the_first_import_reaches_only_so_far_back(place: Place) -> None:
    place.lead(ADA)
    place.sms(ADA, "long ago", at=ago(days=31))
    place.sms(ADA, "lately", at=ago(days=29))
    report = await place.imported()
    assert [row["body"] for row in place.rows()] == ["lately"]
    assert outcomes(report.outcomes) == {"imported": 1}


async def test_a_location_without_messages_costs_one_request_and_has_no_mark(place: Place) -> None:
    report = await place.imported()
    assert (report.requests, report.messages_seen, report.imported_until) == (1, 0, None)
    assert place.mark() is None


async def test_a_kill_between_pages_costs_one_page_and_no_message(place: Place, engine: Engine) -> None:
    place.lead(ADA)
    sent = place.many(2000, [ADA])
    pages = 0

    def kill(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal pages
        pages += "UPDATE message_imports" in statement
        if pages == 3:
            raise Killed

    event.listen(engine, "before_cursor_execute", kill)
    try:
        with pytest.raises(Killed):
            await place.imported()
    finally:
        event.remove(engine, "before_cursor_execute", kill)
    assert place.external_ids() == sent[:1000]
    assert place.mark() == place.rows()[-1]["sent_at"]
    report = await place.imported()
    assert place.external_ids() == sent
    assert report.imported == 1000
    # The overlap of ten minutes, in which one message came every 36 seconds.
    assert report.outcomes[MessageOutcome.KNOWN] <= 18


async def test_a_cursor_that_dies_on_the_way_is_no_loss(place: Place) -> None:
    place.lead(ADA)
    sent = place.many(2000, [ADA])
    place.sandbox.faults(place.id, cursor_lifetime_seconds=0)
    report = await place.imported()
    assert place.external_ids() == sent
    assert report.imported == 2000
    # Every page after the first one met a dead cursor, and began again at the last message of the one before.
    assert report.restarts == 4
    assert place.requests() == {"200": 5, "400": 4}
    assert report.outcomes[MessageOutcome.KNOWN] == 4


async def test_a_cursor_that_rested_too_long_is_not_even_tried(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_walk, "CURSOR_RESTS_AT_MOST_SECONDS", -1.0)
    place.lead(ADA)
    sent = place.many(1200, [ADA])
    report = await place.imported()
    assert place.external_ids() == sent
    assert place.requests() == {"200": 3}
    assert report.restarts == 2


async def test_more_messages_of_one_instant_than_a_page_holds_are_all_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign writes to everybody in one second; a new export from then on would bring the same page for ever."""
    monkeypatch.setattr(export_walk, "CURSOR_RESTS_AT_MOST_SECONDS", -1.0)
    place.lead(ADA)
    at = ago(hours=1)
    place.sms(ADA, "before", at=at - 5000)
    for number in range(1200):
        place.sms(ADA, f"text {number}", "outbound", at=at)
    place.sms(ADA, "after", at=at + 5000)
    await place.imported()
    assert len(place.rows()) == 1202


async def test_an_export_that_comes_no_further_is_given_up_with_what_to_do(place: Place) -> None:
    place.lead(ADA)
    at = ago(hours=1)
    for number in range(1200):
        place.sms(ADA, f"text {number}", at=at)
    place.sandbox.faults(place.id, cursor_lifetime_seconds=0)
    with pytest.raises(ExportStuck, match="ghl-pipeline import-messages") as stuck:
        await place.imported()
    assert place.id in str(stuck.value)
    assert sum(place.requests().values()) == 6
    assert len(place.rows()) == 500
    assert place.mark() is None


async def test_a_cursor_that_comes_again_is_no_loop(place: Place) -> None:
    place.lead(ADA)
    sent = place.many(2000, [ADA])
    place.sandbox.faults(place.id, export_repeats_cursor=True)
    await place.imported()
    assert place.external_ids() == sent


async def test_an_export_that_comes_newest_first_moves_the_mark_at_its_end_only(place: Place, engine: Engine) -> None:
    place.lead(ADA)
    sent = place.many(1200, [ADA])
    place.sandbox.faults(place.id, export_ignores_order=True)
    marks = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "UPDATE message_imports" in statement:
            marks.append(len(place.rows()))

    event.listen(engine, "before_cursor_execute", note)
    try:
        await place.imported()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert place.external_ids() == sent
    assert marks == [1200]
    assert place.mark() == place.rows()[-1]["sent_at"]


async def test_a_location_whose_export_ignores_the_start_gets_nothing_older_than_asked_for(place: Place) -> None:
    place.lead(ADA)
    place.sms(ADA, "years ago", at=ago(days=900))
    place.sms(ADA, "lately", at=ago(days=1))
    place.sandbox.faults(place.id, export_ignores_start=True)
    report = await place.imported()
    assert [row["body"] for row in place.rows()] == ["lately"]
    assert report.outcomes[MessageOutcome.TOO_OLD] == 1
    again = await place.imported()
    assert again.imported == 0
    assert place.mark() == place.rows()[0]["sent_at"]


async def test_a_date_in_the_future_does_not_hide_what_comes_until_then(place: Place) -> None:
    place.lead(ADA)
    place.sms(ADA, "scheduled", "outbound", at=ago(days=-3), status="scheduled")
    place.sms(ADA, "said", at=ago(hours=2))
    await place.imported()
    assert place.mark() == place.rows()[0]["sent_at"]
    place.sms(ADA, "now", at=ago(minutes=0))
    assert (await place.imported()).imported == 1


async def test_a_database_whose_clock_is_ahead_of_ghls_misses_no_message(place: Place) -> None:
    """GHL's now is half an hour ago here; whatever it hands out next is dated before our own now."""
    place.lead(ADA)
    place.sms(ADA, "scheduled", "outbound", at=ago(days=-2))
    await place.imported()
    place.sms(ADA, "first", at=ago(minutes=32))
    place.sms(ADA, "scheduled for later", "outbound", at=ago(days=-1))
    await place.imported()
    assert place.mark() == place.rows()[0]["sent_at"]
    place.sms(ADA, "second", at=ago(minutes=30))
    await place.imported()
    assert [row["body"] for row in place.rows()] == ["first", "second", "scheduled for later", "scheduled"]


async def test_every_message_seen_is_counted_once_by_what_became_of_it(place: Place) -> None:
    place.lead(ADA)
    place.lead("test_contact_1")
    place.lead("  ")
    place.sms(ADA, "hello", at=ago(hours=3))
    place.sms(ADA, "hello back", "outbound", at=ago(hours=2))
    place.sms(BEN, "of a stranger", at=ago(hours=1))
    place.sms("test_contact_1", "junk", at=ago(hours=1))
    place.sms(ADA, "dear sir", at=ago(hours=1), message_type="TYPE_WHATSAPP")
    report = await place.imported()
    assert outcomes(report.outcomes) == {"imported": 2, "skipped_no_lead": 1, "skipped_junk_contact": 1}
    assert report.messages_seen == 4
    assert report.leads_with_junk_contact_id == 1
    assert [row["direction"] for row in place.rows()] == ["inbound", "outbound"]


async def test_a_change_of_status_within_the_overlap_is_taken_over(place: Place) -> None:
    place.lead(ADA)
    sent = place.sms(ADA, "hi", "outbound", at=ago(minutes=2), status="pending")
    await place.imported()
    place.sms(ADA, "hi", "outbound", at=sent.date_added, id=sent.id, status="delivered")
    report = await place.imported()
    assert outcomes(report.outcomes) == {"updated": 1}
    assert [row["status"] for row in place.rows()] == ["delivered"]


async def test_a_webhooks_row_without_an_id_is_healed_not_doubled(place: Place, engine: Engine) -> None:
    lead = place.lead(ADA)
    message = place.sms(ADA, "call me at 555-0123", at=ago(minutes=30))
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO messages (client_id, lead_id, provider, channel, direction, body, source, sent_at)
                VALUES (:client, :lead, 'ghl', 'sms', 'inbound', 'call me at 555-0123', 'webhook',
                        to_timestamp(:at / 1000.0) + interval '40 seconds')
            """),
            {"client": place.client_id, "lead": lead, "at": message.date_added},
        )
    report = await place.imported()
    assert outcomes(report.outcomes) == {"healed": 1}
    (row,) = place.rows()
    assert (row["external_id"], row["source"]) == (message.id, "webhook")


async def test_the_same_words_under_two_ids_stay_two_messages(place: Place) -> None:
    place.lead(ADA)
    at = ago(minutes=30)
    place.sms(ADA, "ok", at=at)
    place.sms(ADA, "ok", at=at + 3000)
    assert (await place.imported()).imported == 2
    assert (await place.imported()).imported == 0


async def test_another_clients_contact_is_nobody_here(agency: Agency, place: Place) -> None:
    other = agency.place("Other")
    other.lead(ADA)
    place.sms(ADA, "for the other client's lead", at=ago(hours=1))
    report = await place.imported()
    assert outcomes(report.outcomes) == {"skipped_no_lead": 1}
    assert (place.rows(), other.rows()) == ([], [])


async def test_what_a_lost_webhook_would_have_made_is_made_by_the_import(place: Place, engine: Engine) -> None:
    place.sms(BEN, "before anybody listened", at=ago(minutes=5))
    first = await place.imported()
    assert (first.leads_created, first.imported) == (0, 0)
    place.sms(EVA, "we wrote first", "outbound")
    place.sms(ADA, "hello?")
    place.sms(ADA, "anybody there?")
    second = await place.imported()
    assert (second.leads_created, second.imported) == (1, 2)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT ghl_contact_id, status FROM leads")).all()
    assert [tuple(row) for row in rows] == [(ADA, "replied")]
    assert [row["body"] for row in place.rows()] == ["hello?", "anybody there?"]


async def test_going_back_to_the_start_finds_messages_of_leads_linked_since(place: Place) -> None:
    place.sms(ADA, "early", at=ago(days=20))
    await place.imported()
    place.sms(BEN, "moves the mark", at=ago(minutes=1))
    await place.imported()
    mark = place.mark()
    place.lead(ADA)
    assert (await place.imported(from_start=True)).imported == 1
    assert place.mark() == mark


async def test_a_token_without_the_scope_is_told_which_one(place: Place) -> None:
    place.sandbox.faults(place.id, missing_scopes=("conversations/message.readonly",))
    with pytest.raises(ScopeMissing, match=r"conversations/message\.readonly"):
        await place.imported()


async def test_one_leads_messages_come_from_the_first_one_on(place: Place) -> None:
    lead, unlinked, junk = place.lead(ADA), place.lead(None), place.lead("test_contact_1")
    place.lead(BEN)
    place.sms(ADA, "years ago", at=ago(days=900))
    place.sms(ADA, "today", at=ago(hours=1))
    place.sms(ADA, "by another channel", at=ago(hours=1), message_type="TYPE_WHATSAPP")
    place.sms(BEN, "not hers", at=ago(hours=1))
    async with place.client() as client:
        assert await import_of_lead(place.engine, place.access, client, lead, TELL) == 2
        assert await import_of_lead(place.engine, place.access, client, lead, TELL) == 0
        assert client.usage.calls == 2
        assert await import_of_lead(place.engine, place.access, client, unlinked, TELL) == 0
        assert await import_of_lead(place.engine, place.access, client, junk, TELL) == 0
        assert client.usage.calls == 2
    assert [row["body"] for row in place.rows()] == ["years ago", "today"]


async def test_another_clients_lead_is_refused(agency: Agency, place: Place) -> None:
    lead = agency.place("Other").lead(ADA)
    async with place.client() as client:
        with pytest.raises(UnknownClient, match=f"no lead {lead}"):
            await import_of_lead(place.engine, place.access, client, lead, TELL)


async def test_no_word_of_a_message_is_told_to_anybody(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.lead(ADA)
    place.sms(ADA, "quorvath zyxwinda", at=ago(hours=1))
    place.sms(BEN, "quorvath zyxwinda", at=ago(hours=1))
    with caplog.at_level(logging.DEBUG):
        report = await place.imported()
    told = f"{report!r} {report.as_dict()} {report.as_report()} {caplog.text}"
    assert len(place.rows()) == 1
    assert "quorvath" not in told
