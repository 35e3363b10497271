"""The operator's page at the command line: tables and lines, for all locations or for one."""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from rich.table import Table
from rich.text import Text

from ghl_pipeline.availability.outcomes import in_words
from ghl_pipeline.cli.output import make_table
from ghl_pipeline.operations.charts import sparkline
from ghl_pipeline.operations.looking import Look
from ghl_pipeline.operations.report import failures_by_reason, still_missing, totals, worst_first
from ghl_pipeline.operations.status_report import LocationStatus
from ghl_pipeline.operations.work_standing import WorkStanding

# A line of text is printed unbroken, so that a command in it can be copied.
Part = Table | Text | str
# Each names its location and a request of its own, so that no two are the same.
MOST_ERRORS = 10


def page(look: Look, most: int | None, *, live: bool = False) -> Iterator[Part]:
    """All locations: sums first, then each, then what is amiss and what to do.

    Args:
        look: what was seen.
        most: of more locations only so many are shown, the worst; None: all.
        live: on a screen of its own, which is cut off at its end: what is amiss comes before the tables.
    """
    yield from _sums(look)
    if live:
        yield from _amiss(look)
    shown = list(look.locations)
    title = "Locations"
    if most is not None and len(shown) > most:
        shown = [each for each, _ in worst_first(look.locations, look.judgements, most)]
        title = f"The {most} worst of {len(look.locations):,} locations (--all shows all)"
    columns = ["location", "leads", "linked", "no phone", "no name", "limit", "last run", "success UTC", "waits"]
    yield make_table(title, columns, [_row(each) for each in shown])
    yield from _inboxes(shown)
    yield from _calendars(shown)
    if not live:
        yield from _amiss(look)
    errors = {error: None for each in shown for error in filter(None, [each.error, *each.failing.values()])}
    for error in list(errors)[:MOST_ERRORS]:
        yield Text(error, style="red")
    if len(errors) > MOST_ERRORS:
        yield Text(f"And {len(errors) - MOST_ERRORS:,} more errors. Those of a location: ghl-pipeline status LOCATION")


def location_page(look: Look) -> Iterator[Part]:
    """One location: its leads, the work that goes on there, and what is amiss."""
    (it,) = look.locations
    yield Text(f"{it.location}{'' if it.active else ' (inactive: nothing works on it)'}", style="bold")
    yield make_table(
        "Leads",
        ["leads", "linked", "no phone", "no name", "looked up", "not found", "counted"],
        [[it.leads, it.linked, it.without_phone, it.without_name, it.looked_up, it.not_found, age(it.counted_at)]],
    )
    work = [*it.work, *(name for name in it.expected if name not in it.work)]
    yield make_table(
        "Work",
        ["work", "state", "latest UTC", "success UTC", "failures", "since UTC", "what next"],
        [_work_row(name, it.work.get(name)) for name in work],
    )
    if it.requests_per_day is not None:
        yield Text(f"{it.requests_today:,} of {it.requests_per_day:,} requests of this UTC day are used.")
    yield from _inboxes([it])
    yield from _calendars([it])
    yield from _amiss(look)
    for name, standing in it.work.items():
        if standing.error and standing.state != "succeeded":
            yield Text(f"{name}: {standing.error}", style="red")


def _sums(look: Look) -> Iterator[Text]:
    sums = totals(look.locations)
    counted = "" if sums.counted_at is None else f", counted {age(sums.counted_at)} or later"
    yield Text(f"{sums.locations:,} locations, {sums.leads:,} leads{counted}", style="bold")
    lacking = [f"{count:,} {what}" for what, count in still_missing(sums).items() if count]
    yield Text(f"still missing: {', '.join(lacking) or 'nothing'}")
    repaired = [day.repaired for day in look.days]
    yield Text(f"repaired: {sum(repaired):,} in {len(repaired)} days, {repaired[-1]:,} today  {sparkline(repaired)}")
    yield Text(
        f"requests: {sums.requests_today:,} today; the busiest location used {sums.peak_share:.0%} of its day; "
        f"events: {sums.events_pending:,} pending, {sums.events_dead:,} dead, {sums.events_last_day:,} in 24 h"
    )
    if sums.locations_failed or sums.locations_waiting:
        reasons = ", ".join(f"{reason} {count}" for reason, count in failures_by_reason(look.locations).items())
        yield Text(
            f"failed: {sums.locations_failed:,} locations, {sums.locations_held:,} of them held for a person, "
            f"{sums.locations_waiting:,} tried again by themselves ({reasons})"
        )


