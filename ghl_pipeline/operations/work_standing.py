"""How the latest work of one kind ended at a location, and what becomes of it: for people and for checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from ghl_pipeline.ghl.errors import DailyQuotaReached
from ghl_pipeline.operations.streams import BY_CAPABILITY


@dataclass(frozen=True, slots=True)
class WorkStanding:
    """One row of `location_standings`. Times are UTC; None where there was none.

    `state` is that of the latest attempt: running, succeeded, failed or interrupted. `error` is safe to show.
    `rerun_at`: when it is asked for again; None: not by itself.
    """

    state: str
    began_at: datetime | None = None
    ended_at: datetime | None = None
    succeeded_at: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    error_class: str | None = None
    error: str | None = None
    permanent: bool = False
    rerun_at: datetime | None = None
    keeps_itself: bool = False

    @property
    def waits_for_quota(self) -> bool:
        """Whether the day's requests were used up, which ends by itself and is nobody's failure."""
        return self.state == "failed" and self.error_class == DailyQuotaReached.__name__

    @property
    def has_failed(self) -> bool:
        """Whether the latest attempt that ended failed or was cut short, so that its partition is not done.

        Also while the next attempt runs: what has failed for a week is not well for the seconds of a try.
        """
        if self.state == "running":
            return self.failing_since is not None
        return self.state in {"failed", "interrupted"} and not self.waits_for_quota

    @property
    def is_held(self) -> bool:
        """Whether nothing tries it again before a person has acted."""
        if self.state == "running" or not self.has_failed:
            return False
        return self.permanent if self.keeps_itself else self.rerun_at is None

    @property
    def reason(self) -> str:
        """The class of the error, or how it ended where there is none."""
        return self.error_class or self.state

    @property
    def waiting(self) -> str | None:
        """What becomes of it; None when there is nothing to wait for.

        `held: what to do`; `again at HH:MM UTC`; or `due since HH:MM UTC`, when it waits for others to find out whether
        GHL is back, for its run, or for somebody to switch reruns on.
        """
        if self.is_held:
            return f"held: {self.error or 'it was cut short; ask for it again'}"
        if self.rerun_at is None or self.state not in {"failed", "interrupted"}:
            return None
        return f"{'again at' if self.rerun_at > datetime.now(UTC) else 'due since'} {clock(self.rerun_at)}"


def clock(at: datetime) -> str:
    """A time for people: `14:05 UTC`, with the day where it is not today's."""
    at = at.astimezone(UTC)
    return f"{at:%H:%M} UTC" if at.date() == datetime.now(UTC).date() else f"{at:%m-%d %H:%M} UTC"


def read_standings(connection: Connection, location_id: str | None = None) -> dict[str, dict[str, WorkStanding]]:
    """By location and then by capability, of the known kinds of work; of all locations, or of one."""
    query = text("""
        SELECT location_id, capability, state, began_at, ended_at, succeeded_at, failures, failing_since, error_class,
               error_text, permanent, rerun_at
        FROM location_standings
        WHERE capability = ANY(CAST(:capabilities AS text[]))
          AND (CAST(:location_id AS text) IS NULL OR location_id = :location_id)
    """)
    found: dict[str, dict[str, WorkStanding]] = {}
    for row in connection.execute(query, {"capabilities": list(BY_CAPABILITY), "location_id": location_id}):
        found.setdefault(row.location_id, {})[row.capability] = WorkStanding(
            state=row.state,
            began_at=row.began_at,
            ended_at=row.ended_at,
            succeeded_at=row.succeeded_at,
            failures=row.failures,
            failing_since=row.failing_since,
            error_class=row.error_class,
            error=row.error_text,
            permanent=bool(row.permanent),
            rerun_at=row.rerun_at,
            keeps_itself=BY_CAPABILITY[row.capability].keeps_itself,
        )
    return found


def in_order(standings: Mapping[str, WorkStanding]) -> dict[str, WorkStanding]:
    """By capability, in the order in which the kinds of work are listed everywhere."""
    return {name: standings[name] for name in BY_CAPABILITY if name in standings}
