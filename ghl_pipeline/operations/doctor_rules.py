"""What the doctor thinks of the facts it found: of limits, clocks, a survey, a location's record. Pure."""

import re
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from ghl_pipeline.ghl.answer_headers import AnswerHeaders
from ghl_pipeline.ghl.payloads import Location
from ghl_pipeline.ghl.survey import GroupAnswer, Survey
from ghl_pipeline.operations.findings import Check, Finding, Level
from ghl_pipeline.settings import GHL_API_URL, Settings

# GHL documents 100 per 10 s.
GHL_REQUESTS_PER_10S = 100
# A delta pull overlaps the one before by minutes; a clock that is off by as much as this eats into that.
MOST_CLOCK_SKEW_SECONDS = 60
# With less than this of a day's requests left, work on the location may end before it is done.
LOW_DAILY_SHARE = 0.1

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_COUNTRY = re.compile(r"[A-Z]{2}")


def judge_settings(settings: Settings) -> Finding:
    """The API address and the limits."""
    url = urlsplit(settings.api_url)
    address = f"{url.scheme}://{url.hostname}" + (f":{url.port}" if url.port else "")
    limits = (
        f"at most {settings.requests_per_10s} requests per 10 s and {settings.requests_per_day:,} a day and location"
    )
    if url.scheme != "https" and url.hostname not in _LOOPBACK:
        return Finding(
            Check.SETTINGS,
            Level.PROBLEM,
            f"the GHL API at {address} would be sent tokens unencrypted",
            "Use https in GHL_API_URL",
        )
    if settings.api_url.rstrip("/") != GHL_API_URL:
        return Finding(
            Check.SETTINGS,
            Level.WARNING,
            f"the API at {address} is not GHL's own; {limits}",
            "Unset GHL_API_URL to work with GHL",
        )
    if settings.requests_per_10s > GHL_REQUESTS_PER_10S:
        return Finding(
            Check.SETTINGS,
            Level.WARNING,
            f"{limits}: more than the {GHL_REQUESTS_PER_10S} per 10 s that GHL allows",
            "Lower GHL_REQUESTS_PER_10S; 90 leaves room for other integrations",
        )
    return Finding(Check.SETTINGS, Level.OK, f"GHL API at {address}; {limits}")


def judge_previous_token(until: datetime | None) -> Finding:
    """Of a location whose new token GHL refuses: it works with the one before, until then."""
    end = f" until {until:%Y-%m-%d %H:%M} UTC" if until is not None else ""
    return Finding(
        Check.TOKEN,
        Level.WARNING,
        f"GHL refuses the token that is stored and takes the one before it, which is in reserve{end}",
        "If this stays so an hour after the rotation, copy the new token from the private integration again and store "
        "it with: ghl-pipeline clients rotate-token LOCATION",
    )


def judge_limits(heard: AnswerHeaders, settings: Settings) -> list[Finding]:
    """GHL's limits against ours."""
    return [_judge_rate(heard, settings.requests_per_10s), _judge_day(heard, settings.requests_per_day)]


def _judge_rate(heard: AnswerHeaders, ours: int) -> Finding:
    if not heard.max_requests or not heard.interval_seconds:
        return Finding(Check.RATE_LIMIT, Level.OK, f"GHL does not say its limit; ours of {ours} per 10 s holds")
    theirs = f"GHL allows {heard.max_requests} requests per {heard.interval_seconds:g} s"
    if heard.max_requests / heard.interval_seconds < ours / 10:
        return Finding(
            Check.RATE_LIMIT,
            Level.WARNING,
            f"{theirs}, less than our {ours} per 10 s; the lower is obeyed",
            "Nothing has to be done, but work here takes longer; GHL's sandbox accounts have less",
        )
    return Finding(Check.RATE_LIMIT, Level.OK, f"{theirs}; ours are {ours} per 10 s")


def _judge_day(heard: AnswerHeaders, ours: int) -> Finding:
    if heard.max_per_day is None:
        return Finding(Check.DAILY_LIMIT, Level.OK, f"GHL does not say its daily limit; ours of {ours:,} holds")
    left = heard.max_per_day if heard.left_today is None else heard.left_today
    theirs = f"GHL allows {heard.max_per_day:,} requests a day, {left:,} are left"
    if left == 0:
        return Finding(Check.DAILY_LIMIT, Level.PROBLEM, theirs, "Wait until 00:00 UTC, then run the work again")
    if left < heard.max_per_day * LOW_DAILY_SHARE:
        return Finding(
            Check.DAILY_LIMIT,
            Level.WARNING,
            theirs,
            "See which integration of the location uses them; work that runs out goes on after 00:00 UTC",
        )
    if heard.max_per_day < ours:
        return Finding(
            Check.DAILY_LIMIT,
            Level.WARNING,
            f"{theirs}; our limit is {ours:,}",
            "Nothing has to be done; to leave room for other integrations, lower GHL_REQUESTS_PER_DAY",
        )
    return Finding(Check.DAILY_LIMIT, Level.OK, f"{theirs}; ours is {ours:,}")


