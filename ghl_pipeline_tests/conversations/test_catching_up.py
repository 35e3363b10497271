"""A lead that is linked after its messages went by gets them at the next import."""

import random
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from ghl_pipeline.conversations import catching_up, sms_import
from ghl_pipeline.conversations.catching_up import MOST_LEADS_ONE_BY_ONE, Looked, leads_behind, look
from ghl_pipeline.conversations.export_walk import ExportStuck
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import (
    CallFacts,
    ContactNotFound,
    DailyQuotaReached,
    GhlError,
    GhlServerError,
    GhlTimeout,
    LocationAccessDenied,
    RequestRejected,
    ScopeMissing,
    TokenRejected,
)
from ghl_pipeline.ghl.message_payloads import MessageExport, MessagePage
from ghl_pipeline_tests.conversations.conftest import EXPORT, Agency, Place, ago, contact_ids

ADA, BEN, EVA = contact_ids(3)


async def begin(agency: Agency, place: Place) -> None:
    """A first whole import, in which nobody is a lead but Eva, whose message moves the mark up to now."""
    place.lead(EVA)
    for person in (ADA, BEN):
        place.sms(person, f"early, of {person}", at=ago(days=20))
    place.sms(EVA, "now", at=ago(minutes=0))
    with place.engine.begin() as connection:
        connection.execute(text("ALTER TABLE leads DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE leads SET updated_at = now() - interval '1 day'"))
        connection.execute(text("ALTER TABLE leads ENABLE TRIGGER USER"))
    result = await agency.conversations().import_messages([place.id])
    assert result.failures == ()
    assert result.reports[0].imported == 1


async def test_a_lead_linked_since_the_last_import_gets_its_earlier_messages(agency: Agency, place: Place) -> None:
    await begin(agency, place)
    place.lead(ADA)
    place.lead("test_contact_1")
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert (report.imported, report.leads_caught_up, report.requests) == (1, 1, 2)
    assert [row["body"] for row in place.rows()] == [f"early, of {ADA}", "now"]


async def test_a_lead_that_nothing_happened_to_costs_no_request(agency: Agency, place: Place) -> None:
    await begin(agency, place)
    before = place.requests()["200"]
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert (report.imported, report.leads_caught_up) == (0, 0)
    assert place.requests()["200"] == before + 1


