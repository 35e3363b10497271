"""A lead that is linked after its messages went by gets them at the next import."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from ghl_pipeline.conversations import catching_up, sms_import
from ghl_pipeline.conversations.catching_up import leads_behind
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import CallFacts, RequestRejected
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
