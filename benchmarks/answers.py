"""How long until a lead that answers is in the dashboard, and until it is repaired, with `ghl-pipeline dev`.

The demo is served from a home folder of its own. People whom only GHL knows write SMS, one after the other at times
that fit no rhythm of the sensor; each is timed from the moment before the sandbox sends it to the moment at which
another session sees the message, and its lead with phone and name.
"""

import random
import statistics
import time
from dataclasses import dataclass
from typing import Final

import httpx
from sqlalchemy import text

from benchmarks.harness import BenchmarkFailed, Results, read_options
from benchmarks.served import Served, served
from ghl_pipeline.cli.dev import FIRST_SAMPLE

ANSWERS: Final = 10
ANSWERS_FULL: Final = 40
REPAIR_WITHIN_SECONDS: Final = 60.0
# Longer than a run lingers for more events, so that most answers have to wait for a run to start.
PAUSE_SECONDS: Final = (7.0, 16.0)

_LOCATIONS = text("SELECT location_id FROM clients ORDER BY id")
_STATE = text("""
    SELECT EXISTS (SELECT FROM messages WHERE lead_id = lead.id) AS is_visible,
           phone IS NOT NULL AND first_name IS NOT NULL AS is_repaired
    FROM leads AS lead WHERE ghl_contact_id = :contact_id
""")


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the moment before an SMS was sent."""

    visible: float
    repaired: float


def answer(demo: Served, location_id: str) -> Times:
    """Lets somebody write, and waits until the lead is repaired."""
    order = {"url": demo.receiver, "location": location_id, "event": "inbound_sms", "strangers": True}
    began = time.monotonic()
    told = httpx.post(f"{demo.sandbox}/_sandbox/webhooks", json=order).raise_for_status().json()
    if told["statuses"] != {"200": 1}:
        raise BenchmarkFailed(f"the receiver answered {told['statuses']}")
    who = {"contact_id": told["about"][0]["contact_id"]}
    visible = None
    while (waited := time.monotonic() - began) < REPAIR_WITHIN_SECONDS:
        with demo.engine.connect() as connection:
            row = connection.execute(_STATE, who).one_or_none()
        if row is not None and row.is_visible and visible is None:
            visible = waited
        if row is not None and row.is_repaired and visible is not None:
            return Times(visible, waited)
        time.sleep(0.005)
    raise BenchmarkFailed(f"a lead of location {location_id} was not repaired within {REPAIR_WITHIN_SECONDS:g} s")


def main() -> None:
    """Measures and prints."""
    options = read_options("answers", "How long until a lead that answers is repaired?")
    results = Results("Answers", options)
    chance = random.Random(7)  # noqa: S311 - repeatable, not secret
    with served(FIRST_SAMPLE) as demo:
        with demo.engine.connect() as connection:
            locations = connection.execute(_LOCATIONS).scalars().all()
        times: list[Times] = []
        for number in range(ANSWERS_FULL if options.full else ANSWERS):
            time.sleep(chance.uniform(*PAUSE_SECONDS))
            times.append(answer(demo, locations[number % len(locations)]))
    rows = [
        (name, len(times), min(values), statistics.median(values), max(values))
        for name, values in (
            ("the message is visible in another session", [each.visible for each in times]),
            ("the lead has its phone and name", [each.repaired for each in times]),
        )
    ]
    results.table(
        "From an SMS sent until ...",
        ["until", "answers", "min s", "median s", "max s"],
        rows,
        "Under `ghl-pipeline dev --demo` with everything on, five locations. Most of the wait is the sensor's rhythm "
        "of 5 s and the start of a run.",
    )
    results.close()


if __name__ == "__main__":
    main()
