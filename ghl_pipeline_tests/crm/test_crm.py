"""Many locations in one process: told, skipped, refused, failed, each by itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.crm.build import build_crm
from ghl_pipeline.crm.crm import ASSETS, CAPABILITY
from ghl_pipeline.crm.report import STATS, CrmReport
from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.orchestration.attempts import last_record
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.crm.syncing import Client
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


@pytest.fixture
def client(engine: Engine, sandbox: Sandbox) -> Client:
    return Client(engine, sandbox)


@pytest.fixture
def other(engine: Engine, sandbox: Sandbox) -> Client:
    return Client(engine, sandbox, "Other")


def attempts(engine: Engine) -> list[tuple[str, str, str | None]]:
    query = text("SELECT location_id, state, error_class FROM location_attempts WHERE capability = 'crm' ORDER BY id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


async def test_each_location_is_told_as_three_assets_when_it_is_done(client: Client, other: Client) -> None:
    client.contact(email="ada@example.com", tags=("new vendor",))
    other.contact(email="ben@example.com", tags=("new lead",))
    history = RememberedHistory()
    result = await client.crm().sync([client.id, other.id, client.id], history)
    assert [report.location for report in result.reports] == [client.id, other.id]
    assert (result.failures, result.busy, result.skipped) == ((), (), ())
    for location in (client.id, other.id):
        assert history.done_steps(location) == list(ASSETS)
    told = {asset: report for _, asset, location, report in history.events if location == client.id}
    assert told["crm_contacts"].values["ghl_contacts_fetched"] == 1
    assert told["crm_vendors"].values["vendors_created"] == 1
    assert told["crm_leads"].values["leads_created"] == 0
    assert "vendors" in told["crm_vendors"].charts
    assert dict(told["crm_contacts"].data["location_report"])["mode"] == "full"


async def test_a_location_that_this_attempt_has_done_is_skipped(client: Client) -> None:
    history = RememberedHistory()
    await client.crm().sync([client.id], history)
    client.asked()
    again = await client.crm().sync([client.id], history)
    assert (again.skipped, again.reports, client.asked()["requests"]) == ((client.id,), (), 0)
    history.attempt = "attempt-2"
    assert len((await client.crm().sync([client.id], history)).reports) == 1


async def test_a_location_that_fails_stops_no_other_and_is_on_record(client: Client, other: Client) -> None:
    client.faults(token_revoked=True)
    other.contact(tags=("new vendor",))
    history = RememberedHistory()
    result = await client.crm().sync([client.id, other.id], history)
    assert [(each.location_id, each.error_class, each.permanent) for each in result.failures] == [
        (client.id, "TokenRejected", True)
    ]
    assert result.reports[0].vendors_created == 1
    assert history.done_steps(client.id) == []
    assert sorted(attempts(client.engine)) == sorted(
        [(client.id, "failed", "TokenRejected"), (other.id, "succeeded", None)]
    )


async def test_a_location_in_part_is_a_failure_that_a_rerun_can_cure_and_has_a_report(client: Client) -> None:
    gone = client.contact()
    client.lead(ghl_contact_id=gone.id)
    client.vendor(ghl_contact_id=client.contact(first_name="Ada").id)
    client.ghl.remove(gone.id)
    client.faults(routes=("GET /contacts/{id}", "GET /contacts/{contactId}"), error_rate=1.0)
    history = RememberedHistory()
    result = await client.crm().sync([client.id], history)
    (failure,) = result.failures
    assert (failure.error_class, failure.permanent) == ("CrmPartlyFailed", False)
    assert (result.reports[0].errors, result.reports[0].vendors_updated) == (1, 1)
    assert history.events == []


async def test_one_that_is_not_switched_on_is_refused_with_the_command(client: Client) -> None:
    client.configure(enabled=False)
    result = await client.crm().sync([client.id])
    (failure,) = result.failures
    assert (failure.error_class, failure.permanent) == ("CrmOff", True)
    assert f"ghl-pipeline clients set-crm {client.id} --on" in failure.text
    assert client.asked()["requests"] == 0


async def test_a_location_where_another_run_is_at_work_is_left_to_it(client: Client) -> None:
    locks = AdvisoryLocks(client.engine)
    with locks.hold(f"{CAPABILITY} of location {client.id}"):
        result = await client.crm().sync([client.id])
    assert (result.busy, result.failures, result.reports) == ((client.id,), (), ())


async def test_a_bug_at_one_location_stops_no_other(client: Client, other: Client) -> None:
    opened = client.open

    @asynccontextmanager
    async def opening(access: LocationAccess) -> AsyncIterator[LocationClient]:
        if access.location_id == client.id:
            raise ValueError("zyxwinda@example.com")
        async with opened(access) as usable:
            yield usable

    client.open = opening
    result = await client.crm().sync([client.id, other.id])
    assert [each.error_class for each in result.failures] == ["ValueError"]
    assert "zyxwinda" not in result.failures[0].text
    assert [report.location for report in result.reports] == [other.id]


async def test_the_record_holds_the_stats_and_more(client: Client) -> None:
    client.contact(email="ada@example.com", tags=("new vendor",))
    client.contact(email="ben@example.com")
    client.lead(email="ben@example.com")
    client.contact(email="eva@example.com", type="staff", tags=("new lead",))
    (report,) = (await client.crm().sync([client.id])).reports
    record = last_record(client.engine, client.id, CAPABILITY)
    assert {name: record[name] for name in STATS} == report.stats()
    assert record == {**report.as_record(), "warnings": list(report.warnings)}
    assert (record["mode"], record["dry_run"], record["staff"], record["unclassified"]) == ("full", False, 1, 0)
    assert record["classes"] == {"vendor": 1, "lead": 1, "staff": 1, "other": 0}


def test_the_settings_decide(engine: Engine, project: Settings) -> None:
    crm = build_crm(project.model_copy(update={"crm_most_missing": 0.5}), engine)
    assert (crm.most_missing, repr(crm)) == (0.5, "Crm()")


def test_stats_have_the_names_that_programs_read() -> None:
    assert tuple(CrmReport(location="x", mode="nothing", dry_run=False).stats()) == (
        "vendors_updated", "vendors_created", "vendors_missing_in_ghl", "leads_updated", "leads_created",
        "leads_deleted", "ghl_contacts_fetched", "errors",
    )  # fmt: skip
