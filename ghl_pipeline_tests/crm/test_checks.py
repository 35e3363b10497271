"""The asset checks of the CRM: which shares they warn of, which they call an error, and what they show."""

from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.crm.checks import COVERAGE_UNREADABLE, Limits, evaluate, judged
from ghl_pipeline.crm.shares import LocationShare

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
LIMITS = Limits(0.05, 0.20, fewest=1)


@pytest.mark.parametrize(
    ("share", "passed", "severity"),
    [
        (LocationShare("A", 0, 0), True, None),
        (LocationShare("A", 0, 100), True, None),
        (LocationShare("A", 4, 100), True, None),
        (LocationShare("A", 5, 100), False, WARN),
        (LocationShare("A", 20, 100), False, WARN),
        (LocationShare("A", 21, 100), False, ERROR),
        (LocationShare("A", 0, 100, stopped=True), False, ERROR),
        (LocationShare("A", 0, 0, stopped=True), False, ERROR),
    ],
)
def test_a_share_is_well_a_warning_or_an_error(
    share: LocationShare, passed: bool, severity: dg.AssetCheckSeverity | None
) -> None:
    result = judged(COVERAGE_UNREADABLE, [share], LIMITS, "of them", "Do this.")
    assert result.passed is passed
    assert severity is None or result.severity is severity


def test_the_worst_are_listed_first_by_id_and_the_rest_is_counted() -> None:
    shares = [LocationShare(f"L{n}", n, 100) for n in range(101)]
    shares += [LocationShare("Stopped", 0, 10, stopped=True)]
    result = judged(COVERAGE_UNREADABLE, shares, LIMITS, "of them", "Do this.")
    assert (result.metadata["locations"].value, result.metadata["locations_amiss"].value) == (102, 97)
    table = result.metadata["worst"]
    assert isinstance(table, dg.TableMetadataValue)
    assert len(table.records) == 50
    assert [record.data["location"] for record in table.records[:3]] == ["Stopped", "L100", "L99"]
    assert str(result.description).endswith("Do this.")


def test_the_share_of_few_is_chance() -> None:
    few = LocationShare("A", 3, 4)
    assert judged(COVERAGE_UNREADABLE, [few], Limits(0.5, fewest=5), "", "").passed
    assert not judged(COVERAGE_UNREADABLE, [few], Limits(0.5, fewest=4), "", "").passed


def test_without_a_client_that_is_switched_on_all_is_well(engine: Engine) -> None:
    results = list(evaluate(engine, most_missing=0.2))
    assert [result.passed for result in results] == [True] * 4
    assert {result.check_name for result in results} == {
        "vendors_missing", "leads_missing", "contacts_unclassified", "coverage_unreadable",
    }  # fmt: skip


