"""Asset checks of availability: free times that are long stale, and links that cannot be used.

They are evaluated by the op after each run, over all clients, so that they also speak after a run that failed and a run
of one location does not hide another's. Their tables name locations by id.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.availability.availability import AVAILABILITY_SLOTS
from ghl_pipeline.availability.outcomes import in_words
from ghl_pipeline.availability.standing import Standing, calendars_in_use, stale_for, unsupported

LONG_STALE = timedelta(days=1)
MOST_LISTED = 50

SLOTS_LONG_STALE = dg.AssetCheckSpec(
    "slots_long_stale",
    asset=AVAILABILITY_SLOTS,
    description="Clients whose free times could not be refreshed for more than a day, with the reason: a warning.",
)
LINKS_UNSUPPORTED = dg.AssetCheckSpec(
    "links_unsupported",
    asset=AVAILABILITY_SLOTS,
    description="Clients whose booking link leads to no calendar that can be asked, with the reason: a warning.",
)
CHECKS = (SLOTS_LONG_STALE, LINKS_UNSUPPORTED)


def evaluate(engine: Engine) -> Iterator[dg.AssetCheckResult]:
    """The result of every check, as the database stands now."""
    with engine.connect() as connection:
        clients = calendars_in_use(connection)
        stale = stale_for(connection, LONG_STALE)
        wrong = unsupported(connection)
    yield _judged(SLOTS_LONG_STALE, clients, stale, "have free times that are stale for more than a day")
    yield _judged(LINKS_UNSUPPORTED, clients, wrong, "have a booking link that cannot be used")


def _judged(spec: dg.AssetCheckSpec, clients: int, amiss: Sequence[Standing], what: str) -> dg.AssetCheckResult:
    description = f"{clients} calendars are well."
    if amiss:
        first = amiss[0]
        description = f"{len(amiss)} of {clients} {what}, first {first.location_id}: {in_words(first.reason)}."
    return dg.AssetCheckResult(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=not amiss,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={
            "clients": clients,
            "clients_amiss": len(amiss),
            **({"worst": dg.MetadataValue.table(_records(amiss[:MOST_LISTED]))} if amiss else {}),
        },
    )


def _records(amiss: Sequence[Standing]) -> list[dg.TableRecord]:
    return [
        dg.TableRecord(
            {
                "location": each.location_id,
                "reason": each.reason,
                "since": f"{each.since:%Y-%m-%d %H:%M} UTC" if each.since else "",
            }
        )
        for each in amiss
    ]
