"""`ghl-pipeline backfill`: the hydration assets for some or all locations, as a Dagster run in this process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from sqlalchemy import Engine

from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import out, print_json, print_problems, print_table, sum_counts
from ghl_pipeline.cli.progress import watch_locations, watch_locations_done
from ghl_pipeline.cli.session import database
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.errors import LocationBusy, PipelineError
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.hydration.location_report import LocationReport
from ghl_pipeline.hydration.options import DEFAULT_CONCURRENCY
from ghl_pipeline.hydration.progress import failures_of_run
from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.runs import open_instance, run_locations
from ghl_pipeline.settings import Settings, load_settings

PARTLY_DONE = 1


class RunFailed(PipelineError):
    """A run ended in an error that is not one location's."""


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What a backfill did, location by location."""

    run_id: str
    locations: tuple[LocationReport, ...]
    failed: tuple[FailedLocation, ...]
    dry_run: bool = False

    def totals(self) -> dict[str, object]:
        """The same sums as the locations', and requests per lead looked at."""
        eligible = sum(report.eligible for report in self.locations)
        requests = sum(report.requests for report in self.locations)
        return {
            "eligible": eligible,
            "outcomes": sum_counts(report.outcomes for report in self.locations),
            "fields": sum_counts(report.fields for report in self.locations),
            "requests": requests,
            "seconds": round(sum(report.seconds for report in self.locations), 3),
            "requests_per_lead": round(requests / eligible, 5) if eligible else 0.0,
        }

    def as_dict(self) -> dict[str, object]:
        """As the `--json` document."""
        return {
            "run_id": self.run_id,
            "dry_run": self.dry_run,
            "locations": [report.as_dict() for report in self.locations],
            "failed": failed_documents(self.failed),
            "totals": self.totals(),
        }


def backfill(
    location: Annotated[list[str] | None, typer.Option(help="Location id; may be given several times.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Client name; may be given several times.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would change; write nothing to leads.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over even where a run was interrupted.")] = False,
    max_leads: Annotated[
        int | None, typer.Option(min=1, help="At most so many leads per location; an interrupted list is finished.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=500, help="Locations worked on at the same time.")
    ] = DEFAULT_CONCURRENCY,
    requests_per_10s: Annotated[
        int | None, typer.Option("--requests-per-10s", min=1, max=1000, help="Limit per location for this run.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Repair the leads of all active clients, or of some; goes on where an interrupted run stopped."""
    settings = load_settings()
    if requests_per_10s is not None:
        settings = settings.model_copy(update={"requests_per_10s": requests_per_10s})
    config: dict[str, object] = {"dry_run": dry_run, "fresh": fresh, "concurrency": concurrency}
    config |= {} if max_leads is None else {"max_leads": max_leads}
    with database(settings) as engine:
        locations = chosen_locations(engine, location or [], client or [])
        report = run_backfill(settings, engine, locations, config, show_progress=not json)
    if json:
        print_json(report.as_dict())
    else:
        print_backfill(report)
    exit_with_failures(report.failed, locations)


def run_backfill(
    settings: Settings,
    engine: Engine,
    locations: Sequence[str],
    config: Mapping[str, object],
    *,
    show_progress: bool,
) -> BackfillReport:
    """Runs the hydration assets for locations on the project's Dagster instance and reads the result from its history.

    Args:
        settings: limits and addresses of this run.
        engine: the migrated dashboard database.
        locations: location ids; none for a report of nothing.
        config: values of `HydrationConfig`.
        show_progress: whether to draw a progress display on stderr.
    """
    dry_run = bool(config.get("dry_run"))
    definitions = build_defs({"engine": engine, "hydration": build_hydration(settings, engine)})
    with open_instance(settings) as instance:
        with engine.connect() as connection:
            sync_partitions(instance, active_locations(connection))
        if not locations:
            return BackfillReport("", (), (), dry_run)
        # A dry run makes no list in which its leads could be counted.
        watch = watch_locations_done if dry_run else watch_locations
        with watch(engine, locations, shown=show_progress):
            summary = run_locations(
                definitions,
                job="hydrate_leads",
                op="lead_hydration",
                instance=instance,
                locations=locations,
                config={"busy_wait_seconds": 0.0, **config},  # a person is told at once who has a location
            )
    failed = failures_of_run(engine, summary.run_id)
    if not summary.succeeded and not failed:
        raise RunFailed(
            f"Run {summary.run_id} failed outside the work on any location. What was done is kept. See the run's step "
            "failure in the UI (ghl-pipeline dev), then run the same command again."
        )
    told = [LocationReport.from_dict(summary.reports[key]) for key in locations if key in summary.reports]
    return BackfillReport(summary.run_id, tuple(told), tuple(failed), dry_run)


def print_backfill(report: BackfillReport) -> None:
    """Prints a backfill for people: a row per location, then what was filled, and each failure with what to do."""
    title = "What would be repaired (dry run)" if report.dry_run else "What was repaired"
    rows = [(r.location, _counts(r)) for r in report.locations]
    if len(rows) > 1:
        rows.append(("all", [sum(column) for column in zip(*(counts for _, counts in rows), strict=True)]))
    columns = ["location", "eligible", "repaired", "as is", "not found", "check", "failed", "calls", "s"]
    print_table(title, columns, [[name, *counts] for name, counts in rows])
    totals = report.totals()
    out.print(f"Leads: {_named(sum_counts(r.outcomes for r in report.locations))}.", soft_wrap=True)
    out.print(f"Fields filled: {_named(sum_counts(r.fields for r in report.locations))}.", soft_wrap=True)
    out.print(f"GHL was asked {totals['requests']:,} times, {totals['requests_per_lead']} per lead.")


def failed_documents(failed: Sequence[FailedLocation]) -> list[dict[str, object]]:
    """Failures as `--json` shows them: `location`, `error` (its class), `text`, and whether a rerun alone can help."""
    return [
        {"location": f.location_id, "error": f.error_class, "text": f.text, "permanent": f.permanent} for f in failed
    ]


def exit_with_failures(failed: Sequence[FailedLocation], locations: Sequence[str]) -> None:
    """Says on stderr what failed, and ends the command with the exit code for it; does nothing without failures."""
    print_problems(failure.text for failure in failed)
    if failed and len(failed) == len(locations) and all(f.error_class == LocationBusy.__name__ for f in failed):
        raise typer.Exit(LocationBusy.exit_code)
    if failed:
        raise typer.Exit(PARTLY_DONE)


def exit_when_busy(busy: Sequence[str], locations: Sequence[str]) -> None:
    """Ends the command when locations were left to other runs: nothing failed, and yet it is not done."""
    if busy:
        raise typer.Exit(LocationBusy.exit_code if len(busy) == len(set(locations)) else PARTLY_DONE)


def _counts(report: LocationReport) -> list[int | float]:
    outcomes = report.outcomes
    to_check = sum(outcomes.get(name, 0) for name in ("ambiguous", "invalid_contact_id", "contact_deleted"))
    return [
        report.eligible,
        report.repaired,
        outcomes.get("unchanged", 0),
        outcomes.get("not_found", 0),
        to_check,
        outcomes.get("failed", 0),
        report.requests,
        report.seconds,
    ]


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "none"