async def test_many_leads_are_caught_up_by_reaching_back_at_once(
    agency: Agency, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (catching_up, sms_import):
        monkeypatch.setattr(module, "MOST_LEADS_ONE_BY_ONE", 1)
    await begin(agency, place)
    place.lead(ADA)
    place.lead(BEN)
    mark = place.mark()
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert (report.imported, report.leads_caught_up, report.requests) == (2, 0, 1)
    assert place.mark() == mark


async def test_leads_that_were_caught_up_are_not_caught_up_again_within_the_overlap(
    agency: Agency, place: Place
) -> None:
    await begin(agency, place)
    place.lead(ADA)
    place.lead(BEN)
    settle(place)
    caught_up = []
    for _ in range(3):
        before = place.requests()["200"]
        (report,) = (await agency.conversations().import_messages([place.id])).reports
        caught_up.append((report.leads_caught_up, place.requests()["200"] - before))
    assert caught_up == [(2, 3), (0, 1), (0, 1)]


async def test_after_more_leads_than_are_asked_for_one_by_one_the_next_import_reaches_back_no_more(
    agency: Agency, place: Place
) -> None:
    await begin(agency, place)
    place.many(1400, [EVA], minutes=20 * 24 * 60)
    for number in range(MOST_LEADS_ONE_BY_ONE + 10):
        place.lead(f"Linked{number:014d}")
    settle(place)
    spent = []
    for _ in range(3):
        before = place.requests()["200"]
        (report,) = (await agency.conversations().import_messages([place.id])).reports
        spent.append((report.messages_seen > 1000, place.requests()["200"] - before))
    assert spent == [(True, 3), (False, 1), (False, 1)]


async def test_a_lead_that_is_relinked_or_whose_transaction_ends_late_is_caught_up_all_the_same(
    agency: Agency, place: Place
) -> None:
    await begin(agency, place)
    lead, saved = place.lead(None), place.lead(None)
    link = text("UPDATE leads SET ghl_contact_id = :contact WHERE id = :id")
    with place.engine.connect() as open_transaction:
        open_transaction.execute(link, {"contact": ADA, "id": lead})
        with open_transaction.begin_nested():
            open_transaction.execute(link, {"contact": BEN, "id": saved})
        with place.engine.begin() as later:
            later.execute(text("SELECT pg_current_xact_id()"))
        (report,) = (await agency.conversations().import_messages([place.id])).reports
        assert (report.imported, report.leads_caught_up) == (0, 0)
        open_transaction.commit()
    settle(place)
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert (report.imported, report.leads_caught_up) == (2, 2)
    with place.engine.begin() as connection:
        connection.execute(link, {"contact": "Relinked000000000001", "id": lead})
    place.sms("Relinked000000000001", "early", at=ago(days=20))
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert (report.imported, report.leads_caught_up) == (1, 1)


def test_a_number_of_another_server_hides_nobody(place: Place) -> None:
    """The records of imports came with a dump from a server that had counted further."""
    lead = place.lead(ADA)
    since = datetime.now(UTC) - timedelta(minutes=10)
    settle(place)
    here, far = look(place.engine), 10**12
    assert leads_behind(place.engine, place.client_id, since, here) == []
    elsewhere = Looked(far)
    assert [each.lead_id for each in leads_behind(place.engine, place.client_id, since, elsewhere)] == [lead]


async def test_a_contact_that_failed_for_a_moment_is_asked_for_once_more(
    agency: Agency, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(agency, place)
    place.lead(ADA)
    place.lead(BEN)
    refused = []
    with monkeypatch.context() as broken:
        answer_for(broken, {ADA}, GhlServerError, 500)
        for _ in range(2):
            (failing,) = (await agency.conversations().import_messages([place.id])).reports
            refused.append(failing.leads_refused)
            place.lead(f"Well{len(refused):016d}")
            settle(place)
    assert refused == [1, 1]
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert (report.leads_caught_up, report.leads_refused) == (1, 0)


async def test_an_import_that_failed_leaves_the_catching_up_to_the_next(agency: Agency, place: Place) -> None:
    await begin(agency, place)
    place.lead(ADA)
    # The first request is answered, the one for Ada is not, nor its second try.
    place.sandbox.faults(place.id, routes=(EXPORT,), error_rate=0.6, seed=first_good_then_bad(place.id, bad=2))
    failed = await agency.conversations().import_messages([place.id])
    assert [failure.error_class for failure in failed.failures] == ["GhlServerError"]
    place.sandbox.faults()
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert report.imported == 1


async def test_a_first_import_that_broke_off_does_not_hide_who_was_linked_before_the_next(
    agency: Agency, place: Place
) -> None:
    place.lead(EVA)
    place.sms(ADA, "early", at=ago(days=20))
    place.many(600, [EVA])
    # Two tries with the cursor, two of the new export.
    place.sandbox.faults(place.id, routes=(EXPORT,), error_rate=0.6, seed=first_good_then_bad(place.id, bad=4))
    assert (await agency.conversations().import_messages([place.id])).failures
    place.sandbox.faults()
    place.lead(ADA)
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert "early" in [row["body"] for row in place.rows()]
    assert report.leads_caught_up == 2


async def test_a_contact_that_ghl_refuses_to_speak_of_costs_nobody_else(
    agency: Agency, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(agency, place)
    place.lead(ADA)
    place.lead(BEN)
    asked = LocationClient.exported_messages

    async def deleted(client: LocationClient, export: MessageExport) -> MessagePage:
        if export.contact_id == ADA:
            raise RequestRejected(CallFacts(place.id, "GET", "/conversations/messages/export", 400))
        return await asked(client, export)

    monkeypatch.setattr(LocationClient, "exported_messages", deleted)
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert (report.imported, report.leads_caught_up, report.leads_refused) == (1, 1, 1)


@pytest.mark.parametrize(
    ("said", "status"),
    [(LocationAccessDenied, 403), (GhlServerError, 503), (GhlTimeout, None), (ContactNotFound, 404), (None, None)],
)
async def test_a_contact_that_fails_in_any_way_of_its_own_costs_nobody_behind_it(
    agency: Agency, place: Place, monkeypatch: pytest.MonkeyPatch, said: type[GhlError] | None, status: int | None
) -> None:
    await begin(agency, place)
    place.lead(ADA)
    place.lead(BEN)
    answer_for(monkeypatch, {ADA}, said, status)
    result = await agency.conversations().import_messages([place.id])
    assert result.failures == ()
    (report,) = result.reports
    assert (report.imported, report.leads_caught_up, report.leads_refused) == (1, 1, 1)


async def test_a_single_contact_that_ghl_denies_does_not_fail_its_location_for_ever(
    agency: Agency, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(agency, place)
    place.lead(ADA)
    settle(place)
    answer_for(monkeypatch, {ADA}, LocationAccessDenied, 403)
    for refused in (1, 0):
        result = await agency.conversations().import_messages([place.id])
        assert result.failures == ()
        assert result.reports[0].leads_refused == refused


async def test_when_nobody_is_answered_for_the_location_fails_soon_and_is_caught_up_later(
    agency: Agency, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(agency, place)
    behind = [f"Behind{n:014d}" for n in range(12)]
    for contact_id in behind:
        place.lead(contact_id)
        place.sms(contact_id, "early", at=ago(days=20))
    place.lead(BEN)
    place.sms(EVA, "new", "outbound", at=ago(minutes=0))
    with monkeypatch.context() as broken:
        asked = answer_for(broken, {*behind, BEN}, GhlServerError, 500)
        (failure,) = (await agency.conversations().import_messages([place.id])).failures
    assert (failure.error_class, failure.permanent) == ("GhlServerError", False)
    assert len(asked) == 5
    assert [row["body"] for row in place.rows()] == ["now", "new"]
    (report,) = (await agency.conversations().import_messages([place.id])).reports
    assert (report.imported, report.leads_caught_up) == (13, 13)


@pytest.mark.parametrize(("said", "status"), [(TokenRejected, 401), (ScopeMissing, 401), (DailyQuotaReached, None)])
async def test_a_refusal_of_the_location_ends_the_catching_up_at_once(
    agency: Agency, place: Place, monkeypatch: pytest.MonkeyPatch, said: type[GhlError], status: int | None
) -> None:
    await begin(agency, place)
    place.lead(ADA)
    place.lead(BEN)
    asked = answer_for(monkeypatch, {ADA}, said, status)
    (failure,) = (await agency.conversations().import_messages([place.id])).failures
    assert (failure.error_class, asked) == (said.__name__, [ADA])


def answer_for(
    monkeypatch: pytest.MonkeyPatch, contact_ids: set[str], said: type[GhlError] | None, status: int | None
) -> list[str]:
    """GHL answers so for these contacts (None: its export is stuck); returns the list of those it was asked for."""
    whole = LocationClient.exported_messages
    asked: list[str] = []

    async def answer(client: LocationClient, export: MessageExport) -> MessagePage:
        if export.contact_id not in contact_ids:
            return await whole(client, export)
        asked.append(export.contact_id)
        if said is None:
            raise ExportStuck("ExportStuck: no further")
        facts = CallFacts(client.location_id, "GET", "/conversations/messages/export", status)
        raise said(facts)

    monkeypatch.setattr(LocationClient, "exported_messages", answer)
    return asked


def settle(place: Place) -> None:
    """Waits until no transaction is under way, of other tests on the same server neither."""
    under_way = text("SELECT pg_snapshot_xmin(now) <> pg_snapshot_xmax(now) FROM pg_current_snapshot() AS now")
    ends = time.monotonic() + 30
    with place.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.execute(under_way).scalar_one():
            assert time.monotonic() < ends
            time.sleep(0.01)


def first_good_then_bad(location_id: str, *, bad: int) -> int:
    """A seed by which the first request of the location is well and so many after it are not."""
    for seed in range(10_000):
        dice = random.Random(f"{seed}/{location_id}")
        if dice.random() > 0.6 and all(dice.random() < 0.6 for _ in range(bad)):
            return seed
    raise AssertionError("no such seed")


async def test_only_the_clients_own_linked_leads_are_behind(agency: Agency, place: Place) -> None:
    other = agency.place("Other")
    other.lead(ADA)
    mine = place.lead(ADA)
    place.lead(None)
    place.lead("test_contact_1")
    since = datetime.now(UTC) - timedelta(hours=1)
    assert [(each.lead_id, each.contact_id) for each in leads_behind(place.engine, place.client_id, since)] == [
        (mine, ADA)
    ]
    assert leads_behind(place.engine, place.client_id, datetime.now(UTC) + timedelta(hours=1)) == []
