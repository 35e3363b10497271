"""The operator's page: sums, charts, the worst and the held; as an asset with its checks, in Dagster's history."""

import re

import dagster as dg
import pytest
from dagster import DagsterInstance

from ghl_pipeline.definitions import build_defs
from ghl_pipeline.operations.charts import MOST_CHARACTERS
from ghl_pipeline.operations.looking import Look, look_at
from ghl_pipeline.operations.report import MOST_LISTED, held_rows, operators_page, totals, worst_first
from ghl_pipeline.operations.streams import STREAMS
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline_tests.operations.agency import Agency

NAME = "Zyxwinda Roofing"
REPORT = '{"eligible": 10, "outcomes": {"linked_and_hydrated": 7, "hydrated": 1, "not_found": 2}}'


@pytest.fixture
def troubled(agency: Agency) -> Agency:
    """Three locations: one is well, one is refused, one is late; and a deactivated one that nobody asks about."""
    for place, name in enumerate(("Well", "Refused", "Late", "Gone")):
        client = agency.client(name, name=f"{NAME} {name}", active=name != "Gone", age="4 days")
        agency.leads(client, 30, phone=True, outcome="hydrated")
        agency.leads(client, place * 10, outcome="not_found")
        agency.requests(name, 10 + place, 100)
        for work in ("hydration", "conversations"):
            agency.standing(name, work, "succeeded", succeeded="1 minute" if name != "Late" else "2 days")
    agency.sql("DELETE FROM location_standings WHERE location_id = 'Refused' AND capability = 'hydration'")
    agency.standing(
        "Refused", "hydration", "failed", ended="3 hours", succeeded="5 hours", permanent=True, failures=1,
        error="TokenRejected: location Refused refuses its token. Run: ghl-pipeline clients set-token Refused",
    )  # fmt: skip
    agency.attempt("Well", report=REPORT)
    agency.attempt("Well", days_ago=3, report=REPORT)
    return agency


def look(agency: Agency) -> Look:
    return look_at(agency.engine, seconds=60)


def page(agency: Agency) -> Report:
    seen = look(agency)
    return operators_page(seen.locations, seen.days, seen.judgements, seen.at)


def test_the_sums_are_over_the_locations_of_active_clients(troubled: Agency) -> None:
    values = page(troubled).values
    assert (values["locations"], values["locations_failed"], values["locations_held"]) == (3, 1, 1)
    assert (values["leads"], values["leads_without_phone"], values["leads_not_found"]) == (120, 30, 30)
    assert (values["repaired_today"], values["repaired_30_days"]) == (8, 16)
    assert (values["requests_today"], values["requests_peak_share"]) == (33, 0.12)
    assert (values["checks_amiss"], values["checks_with_errors"]) == (3, 2)
    assert isinstance(values["leads_counted_hours_ago"], float)


def test_the_charts_tell_what_was_repaired_what_is_missing_and_why_it_fails(troubled: Agency) -> None:
    charts = page(troubled).charts
    assert charts["repaired_by_day"].count("|8|") == 2
    assert all(len(chart) <= MOST_CHARACTERS for chart in charts.values())
    assert "| no phone | 30 |" in charts["still_missing"]
    assert "| hydration: TokenRejected | 1 |" in charts["failures_by_reason"]
    assert "|46|" in charts["requests_by_day"]
    assert "|13|" in charts["limit_used_by_day"]


def test_the_worst_are_first_and_what_is_held_says_what_to_do(troubled: Agency) -> None:
    worst = [(row["location"], row["amiss"]) for row in page(troubled).tables["worst_locations"]]
    assert worst == [
        ("Late", "hydrated_leads: fresh, sms_messages: fresh"),
        ("Refused", "hydrated_leads: partitions_failed"),
        ("Well", ""),
        ("Gone", ""),
    ]
    (held,) = page(troubled).tables["held"]
    assert (held["location"], held["work"]) == ("Refused", "hydration")
    assert "ghl-pipeline clients set-token Refused" in str(held["what to do"])
    charts = page(troubled).charts
    found = re.findall(
        r"^\*\*(\w+ \w+)\*\* \((\w+)\)\\\n(?:.*\\\n)+`ghl-pipeline [\w -]+`$", charts["what_to_do"], re.MULTILINE
    )
    assert found == [
        ("hydrated_leads partitions_failed", "error"),
        ("sms_messages fresh", "error"),
        ("hydrated_leads fresh", "warning"),
    ]


