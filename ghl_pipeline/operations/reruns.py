"""Which locations are asked for again now: those whose pause is over, and after an outage those that waited for it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine, text

from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.operations.slow_start import MANY, WORKS_AFTER_SECONDS, Round, next_round
from ghl_pipeline.orchestration.asked_runs import Work
from ghl_pipeline.orchestration.in_hand import in_hand

# So many locations overlap well in one process, and so many runs are started in one look at most.
LOCATIONS_PER_RUN: Final = 250
MOST_AT_ONCE: Final = 1000
# A request that got lost (the daemon died between writing this and starting the run) is made again after this long;
# while a run for the location is queued or under way it is not.
LEASE_MINUTES: Final = 10
# A location that ended its process three times goes alone, so that it does not take others with it.
KILLED_OFTEN: Final = 3


@dataclass(frozen=True, slots=True)
class Rerunnable:
    """How a kind of work is asked for.

    Attributes:
        work: its job and assets.
        op: the job's op, whose configuration has `locations`.
        askable: the locations at which it is wanted at all.
        config: what else the op is told.
    """

    work: Work
    op: str
    askable: Callable[[Connection], Collection[str]]
    config: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The locations to ask for now, a list for each run; and how many others wait for their time or for a round."""

    runs: tuple[tuple[str, ...], ...] = ()
    waiting: int = 0
    held_up: bool = False

    @property
    def locations(self) -> int:
        """How many are asked for."""
        return sum(map(len, self.runs))


def choose(
    engine: Engine,
    capability: str,
    askable: Callable[[Connection], Collection[str]],
    runs: Mapping[str, Collection[str]],
) -> Chosen:
    """Chooses who is asked for again, and notes that they are.

    Whoever asks at the same time waits for this and then finds them asked for. What is noted is a lease and not the end
    of it: if no run comes of it, they are chosen again.

    Args:
        engine: the dashboard database.
        capability: the work.
        askable: the locations at which it is wanted.
        runs: of this work, queued or running: run id and the locations it was given.
    """
    with engine.begin() as connection:
        connection.execute(_LOCK, {"capability": capability})
        # Where this was switched off, nobody waits for it, and it must not take the place of others in a round. It is
        # looked at again after a lease.
        unwell = connection.execute(_IS_ANY_UNWELL, {"capability": capability}).scalar_one()
        wanted = as_json_list(sorted(askable(connection)) if unwell else [])
        connection.execute(_PUT_OFF, {"capability": capability, "wanted": wanted})
        waiting = connection.execute(_WAITING, {"capability": capability, "wanted": wanted}).one()
        latest = _latest_round(connection, capability)
        slowly = waiting.transient > MANY
        most = min(next_round(latest[0] if latest else None), MOST_AT_ONCE) if slowly else MOST_AT_ONCE
        # Who failed before the round that went well need not wait any longer; who failed since has a pause of its own.
        early = latest[1] if latest and latest[0].went_well else None
        values = {
            "capability": capability,
            "wanted": wanted,
            "left_alone": as_json_list(sorted(in_hand(connection, capability, runs))),
            "early": early,
            "most": most,
        }
        asked = connection.execute(_CANDIDATES, values).all() if most and waiting.all else []
        if asked:
            locations = as_json_list(sorted(row.location_id for row in asked))
            connection.execute(_LEASE, {"capability": capability, "locations": locations})
        if slowly and asked:
            connection.execute(_BEGIN_ROUND, {"capability": capability})
        elif latest and not slowly:
            connection.execute(_END_ROUNDS, {"capability": capability})
        alone = [row.location_id for row in asked if row.cause == "killed" and row.failures >= KILLED_OFTEN]
        others = [row.location_id for row in asked if row.location_id not in set(alone)]
    batches = [tuple(others[at : at + LOCATIONS_PER_RUN]) for at in range(0, len(others), LOCATIONS_PER_RUN)]
    return Chosen((*batches, *((each,) for each in alone)), waiting.all - len(asked), slowly)


