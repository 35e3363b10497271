"""Asset checks of availability: free times that are old, calendars that wait for somebody, links of no use.

They are evaluated by the op after each run, over all clients, so that they also speak after a run that failed and a run
of one location does not hide another's. Their tables name locations by id.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, timedelta

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.availability.availability import AVAILABILITY_SLOTS
from ghl_pipeline.availability.outcomes import in_words
from ghl_pipeline.availability.standing import Standing, calendars_in_use, older_than, unsupported, waiting_for_somebody

# Three runs in a row that brought nothing, and then some.
OLD, VERY_OLD = timedelta(hours=2), timedelta(days=1)
MOST_LISTED = 50

SLOTS_LONG_STALE = dg.AssetCheckSpec(
    "slots_long_stale",
    asset=AVAILABILITY_SLOTS,
    description="Clients whose free times are older than two hours, for whatever reason: a warning; than a day: an "
    "error.",
)
CALENDARS_WAIT = dg.AssetCheckSpec(
    "calendars_wait_for_somebody",
    asset=AVAILABILITY_SLOTS,
    description="Clients whose calendar no run makes well by itself, with the reason (a refused token, a link that "
    "leads nowhere, a calendar that is off, ...): a warning, from the first time on.",
)
LINKS_UNSUPPORTED = dg.AssetCheckSpec(
    "links_unsupported",
    asset=AVAILABILITY_SLOTS,
    description="Clients whose booking link leads to no calendar that can be asked, with the reason: a warning.",
)
CHECKS = (SLOTS_LONG_STALE, CALENDARS_WAIT, LINKS_UNSUPPORTED)


def evaluate(engine: Engine) -> Iterator[dg.AssetCheckResult]:
    """The result of every check, as the database stands now."""
    with engine.connect() as connection:
        clients = calendars_in_use(connection)
        old, very_old = older_than(connection, OLD), older_than(connection, VERY_OLD)
        waiting = waiting_for_somebody(connection)
        wrong = unsupported(connection)
    if very_old:
        what = "have free times that are older than a day"
        yield _judged(SLOTS_LONG_STALE, clients, very_old, what, dg.AssetCheckSeverity.ERROR)
    else:
        yield _judged(SLOTS_LONG_STALE, clients, old, "have free times that are older than two hours")
    yield _judged(CALENDARS_WAIT, clients, waiting, "have a calendar that waits for somebody")
    yield _judged(LINKS_UNSUPPORTED, clients, wrong, "have a booking link that cannot be used")


def _judged(
    spec: dg.AssetCheckSpec,
    clients: int,
    amiss: Sequence[Standing],
    what: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
) -> dg.AssetCheckResult:
    description = f"{clients} calendars are well."
    if amiss:
        first = amiss[0]
        description = f"{len(amiss)} of {clients} {what}, first {first.location_id}: {_why(first)}."
    return dg.AssetCheckResult(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=not amiss,
        severity=severity,
        description=description,
        metadata={
            "clients": clients,
            "clients_amiss": len(amiss),
            **({"worst": dg.MetadataValue.table(_records(amiss[:MOST_LISTED]))} if amiss else {}),
        },
    )


def _why(standing: Standing) -> str:
    return in_words(standing.reason) or "no run reached it; see whether the schedule runs and whether it is always busy"


def _records(amiss: Sequence[Standing]) -> list[dg.TableRecord]:
    return [
        dg.TableRecord(
            {
                "location": each.location_id,
                "reason": each.reason,
                "as of": f"{each.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if each.since else "never",
            }
        )
        for each in amiss
    ]
