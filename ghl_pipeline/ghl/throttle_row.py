"""A location's row in `location_throttle`: the arithmetic of its slots, in SQL and on the database's clock.

The row has two lanes, each a list of slot times. Everybody's lane (`slots`) holds no more than what the process asks
for, and leaves the last few slots of GHL's limit to the interactive lane (`interactive_slots`). The slot N after a slot
lies at least one window later, so no sliding window can hold more than N; that goes for each lane, and for both
together with the sum of their limits.

Three limits hold at once, and none of them is forgotten when a process starts or ends:

- what the process asks for: stated with every reservation;
- what GHL's headers said last: kept in the row until they say something else;
- the lowest that any process asked for: kept in the row until one window after the last slot given under it, so that of
  two processes that ask for different limits the lower one wins as long as both are about.

One statement here per thing that can happen to the row; when it does is `throttle.py`.
"""

import time
from dataclasses import dataclass

from sqlalchemy import Engine, text

# Windows are kept this much longer than GHL's: the jitter that a request may have between its slot and its arrival.
GUARD = 0.015
# 100 in 10 s, as GHL's documentation has it; counted on until its headers have spoken.
DOCUMENTED_PER_SECOND = 10.0
# A window's slots come at most this many times as fast as they may in the long run. All at once, twenty locations would
# send 500 requests in one moment; whatever that jams, here or there, makes some arrive a second late, and with those
# of the next window they are too many.
BURST = 4
# A process knows of a 429 told to another after this long, see `throttle.py`.
RECHECK_AFTER_SECONDS = 0.25
# After twice that, nobody can be using a slot any more that a 429 or a lower limit has made void.
_VOID_AFTER_SECONDS = 2 * RECHECK_AFTER_SECONDS
# Remembered beyond the limit: what ten processes may be promised ahead. With more, interactive work gets everybody's.
_REMEMBERED_AHEAD = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process asks for: `max_requests` in any `interval_seconds`, and `max_per_day` in a UTC day.

    `interactive` slots of GHL's limit per interval are kept for interactive work, at most a fifth of it. They come out
    of what GHL allows beyond `max_requests`, and only then out of `max_requests`. 0 keeps none.
    """

    max_requests: int
    interval_seconds: float
    max_per_day: int
    interactive: int = 5


@dataclass(frozen=True, slots=True)
class Learned:
    """What GHL's headers say the limit is."""

    max_requests: int
    interval_seconds: float


@dataclass(frozen=True, slots=True)
class Lease:
    """Slots that were reserved, ascending, and the row as it was then."""

    slots: list[float]  # epoch seconds on the database clock
    now: float  # the same clock
    asked_at: float  # time.monotonic() when it was asked for: `now` is no earlier
    answered_at: float  # time.monotonic() when the answer was there: `now` is no later
    epoch: int
    learned: Learned | None


# A row that is there stays as it is: what was learned and given out counts for whoever comes.
_REGISTER = text("""
    INSERT INTO location_throttle
        (location_id, asked_max_requests, asked_interval_seconds, day, max_per_day)
    VALUES
        (:location_id, :max_requests, :interval_seconds, (clock_timestamp() AT TIME ZONE 'UTC')::date, :max_per_day)
    ON CONFLICT (location_id) DO NOTHING
""")

