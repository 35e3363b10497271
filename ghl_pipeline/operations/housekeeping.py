"""What is kept for how long: each chore drops one kind of rows that nobody reads any more.

Counts are told in any case, so that a person can see what would go before it goes.
"""

import logging
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, text

from ghl_pipeline.errors import PipelineError
from ghl_pipeline.locations.rotation import forget_previous_tokens
from ghl_pipeline.orchestration.check_history import drop_old_evaluations
from ghl_pipeline.orchestration.old_runs import drop_old_runs
from ghl_pipeline.orchestration.run_events import drop_old_run_events
from ghl_pipeline.orchestration.thinning import KeptHistory, thin_history

log = logging.getLogger(__name__)

# Of each location and kind of work, so many attempts are kept however old they are: a person looks at the last ones.
NEWEST_KEPT = 20
ATTEMPTS_PER_STATEMENT = 5000
ALERTS_PER_STATEMENT = 5000
# Of each run Dagster makes a folder, named after it.
_RUN_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")


class ChoresFailed(PipelineError):
    """Some kinds of rows could not be dropped; the others were."""


@dataclass(frozen=True, slots=True)
class Chore:
    """One kind of rows, and how those are dropped that are not kept.

    Attributes:
        name: as counts are told.
        what: in words, with how long they are kept.
        drop: counts them, and drops them unless it is told to count only.
    """

    name: str
    what: str
    drop: Callable[[bool], int]


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """All chores, one after the other."""

    chores: Sequence[Chore]

    def run(self, *, dry_run: bool = False, told: Callable[[str, int], None] | None = None) -> dict[str, int]:
        """Rows that were dropped, or would be, by chore. One that fails stops no other.

        Raises:
            ChoresFailed: at the end, naming those that failed.
        """
        counts: dict[str, int] = {}
        failed: list[str] = []
        for chore in self.chores:
            try:
                counts[chore.name] = chore.drop(dry_run)
            except Exception as error:  # noqa: BLE001 - the other kinds are none the worse for it
                log.error("%s could not be dropped (%s)", chore.name, type(error).__name__)  # noqa: TRY400 - no rows
                failed.append(f"{chore.name} ({type(error).__name__})")
            else:
                if told is not None:
                    told(chore.name, counts[chore.name])
        if failed:
            raise ChoresFailed(
                f"Not dropped: {', '.join(failed)}; the other kinds of rows were. Is the database well (ghl-pipeline "
                "doctor)? Then run again: ghl-pipeline db purge --yes"
            )
        return counts


def attempts_chore(engine: Engine, days: float) -> Chore:
    """Attempts at locations, but the newest ones."""
    what = f"attempts that ended more than {days:g} days ago, but the last {NEWEST_KEPT} of each location and work"
    return Chore("location_attempts", what, lambda dry_run: drop_old_attempts(engine, timedelta(days=days), dry_run))


def alerts_chore(engine: Engine, days: float) -> Chore:
    """Alerts that went to everybody."""
    what = f"alerts of more than {days:g} days ago that wait for no delivery"
    return Chore("alerts", what, lambda dry_run: drop_old_alerts(engine, timedelta(days=days), dry_run))


def previous_tokens_chore(engine: Engine) -> Chore:
    """Tokens from before a rotation, once GHL takes them no more."""

    def drop(dry_run: bool) -> int:
        with engine.begin() as connection:
            return forget_previous_tokens(connection, dry_run=dry_run)

    return Chore("previous_tokens", "tokens that were replaced more than 7 days ago", drop)


def run_events_chore(dagster: Engine, days: float) -> Chore:
    """Rows of Dagster's event log."""
    what = f"log lines and inner events of Dagster's runs that ended more than {days:g} days ago"
    return Chore(
        "dagster_events",
        what,
        lambda dry_run: drop_old_run_events(dagster, timedelta(days=days), dry_run=dry_run).rows,
    )


def history_chore(dagster: Engine, whole_days: float, daily_days: float) -> Chore:
    """Materializations and checkpoints of the past."""
    what = (
        f"materializations and checkpoints of more than {whole_days:g} days ago, but the last of each location and day "
        f"for {daily_days:g} days and the newest of each for ever"
    )
    kept = KeptHistory(timedelta(days=whole_days), timedelta(days=daily_days))
    return Chore("asset_history", what, lambda dry_run: thin_history(dagster, kept, dry_run=dry_run))


def evaluations_chore(dagster: Engine, days: float) -> Chore:
    """What checks said, but what they said last."""
    what = f"evaluations of checks of more than {days:g} days ago, but the latest of each check"
    return Chore(
        "check_evaluations", what, lambda dry_run: drop_old_evaluations(dagster, timedelta(days=days), dry_run=dry_run)
    )