def _amiss(look: Look) -> Iterator[Text]:
    """What the checks find, a line each, errors first."""
    for judgement in sorted(look.judgements, key=lambda each: not each.is_serious):
        if not judgement.passed:
            level = "error" if judgement.is_serious else "warning"
            rule = judgement.rule
            yield Text(
                f"{level}: {rule.asset} {rule.name}: {judgement.description}",
                style="red" if judgement.is_serious else "yellow",
            )


def _row(location: LocationStatus) -> list[object]:
    state = location.last_state or "never"
    success = f"{location.last_success:%m-%d %H:%M}" if location.last_success else "never"
    return [
        location.location,
        location.leads,
        location.linked,
        location.without_phone,
        location.without_name,
        f"{location.quota_share:.0%}",
        state if location.active else f"{state} (inactive)",
        success,
        _waits(location),
    ]


def _waits(location: LocationStatus) -> str:
    """What waits for a person, and when the next of the others is tried again; short, as it is the last column."""
    others = {name: it for name, it in location.work.items() if it.waiting and not it.is_held}
    first = min(others.values(), key=lambda it: it.rerun_at or datetime.max.replace(tzinfo=UTC), default=None)
    held = f"held: {_first_and_how_many_more(location.held)}" if location.held else ""
    again = f"{_first_and_how_many_more(others)} {first.waiting}" if first else ""
    return "; ".join(filter(None, [held, again]))


def _first_and_how_many_more(names: Collection[str]) -> str:
    return next(iter(names)) + (f" +{len(names) - 1}" if len(names) > 1 else "")


def _work_row(name: str, standing: WorkStanding | None) -> list[object]:
    if standing is None:
        return [name, "never", None, None, 0, None, "see whether its schedule is on"]
    latest = standing.ended_at if standing.state != "running" else standing.began_at
    next_ = "held" if standing.is_held else standing.waiting
    return [
        name,
        standing.state,
        _minute(latest),
        _minute(standing.succeeded_at) or "never",
        standing.failures,
        _minute(standing.failing_since),
        next_,
    ]


def _minute(at: datetime | None) -> str | None:
    return None if at is None else f"{at.astimezone(UTC):%m-%d %H:%M}"


def _inboxes(shown: Sequence[LocationStatus]) -> Iterator[Part]:
    with_events = any(each.events_last_day or each.events_pending or each.events_dead for each in shown)
    if with_events:
        columns = ["location", "events in 24 h", "pending", "oldest pending", "dead"]
        yield make_table("Events", columns, [_inbox_row(each) for each in shown])
    if any(each.events_dead for each in shown):
        yield Text(
            "Dead events wait for somebody: ghl-pipeline events list --state dead, then ghl-pipeline events replay"
        )


def _inbox_row(location: LocationStatus) -> list[object]:
    seconds = location.oldest_pending_seconds
    return [
        location.location,
        location.events_last_day,
        location.events_pending,
        None if seconds is None else f"{timedelta(seconds=round(seconds))}",
        location.events_dead,
    ]


def _calendars(shown: Sequence[LocationStatus]) -> Iterator[Part]:
    calendars = [each for each in shown if each.calendar is not None]
    if calendars:
        columns = ["location", "free times", "state", "as of", "stale since UTC", "reason"]
        yield make_table("Calendars", columns, [_calendar_row(each) for each in calendars])
    for each in calendars:
        if each.calendar_reason is not None:
            yield Text(f"{each.location}: {in_words(each.calendar_reason)}.")


def _calendar_row(location: LocationStatus) -> list[object]:
    return [
        location.location,
        location.free_slots,
        location.calendar,
        age(location.calendar_refreshed_at),
        _minute(location.calendar_stale_since),
        location.calendar_reason,
    ]


def age(as_of: datetime | None) -> str:
    """How long ago, to the minute."""
    if as_of is None:
        return "never"
    minutes = max(0, int((datetime.now(UTC) - as_of).total_seconds() // 60))
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h ago"
    return f"{hours} h {minutes % 60} min ago" if hours else f"{minutes} min ago"