# Slot i is due one window after slot i-N, for each of the limits, and never before the one before it, the end of a
# block, or now. The clock is read inside the row's own subquery, so that it is read again when the statement had to
# wait for another process. LEAST and GREATEST pass over nulls: nothing learned is no limit. OFFSET 0 keeps the steps
# apart: without it PostgreSQL writes the expressions of each into all that follow, which took it 3.1 ms to plan instead
# of 0.7, and 0.37 ms to run instead of 0.20.
_RESERVE = text("""
    UPDATE location_throttle AS t SET
        (slots, interactive_slots, leased, asked_max_requests, asked_interval_seconds, asked_until,
         day, used_today, max_per_day) = (
            SELECT
                CASE WHEN lane.is_taken THEN t.slots ELSE memory.slots[lease.size + 1 :] || given.slots END,
                CASE WHEN lane.is_taken THEN kept.slots[2 :] || lane.slot ELSE t.interactive_slots END,
                CASE WHEN lane.is_taken THEN 0 ELSE lease.size END,
                CASE WHEN asked.is_ours THEN :max_requests ELSE t.asked_max_requests END,
                CASE WHEN asked.is_ours THEN :interval_seconds ELSE t.asked_interval_seconds END,
                CASE WHEN asked.is_ours
                     THEN GREATEST(t.asked_until, given.slots[lease.size] + :interval_seconds * :window)
                     ELSE t.asked_until END,
                clock.day,
                clock.used_today + lease.size,
                :max_per_day
            FROM (
                SELECT extract(epoch FROM at)::double precision AS now,
                       (at AT TIME ZONE 'UTC')::date AS day,
                       CASE WHEN t.day = (at AT TIME ZONE 'UTC')::date THEN t.used_today ELSE 0 END AS used_today
                FROM (SELECT clock_timestamp() AS at) AS reading
                OFFSET 0
            ) AS clock
            -- In GHL's window: what GHL allows, and our share of it.
            CROSS JOIN LATERAL (
                SELECT COALESCE(t.learned_max_requests,
                                GREATEST(:max_requests, floor(:documented * seconds)::integer)) AS allowed,
                       GREATEST(1, floor(:max_requests * (seconds / :interval_seconds))::integer) AS ours,
                       seconds * :window AS width
                FROM (SELECT COALESCE(t.learned_interval_seconds, :interval_seconds) AS seconds) AS theirs
                OFFSET 0
            ) AS ghl
            -- What of it is kept for interactive work, and what remains for everybody; at least one.
            CROSS JOIN LATERAL (
                SELECT kept, LEAST(ghl.ours, ghl.allowed - kept) AS everybody
                FROM (SELECT LEAST(:interactive, GREATEST(1, LEAST(ghl.ours, ghl.allowed) / 5), ghl.allowed - 1) AS kept
                     ) AS share
                OFFSET 0
            ) AS share
            -- The memory only grows. What it has forgotten is at least as old as its oldest slot, so it is padded with
            -- that one: nothing given out becomes free again, whatever the limits were in between.
            CROSS JOIN LATERAL (
                SELECT array_fill(COALESCE(t.slots[1], 0), ARRAY[GREATEST(0, size - cardinality(t.slots))])
                           || t.slots AS slots,
                       GREATEST(size, cardinality(t.slots)) AS size
                FROM (SELECT GREATEST(:max_requests, share.everybody + share.kept + :ahead) AS size) AS needed
                OFFSET 0
            ) AS memory
            -- Twice the lane: then the oldest that is remembered lies a window back and is in nobody's way.
            CROSS JOIN LATERAL (
                SELECT array_fill(COALESCE(t.interactive_slots[1], 0),
                                  ARRAY[GREATEST(0, size - cardinality(t.interactive_slots))])
                           || t.interactive_slots AS slots,
                       GREATEST(size, cardinality(t.interactive_slots)) AS size
                FROM (SELECT 2 * :interactive AS size) AS needed
                OFFSET 0
            ) AS kept
            CROSS JOIN LATERAL (
                SELECT array_agg(slot ORDER BY slot) AS slots,
                       share.everybody + share.kept AS most,
                       memory.size + kept.size - share.everybody - share.kept AS outside,
                       COALESCE(kept.slots[1], 0) AS kept_since
                FROM unnest(memory.slots || kept.slots) AS slot
                OFFSET 0
            ) AS both_lanes
            -- What is left of the day; and no slot may depend on another one of the same lease.
            CROSS JOIN LATERAL (
                SELECT LEAST(:count, :max_requests, share.everybody, t.asked_max_requests,
                             :max_per_day - clock.used_today) AS size
                OFFSET 0
            ) AS lease
            -- Each a little after the one before, so that what a window holds does not come in one moment.
            CROSS JOIN LATERAL (
                SELECT array_agg(slot ORDER BY nth) AS slots
                FROM (
                    SELECT nth, max(soonest - nth * apart) OVER (ORDER BY nth) + nth * apart AS slot
                    FROM (SELECT ghl.width / (share.everybody * :burst) AS apart) AS spread
                    CROSS JOIN LATERAL (
                        SELECT nth, GREATEST(
                            clock.now,
                            t.blocked_until,
                            memory.slots[memory.size] + apart,
                            memory.slots[memory.size - :max_requests + nth] + :interval_seconds * :window,
                            memory.slots[memory.size - share.everybody + nth] + ghl.width,
                            GREATEST(both_lanes.slots[both_lanes.outside + nth], both_lanes.kept_since) + ghl.width,
                            LEAST(t.asked_until, memory.slots[memory.size - t.asked_max_requests + nth]
                                                     + t.asked_interval_seconds * :window)
                        ) AS soonest
                        FROM generate_series(1, lease.size) AS nth
                    ) AS free
                ) AS spaced
                OFFSET 0
            ) AS given
            -- A slot of the interactive lane may lie before some that are promised already, so every window that it
            -- would be in is counted: the one that ends with it, and those that end with a later slot. A window that
            -- reaches back to before what is remembered may hold anything.
            CROSS JOIN LATERAL (
                SELECT slot, COALESCE(
                    CASE WHEN :is_interactive AND share.kept > 0 AND slot <= given.slots[1] THEN NOT EXISTS (
                        SELECT FROM unnest(both_lanes.slots || slot) AS ending
                        WHERE ending >= slot AND ending < slot + ghl.width
                          AND (GREATEST(memory.slots[1], kept.slots[1]) > ending - ghl.width
                               OR both_lanes.most <= (SELECT count(*) FROM unnest(both_lanes.slots) AS other
                                                      WHERE other > ending - ghl.width AND other <= ending))
                    ) END, false) AS is_taken
                FROM (SELECT GREATEST(clock.now, t.blocked_until, kept.slots[kept.size],
                                      kept.slots[kept.size - share.kept + 1] + ghl.width) AS slot) AS next
                OFFSET 0
            ) AS lane
            -- Ours is the lowest that is asked for when it is the lower one, or when nobody's lower one holds any more.
            CROSS JOIN LATERAL (
                SELECT NOT lane.is_taken
                   AND (given.slots[lease.size] >= t.asked_until
                        OR :max_requests / :interval_seconds <= t.asked_max_requests / t.asked_interval_seconds
                       ) AS is_ours
                OFFSET 0
            ) AS asked
        )
    WHERE t.location_id = :location_id
      AND :max_per_day > CASE WHEN t.day = (clock_timestamp() AT TIME ZONE 'UTC')::date THEN t.used_today ELSE 0 END
    RETURNING
        CASE WHEN t.leased = 0 THEN t.interactive_slots[cardinality(t.interactive_slots) :]
             ELSE t.slots[cardinality(t.slots) - t.leased + 1 :] END,
        extract(epoch FROM clock_timestamp())::double precision,
        t.epoch, t.learned_max_requests, t.learned_interval_seconds
""")

