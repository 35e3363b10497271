"""One look at everything: counts brought up to date as far as the time lasts, then read, then judged.

The asset `operations_report` and `ghl-pipeline status` are two ways to show the same look.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.operations.days import Day, read_days, update_days
from ghl_pipeline.operations.judging import Judgement, judge
from ghl_pipeline.operations.lead_counts import refresh_counts
from ghl_pipeline.operations.rules import rules
from ghl_pipeline.operations.status_report import LocationStatus, read_status

# insufficient_privilege, read_only_sql_transaction: a viewer's role, a standby.
READ_ONLY_STATES = frozenset({"42501", "25006"})


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen, and when: every location, the last days, and every rule's judgement."""

    at: datetime
    locations: Sequence[LocationStatus]
    days: Sequence[Day]
    judgements: Sequence[Judgement]


def look_at(
    engine: Engine, *, seconds: float, older_than: timedelta = timedelta(0), location_id: str | None = None
) -> Look:
    """Looks at all locations, or at one.

    Whoever may only read sees the counts of those who may write.

    Args:
        engine: the dashboard database.
        seconds: how long leads are counted anew; the others keep the counts they have.
        older_than: how old a count may be without being due.
        location_id: only this one.
    """
    try:
        refresh_counts(engine, seconds=seconds, older_than=older_than, location_id=location_id)
        with engine.begin() as connection:
            update_days(connection)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in READ_ONLY_STATES:
            raise
    with engine.connect() as connection:
        days = read_days(connection)
    locations = read_status(engine, location_id)
    now = datetime.now(UTC)
    return Look(now, locations, days, judge(rules(now), locations))
