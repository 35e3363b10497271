"""From a failed run to alerts in the outbox: who failed is on record in `location_attempts`, so nothing is parsed.

Failures of one kind of work with one error are one alert, however many locations they are. The first is sent at once;
what comes in the next minutes, of whichever runs, gathers in one more.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, Engine, Row, text

from ghl_pipeline.database.rows import as_json_rows
from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.ghl.errors import DailyQuotaReached
from ghl_pipeline.operations.alerting.alerts import NAMED_LOCATIONS, RUN_DIED, AlertKind
from ghl_pipeline.operations.alerting.news import Told, is_news
from ghl_pipeline.operations.alerting.outbox import Group, store
from ghl_pipeline.operations.streams import STREAMS

GATHER: Final = timedelta(minutes=5)
# Somebody else is at the location; the day's quota comes back by itself, and the metrics tell of it before.
NO_FAILURES: Final = (LocationBusy.__name__, DailyQuotaReached.__name__)
# In the memory, of runs that named no location.
NO_LOCATION: Final = ""

# A long run tells of its failures at its end; a location where the work succeeded since then is no news.
_FAILED = text("""
    WITH failed AS (
        SELECT DISTINCT ON (location_id, capability)
               id, location_id, capability, error_class, error_text, permanent, ended_at
        FROM location_attempts
        WHERE run_id = :run_id AND state = 'failed' AND error_class <> ALL(CAST(:no_failures AS text[]))
        ORDER BY location_id, capability, id DESC
    )
    SELECT failed.location_id, failed.capability, failed.error_class, failed.error_text,
           CASE WHEN standing.location_id IS NULL OR failed.capability = ANY(CAST(:keep_themselves AS text[]))
                THEN coalesce(failed.permanent, false)
                ELSE standing.attempt_id = failed.id AND standing.rerun_at IS NULL END AS is_held,
           told.told_at, told.is_permanent, told.suppressed,
           told.seen_at = (SELECT max(seen_at) FROM alert_memory AS latest
                           WHERE latest.location_id = failed.location_id AND latest.capability = failed.capability
                          ) AS is_latest,
           coalesce(standing.succeeded_at > told.told_at, false) AS was_well_since,
           now() AS now
    FROM failed
    LEFT JOIN location_standings AS standing
        ON standing.location_id = failed.location_id AND standing.capability = failed.capability
    LEFT JOIN alert_memory AS told
        ON told.location_id = failed.location_id AND told.capability = failed.capability
        AND told.error_class = failed.error_class
    WHERE coalesce(standing.succeeded_at <= failed.ended_at, true)
    ORDER BY failed.id
""")
# `named`: whether anything at all says how the run ended at some location.
_UNDER_WAY = text("""
    SELECT coalesce(array_agg(location_id ORDER BY id) FILTER (WHERE state IN ('running', 'interrupted')), '{}'),
           count(*) FILTER (WHERE state = 'failed') > 0
    FROM location_attempts WHERE run_id = :run_id
""")
_DIED_BEFORE = text("""
    SELECT told_at, is_permanent, suppressed, true AS is_latest, false AS was_well_since, now() AS now
    FROM alert_memory
    WHERE location_id = '' AND capability = :capability AND error_class = :error_class
""")
_REMEMBER = text("""
    INSERT INTO alert_memory (location_id, capability, error_class, is_permanent, suppressed)
    SELECT location_id, capability, error_class, is_held, 0
    FROM json_to_recordset(CAST(:rows AS json))
        AS t (location_id text, capability text, error_class text, is_held boolean)
    ON CONFLICT (location_id, capability, error_class) DO UPDATE
    SET seen_at = now(), told_at = now(), is_permanent = excluded.is_permanent, suppressed = 0
""")
_COUNT_ONLY = text("""
    UPDATE alert_memory AS told SET seen_at = now(), suppressed = told.suppressed + 1
    FROM json_to_recordset(CAST(:rows AS json)) AS t (location_id text, capability text, error_class text)
    WHERE told.location_id = t.location_id AND told.capability = t.capability AND told.error_class = t.error_class