def judge_clock(behind_seconds: float | None, *, ours: str = "this machine", theirs: str = "GHL") -> Finding:
    """Two clocks. `behind_seconds` is how far ours is behind theirs; None when theirs is not known."""
    if behind_seconds is None:
        return Finding(Check.CLOCK, Level.OK, f"{theirs} does not say what time it is")
    off = abs(round(behind_seconds))
    if off > MOST_CLOCK_SKEW_SECONDS:
        way = "behind" if behind_seconds > 0 else "ahead of"
        return Finding(
            Check.CLOCK,
            Level.WARNING,
            f"the clock of {ours} is {off:,} s {way} that of {theirs}",
            "Switch on time synchronisation (NTP) where the clock is wrong: changes may be missed or asked twice",
        )
    return Finding(Check.CLOCK, Level.OK, f"the clocks of {ours} and {theirs} agree within {MOST_CLOCK_SKEW_SECONDS} s")


def judge_survey(survey: Survey) -> list[Finding]:
    """How groups and letter case are answered."""
    return [_judge_groups(survey), _judge_case(survey.case_matters)]


def _judge_groups(survey: Survey) -> Finding:
    if not survey.answers:
        if survey.contacts == 0:
            return Finding(Check.GROUPS, Level.OK, "nothing to try: the location has no contacts")
        return Finding(
            Check.GROUPS,
            Level.WARNING,
            "not tried: none of the oldest 500 contacts has a lower-case e-mail of its own",
            "Nothing has to be done; the pipeline begins with small groups and learns",
        )
    told = ", ".join(f"{size} {answer.value}" for size, answer in sorted(survey.answers.items()))
    if survey.groups_are_wrong:
        return Finding(
            Check.GROUPS,
            Level.PROBLEM,
            f"addresses asked in groups are answered wrongly ({told}), so leads are asked for one by one",
            "Report it to GHL's support, then run the doctor again; until then work here takes longer",
        )
    if set(survey.answers.values()) == {GroupAnswer.RIGHT}:
        return Finding(Check.GROUPS, Level.OK, f"addresses asked in groups are answered rightly ({told})")
    largest = survey.largest_right
    what = f"groups of up to {largest} addresses are answered rightly" if largest else "no group of addresses is taken"
    return Finding(
        Check.GROUPS, Level.WARNING, f"{what} ({told})", "Nothing has to be done, but lookups here cost more requests"
    )


def _judge_case(case_matters: bool | None) -> Finding:
    if case_matters is None:
        return Finding(Check.LETTER_CASE, Level.OK, "not tried: no contact at hand has capital letters in its e-mail")
    if not case_matters:
        return Finding(Check.LETTER_CASE, Level.OK, "an e-mail is found in lower case, however it was typed")
    return Finding(
        Check.LETTER_CASE,
        Level.WARNING,
        "an e-mail is found only in the letter case in which it was typed",
        "Nothing has to be done; contacts are read as a whole or asked for singly, which costs more requests",
    )


def judge_location(record: Location, time_zone: str, region: str, now: datetime) -> list[Finding]:
    """The location's own record against what the client's row says: `time_zone` (IANA), `region` (ISO alpha-2)."""
    return [_judge_duplicates(record), _judge_time_zone(record, time_zone, now), _judge_region(record, region)]


def _judge_duplicates(record: Location) -> Finding:
    if record.allows_duplicate_contacts is None:
        return Finding(Check.DUPLICATES, Level.OK, "the location does not say whether it allows duplicate contacts")
    if not record.allows_duplicate_contacts:
        return Finding(Check.DUPLICATES, Level.OK, "the location allows no duplicate contacts")
    return Finding(
        Check.DUPLICATES,
        Level.WARNING,
        "the location allows duplicate contacts, so that several may claim one lead",
        "Leads that end as ambiguous need their contacts merged in GHL; or forbid duplicates in its business profile",
    )


def _judge_time_zone(record: Location, ours: str, now: datetime) -> Finding:
    if record.time_zone is None:
        return Finding(Check.TIME_ZONE, Level.OK, "the location does not say its time zone")
    theirs = _zone(record.time_zone)
    if theirs is None:
        return Finding(Check.TIME_ZONE, Level.OK, "the location's time zone is no IANA name")
    own = _zone(ours)
    if own is not None and all(_offset(own, at) == _offset(theirs, at) for at in _half_years(now)):
        return Finding(Check.TIME_ZONE, Level.OK, f"the location and its client here are in {theirs.key}")
    if ours == "UTC":  # what a client has that was never given one
        return Finding(Check.TIME_ZONE, Level.OK, f"the location is in {theirs.key}, its client here in UTC")
    return Finding(
        Check.TIME_ZONE,
        Level.WARNING,
        f"the location is in {theirs.key}, its client here in {ours}",
        "Correct time_zone with an import: ghl-pipeline clients import FILE.csv",
    )


def _judge_region(record: Location, ours: str) -> Finding:
    if record.country is None or not _COUNTRY.fullmatch(record.country):
        return Finding(Check.REGION, Level.OK, "the location does not say its country")
    if record.country == ours:
        return Finding(Check.REGION, Level.OK, f"the location and its client's local phone numbers are of {ours}")
    return Finding(
        Check.REGION,
        Level.WARNING,
        f"the location is in {record.country}, but local phone numbers of its client are read as {ours}",
        "Correct default_region with an import: ghl-pipeline clients import FILE.csv",
    )


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # an unknown name, a folder's, one that can be no path
        return None


def _half_years(now: datetime) -> tuple[datetime, datetime]:
    """Now and half a year on: two zones that agree at both agree in summer and winter."""
    return now, now + timedelta(days=182)


def _offset(zone: ZoneInfo, at: datetime) -> timedelta | None:
    return at.astimezone(zone).utcoffset()