class Clients:
    """Clients that are switched on, with rows in the state that a check looks at."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def sql(self, statement: str, **values: object) -> Any:
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.scalar() if result.returns_rows else None

    def add(self, location_id: str, *, enabled: bool = True) -> int:
        client = self.sql(
            "INSERT INTO clients (name, location_id) VALUES (:id, :id) RETURNING id", id=location_id
        )  # fmt: skip
        self.sql("INSERT INTO crm_clients (client_id, enabled) VALUES (:id, :enabled)", id=client, enabled=enabled)
        return int(client)

    def vendors(self, client: int, number: int, *, status: str = "active", unread: bool = False) -> None:
        self.sql(
            """INSERT INTO vendors (client_id, ghl_contact_id, status, service_zip_codes, coverage_unread)
               SELECT :client, :tag || n, :status, 'somewhere', CAST(:unread AS text[])
               FROM generate_series(1, :n) AS n""",
            client=client, n=number, status=status, tag=f"{status}{unread}", unread=["somewhere"] if unread else [],
        )  # fmt: skip

    def leads(self, client: int, number: int, *, gone_days: int | None = None) -> None:
        self.sql(
            """INSERT INTO leads (client_id, ghl_contact_id, status, contact_deleted_at)
               SELECT :client, :tag || n, :status, now() - make_interval(days => CAST(:days AS int))
               FROM generate_series(1, :n) AS n""",
            client=client, n=number, tag=f"{gone_days}-", days=gone_days,
            status="unassigned" if gone_days is None else "inactive_ghl_deleted",
        )  # fmt: skip

    def attempt(self, location_id: str, state: str, error: str | None = None, report: str = "{}") -> None:
        self.sql(
            """INSERT INTO location_attempts (location_id, capability, state, error_class, report, ended_at)
               VALUES (:id, 'crm', :state, :error, CAST(:report AS jsonb), now())""",
            id=location_id, state=state, error=error, report=report,
        )  # fmt: skip

    def results(self) -> dict[str, dg.AssetCheckResult]:
        return {str(result.check_name): result for result in evaluate(self.engine, most_missing=0.2)}

    def worst(self, check: str) -> list[dict[str, object]]:
        table = self.results()[check].metadata.get("worst")
        return [dict(record.data) for record in table.records] if isinstance(table, dg.TableMetadataValue) else []


@pytest.fixture
def clients(engine: Engine) -> Clients:
    return Clients(engine)


def test_vendors_and_leads_that_were_marked_lately_are_weighed_by_location(clients: Clients) -> None:
    first, second = clients.add("First"), clients.add("Second")
    clients.vendors(first, 8)
    clients.vendors(first, 2, status="inactive_ghl_deleted")
    clients.vendors(second, 10)
    clients.leads(second, 6)
    clients.leads(second, 4, gone_days=1)
    clients.leads(first, 6)
    clients.leads(first, 4, gone_days=30)
    assert clients.worst("vendors_missing") == [
        {"location": "First", "share": 0.2, "amiss": 2, "of": 10, "stopped": False}
    ]
    assert clients.worst("leads_missing") == [
        {"location": "Second", "share": 0.4, "amiss": 4, "of": 10, "stopped": False}
    ]
    results = clients.results()
    assert (results["vendors_missing"].severity, results["leads_missing"].severity) == (WARN, ERROR)
    assert "First" in str(results["vendors_missing"].description)


def test_a_run_that_stopped_for_a_person_is_an_error_until_one_that_sees_all_ends(clients: Clients) -> None:
    clients.vendors(clients.add("First"), 10)
    clients.attempt("First", "failed", "TooManyMissing")
    clients.attempt("First", "failed", "LocationBusy")
    result = clients.results()["vendors_missing"]
    assert (result.passed, result.severity) == (False, ERROR)
    assert "--accept-missing" in str(result.description)
    report = '{{"mode": "{}", "dry_run": {}, "unclassified": 0, "ghl_contacts_fetched": 10}}'
    clients.attempt("First", "succeeded", report=report.format("changes", "false"))
    clients.attempt("First", "succeeded", report=report.format("full", "true"))
    clients.attempt("First", "failed", "WouldStop", report=report.format("full", "true"))
    clients.attempt("First", "failed", "GhlUnreachable")
    assert not clients.results()["vendors_missing"].passed
    clients.attempt("First", "succeeded", report=report.format("full", "false"))
    assert clients.results()["vendors_missing"].passed


def test_a_full_pass_that_could_not_look_up_everybody_has_seen_who_is_gone(clients: Clients) -> None:
    clients.vendors(clients.add("First"), 10)
    clients.attempt("First", "failed", "TooManyMissing")
    clients.attempt("First", "failed", "CrmPartlyFailed", report='{"mode": "full", "dry_run": false}')
    assert clients.results()["vendors_missing"].passed


def test_a_run_that_stopped_is_an_error_of_the_side_that_it_stopped_for(clients: Clients) -> None:
    for location_id, sides in (("First", '["vendor"]'), ("Second", '["lead"]'), ("Third", '["vendor", "lead"]')):
        clients.add(location_id)
        clients.attempt(location_id, "failed", "TooManyMissing", report=f'{{"too_many": {sides}}}')
    assert {record["location"] for record in clients.worst("vendors_missing")} == {"First", "Third"}
    assert {record["location"] for record in clients.worst("leads_missing")} == {"Second", "Third"}


def test_clients_that_are_off_are_not_looked_at(clients: Clients) -> None:
    clients.vendors(clients.add("Off", enabled=False), 10, status="inactive_ghl_deleted", unread=True)
    clients.attempt("Off", "failed", "TooManyMissing")
    assert all(result.passed for result in clients.results().values())


def test_coverages_that_were_not_understood_are_weighed_by_location(clients: Clients) -> None:
    first = clients.add("First")
    clients.vendors(first, 9)
    clients.vendors(first, 1, unread=True)
    clients.vendors(first, 5, unread=True, status="inactive_ghl_deleted")
    (worst,) = clients.worst("coverage_unreadable")
    assert (worst["amiss"], worst["of"]) == (1, 10)
    assert "clients set-crm" in str(clients.results()["coverage_unreadable"].description)


def test_contacts_that_are_nothing_are_those_of_the_last_full_pass(clients: Clients) -> None:
    clients.add("First")
    report = '{{"mode": "{}", "dry_run": {}, "unclassified": {}, "ghl_contacts_fetched": 100}}'
    clients.attempt("First", "succeeded", report=report.format("full", "false", 60))
    assert clients.worst("contacts_unclassified")[0]["amiss"] == 60
    clients.attempt("First", "succeeded", report=report.format("changes", "false", 0))
    clients.attempt("First", "succeeded", report=report.format("full", "true", 0))
    clients.attempt("First", "failed", report="{}")
    assert clients.worst("contacts_unclassified")[0]["amiss"] == 60
    clients.attempt("First", "succeeded", report=report.format("full", "false", 10))
    assert clients.worst("contacts_unclassified") == []
