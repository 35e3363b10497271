"""What the tests of a location's row share: reservations as a process makes them, and a clock to put forward."""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import Engine, text

from ghl_pipeline.ghl.throttle_row import BURST, GUARD, Lease, Limits, register, reserve

LOCATION = "L"
ROUNDING = 1e-5  # seconds; times are epoch seconds in double precision
SPREAD = 10 * (1 + GUARD) / BURST  # the seconds over which the slots of a window of 10 s come


def reserved(engine: Engine, count: int, limits: Limits, *, interactive: bool = False) -> Lease:
    """A lease of the location, which is registered, as every process does first."""
    register(engine, LOCATION, limits)
    lease = reserve(engine, LOCATION, count, limits, is_interactive=interactive)
    assert lease is not None
    return lease


def waits(leases: Sequence[Lease]) -> list[float]:
    """Seconds from each reservation to its slots."""
    return [max(0.0, at - lease.now) for lease in leases for at in lease.slots]


def forget(engine: Engine) -> None:
    """As if no process had ever been there."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM location_throttle"))


def let_pass(engine: Engine, seconds: float) -> None:
    """Ages the row, as if the clock had gone on."""
    aged = "ARRAY(SELECT at - :seconds FROM unnest({}) WITH ORDINALITY AS s (at, nth) ORDER BY nth)"
    with engine.begin() as connection:
        connection.execute(
            text(f"""
                UPDATE location_throttle SET
                    slots = {aged.format("slots")},
                    interactive_slots = {aged.format("interactive_slots")},
                    asked_until = asked_until - :seconds,
                    blocked_until = blocked_until - :seconds
            """),
            {"seconds": seconds},
        )


def row_of(engine: Engine, column: str) -> int:
    """A number in the row."""
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT {column} FROM location_throttle")).scalar_one())


def lane_of(engine: Engine, column: Literal["slots", "interactive_slots"]) -> list[float]:
    """The slots that a lane remembers, in its order; 0 stands for what was long ago."""
    with engine.connect() as connection:
        return list(connection.execute(text(f"SELECT {column} FROM location_throttle")).scalar_one())


def database_now(engine: Engine) -> float:
    """The clock that slots are on, epoch seconds."""
    with engine.connect() as connection:
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())::float8")).scalar_one())
