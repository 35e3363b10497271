"""What the doctor makes of the facts, as tables."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ghl_pipeline.ghl.answer_headers import AnswerHeaders
from ghl_pipeline.ghl.payloads import Location
from ghl_pipeline.ghl.survey import GroupAnswer, Survey
from ghl_pipeline.operations.doctor_rules import (
    judge_clock,
    judge_limits,
    judge_location,
    judge_settings,
    judge_survey,
)
from ghl_pipeline.operations.findings import Check, Finding, Level
from ghl_pipeline.settings import GHL_API_URL, Settings

OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
RIGHT, WRONG, REFUSED, FAILED = GroupAnswer.RIGHT, GroupAnswer.WRONG, GroupAnswer.REFUSED, GroupAnswer.FAILED
NOW = datetime(2026, 1, 31, tzinfo=UTC)


def settings(**values: Any) -> Settings:
    return Settings.model_validate(
        {"api_url": GHL_API_URL, "requests_per_10s": 90, "requests_per_day": 200_000} | values
    )


def advised(finding: Finding) -> bool:
    """Whatever is not well says what to do."""
    return bool(finding.advice) is (finding.level is not OK)


@pytest.mark.parametrize(
    ("values", "level", "said"),
    [
        ({}, OK, "https://services.leadconnectorhq.com; at most 90 requests per 10 s and 200,000 a day"),
        ({"api_url": f"{GHL_API_URL}/"}, OK, "https"),
        ({"api_url": "http://127.0.0.1:8787"}, WARNING, "not GHL's own"),
        ({"api_url": "https://proxy.example.com/ghl"}, WARNING, "https://proxy.example.com is not"),
        ({"api_url": "http://services.leadconnectorhq.com"}, PROBLEM, "unencrypted"),
        ({"requests_per_10s": 101}, WARNING, "more than the 100"),
    ],
)
def test_settings(values: dict[str, Any], level: Level, said: str) -> None:
    finding = judge_settings(settings(**values))
    assert (finding.level, advised(finding)) == (level, True)
    assert said in finding.text


def test_a_password_in_the_api_address_is_not_shown() -> None:
    assert "hunter2" not in str(judge_settings(settings(api_url="https://me:hunter2@proxy.example.com")))


@pytest.mark.parametrize(
    ("heard", "rate", "day"),
    [
        (AnswerHeaders(100, 10.0, 200_000, 150_000), OK, OK),
        (AnswerHeaders(), OK, OK),
        (AnswerHeaders(0, 0.0, None, None), OK, OK),
        (AnswerHeaders(90, 10.0, 200_000, None), OK, OK),
        (AnswerHeaders(25, 10.0, 10_000, 9_000), WARNING, WARNING),
        (AnswerHeaders(600, 60.0, 200_000, 20_000), OK, OK),
        (AnswerHeaders(500, 60.0, 200_000, 19_999), WARNING, WARNING),
        (AnswerHeaders(100, 10.0, 200_000, 0), OK, PROBLEM),
    ],
)
def test_limits(heard: AnswerHeaders, rate: Level, day: Level) -> None:
    findings = judge_limits(heard, settings())
    assert [(f.check, f.level) for f in findings] == [(Check.RATE_LIMIT, rate), (Check.DAILY_LIMIT, day)]
    assert all(map(advised, findings))


@pytest.mark.parametrize(
    ("behind", "level", "said"),
    [
        (0.0, OK, "agree"),
        (-59.9, OK, "agree"),
        (60.4, OK, "agree"),
        (61.0, WARNING, "61 s behind that of GHL"),
        (-7200.0, WARNING, "7,200 s ahead of that of GHL"),
        (None, OK, "does not say"),
    ],
)
def test_clocks(behind: float | None, level: Level, said: str) -> None:
    finding = judge_clock(behind)
    assert (finding.level, advised(finding)) == (level, True)
    assert said in finding.text


@pytest.mark.parametrize(
    ("survey", "level", "said"),
    [
        (Survey(600, {100: RIGHT, 2: RIGHT}), OK, "2 right, 100 right"),
        (Survey(0), OK, "no contacts"),
        (Survey(7), WARNING, "not tried"),
        (Survey(600, {100: REFUSED, 50: WRONG, 25: RIGHT}), WARNING, "up to 25 addresses"),
        (Survey(600, {100: RIGHT, 50: FAILED}), WARNING, "up to 100 addresses"),
        (Survey(600, {100: REFUSED, 2: FAILED}), WARNING, "no group of addresses is taken"),
        (Survey(600, {100: REFUSED, 2: WRONG}), PROBLEM, "answered wrongly"),
    ],
)
def test_groups(survey: Survey, level: Level, said: str) -> None:
    finding, _ = judge_survey(survey)
    assert (finding.check, finding.level, advised(finding)) == (Check.GROUPS, level, True)
    assert said in finding.text


@pytest.mark.parametrize(("matters", "level"), [(False, OK), (None, OK), (True, WARNING)])
def test_letter_case(matters: bool | None, level: Level) -> None:
    _, finding = judge_survey(Survey(600, {100: RIGHT}, matters))
    assert (finding.check, finding.level, advised(finding)) == (Check.LETTER_CASE, level, True)


@pytest.mark.parametrize(
    ("record", "duplicates", "time_zone", "region"),
    [
        (Location("L", "America/New_York", "US", False), OK, OK, OK),
        (Location("L", "US/Eastern", "US", False), OK, OK, OK),
        (Location("L", None, None, None), OK, OK, OK),
        (Location("L", "ask reception", "Utopia", None), OK, OK, OK),
        (Location("L", "../etc/passwd", None, None), OK, OK, OK),
        (Location("L", "America/Phoenix", "DE", True), WARNING, WARNING, WARNING),
        (Location("L", "America/Panama", "US", False), OK, WARNING, OK),  # New York's time, but in winter only
    ],
)
def test_the_location_s_own_record(record: Location, duplicates: Level, time_zone: Level, region: Level) -> None:
    findings = judge_location(record, "America/New_York", "US", NOW)
    assert [(f.check, f.level) for f in findings] == [
        (Check.DUPLICATES, duplicates),
        (Check.TIME_ZONE, time_zone),
        (Check.REGION, region),
    ]
    assert all(map(advised, findings))
    assert not any("Utopia" in f.text or "reception" in f.text for f in findings), "only what is a zone or a country"


def test_a_client_s_time_zone_that_is_none_is_pointed_out() -> None:
    record = Location("L", "America/New_York", "US", False)
    _, time_zone, _ = judge_location(record, "Eastern", "US", NOW)
    assert time_zone.level is WARNING