# With the epoch bumped, what is promised for later is void in every process, and given back here; the oldest slot stays
# in any case: it stands for what is forgotten.
_LEARN = text("""
    UPDATE location_throttle AS t
    SET learned_max_requests = :max_requests,
        learned_interval_seconds = :interval_seconds,
        learned_at = clock_timestamp(),
        (epoch, slots, interactive_slots) = (
            SELECT t.epoch + is_lower::integer,
                   ARRAY(SELECT at FROM unnest(t.slots) WITH ORDINALITY AS s (at, nth)
                         WHERE nth = 1 OR NOT is_lower OR at < void_from ORDER BY nth),
                   ARRAY(SELECT at FROM unnest(t.interactive_slots) WITH ORDINALITY AS s (at, nth)
                         WHERE nth = 1 OR NOT is_lower OR at < void_from ORDER BY nth)
            FROM (
                SELECT extract(epoch FROM clock_timestamp()) + :void_after AS void_from,
                       :max_requests / :interval_seconds
                           < COALESCE(t.learned_max_requests / t.learned_interval_seconds,
                                      GREATEST(t.asked_max_requests / t.asked_interval_seconds, :documented))
                       AS is_lower
            ) AS news
        )
    WHERE location_id = :location_id
      AND (learned_max_requests, learned_interval_seconds) IS DISTINCT FROM (:max_requests, :interval_seconds)
    RETURNING epoch
""")