def _latest_round(connection: Connection, capability: str) -> tuple[Round, datetime] | None:
    row = connection.execute(_ROUND, {"capability": capability, "works_after": WORKS_AFTER_SECONDS}).one_or_none()
    if row is None:
        return None
    return Round(row.asked, row.good, row.bad, float(row.seconds), row.newly_failing), row.asked_at


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('ghl_pipeline reruns of ' || :capability, 0))")
_UNWELL = "capability = :capability AND cause IS NOT NULL AND state <> 'running' AND rerun_at IS NOT NULL"
_IS_WANTED = "location_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:wanted AS json))))"
_IS_ANY_UNWELL = text(f"SELECT EXISTS (SELECT FROM location_standings WHERE {_UNWELL})")  # noqa: S608 - ours
_PUT_OFF = text(f"""
    UPDATE location_standings SET rerun_at = now() + make_interval(mins => {LEASE_MINUTES})
    WHERE {_UNWELL} AND rerun_at <= now() AND NOT {_IS_WANTED}
      AND location_id IN (SELECT location_id FROM clients WHERE active)
""")  # noqa: S608 - conditions of ours
_WAITING = text(f"""
    SELECT count(*) AS all, count(*) FILTER (WHERE cause = 'transient') AS transient
    FROM location_standings WHERE {_UNWELL} AND {_IS_WANTED}
""")  # noqa: S608 - a condition of ours
_END_ROUNDS = text("DELETE FROM rerun_rounds WHERE capability = :capability")
_BEGIN_ROUND = text("""
    INSERT INTO rerun_rounds (capability, asked_at) VALUES (:capability, now())
    ON CONFLICT (capability) DO UPDATE SET asked_at = excluded.asked_at
""")
# A rerun that ends in a refusal, the quota or a bug was answered all the same; one that was killed says nothing.
_ROUND = text("""
    SELECT round.asked_at, extract(epoch FROM now() - round.asked_at) AS seconds,
           count(*) FILTER (WHERE mine AND NOT (ended AND cause IN ('killed', 'stopped'))) AS asked,
           count(*) FILTER (WHERE mine AND (
               (ended AND cause NOT IN ('transient', 'killed', 'stopped')) OR works)) AS good,
           count(*) FILTER (WHERE mine AND ended AND cause = 'transient') AS bad,
           count(*) FILTER (WHERE NOT mine AND cause = 'transient' AND failing_since > round.asked_at) AS newly_failing
    FROM rerun_rounds AS round
    LEFT JOIN LATERAL (
        SELECT coalesce(cause, 'none') AS cause, failing_since, requested_at = round.asked_at IS TRUE AS mine,
               state <> 'running' AND ended_at > round.asked_at AS ended,
               state = 'running' AND began_at > round.asked_at
                   AND began_at < now() - make_interval(secs => :works_after) AS works
        FROM location_standings AS standing WHERE standing.capability = round.capability
    ) AS standing ON true
    WHERE round.capability = :capability GROUP BY round.asked_at
""")
_CANDIDATES = text(f"""
    SELECT standing.location_id, standing.cause, standing.failures
    FROM location_standings AS standing WHERE {_UNWELL} AND {_IS_WANTED}
      AND (rerun_at <= now() OR (
          cause = 'transient' AND ended_at < CAST(:early AS timestamptz)
          -- Asked for already, and not heard of yet.
          AND coalesce(requested_at < ended_at, true)))
      AND location_id <> ALL(ARRAY(SELECT json_array_elements_text(CAST(:left_alone AS json))))
    -- What somebody waits for (a new token) first; then who was not asked for the longest, so that all have their turn.
    ORDER BY (cause = 'transient'), requested_at NULLS FIRST, rerun_at, location_id
    LIMIT :most
""")  # noqa: S608 - a condition of ours
_LEASE = text(f"""
    UPDATE location_standings
    SET rerun_at = now() + make_interval(mins => {LEASE_MINUTES}),
        requested_at = now(), reruns = reruns + 1
    WHERE capability = :capability
      AND location_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:locations AS json))))
""")  # noqa: S608 - a constant of ours
