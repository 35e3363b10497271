"""The operator's page: what was done, what is missing, what fails, over all locations and for the worst ones.

Ids and counts; never a client's name. `assets.py` shows it as the metadata of `operations_report`, in which Dagster
plots every number over time.
"""

import math
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ghl_pipeline.operations.charts import BARS_WIDE, MOST_CHARACTERS, by_day
from ghl_pipeline.operations.days import Day
from ghl_pipeline.operations.judging import Judgement, Row
from ghl_pipeline.operations.status_report import LocationStatus
from ghl_pipeline.operations.work_standing import clock
from ghl_pipeline.orchestration.reports import Report, Value, bar_chart

MOST_LISTED = 50


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the locations of active clients.

    `events_overdue_seconds`: of the event that has been due longest; `peak_share`: of its day's requests, what the
    busiest location has used (0 to 1); `counted_at`: as of when the oldest count of leads is (None: one was never
    counted).
    """

    locations: int
    leads: int
    linked: int
    without_phone: int
    without_name: int
    looked_up: int
    not_found: int
    locations_failed: int
    locations_held: int
    locations_waiting: int
    events_pending: int
    events_dead: int
    events_last_day: int
    events_overdue_seconds: float
    requests_today: int
    peak_share: float
    counted_at: datetime | None


def totals(locations: Sequence[LocationStatus]) -> Totals:
    """The sums. A location counts once as failed, held or waiting, however much of its work is."""
    active = [each for each in locations if each.active]
    counts = [each.counted_at for each in active]
    known = [at for at in counts if at is not None]
    return Totals(
        locations=len(active),
        leads=sum(each.leads for each in active),
        linked=sum(each.linked for each in active),
        without_phone=sum(each.without_phone for each in active),
        without_name=sum(each.without_name for each in active),
        looked_up=sum(each.looked_up for each in active),
        not_found=sum(each.not_found for each in active),
        locations_failed=sum(bool(each.failed) for each in active),
        locations_held=sum(bool(each.held) for each in active),
        locations_waiting=sum(any(not it.is_held and it.waiting for it in each.work.values()) for each in active),
        events_pending=sum(each.events_pending for each in active),
        events_dead=sum(each.events_dead for each in active),
        events_last_day=sum(each.events_last_day for each in active),
        events_overdue_seconds=round(max((each.overdue_seconds or 0.0 for each in active), default=0.0), 1),
        requests_today=sum(each.requests_today for each in active),
        peak_share=round(max((each.quota_share for each in active), default=0.0), 4),
        counted_at=min(known) if known and len(known) == len(counts) else None,
    )


def operators_page(
    locations: Sequence[LocationStatus], days: Sequence[Day], judgements: Sequence[Judgement], now: datetime
) -> Report:
    """The page as numbers, charts and tables."""
    sums = totals(locations)
    amiss = [each for each in judgements if not each.passed]
    return Report(
        values=_values(sums, days, amiss, now),
        charts={
            "what_to_do": what_to_do(amiss),
            "repaired_by_day": by_day({day.day: day.repaired for day in days}, unit="leads repaired"),
            "still_missing": bar_chart(still_missing(sums), BARS_WIDE),
            "failures_by_reason": bar_chart(_most_frequent(failures_by_reason(locations)), BARS_WIDE, unit="locations"),
            "requests_by_day": by_day({day.day: day.requests for day in days}, unit="requests to GHL"),
            "limit_used_by_day": by_day(
                {day.day: math.ceil(100 * day.peak_share) for day in days},
                unit="% of its day, busiest location",
                whole=100,
            ),
        },
        tables={
            "worst_locations": [location_row(each, names) for each, names in worst_first(locations, amiss)],
            "held": held_rows(locations)[:MOST_LISTED],
        },
    )


def _values(sums: Totals, days: Sequence[Day], amiss: Sequence[Judgement], now: datetime) -> dict[str, Value]:
    values: dict[str, Value] = {
        "as_of": f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        "locations": sums.locations,
        "locations_failed": sums.locations_failed,
        "locations_held": sums.locations_held,
        "locations_waiting": sums.locations_waiting,
        "checks_amiss": len(amiss),
        "checks_with_errors": sum(each.is_serious for each in amiss),
        "leads": sums.leads,
        "leads_linked": sums.linked,
        "leads_without_phone": sums.without_phone,
        "leads_without_name": sums.without_name,
        "leads_not_found": sums.not_found,
        "repaired_today": days[-1].repaired if days else 0,
        f"repaired_{len(days)}_days": sum(day.repaired for day in days),
        "requests_today": sums.requests_today,
        "requests_peak_share": sums.peak_share,
        "events_last_day": sums.events_last_day,
        "events_pending": sums.events_pending,
        "events_dead": sums.events_dead,
        "webhook_lag_seconds": sums.events_overdue_seconds,
    }
    if sums.counted_at is not None:
        values["leads_counted_hours_ago"] = round(max(0.0, (now - sums.counted_at).total_seconds() / 3600), 2)
    return values


def still_missing(sums: Totals) -> dict[str, int]:
    """What leads lack. A lead may lack several."""
    return {
        "no phone": sums.without_phone,
        "no first or last name": sums.without_name,
        "no contact linked": sums.leads - sums.linked,
        "not found in GHL": sums.not_found,
    }


def failures_by_reason(locations: Sequence[LocationStatus]) -> Mapping[str, int]:
    """How many locations of active clients failed at which work and why, the most frequent first."""
    reasons = Counter(
        f"{capability}: {standing.reason}"
        for each in locations
        if each.active
        for capability, standing in each.failed.items()
    )
    return dict(reasons.most_common())


def _most_frequent(reasons: Mapping[str, int], most: int = 10) -> Mapping[str, int]:
    return dict(list(reasons.items())[:most])


def worst_first(
    locations: Sequence[LocationStatus], judgements: Sequence[Judgement], most: int = MOST_LISTED
) -> list[tuple[LocationStatus, list[str]]]:
    """Locations with what is amiss there: those with most errors first, then most warnings, then most missing phones.

    Args:
        locations: all of them; those of deactivated clients come last.
        judgements: what was found; passed ones may be left out.
        most: how many to return.
    """
    names: dict[str, list[str]] = {}
    errors: Counter[str] = Counter()
    for judgement in judgements:
        for amiss in judgement.amiss:
            names.setdefault(amiss.location, []).append(f"{judgement.rule.asset}: {judgement.rule.name}")
            errors[amiss.location] += amiss.serious

    def rank(each: LocationStatus) -> tuple[bool, int, int, int, str]:
        amiss = len(names.get(each.location, ()))
        return (not each.active, -errors[each.location], -amiss, -each.without_phone, each.location)

    return [(each, names.get(each.location, [])) for each in sorted(locations, key=rank)[:most]]


def location_row(status: LocationStatus, amiss: Sequence[str]) -> Row:
    """One location of the table of the worst."""
    return {
        "location": status.location,
        "amiss": ", ".join(amiss),
        "leads": status.leads,
        "not linked": status.unlinked,
        "no phone": status.without_phone,
        "not found": status.not_found,
        "limit": f"{status.quota_share:.0%}",
        "pending": status.events_pending,
        "dead": status.events_dead,
        "last success": f"{status.last_success.astimezone(UTC):%Y-%m-%d %H:%M}" if status.last_success else "never",
        "waits": "; ".join(f"{name} {_short(text)}" for name, text in status.waiting.items()),
    }


def _short(waiting: str) -> str:
    """Held work is told in a table of its own."""
    return "held" if waiting.startswith("held") else waiting


def held_rows(locations: Sequence[LocationStatus]) -> list[Row]:
    """Work that waits for a person, with what to do, the longest waiting first."""
    held = [
        (standing.failing_since or standing.ended_at or datetime.now(UTC), each.location, capability, standing)
        for each in locations
        if each.active
        for capability, standing in each.held.items()
    ]
    held.sort(key=lambda it: it[:3])
    return [
        {"location": location, "work": capability, "since": clock(since), "what to do": it.error or it.reason}
        for since, location, capability, it in held
    ]


def what_to_do(amiss: Sequence[Judgement]) -> str:
    """What the checks find, errors first, each with the command for its worst location; Markdown that fits the page."""
    lines = [
        f"**{each.rule.asset} {each.rule.name}** ({'error' if each.is_serious else 'warning'})"
        f"{_BREAK}{_narrow(each.advice)}"
        for each in sorted(amiss, key=lambda each: not each.is_serious)
    ]
    more = "And {} more: `ghl-pipeline status`"
    shown = list(lines)
    while len("\n\n".join(shown)) + len(more) > MOST_CHARACTERS:
        shown.pop()
    if len(shown) < len(lines):
        shown.append(more.format(len(lines) - len(shown)))
    return "\n\n".join(shown) or "_Nothing: every location is well._"


# The table below the text makes the column wider than what is seen of it, so that the text must not go by its width.
_BREAK, _MOST_IN_A_LINE = "\\\n", 46
_COMMAND = re.compile(r"(ghl-pipeline [^.,:;]+)")


def _narrow(advice: str) -> str:
    """In short lines; a command stays whole in a line of its own, because people copy it."""
    lines: list[str] = []
    for part in _COMMAND.split(advice):
        if _COMMAND.fullmatch(part):
            lines.append(f"`{part.strip()}`")
        else:
            lines += textwrap.wrap(part.lstrip(" .;"), _MOST_IN_A_LINE, break_long_words=False)
    return _BREAK.join(lines)