_BLOCK = text("""
    UPDATE location_throttle AS t
    SET refusals = t.refusals + 1,
        (epoch, blocked_until, slots, interactive_slots) = (
            SELECT t.epoch + 1,
                   GREATEST(t.blocked_until, now + :pause),
                   ARRAY(SELECT at FROM unnest(t.slots) WITH ORDINALITY AS s (at, nth)
                         WHERE nth = 1 OR at < now + :void_after ORDER BY nth),
                   ARRAY(SELECT at FROM unnest(t.interactive_slots) WITH ORDINALITY AS s (at, nth)
                         WHERE nth = 1 OR at < now + :void_after ORDER BY nth)
            FROM (SELECT extract(epoch FROM clock_timestamp())::double precision AS now) AS clock
        )
    WHERE location_id = :location_id
    RETURNING epoch
""")

# Slots of the interactive lane may be the same moment, so just one of them is moved. A slot that is not there any more
# was void; its request went out all the same, so where it went is put down. The oldest stands for what is forgotten: it
# may become later, but neither go nor be preceded.
_MOVE = text("""
    UPDATE location_throttle AS t
    SET (slots, interactive_slots, used_today) = (
            SELECT CASE WHEN is_kept THEN t.slots
                        ELSE ARRAY(SELECT slot FROM unnest(
                                 t.slots[: COALESCE(nth, 1) - 1] || t.slots[COALESCE(nth, 0) + 1 :]
                                 || array_remove(ARRAY[CASE WHEN is_returned
                                                            THEN CASE WHEN nth = 1 THEN place.at END
                                                            ELSE GREATEST(moved_to, t.slots[1]) END], NULL)
                             ) AS slot ORDER BY slot)
                   END,
                   CASE WHEN is_kept
                        THEN ARRAY(SELECT slot FROM unnest(
                                 t.interactive_slots[: kept_nth - 1] || t.interactive_slots[kept_nth + 1 :]
                                 || array_remove(ARRAY[CASE WHEN is_returned
                                                            THEN CASE WHEN kept_nth = 1 THEN place.at END
                                                            ELSE moved_to END], NULL)
                             ) AS slot ORDER BY slot)
                        ELSE t.interactive_slots END,
                   GREATEST(0, t.used_today - is_returned::integer)
            FROM (
                SELECT at, moved_to, nth, kept_nth,
                       nth IS NULL AND kept_nth IS NOT NULL AS is_kept, moved_to IS NULL AS is_returned
                FROM (SELECT CAST(:at AS double precision) AS at, CAST(:moved_to AS double precision) AS moved_to
                     ) AS told
                CROSS JOIN LATERAL (SELECT array_position(t.slots, told.at) AS nth,
                                           array_position(t.interactive_slots, told.at) AS kept_nth) AS found
            ) AS place
        )
    WHERE location_id = :location_id
""")

# What a process needs to know to use a slot later than it was promised; nobody is given another one meanwhile.
_LATE = text("""
    SELECT extract(epoch FROM clock_timestamp())::double precision AS now, epoch, blocked_until,
           LEAST(:max_requests, asked_max_requests, learned_max_requests) AS most,
           (SELECT count(*) FROM unnest(slots) AS other WHERE other > :at) AS later,
           (SELECT count(*) FROM unnest(interactive_slots) AS other WHERE other > :at) AS later_kept,
           array_position(slots, :at) IS NOT NULL AS is_everybodys,
           array_position(interactive_slots, :at) IS NOT NULL AS is_kept
    FROM location_throttle WHERE location_id = :location_id FOR UPDATE
""")

_EPOCH = text("SELECT epoch FROM location_throttle WHERE location_id = :location_id")


def register(engine: Engine, location_id: str, limits: Limits) -> None:
    """Makes the location's row if there is none yet."""
    values = {"location_id": location_id, "max_per_day": limits.max_per_day}
    with engine.begin() as connection:
        connection.execute(_REGISTER, values | _limit(limits))