def test_no_client_is_named(troubled: Agency) -> None:
    assert NAME not in repr(page(troubled))


def test_of_many_only_the_worst_are_listed_and_all_are_counted(agency: Agency) -> None:
    agency.sql("INSERT INTO clients (name, location_id) SELECT 'C' || n, 'L' || n FROM generate_series(1, 120) AS n")
    agency.sql("""
        INSERT INTO location_standings (location_id, capability, state, ended_at, failures, failing_since, error_class)
        SELECT location_id, 'crm', 'failed', now(), 1, now() - make_interval(mins => CAST(id AS int)), 'TooManyMissing'
        FROM clients
    """)
    seen = look(agency)
    assert totals(seen.locations).locations_held == 120
    assert len(worst_first(seen.locations, seen.judgements)) == MOST_LISTED
    assert [row["location"] for row in held_rows(seen.locations)[:2]] == ["L120", "L119"]
    tables = page(agency).tables
    assert (len(tables["held"]), len(tables["worst_locations"])) == (MOST_LISTED, MOST_LISTED)


def test_what_to_do_fits_the_page_however_much_is_amiss(agency: Agency) -> None:
    agency.client("C6HxU0gdMY76stvsY7nT", age="9 days")
    for stream in STREAMS:
        agency.standing(
            "C6HxU0gdMY76stvsY7nT", stream.capability, "failed", failures=1, error="SomeError: " + "x" * 500
        )
    shown = page(agency).charts["what_to_do"]
    assert len(shown) <= MOST_CHARACTERS
    assert re.search(r"^And \d more: `ghl-pipeline status`$", shown, re.MULTILINE)
    # On a screen of 1,440 pixels 48 letters are seen of a line; a command is not cut in two, because people copy it.
    assert all(len(line) <= 48 or re.fullmatch(r"`ghl-pipeline [^`]+`\\?", line) for line in shown.splitlines())


def test_a_page_of_nothing_can_be_shown(agency: Agency) -> None:
    empty = page(agency)
    assert empty.values["locations"] == 0
    assert empty.charts["repaired_by_day"] == "_nothing yet_"
    assert "leads_counted_hours_ago" not in empty.values


def test_a_run_shows_the_page_and_evaluates_the_checks_of_every_asset(
    troubled: Agency, instance: DagsterInstance
) -> None:
    definitions = build_defs({"engine": troubled.engine})
    job = definitions.resolve_job_def("report_operations")
    result = job.execute_in_process(instance=instance)
    assert result.success
    record = instance.fetch_materializations(dg.AssetKey("operations_report"), limit=1).records[0]
    assert record.asset_materialization is not None
    metadata = record.asset_materialization.metadata
    assert metadata["leads"].value == 120
    assert isinstance(metadata["repaired_by_day"], dg.MarkdownMetadataValue)
    assert isinstance(metadata["worst_locations"], dg.TableMetadataValue)
    assert NAME not in repr(metadata)
    found = {(each.asset_key.to_user_string(), each.check_name): each for each in result.get_asset_check_evaluations()}
    assert len(found) == 21
    assert {key for key, each in found.items() if not each.passed} == {
        ("hydrated_leads", "partitions_failed"), ("hydrated_leads", "fresh"), ("sms_messages", "fresh"),
    }  # fmt: skip
    refused = found["hydrated_leads", "partitions_failed"]
    assert refused.severity is dg.AssetCheckSeverity.ERROR
    worst = refused.metadata["worst"]
    assert isinstance(worst, dg.TableMetadataValue)
    assert [record.data["location"] for record in worst.records] == ["Refused"]
    assert NAME not in repr(found)


@pytest.mark.parametrize(
    "job",
    [
        "hydrate_leads", "import_messages", "handle_events", "reconcile_events", "sync_crm", "write_drafts",
        "refresh_availability", "sync_senders",
    ],
)  # fmt: skip
def test_runs_that_do_the_work_do_not_judge_all_locations_each_time(job: str) -> None:
    """Dagster adds the checks of its assets to a job; runs that handle events every few seconds must not have them."""
    assert "location_checks" not in build_defs().resolve_job_def(job).graph.node_dict
