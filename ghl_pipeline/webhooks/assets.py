"""The assets of events: what was stored, what was handled, what was found again."""

from collections.abc import Collection, Iterator, Sequence

import dagster as dg
from pydantic import Field

from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.orchestration.asked_for import asked_locations
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.history import AssetHistory
from ghl_pipeline.orchestration.interrupts import run_stoppable
from ghl_pipeline.orchestration.run_failure import run_failure
from ghl_pipeline.partitions import location_partitions
from ghl_pipeline.webhooks.handling.handle_events import EventHandling
from ghl_pipeline.webhooks.handling.many_inboxes import LINGER_SECONDS, handle_inboxes
from ghl_pipeline.webhooks.handling.reports import EventsReport
from ghl_pipeline.webhooks.reconciling.many_workspaces import Reconciling, reconcile_told
from ghl_pipeline.webhooks.reconciling.one_workspace import ReconcileReport

GROUP = "webhooks"
OWNERS = ["team:revops"]
# What a failed run says of the locations that failed.
CONSEQUENCE = "Nothing is lost: what could not be done is tried again by itself."

WEBHOOK_EVENTS = dg.AssetSpec(
    "webhook_events",
    description="The inbox of a location: what the receiver stored, outside any run. Grain: one row per event of a "
    "provider, however often it was delivered; with its lead and message, which are stored in the same transaction.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    partitions_def=location_partitions,
)
HANDLED_EVENTS = dg.AssetSpec(
    "handled_events",
    deps=["webhook_events"],
    description="Events of the inbox that came to an end: leads hydrated, linked, marked or given a status, contacts "
    "created for interested leads. Grain: one row per event, with its outcome. Units: events, requests, seconds from "
    "arrival to end.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"gohighlevel", "postgres"},
    partitions_def=location_partitions,
    skippable=True,
)
RECONCILED_EVENTS = dg.AssetSpec(
    "reconciled_events",
    description="Events of EmailBison's own log that the webhook had lost, stored in the inbox. Grain: one row per "
    "event, marked as found by reconcile. Unit: events.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"emailbison", "postgres"},
    partitions_def=location_partitions,
    skippable=True,
)


class EventsConfig(dg.Config):
    """What can be set in the Launchpad."""

    locations: list[str] = Field(
        default=[], description="Location ids, any of them, instead of the run's partitions; what the sensor uses."
    )
    linger_seconds: float = Field(
        default=LINGER_SECONDS, ge=0, description="How long the run looks for more after the last event."
    )


class ReconcileConfig(dg.Config):
    """What can be set in the Launchpad."""

    locations: list[str] = Field(
        default=[], description="Location ids, any of them, instead of the run's partitions; what the schedule uses."
    )


@dg.multi_asset(
    name="event_handling", specs=[HANDLED_EVENTS], can_subset=True, backfill_policy=dg.BackfillPolicy.single_run()
)
def event_handling(
    context: dg.AssetExecutionContext, config: EventsConfig, event_handling: dg.ResourceParam[EventHandling]
) -> Iterator[dg.MaterializeResult[None]]:
    """Handles what is due at each location, and what comes in meanwhile; a location that fails stops no other."""
    history = AssetHistory(context)
    locations = asked_locations(context, config.locations)
    silent = set() if config.locations else set(locations)

    def told(location_id: str, report: EventsReport) -> None:
        silent.discard(location_id)
        history.done("handled_events", location_id, report.told())

    result = run_stoppable(
        context,
        handle_inboxes(
            event_handling, locations, run_id=history.run_id, told=told, linger_seconds=config.linger_seconds
        ),
    )
    # Who holds a location handles its events; that is no failure of this run.
    failures = [failure for failure in result.failures if failure.error_class != LocationBusy.__name__]
    for location_id in _without(silent, failures):
        history.done("handled_events", location_id, EventsReport().told())
    if failures:
        raise run_failure(failures, len(locations), CONSEQUENCE)
    # Each location's event was logged when its work was done; a result yielded here would be a second one.
    yield from ()


@dg.multi_asset(
    name="event_reconcile", specs=[RECONCILED_EVENTS], can_subset=True, backfill_policy=dg.BackfillPolicy.single_run()
)
def event_reconcile(
    context: dg.AssetExecutionContext, config: ReconcileConfig, event_reconciling: dg.ResourceParam[Reconciling]
) -> Iterator[dg.MaterializeResult[None]]:
    """Stores the events that EmailBison has and the inbox lacks; a location that fails stops no other."""
    history = AssetHistory(context)
    locations = asked_locations(context, config.locations)
    silent = set() if config.locations else set(locations)

    def told(location_id: str, report: ReconcileReport) -> None:
        silent.discard(location_id)
        history.done("reconciled_events", location_id, reconcile_told(report))

    result = run_stoppable(context, event_reconciling.run(locations, run_id=history.run_id, told=told))
    for location_id in _without(silent, result.failures):
        history.done("reconciled_events", location_id, reconcile_told(result.reports[location_id]))
    if result.failures:
        raise run_failure(result.failures, len(locations), CONSEQUENCE)
    yield from ()


def _without(silent: Collection[str], failures: Sequence[FailedLocation]) -> list[str]:
    """Partitions that were asked for by name and had nothing to tell.

    Dagster counts a partition of a backfill without an event as failed; the sensor and the schedule ask for locations,
    not partitions, and an event of each idle one at each tick would bury those that say something.
    """
    return sorted(set(silent) - {failure.location_id for failure in failures})
