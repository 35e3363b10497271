"""Asks again for what failed, was stopped, or never had its turn; tells of what failed; renews the checks after it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import msgspec
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from sqlalchemy import Engine

from ghl_pipeline.operations.alerting.alerting import Alerting
from ghl_pipeline.operations.alerting.noting import FailedRun
from ghl_pipeline.operations.jobs import report_operations
from ghl_pipeline.operations.reruns import Chosen, Rerunnable, choose
from ghl_pipeline.operations.settling import runs_at_work, settle, settle_lost
from ghl_pipeline.operations.waiting import WaitingWork, held_locations, waiting_work
from ghl_pipeline.orchestration.asked_runs import (
    Work,
    at_work,
    ended_backfills,
    ended_runs,
    runs_by_id,
    unknown_runs,
)
from ghl_pipeline.orchestration.history import RETRY_NUMBER_TAG
from ghl_pipeline.orchestration.holds import release_where_somebody_acted
from ghl_pipeline.orchestration.partition_sync import IN_PROGRESS
from ghl_pipeline.orchestration.rerun_rules import Cause

RERUN_TAG: Final = "ghl_pipeline/rerun"
# At the first look ever: what ended before that is long settled, or somebody has got used to it.
FIRST_LOOK_BACK: Final = timedelta(days=1)
HELD_SHOWN: Final = 20

_WORDS: Final = {
    Cause.QUOTA.value: "for the day's reset",
    Cause.STOPPED.value: "because a person stopped them",
    Cause.KILLED.value: "after a run that died",
    Cause.REFUSED.value: "to be tried after a refusal",
    Cause.DECISION.value: "to be tried after somebody looked",
}


class _Cursor(msgspec.Struct, frozen=True):
    """Until when ended runs were looked at, until when holds were told, and which backfills were looked at."""

    runs_until: datetime
    held_until: datetime
    backfills: list[str] = []


def rerun_sensor(
    rerunnables: Mapping[str, Rerunnable],
    jobs: Sequence[UnresolvedAssetJobDefinition],
    default_status: dg.DefaultSensorStatus,
) -> dg.SensorDefinition:
    """The sensor, with the status it has before somebody switches it in the UI.

    Args:
        rerunnables: by capability, how to ask for it. Work with its own way of trying again is not among them
            (`rerun_rules.TRIES_BY_ITSELF`).
        jobs: theirs.
        default_status: before somebody switches it in the UI.
    """
    works = {capability: each.work for capability, each in rerunnables.items()}

    @dg.sensor(
        name="rerun_failed",
        jobs=list(jobs),
        minimum_interval_seconds=30,
        default_status=default_status,
        description="Asks again for locations whose work failed, was stopped or never had its turn, after growing "
        "pauses and from where it was; many that failed at once come back a few first. Locations that wait for a "
        "person (a refused token) are told once, and taken up when something changed.",
    )
    def rerun_failed(context: dg.SensorEvaluationContext, engine: dg.ResourceParam[Engine]) -> dg.SensorResult:
        cursor = _settle(context.instance, engine, rerunnables, works, _cursor(context.cursor))
        with engine.begin() as connection:
            release_where_somebody_acted(connection, works)
        under_way = at_work(context.instance, works)
        chosen = {name: choose(engine, name, each.askable, under_way[name]) for name, each in rerunnables.items()}
        requests = [
            _request(rerunnables[name], locations) for name, those in chosen.items() for locations in those.runs
        ]
        with engine.connect() as connection:
            waiting = waiting_work(connection, works)
            held = held_locations(connection)
        new = [each for each in held if each.since > cursor.held_until]
        for each in new[:HELD_SHOWN]:
            context.log.warning("%s is held: %s", each.capability, each.text)
        if len(new) > HELD_SHOWN:
            context.log.warning("%d more are held; see them all with: ghl-pipeline status", len(new) - HELD_SHOWN)
        if requests:
            context.log.info("%s", _in_words(chosen, waiting, len(held)))
        cursor = msgspec.structs.replace(cursor, held_until=max([cursor.held_until, *(each.since for each in held)]))
        return dg.SensorResult(
            run_requests=requests or None,
            skip_reason=None if requests else _in_words(chosen, waiting, len(held)),
            cursor=msgspec.json.encode(cursor).decode(),
        )

    return rerun_failed


def _cursor(told: str | None) -> _Cursor:
    if told:
        return msgspec.json.decode(told, type=_Cursor)
    first = datetime.now(UTC) - FIRST_LOOK_BACK
    return _Cursor(first, first)


def _settle(
    instance: dg.DagsterInstance,
    engine: Engine,
    rerunnables: Mapping[str, Rerunnable],
    works: Mapping[str, Work],
    cursor: _Cursor,
) -> _Cursor:
    """Puts on record what ended without telling, and moves the cursor behind it."""
    askable = {name: each.askable for name, each in rerunnables.items()}
    runs, until = ended_runs(instance, works, cursor.runs_until)
    at_a_location = runs_at_work(engine)
    backfills, seen = ended_backfills(instance, works, but=cursor.backfills)
    settle(engine, [*runs, *runs_by_id(instance, works, at_a_location), *backfills], askable)
    settle_lost(engine, unknown_runs(instance, at_a_location))
    return msgspec.structs.replace(cursor, runs_until=until, backfills=seen)


def _request(rerunnable: Rerunnable, locations: tuple[str, ...]) -> dg.RunRequest:
    return dg.RunRequest(
        job_name=rerunnable.work.job,
        run_config={"ops": {rerunnable.op: {"config": {**rerunnable.config, "locations": list(locations)}}}},
        tags={RERUN_TAG: "true", "ghl_pipeline/locations": str(len(locations))},
    )


def _in_words(chosen: Mapping[str, Chosen], waiting: list[WaitingWork], held: int) -> str:
    said = [f"{name}: {those.locations} asked for again" for name, those in chosen.items() if those.locations]
    for each in waiting:
        why = _WORDS.get(each.cause, "after a failure")
        if chosen[each.capability].held_up and each.cause == Cause.TRANSIENT:
            why = "for a few that find out whether GHL is back"
        rest = each.locations - each.requested
        # Who is due and was not asked for is in the hands of a queued or running run.
        until = f"the next until {each.next_at:%H:%M} UTC" if each.next_at > datetime.now(UTC) else "a run has the next"
        if rest:
            said.append(f"{each.capability}: {rest} wait {why}, {until}")
    if held:
        said.append(f"{held} are held until somebody acts (ghl-pipeline status)")
    return "; ".join(said) or "nothing failed"


# --- checks

# A run of assets from the UI takes the assets' checks along; the jobs of schedules and sensors leave them out. If such
# a run fails, Dagster skips the checks and shows each as "execution failed", whatever it would have said: just then,
# when somebody looks. They are right again once they are evaluated.


def report_after_failure_sensor(default_status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor, with the status it has before somebody switches it in the UI."""

    @dg.sensor(
        name="report_after_failure",
        job=report_operations,
        # One page at a time, and a look at 10,000 locations takes some seconds.
        minimum_interval_seconds=60,
        default_status=default_status,
        description="Renews the operator's page and all checks after a backfill or run of the UI that failed or was "
        "stopped: it leaves the checks of its assets as 'execution failed'.",
    )
    def report_after_failure(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        pages = context.instance.get_run_records(filters=dg.RunsFilter(job_name=report_operations.name), limit=1)
        if pages and pages[0].dagster_run.status in IN_PROGRESS:
            return dg.SkipReason("a page is being made")
        failed = context.instance.get_run_records(
            filters=dg.RunsFilter(
                job_name=IMPLICIT_ASSET_JOB_NAME,
                statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
                updated_after=pages[0].create_timestamp if pages else None,
            ),
            limit=1,
        )
        return dg.RunRequest() if failed else dg.SkipReason("no run of the UI failed since the last page")

    return report_after_failure


# --- alerts


def alert_failures_sensor(default_status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that notes failed runs for alerts, with the status it has before somebody switches it in the UI."""

    @dg.run_failure_sensor(
        name="alert_failures",
        minimum_interval_seconds=15,
        default_status=default_status,
        description="Notes which locations failed in a run, and stores an alert of what is news. Starts no run.",
    )
    def alert_failures(context: dg.RunFailureSensorContext, alerting: dg.ResourceParam[Alerting]) -> None:
        run = context.dagster_run
        alerting.note(
            FailedRun(run.run_id, _work_of(run), is_repeat=RETRY_NUMBER_TAG in run.tags or RERUN_TAG in run.tags)
        )

    return alert_failures


def alert_delivery_sensor(default_status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that sends stored alerts, with the status it has before somebody switches it in the UI."""

    @dg.sensor(
        name="alert_delivery",
        minimum_interval_seconds=10,
        default_status=default_status,
        description="Sends alerts to the log, Slack and the webhook, until each took them. Starts no run.",
    )
    def alert_delivery(context: dg.SensorEvaluationContext, alerting: dg.ResourceParam[Alerting]) -> dg.SkipReason:
        done = alerting.deliver()
        if not (done.sent or done.not_taken):
            return dg.SkipReason("no alert is due")
        return dg.SkipReason(f"{done.sent} sent, {done.not_taken} not taken, {done.given_up} of them given up")

    return alert_delivery


def _work_of(run: dg.DagsterRun) -> str:
    """The run's job; of a run of assets without one (a backfill), the assets."""
    if not run.job_name.startswith("__"):
        return run.job_name
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return ", ".join(assets) or "assets"