def reserve(
    engine: Engine, location_id: str, count: int, limits: Limits, *, is_interactive: bool = False
) -> Lease | None:
    """Reserves the next slots of a location that is registered.

    Args:
        engine: of the database with the row.
        location_id: whose row.
        count: how many slots; fewer are given when a window or the day has no more.
        limits: what this process asks for.
        is_interactive: reserve one slot, of the interactive lane when that comes no later than one of everybody's.

    Returns:
        The slots, at least one; None when the day is used up.
    """
    values = {
        "location_id": location_id,
        "count": 1 if is_interactive else count,
        "is_interactive": is_interactive,
        "interactive": limits.interactive,
        "max_per_day": limits.max_per_day,
        "window": 1 + GUARD,
        "documented": DOCUMENTED_PER_SECOND,
        "ahead": _REMEMBERED_AHEAD,
        "burst": BURST,
        **_limit(limits),
    }
    with engine.begin() as connection:
        asked_at = time.monotonic()
        row = connection.execute(_RESERVE, values).one_or_none()
        answered_at = time.monotonic()
    if row is None:
        return None
    learned = None if row[3] is None else Learned(max_requests=row[3], interval_seconds=row[4])
    return Lease(list(row[0]), row[1], asked_at, answered_at, row[2], learned)


def learn(engine: Engine, location_id: str, learned: Learned) -> int | None:
    """Keeps what GHL's headers say; slots that were promised under a higher limit are void.

    Returns:
        The epoch from now on; None when the row had it already.
    """
    values = {"location_id": location_id, "documented": DOCUMENTED_PER_SECOND, "void_after": _VOID_AFTER_SECONDS}
    with engine.begin() as connection:
        return connection.execute(_LEARN, values | _limit(learned)).scalar_one_or_none()


def block(engine: Engine, location_id: str, pause_seconds: float) -> int:
    """Gives no slot for `pause_seconds`; those that are promised are void. Returns the epoch from now on."""
    values = {"location_id": location_id, "pause": pause_seconds, "void_after": _VOID_AFTER_SECONDS}
    with engine.begin() as connection:
        return int(connection.execute(_BLOCK, values).scalar_one())


def move(engine: Engine, location_id: str, at: float, moved_to: float | None) -> None:
    """Moves a slot to when its request really left; None gives it back unused. Epoch seconds, as in the lease.

    A void slot must not be given back: the row has given that up, and may have promised the same moment anew.
    """
    values = {"location_id": location_id, "at": at, "moved_to": moved_to}
    with engine.begin() as connection:
        connection.execute(_MOVE, values)


def use_late(engine: Engine, location_id: str, at: float, epoch: int, max_requests: int) -> Lease | None:
    """Makes a slot that was missed one of now, where nothing that was promised since depends on when it was.

    The slot N after it lies a window later. As long as that one is not given out yet, moving ours moves it too, and no
    window holds more than N. Half of N is what is allowed here, so that requests under way do not come near it.

    Args:
        engine: of the database with the row.
        location_id: whose row.
        at: when the slot was, epoch seconds, as in the lease.
        epoch: of that lease.
        max_requests: what this process asks for in a window.

    Returns:
        A lease of one slot, that of now; None when the slot is void, or others may depend on it: give it back.
    """
    with engine.begin() as connection:
        asked_at = time.monotonic()
        values = {"location_id": location_id, "at": at, "max_requests": max_requests}
        row = connection.execute(_LATE, values).one_or_none()
        answered_at = time.monotonic()
        if row is None or row.epoch != epoch or row.blocked_until > row.now or row.now < at:
            return None
        is_free = (row.is_everybodys and 2 * (row.later + row.later_kept) < row.most) or (
            row.is_kept and not row.is_everybodys and row.later_kept == 0 and 2 * row.later < row.most
        )
        if not is_free:
            return None
        connection.execute(_MOVE, {"location_id": location_id, "at": at, "moved_to": row.now})
    return Lease([row.now], row.now, asked_at, answered_at, epoch, None)


def current_epoch(engine: Engine, location_id: str) -> int:
    """The epoch now; slots of an older one are void."""
    # Committed: on a rollback psycopg drops what is prepared on the connection, the reservation too.
    with engine.begin() as connection:
        return int(connection.execute(_EPOCH, {"location_id": location_id}).scalar_one())


def _limit(limits: Limits | Learned) -> dict[str, int | float]:
    """The limit as parameters; a whole number of seconds, too, is divided as a fraction."""
    return {"max_requests": limits.max_requests, "interval_seconds": float(limits.interval_seconds)}