""")


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that failed.

    Attributes:
        run_id: its id.
        work: its job, or its assets where it has none of our jobs.
        is_repeat: it repeats one that failed: Dagster's retry of a crash, or a rerun.
    """

    run_id: str
    work: str
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class _Failure:
    location_id: str
    capability: str
    error_class: str
    error_text: str | None
    is_held: bool
    is_news: bool
    suppressed: int


def note_failed_run(engine: Engine, run: FailedRun, channels: Sequence[str], *, every: timedelta) -> int:
    """Stores what is news of a failed run, for each channel; counts the rest.

    Args:
        engine: the dashboard database.
        run: which.
        channels: names of those that are configured.
        every: the least time between two alerts of the same error, work and location.

    Returns:
        How many locations or runs were news.
    """
    with engine.begin() as connection:
        failures = _failures(connection, run, every)
        under_way, is_named = connection.execute(_UNDER_WAY, {"run_id": run.run_id}).one()
        _remember(connection, failures)
        groups = _grouped(failures, run)
        if under_way or not is_named:
            groups += _died(connection, run, under_way, every)
        for group in groups:
            store(connection, group, channels, gather=min(GATHER, every))
    return sum(failure.is_news for failure in failures) + sum(group.kind is AlertKind.DIED for group in groups)


def _failures(connection: Connection, run: FailedRun, every: timedelta) -> list[_Failure]:
    values = {
        "run_id": run.run_id,
        "no_failures": list(NO_FAILURES),
        "keep_themselves": [stream.capability for stream in STREAMS if stream.keeps_itself],
    }
    return [
        _Failure(
            row.location_id,
            row.capability,
            row.error_class,
            row.error_text,
            row.is_held,
            _is_news(row, row.is_held, run, every),
            row.suppressed or 0,
        )
        for row in connection.execute(_FAILED, values)
    ]


def _is_news(row: Row[tuple[object, ...]], is_held: bool, run: FailedRun, every: timedelta) -> bool:
    told = None
    if row.told_at is not None:
        told = Told(row.told_at, row.is_permanent, row.is_latest, row.was_well_since)
    return is_news(told, is_held=is_held, is_repeat=run.is_repeat, now=row.now, every=every)


def _remember(connection: Connection, failures: Sequence[_Failure]) -> None:
    def rows(chosen: Iterable[_Failure]) -> str:
        return as_json_rows(
            [
                {
                    "location_id": each.location_id,
                    "capability": each.capability,
                    "error_class": each.error_class,
                    "is_held": each.is_held,
                }
                for each in chosen
            ]
        )

    connection.execute(_REMEMBER, {"rows": rows(each for each in failures if each.is_news)})
    connection.execute(_COUNT_ONLY, {"rows": rows(each for each in failures if not each.is_news)})


def _grouped(failures: Sequence[_Failure], run: FailedRun) -> list[Group]:
    by_error: dict[tuple[str, str, bool], list[_Failure]] = defaultdict(list)
    for failure in failures:
        if failure.is_news:
            by_error[failure.capability, failure.error_class, failure.is_held].append(failure)
    return [
        Group(
            AlertKind.HELD if is_held else AlertKind.FAILED,
            capability,
            error_class,
            [each.location_id for each in group[:NAMED_LOCATIONS]],
            len(group),
            sum(each.suppressed for each in group),
            group[0].error_text,
            run.run_id,
        )
        for (capability, error_class, is_held), group in by_error.items()
    ]


def _died(connection: Connection, run: FailedRun, under_way: Sequence[str], every: timedelta) -> list[Group]:
    """A run that ended in the middle, or before any location: no attempt says why."""
    key = {"capability": run.work, "error_class": RUN_DIED}
    before = connection.execute(_DIED_BEFORE, key).one_or_none()
    news = before is None or _is_news(before, False, run, every)
    row = as_json_rows([{**key, "location_id": NO_LOCATION, "is_held": False}])
    connection.execute(_REMEMBER if news else _COUNT_ONLY, {"rows": row})
    if not news:
        return []
    suppressed = before.suppressed if before is not None else 0
    names = list(under_way[:NAMED_LOCATIONS])
    return [Group(AlertKind.DIED, run.work, RUN_DIED, names, len(under_way), suppressed, None, run.run_id)]