def runs_chore(dagster: Engine, job: str, days: float) -> Chore:
    """Runs that nobody asked for and that went well, and all of a job, with what they said."""
    what = (
        f"runs that schedules and sensors started, and all of {job}, that ended well more than {days:g} days ago, but "
        "those that made the newest of a location"
    )
    return Chore("runs", what, lambda dry_run: drop_old_runs(dagster, job, timedelta(days=days), dry_run=dry_run))


def compute_logs_chore(home: Path, days: float) -> Chore:
    """What runs on this machine printed."""
    what = f"what runs printed on this machine more than {days:g} days ago (compute logs)"
    return Chore("compute_logs", what, lambda dry_run: drop_old_compute_logs(home, timedelta(days=days), dry_run))


def drop_old_attempts(engine: Engine, older_than: timedelta, dry_run: bool = False) -> int:
    """Drops attempts that ended longer ago, some thousands at a time; returns how many.

    Kept of each location and kind of work are the newest ones, the last that succeeded, whose record the next one goes
    on from, and, while none has, the first of all: what came since then no whole attempt has seen.
    """
    page = """
        SELECT id, capability, location_id, state, ended_at FROM location_attempts
        WHERE id > :after ORDER BY id LIMIT :size
    """
    old = f"""
        SELECT page.id FROM ({page}) AS page
        CROSS JOIN LATERAL (
            SELECT id FROM location_attempts
            WHERE capability = page.capability AND location_id = page.location_id
            ORDER BY id DESC OFFSET :newest - 1 LIMIT 1
        ) AS last_kept
        WHERE page.ended_at < now() - CAST(:older_than AS interval) AND page.id < last_kept.id
          AND (EXISTS (
                  SELECT FROM location_attempts AS newer
                  WHERE newer.capability = page.capability AND newer.location_id = page.location_id
                    AND newer.id > page.id AND newer.state = 'succeeded')
               OR (page.state <> 'succeeded' AND EXISTS (
                  SELECT FROM location_attempts AS older
                  WHERE older.capability = page.capability AND older.location_id = page.location_id
                    AND older.id < page.id)))
    """  # noqa: S608 - the page above
    bounds = text(f"""
        SELECT max(id) AS last, bool_or(ended_at < now() - CAST(:older_than AS interval)) AS any_old
        FROM ({page}) AS page
    """)  # noqa: S608 - the page above
    count = text(f"SELECT count(*) FROM ({old}) AS old")  # noqa: S608 - the query above
    drop = text(f"DELETE FROM location_attempts WHERE id IN ({old})")  # noqa: S608 - the query above
    dropped, after = 0, 0
    while True:
        values = {
            "after": after,
            "size": ATTEMPTS_PER_STATEMENT,
            "older_than": older_than,
            "newest": NEWEST_KEPT,
        }
        with engine.begin() as connection:
            found = connection.execute(bounds, values).one()
            # Ids grow with time: where a whole page is young, the rest is.
            if not found.any_old:
                return dropped
            if dry_run:
                dropped += int(connection.execute(count, values).scalar_one())
            else:
                dropped += connection.execute(drop, values).rowcount
        after = found.last


def drop_old_alerts(engine: Engine, older_than: timedelta, dry_run: bool = False) -> int:
    """Drops alerts of longer ago, with their deliveries, unless one of these still waits; returns how many.

    What alerts remember of an error that nobody saw since then goes too, so that it does not grow with every client and
    every error that there ever was.
    """
    old = """
        SELECT id FROM alerts AS alert
        WHERE made_at < now() - CAST(:older_than AS interval)
          AND NOT EXISTS (SELECT FROM alert_deliveries WHERE alert_id = alert.id AND state = 'waiting')
    """
    values = {"older_than": older_than, "size": ALERTS_PER_STATEMENT}
    if dry_run:
        with engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM ({old}) AS old"), values).scalar_one())  # noqa: S608
    with engine.begin() as connection:
        connection.execute(
            text("DELETE FROM alert_memory WHERE seen_at < now() - CAST(:older_than AS interval)"), values
        )
    drop = text(f"DELETE FROM alerts WHERE id IN ({old} ORDER BY id LIMIT :size)")  # noqa: S608 - the query above
    dropped = 0
    while True:
        with engine.begin() as connection:
            gone = connection.execute(drop, values).rowcount
        dropped += gone
        if gone < ALERTS_PER_STATEMENT:
            return dropped


def drop_old_compute_logs(home: Path, older_than: timedelta, dry_run: bool = False) -> int:
    """Drops the folders of runs to which nothing was written for longer; returns how many."""
    folder = home / "compute_logs"
    written_before = time.time() - older_than.total_seconds()
    old = [
        each
        for each in (folder.iterdir() if folder.is_dir() else ())
        if _RUN_ID.fullmatch(each.name) and each.stat().st_mtime < written_before
    ]
    if not dry_run:
        for each in old:
            shutil.rmtree(each)
    return len(old)
