"""What is amiss at a location, told as tables; and that no location hides another."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.operations.judging import Judgement, judge
from ghl_pipeline.operations.rules import in_words, rules
from ghl_pipeline.operations.status_report import LocationStatus
from ghl_pipeline.operations.streams import STREAMS
from ghl_pipeline.operations.work_standing import WorkStanding
from ghl_pipeline_tests.docs.test_documents import _parse as parse

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
WARNING, ERROR = False, True


def ago(**parts: float) -> datetime:
    return NOW - timedelta(**parts)


def judged(*locations: LocationStatus) -> Mapping[tuple[str, str], Judgement]:
    return {(each.rule.asset, each.rule.name): each for each in judge(rules(NOW), locations)}


def at(location: str = "Here", /, **values: object) -> LocationStatus:
    return replace(LocationStatus(location, "Acme", active=True), **values)  # type: ignore[arg-type]


WELL = WorkStanding("succeeded", began_at=ago(hours=1), ended_at=ago(minutes=59), succeeded_at=ago(minutes=59))
FAILED = WorkStanding(
    "failed", began_at=ago(hours=2), ended_at=ago(hours=1), failures=2, failing_since=ago(hours=3),
    error_class="GhlServerError", error="GhlServerError: GHL answered 502.", rerun_at=NOW + timedelta(minutes=9),
)  # fmt: skip


@pytest.mark.parametrize(
    ("standing", "found"),
    [
        (WELL, None),
        (replace(WELL, state="running"), None),
        (replace(WELL, state="running", began_at=ago(hours=25)), WARNING),
        (FAILED, WARNING),
        (replace(FAILED, state="interrupted", error=None, error_class=None), WARNING),
        (replace(FAILED, state="running"), WARNING),
        (replace(FAILED, failing_since=ago(days=2)), ERROR),
        (replace(FAILED, state="running", failing_since=ago(days=2)), ERROR),
        (replace(FAILED, rerun_at=None), ERROR),
        (replace(FAILED, error_class="DailyQuotaReached"), None),
        (replace(FAILED, rerun_at=None, keeps_itself=True), WARNING),
        (replace(FAILED, rerun_at=None, keeps_itself=True, permanent=True), ERROR),
    ],
    ids=[
        "well", "at work", "at work for a day", "failed", "cut short", "tried again now", "failing for days",
        "failing for days and tried again now", "held", "quota", "tries itself", "refused, though it tries itself",
    ],
)  # fmt: skip
def test_a_partition_that_failed_is_a_warning_until_nobody_tries_it_again(
    standing: WorkStanding, found: bool | None
) -> None:
    judgement = judged(at(work={"hydration": standing}))["hydrated_leads", "partitions_failed"]
    assert [each.serious for each in judgement.amiss] == ([] if found is None else [found])


@pytest.mark.parametrize(
    ("capability", "asset", "warned_from", "error_from"),
    [
        ("hydration", "hydrated_leads", timedelta(hours=36), timedelta(days=3)),
        ("conversations", "sms_messages", timedelta(hours=2), timedelta(days=1)),
        ("reconcile", "reconciled_events", timedelta(hours=4), timedelta(days=1)),
        ("crm", "crm_contacts", timedelta(hours=4), timedelta(days=1)),
        ("availability", "availability_slots", timedelta(hours=2), timedelta(days=1)),
        ("senders", "sender_accounts", timedelta(hours=4), timedelta(days=1)),
    ],
)
def test_a_success_grows_old_at_the_rhythm_of_its_work(
    capability: str, asset: str, warned_from: timedelta, error_from: timedelta
) -> None:
    def severity(age: timedelta) -> list[bool]:
        work = {capability: replace(WELL, succeeded_at=NOW - age)}
        status = at(work=work, expected={capability: ago(days=99)})
        return [each.serious for each in judged(status)[asset, "fresh"].amiss]

    moment = timedelta(seconds=1)
    assert severity(warned_from - moment) == []
    assert severity(warned_from) == severity(error_from - moment) == [WARNING]
    assert severity(error_from) == [ERROR]


def test_one_that_never_succeeded_counts_from_when_it_was_to_be_expected() -> None:
    new = at("New", expected={"conversations": ago(minutes=30)})
    forgotten = at("Forgotten", expected={"conversations": ago(days=4)})
    judgement = judged(new, forgotten)["sms_messages", "fresh"]
    assert [each.location for each in judgement.amiss] == ["Forgotten"]
    assert "never succeeded in 4 days" in judgement.description


def test_work_that_nobody_expects_is_not_missed_and_events_have_no_rhythm() -> None:
    judgements = judged(at())
    assert all(judgement.passed for judgement in judgements.values())
    assert judgements["crm_contacts", "fresh"].looked_at == 0
    assert ("handled_events", "fresh") not in judgements


def test_a_location_that_waits_for_the_days_reset_is_not_called_old_by_that() -> None:
    waits = replace(FAILED, error_class="DailyQuotaReached", succeeded_at=ago(days=2))
    status = at(work={"hydration": waits}, expected={"hydration": ago(days=9)})
    assert judged(status)["hydrated_leads", "fresh"].passed


@pytest.mark.parametrize(
    ("missing", "of", "found"),
    [(0, 0, None), (19, 19, None), (9, 20, None), (10, 20, WARNING), (17, 20, WARNING), (18, 20, ERROR)],
)
def test_the_share_of_leads_without_a_phone_or_contact(missing: int, of: int, found: bool | None) -> None:
    expected = [] if found is None else [found]
    phones = judged(at(leads=of, without_phone=missing))["hydrated_leads", "phones_missing"]
    contacts = judged(at(looked_up=of, not_found=missing))["resolved_contacts", "contacts_not_found"]
    assert [each.serious for each in phones.amiss] == expected
    assert [each.serious for each in contacts.amiss] == expected


@pytest.mark.parametrize(
    ("used", "cap", "found"),
    [(0, None, None), (79, 100, None), (80, 100, WARNING), (94, 100, WARNING), (95, 100, ERROR), (100, 100, ERROR)],
)
def test_the_days_requests(used: int, cap: int | None, found: bool | None) -> None:
    judgement = judged(at(requests_today=used, requests_per_day=cap))["resolved_contacts", "quota_used"]
    assert [each.serious for each in judgement.amiss] == ([] if found is None else [found])


@pytest.mark.parametrize(
    ("seconds", "found"), [(None, None), (299, None), (300, WARNING), (3599, WARNING), (3600, ERROR)]
)
def test_an_event_that_is_due_and_not_handled(seconds: float | None, found: bool | None) -> None:
    judgement = judged(at(overdue_seconds=seconds, events_pending=3))["webhook_events", "webhook_lag"]
    assert [each.serious for each in judgement.amiss] == ([] if found is None else [found])


@pytest.mark.parametrize(("dead", "found"), [(0, None), (1, WARNING), (99, WARNING), (100, ERROR)])
def test_dead_letters(dead: int, found: bool | None) -> None:
    judgement = judged(at(events_dead=dead))["handled_events", "dead_letters"]
    assert [each.serious for each in judgement.amiss] == ([] if found is None else [found])


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, None),
        ({"calendar": "fresh", "calendar_refreshed_at": ago(minutes=119)}, None),
        ({"calendar": "fresh", "calendar_refreshed_at": ago(minutes=120)}, WARNING),
        ({"calendar": "stale", "calendar_refreshed_at": ago(hours=24)}, ERROR),
        ({"calendar": "never", "calendar_since": ago(minutes=5)}, None),
        ({"calendar": "never", "calendar_since": ago(days=2)}, ERROR),
        ({"calendar": "unsupported", "calendar_refreshed_at": ago(days=2)}, None),
    ],
)
def test_free_times_grow_old_whatever_they_are_called(values: dict[str, object], found: bool | None) -> None:
    judgement = judged(at("Here", **values))["availability_slots", "availability_stale"]
    assert [each.serious for each in judgement.amiss] == ([] if found is None else [found])


def test_an_active_client_without_a_token_is_told() -> None:
    assert judged(at())["eligible_leads", "tokens_missing"].passed
    assert not judged(at(has_token=False))["eligible_leads", "tokens_missing"].passed


def sick(location: str, *, active: bool = True) -> LocationStatus:
    """A location at which everything is amiss."""
    return LocationStatus(
        location, "Acme", active=active, leads=100, without_phone=99, looked_up=100, not_found=95, events_pending=7,
        events_dead=3, overdue_seconds=7200.0, requests_today=99, requests_per_day=100, has_token=False,
        calendar="stale", calendar_refreshed_at=ago(days=3),
        work={stream.capability: FAILED for stream in STREAMS},
        expected={stream.capability: ago(days=30) for stream in STREAMS if stream.limits},
    )  # fmt: skip


def busy(location: str) -> LocationStatus:
    """One at which much goes on and all is well."""
    return LocationStatus(
        location, "Busy", active=True, leads=1_000_000, linked=990_000, looked_up=1_000_000, not_found=9_000,
        events_pending=900, events_last_day=90_000, requests_today=90_000, requests_per_day=200_000,
        work={stream.capability: WELL for stream in STREAMS},
        expected={stream.capability: ago(days=30) for stream in STREAMS if stream.limits},
    )  # fmt: skip


@given(st.lists(st.sampled_from("BS"), min_size=1, max_size=12))
def test_busy_locations_hide_no_dead_one_whatever_their_number_and_order(kinds: list[str]) -> None:
    locations = [(busy if kind == "B" else sick)(f"L{place}") for place, kind in enumerate(kinds)]
    dead = {f"L{place}" for place, kind in enumerate(kinds) if kind == "S"}
    for judgement in judge(rules(NOW), locations):
        assert {each.location for each in judgement.amiss} == dead, judgement.rule.name
        assert judgement.passed is not bool(dead)


def test_locations_of_deactivated_clients_are_not_judged() -> None:
    assert all(
        judgement.passed and judgement.looked_at == 0 for judgement in judged(sick("Gone", active=False)).values()
    )


def test_the_worst_is_named_first_with_what_to_do() -> None:
    short, long = replace(FAILED, failing_since=ago(hours=1)), replace(FAILED, failing_since=ago(hours=20))
    held = replace(FAILED, rerun_at=None, failing_since=ago(minutes=5), error="TokenRejected: location L3 refused.")
    statuses = [at(f"L{number}", work={"crm": it}) for number, it in enumerate((short, long, WELL, held))]
    judgement = judged(*statuses)["crm_contacts", "partitions_failed"]
    assert [each.location for each in judgement.amiss] == ["L3", "L1", "L0"]
    assert judgement.is_serious
    assert judgement.description.startswith("3 of 4 locations are amiss, first L3: TokenRejected: location L3 refused")
    assert "ghl-pipeline crm-sync --location L3 --yes" in judgement.description


def test_every_command_that_a_check_advises_can_be_typed() -> None:
    """Each rule's own advice, and what it says of a location at which everything is amiss."""
    shown = []
    for judgement in judge(rules(NOW), [sick("C6HxU0gdMY76stvsY7nT")]):
        commands = re.findall(r"ghl-pipeline ((?:[\w-]+ ?)+)", judgement.description)
        assert commands, judgement.rule.name
        assert "LOCATION" not in judgement.description
        shown += commands
    assert len(shown) >= len(rules(NOW))
    for words in shown:
        parse(shlex.split(words))


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(minutes=5), "5 min"),
        (timedelta(hours=1), "1 h"),
        (timedelta(minutes=119), "119 min"),
        (timedelta(hours=36), "36 h"),
        (timedelta(days=3), "3 days"),
    ],
)
def test_lengths_of_time_in_words(age: timedelta, words: str) -> None:
    assert in_words(age) == words
