"""The rules by which locations are judged, with their limits."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from ghl_pipeline.operations.judging import WELL, Amiss, Look, Row, Rule
from ghl_pipeline.operations.status_report import LocationStatus
from ghl_pipeline.operations.streams import STREAMS, Limits, Stream
from ghl_pipeline.operations.work_standing import WorkStanding, clock

# Shares of fewer leads are chance.
FEWEST_LEADS = 20
# GHL does not know everybody's phone; a location where most are missing is not repaired, or linked to the wrong one.
MANY_MISSING, MOST_MISSING = 0.5, 0.9
MANY_USED, NEARLY_ALL_USED = 0.8, 0.95
MANY_DEAD = 100
# The inbox is looked at every 5 s; a run needs 3 s to start, and a full queue is worked off within minutes.
LATE, VERY_LATE = timedelta(minutes=5), timedelta(hours=1)
# Three refreshes in a row that brought nothing, and then some.
STALE, VERY_STALE = timedelta(hours=2), timedelta(days=1)
# Failing for longer than this, by itself it does not get well. Nor does work take that long at any location: at the
# limit of a day (200,000 requests) its requests are used up before.
LONG = timedelta(days=1)


def rules(now: datetime | None = None) -> tuple[Rule, ...]:
    """All rules, as of now."""
    as_of = now or datetime.now(UTC)
    return (*_stream_rules(as_of), *_lead_rules(), _quota_rule(), *_event_rules(), _calendar_rule(as_of), _token_rule())


def _stream_rules(now: datetime) -> Iterator[Rule]:
    for stream in STREAMS:
        yield Rule(
            asset=stream.asset,
            name="partitions_failed",
            description="Locations whose latest attempt failed or was cut short: a warning while it is tried again by "
            "itself, an error when it waits for somebody or has failed for a day. Also attempts that have run for a "
            "day. A day's requests used up is no failure.",
            advice=f"See it with: ghl-pipeline status LOCATION. When the cause is gone, at once: {stream.at_once}",
            concerns=_was_tried(stream),
            look=_look_for_failure(stream, now),
        )
        if stream.limits is not None:
            yield Rule(
                asset=stream.asset,
                name="fresh",
                description=f"Locations where the last success is older than {in_words(stream.limits.warn)}: a "
                f"warning; than {in_words(stream.limits.error)}: an error. One that never succeeded counts from when "
                "it was to be expected.",
                advice="See whether the daemon runs and the schedule is on (Automation in the UI). At once: "
                f"{stream.at_once}",
                concerns=_is_expected(stream),
                look=_look_for_age(stream, stream.limits, now),
            )


def _was_tried(stream: Stream) -> Callable[[LocationStatus], bool]:
    return lambda status: stream.capability in status.work


def _is_expected(stream: Stream) -> Callable[[LocationStatus], bool]:
    return lambda status: stream.capability in status.expected


def _look_for_failure(stream: Stream, now: datetime) -> Look:
    def look(status: LocationStatus) -> Amiss | None:
        work = status.work[stream.capability]
        since = work.failing_since or (work.began_at if work.state == "running" else work.ended_at) or now
        age = now - since
        if work.has_failed:
            says, serious = f"{_error(work)} ({_prospect(work)})", work.is_held or age >= LONG
        elif work.state == "running" and age >= LONG:
            says, serious = f"an attempt has been running for {in_words(age)}", False
        else:
            return WELL
        row: Row = {
            "location": status.location,
            "state": "held" if work.is_held else work.state,
            "failures": work.failures,
            "since": clock(since),
            "again": clock(work.rerun_at) if work.rerun_at and not work.is_held else "",
            "error": work.error or "",
        }
        return Amiss(status.location, serious, age.total_seconds(), says, row)

    return look


def _error(work: WorkStanding) -> str:
    return (work.error or f"{work.state} without a word").rstrip(".")


def _prospect(work: WorkStanding) -> str:
    if work.is_held:
        return "held: nothing tries it again before somebody acts"
    return "tried again now" if work.state == "running" else work.waiting or "tried again by itself"


def _look_for_age(stream: Stream, limits: Limits, now: datetime) -> Look:
    def look(status: LocationStatus) -> Amiss | None:
        work = status.work.get(stream.capability)
        succeeded_at = work.succeeded_at if work else None
        # A day whose requests are used up ends by itself; the check of the quota speaks of it.
        if work is not None and work.waits_for_quota and work.rerun_at is not None:
            return WELL
        age = now - (succeeded_at or status.expected[stream.capability])
        if age < limits.warn:
            return WELL
        says = f"succeeded {in_words(age)} ago" if succeeded_at else f"never succeeded in {in_words(age)}"
        row: Row = {
            "location": status.location,
            "last success": f"{succeeded_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if succeeded_at else "never",
            "hours": round(age.total_seconds() / 3600, 1),
            "latest attempt": work.state if work else "never",
        }
        return Amiss(status.location, age >= limits.error, age.total_seconds(), says, row)

    return look


def _lead_rules() -> Iterator[Rule]:
    yield Rule(
        asset="hydrated_leads",
        name="phones_missing",
        description=f"Leads still without a phone, by location: a warning from {MANY_MISSING:.0%} on, an error from "
        f"{MOST_MISSING:.0%} on. Of {FEWEST_LEADS} leads or more, as last counted.",
        advice="See why, lead by lead, without writing: ghl-pipeline backfill --location LOCATION --dry-run",
        concerns=lambda status: status.leads >= FEWEST_LEADS,
        look=lambda status: _share(status, status.without_phone, status.leads, "leads have no phone"),
    )
    yield Rule(
        asset="resolved_contacts",
        name="contacts_not_found",
        description="Leads whose latest lookup found no contact in GHL, of those looked up, by location: a warning "
        f"from {MANY_MISSING:.0%} on, an error from {MOST_MISSING:.0%} on. Most often the client's location is not the "
        "one its campaigns write from.",
        advice="Check the client's location and what its token may see: ghl-pipeline doctor --location LOCATION",
        concerns=lambda status: status.looked_up >= FEWEST_LEADS,
        look=lambda status: _share(status, status.not_found, status.looked_up, "leads looked up have no contact"),
    )


def _share(status: LocationStatus, part: int, whole: int, what: str) -> Amiss | None:
    share = part / whole
    if share < MANY_MISSING:
        return WELL
    row: Row = {"location": status.location, "share": round(share, 4), "leads": part, "of": whole}
    return Amiss(status.location, share >= MOST_MISSING, share, f"{share:.0%} ({part:,}) of {whole:,} {what}", row)


def _quota_rule() -> Rule:
    def look(status: LocationStatus) -> Amiss | None:
        if status.quota_share < MANY_USED:
            return WELL
        cap = status.requests_per_day or 0
        says = f"{status.quota_share:.0%} of the {cap:,} requests of this UTC day are used"
        row: Row = {
            "location": status.location,
            "share": round(status.quota_share, 4),
            "requests": status.requests_today,
            "of": cap,
        }
        return Amiss(status.location, status.quota_share >= NEARLY_ALL_USED, status.quota_share, says, row)

    return Rule(
        asset="resolved_contacts",
        name="quota_used",
        description=f"Requests to GHL since midnight UTC, of those the day has, by location: a warning from "
        f"{MANY_USED:.0%} on, an error from {NEARLY_ALL_USED:.0%} on. Work then stops with its resume point kept.",
        advice="It goes on by itself after midnight UTC. What a location asks so much for: ghl-pipeline status "
        "LOCATION; docs/runbook.md says how to give it more",
        concerns=lambda status: status.requests_per_day is not None,
        look=look,
    )


def _event_rules() -> Iterator[Rule]:
    def dead(status: LocationStatus) -> Amiss | None:
        if not status.events_dead:
            return WELL
        row: Row = {"location": status.location, "dead": status.events_dead}
        says = f"{status.events_dead:,} events failed for the last time"
        return Amiss(status.location, status.events_dead >= MANY_DEAD, status.events_dead, says, row)

    def late(status: LocationStatus) -> Amiss | None:
        seconds = status.overdue_seconds or 0.0
        if seconds < LATE.total_seconds():
            return WELL
        says = f"{status.events_pending:,} events wait, one that is due for {in_words(timedelta(seconds=seconds))}"
        row: Row = {"location": status.location, "minutes": round(seconds / 60, 1), "pending": status.events_pending}
        return Amiss(status.location, seconds >= VERY_LATE.total_seconds(), seconds, says, row)

    yield Rule(
        asset="handled_events",
        name="dead_letters",
        description=f"Events that failed for the last time and wait for somebody, by location: a warning; an error "
        f"from {MANY_DEAD} on.",
        advice="See why: ghl-pipeline events list --state dead --location LOCATION. Then: ghl-pipeline events replay "
        "--location LOCATION",
        concerns=lambda _: True,
        look=dead,
    )
    yield Rule(
        asset="webhook_events",
        name="webhook_lag",
        description=f"Events that could be handled and are not, by location: a warning when one is due for "
        f"{in_words(LATE)}, an error for {in_words(VERY_LATE)}. One that failed and waits for its next attempt is not "
        "due.",
        advice="See whether the sensor webhook_inbox is on and runs are not stuck in the queue. At once: ghl-pipeline "
        "events handle --location LOCATION",
        concerns=lambda _: True,
        look=late,
    )


def _calendar_rule(now: datetime) -> Rule:
    def look(status: LocationStatus) -> Amiss | None:
        as_of = status.calendar_refreshed_at
        age = now - (as_of or status.calendar_since or now)
        if age < STALE:
            return WELL
        reason = status.calendar_reason or "no run reached it"
        says = f"free times are {in_words(age)} old ({reason})" if as_of else f"it never had free times ({reason})"
        row: Row = {
            "location": status.location,
            "state": status.calendar or "",
            "reason": status.calendar_reason or "",
            "as of": f"{as_of.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if as_of else "never",
        }
        return Amiss(status.location, age >= VERY_STALE, age.total_seconds(), says, row)

    return Rule(
        asset="availability_slots",
        name="availability_stale",
        description=f"Clients whose free times are older than {in_words(STALE)}: a warning; than "
        f"{in_words(VERY_STALE)}: an error. Judged here as well as after each refresh, because a refresh that does not "
        "run any more judges nothing.",
        advice="Refresh them, and see why not: ghl-pipeline availability --location LOCATION",
        # An unsupported link has no free times that could be old; `links_unsupported` speaks of it.
        concerns=lambda status: status.calendar is not None and status.calendar != "unsupported",
        look=look,
    )


def _token_rule() -> Rule:
    def look(status: LocationStatus) -> Amiss | None:
        if status.has_token:
            return WELL
        row: Row = {"location": status.location, "leads": status.leads}
        return Amiss(status.location, False, status.leads, "its client has no token, so nothing works on it", row)

    return Rule(
        asset="eligible_leads",
        name="tokens_missing",
        description="Active clients without a token, which every schedule leaves out in silence: a warning.",
        advice="Store one: ghl-pipeline clients set-token LOCATION. Or: ghl-pipeline clients deactivate LOCATION",
        concerns=lambda _: True,
        look=look,
    )


def in_words(age: timedelta) -> str:
    """A length of time for people, in its largest unit: `36 h`, `3 days`, `5 min`."""
    minutes = int(age.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min" if minutes != 60 else "1 h"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"
