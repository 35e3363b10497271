"""From locations whose turn has come to the runs that a schedule asks for."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

import dagster as dg
from sqlalchemy import Connection

from ghl_pipeline.orchestration.holds import left_to_reruns
from ghl_pipeline.orchestration.in_hand import in_hand
from ghl_pipeline.orchestration.partition_sync import locations_of_runs
from ghl_pipeline.orchestration.staggering import Rhythm, last_begun

# So many locations overlap well in one process; more are spread over the runs that the queue lets go at once.
LOCATIONS_PER_RUN = 250


def runs_of_due_locations(
    context: dg.ScheduleEvaluationContext,
    connection: Connection,
    rhythm: Rhythm,
    *,
    job: str,
    capability: str,
    locations: Sequence[str],
    run_config: Callable[[list[str]], dg.RunConfig],
    held: Collection[str] = frozenset(),
    begun: Mapping[str, datetime] | None = None,
    nobody: str = "no active client has a usable token",
) -> list[dg.RunRequest] | dg.SkipReason:
    """Runs for the locations whose turn has come and that no run is at; many locations in each.

    Args:
        context: the tick's.
        connection: the dashboard database; read only.
        rhythm: whose turn comes when.
        job: the job's name; locations of its queued and running runs are not asked for again.
        capability: as attempts are on record.
        locations: all that can be worked on, in the order in which they are to be.
        run_config: of a run for some of them.
        held: locations that are left out until somebody acts (`attempts.held_back`).
        begun: when each was last worked on, where attempts do not say it (a location that never was: left out).
        nobody: said when there are no locations at all.
    """
    able = [each for each in locations if each not in held]
    if not able:
        return dg.SkipReason(f"{nobody} ({len(held)} held back)" if held else nobody)
    if begun is None:
        begun = last_begun(connection, capability, able)
    at_work = in_hand(connection, capability, locations_of_runs(context.instance, job))
    at = context.scheduled_execution_time
    left = left_to_reruns(connection, capability)
    due = rhythm.due(able, begun, at, in_hand=at_work | left)
    if not due:
        waits = f", {len(left)} left to reruns" * bool(left)
        return dg.SkipReason(f"it is the turn of none of {len(able)} locations ({len(held)} held back{waits})")
    batches = [due[start : start + LOCATIONS_PER_RUN] for start in range(0, len(due), LOCATIONS_PER_RUN)]
    return [
        dg.RunRequest(
            # A tick that is evaluated twice, after a crash, asks for the same runs, and Dagster drops the second ones.
            run_key=f"{rhythm.work}-{at:%Y%m%d%H%M}-{number}",
            run_config=run_config(batch),
            tags={"ghl_pipeline/locations": str(len(batch))},
        )
        for number, batch in enumerate(batches)
    ]
