"""Exactly one contact, however often and from how many processes it is ensured, and whichever is killed when."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.ensuring.ensure import CreationUnsettled
from ghl_pipeline.webhooks.outcomes import EventOutcome
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import Agency, Place, before_statement
from ghl_pipeline_tests.webhooks.ensuring import (
    BAD_CALLING_CODE,
    CREATE,
    contacts,
    creation,
    ensure,
    ensurer,
    the_only_contact,
    writes,
)

ADA = "ada@example.com"
WAIT_SECONDS = 60

# `kill -9` by the process itself, at a moment that no signal from outside would hit.
KILL = "(lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))"
PROGRAM = """
import asyncio, os, signal, sys
from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.settings import load_settings
from ghl_pipeline.webhooks.ensuring import ensure, ensure_records
from sqlalchemy import make_url
settings = load_settings()
engine = create_engine(make_url(settings.database_url.get_secret_value()))
{prepare}
ensured = ensure.build_ensurer(settings, engine, build_hydration(settings, engine)).ensure({location!r}, {lead})
print(asyncio.run(ensured).outcome)
"""
BEFORE_THE_POST = f"ensure.ContactWriter.create = {KILL}"
AFTER_THE_POST = f"ensure_records.EnsureRecords.made = {KILL}"
AFTER_THE_NOTE = f"ensure_records.EnsureRecords.link = {KILL}"


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox, project: Settings) -> Agency:
    return Agency(engine, sandbox, TokenCipher.from_settings(project))


@pytest.fixture(params=[True, False], ids=["duplicates allowed", "duplicates refused"])
def place(agency: Agency, request: pytest.FixtureRequest) -> Place:
    return agency.place(allow_duplicates=request.param)


@contextmanager
def process(place: Place, lead_id: int, prepare: str = "") -> Iterator["subprocess.Popen[str]"]:
    """Ensures the lead's contact in a process of its own."""
    program = PROGRAM.format(prepare=prepare, location=place.id, lead=lead_id)
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def killed(place: Place, lead_id: int, prepare: str) -> None:
    """Ensures in a process that is killed where `prepare` says."""
    with process(place, lead_id, prepare) as running:
        _, errors = running.communicate(timeout=WAIT_SECONDS)
    assert running.returncode == -signal.SIGKILL, errors


def wait_until(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < give_up_at, "never got there"
        time.sleep(0.01)


def let_it_settle(agency: Agency) -> None:
    """Two minutes go by."""
    agency.sql("UPDATE contact_creations SET started_at = started_at - make_interval(secs => 121)")


def is_linked_to_the_only_contact(agency: Agency, place: Place, lead_id: int) -> bool:
    return bool(agency.row(lead_id)["ghl_contact_id"] == the_only_contact(place).id)


async def test_five_calls_after_each_other_create_one(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    outcomes = [(await ensure(agency, place, lead_id)).outcome for _ in range(5)]
    assert outcomes == [EventOutcome.CONTACT_CREATED, *[EventOutcome.UNCHANGED] * 4]
    assert writes(agency, place) == (1, 0)


async def test_five_calls_at_the_same_time_create_one(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    agency.sandbox.faults(latency_seconds=0.05)
    together, apart = ensurer(agency), [ensurer(agency) for _ in range(2)]
    all_of_them = [together, together, together, *apart]
    ensured = await asyncio.gather(*(each.ensure(place.id, lead_id) for each in all_of_them))
    assert sorted(each.outcome for each in ensured) == ["contact_created", *["unchanged"] * 4]
    assert writes(agency, place) == (1, 0)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


@pytest.mark.slow
def test_four_processes_at_the_same_time_create_one(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    agency.sandbox.faults(latency_seconds=0.2)
    with (
        process(place, lead_id) as first, process(place, lead_id) as second,
        process(place, lead_id) as third, process(place, lead_id) as fourth,
    ):  # fmt: skip
        ended = [running.communicate(timeout=WAIT_SECONDS) for running in (first, second, third, fourth)]
    assert sorted(output.strip() for output, _ in ended) == ["contact_created", *["unchanged"] * 3], ended
    assert writes(agency, place) == (1, 0)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


# --- killed


@pytest.mark.slow
@pytest.mark.parametrize("moment", [AFTER_THE_POST, AFTER_THE_NOTE])
async def test_a_process_killed_after_the_create_leaves_one_that_is_found(
    agency: Agency, place: Place, moment: str
) -> None:
    agency.sandbox.faults(index_lag_seconds=60)
    lead_id = agency.lead(place, email=ADA)
    killed(place, lead_id, moment)
    assert agency.row(lead_id)["ghl_contact_id"] is None
    outcomes = [(await ensure(agency, place, lead_id)).outcome for _ in range(2)]
    assert outcomes == [EventOutcome.CONTACT_CREATED, EventOutcome.UNCHANGED]
    assert writes(agency, place) == (1, 0)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


@pytest.mark.slow
async def test_a_process_killed_before_the_create_delays_it_until_nothing_can_be_under_way(
    agency: Agency, place: Place
) -> None:
    lead_id = agency.lead(place, email=ADA)
    killed(place, lead_id, BEFORE_THE_POST)
    assert creation(agency)["state"] == "started"
    with pytest.raises(CreationUnsettled) as caught:
        await ensure(agency, place, lead_id)
    assert timedelta(0) < caught.value.retry_at - datetime.now(UTC) <= timedelta(seconds=120)
    assert contacts(place) == []
    let_it_settle(agency)
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert writes(agency, place) == (1, 0)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


@pytest.mark.slow
async def test_a_process_killed_while_ghl_works_on_the_create_makes_one(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    agency.sandbox.faults(routes=(CREATE,), hang_rate=1.0, hang_seconds=30.0, times=1)
    with process(place, lead_id) as running:
        # The search, the duplicate lookup and the create have arrived.
        wait_until(lambda: agency.sandbox.stats(place.id)["highest_in_window"] == 3)
        running.send_signal(signal.SIGKILL)
        running.wait()
    # GHL goes on without the one who asked.
    wait_until(lambda: len(contacts(place)) == 1)
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert writes(agency, place) == (1, 0)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


@pytest.mark.slow
def test_a_process_killed_again_and_again_makes_one(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    for moment in (BEFORE_THE_POST, AFTER_THE_POST, AFTER_THE_NOTE, AFTER_THE_NOTE):
        killed(place, lead_id, moment)
        let_it_settle(agency)
    with process(place, lead_id) as running:
        output, errors = running.communicate(timeout=WAIT_SECONDS)
    assert output.strip() == "contact_created", errors
    assert writes(agency, place) == (1, 0)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


# --- the answer to the create is lost


@pytest.mark.parametrize("lost", ["drop_rate", "garbage_rate"])
async def test_a_create_whose_answer_is_lost_is_found_at_once(agency: Agency, place: Place, lost: str) -> None:
    losing: dict[str, Any] = {lost: 1.0}
    agency.sandbox.faults(routes=(CREATE,), times=1, index_lag_seconds=60, **losing)
    lead_id = agency.lead(place, email=ADA)
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert (agency.requests(place, CREATE), creation(agency)["state"]) == (1, "created")
    assert is_linked_to_the_only_contact(agency, place, lead_id)


async def test_a_create_that_is_answered_too_late_makes_one(agency: Agency, place: Place) -> None:
    agency.sandbox.faults(routes=(CREATE,), times=1, hang_rate=1.0, hang_seconds=20.0)
    lead_id = agency.lead(place, email=ADA)
    impatient = ensurer(agency, timeout_seconds=0.3)
    try:
        await impatient.ensure(place.id, lead_id)
    except CreationUnsettled:
        # GHL was not done yet when it was asked again.
        wait_until(lambda: len(contacts(place)) == 1)
        await impatient.ensure(place.id, lead_id)
    assert writes(agency, place) == (1, 0)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


async def test_a_create_that_nobody_can_see_yet_is_waited_for_and_linked(agency: Agency, place: Place) -> None:
    agency.sandbox.faults(routes=(CREATE,), times=1, drop_rate=1.0, index_lag_seconds=60, duplicate_lookup_lags=True)
    lead_id = agency.lead(place, email=ADA)
    for _ in range(3):
        with pytest.raises(CreationUnsettled, match=f"lead {lead_id}"):
            await ensure(agency, place, lead_id)
    assert agency.requests(place, CREATE) == 1
    agency.sandbox.faults()  # a minute later
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert writes(agency, place) == (1, 0)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


async def test_a_create_is_waited_for_where_the_duplicate_lookup_follows_the_setting(
    agency: Agency, place: Place
) -> None:
    lag: dict[str, Any] = {"index_lag_seconds": 60, "duplicate_lookup_follows_setting": True}
    agency.sandbox.faults(routes=(CREATE,), times=1, drop_rate=1.0, **lag)
    lead_id = agency.lead(place, email=ADA)
    for _ in range(3):
        if place.ghl.allow_duplicates:
            with pytest.raises(CreationUnsettled):
                await ensure(agency, place, lead_id)
        else:
            await ensure(agency, place, lead_id)
    assert agency.requests(place, CREATE) == 1
    # Two minutes later the search has had twice the time that it needs.
    agency.sandbox.faults(duplicate_lookup_follows_setting=True)
    let_it_settle(agency)
    outcome = (await ensure(agency, place, lead_id)).outcome
    assert outcome is (EventOutcome.CONTACT_CREATED if place.ghl.allow_duplicates else EventOutcome.UNCHANGED)
    assert writes(agency, place) == (1, 0)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


async def test_the_create_after_a_refused_phone_is_waited_for_as_long_as_the_first(
    agency: Agency, place: Place
) -> None:
    lag: dict[str, Any] = {
        "index_lag_seconds": 60, "duplicate_lookup_lags": True, "refused_phone": BAD_CALLING_CODE
    }  # fmt: skip
    agency.sandbox.faults(**lag)
    lead_id = agency.lead(place, email=ADA, phone="+13055550123")

    def two_minutes_later_the_answer_is_lost() -> None:
        let_it_settle(agency)
        agency.sandbox.faults(routes=(CREATE,), times=1, drop_rate=1.0, **lag)

    is_note = "UPDATE contact_creations SET phone_refused"
    lose = before_statement(agency.engine, lambda sql, _: sql.startswith(is_note), two_minutes_later_the_answer_is_lost)
    with lose, pytest.raises(CreationUnsettled) as caught:
        await ensure(agency, place, lead_id)
    assert caught.value.retry_at - datetime.now(UTC) > timedelta(seconds=100)
    with pytest.raises(CreationUnsettled):
        await ensure(agency, place, lead_id)
    assert agency.requests(place, CREATE) == 2
    agency.sandbox.faults()
    ensured = await ensure(agency, place, lead_id)
    assert (ensured.outcome, ensured.phone_refused) == (EventOutcome.CONTACT_CREATED, True)
    assert is_linked_to_the_only_contact(agency, place, lead_id)


@pytest.mark.parametrize("status", [500, 502])
async def test_a_create_that_failed_at_ghl_is_made_when_it_is_certain_that_it_was_not(
    agency: Agency, place: Place, status: int
) -> None:
    agency.sandbox.faults(routes=(CREATE,), times=1, error_rate=1.0, error_status=status)
    lead_id = agency.lead(place, email=ADA)
    for _ in range(2):
        with pytest.raises(CreationUnsettled):
            await ensure(agency, place, lead_id)
    assert agency.requests(place, CREATE) == 1
    let_it_settle(agency)
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert writes(agency, place) == (1, 0)


async def test_a_phone_that_was_refused_before_the_answer_was_lost_is_not_sent_again(
    agency: Agency, place: Place
) -> None:
    lead_id = agency.lead(place, email=ADA, phone="+13055550123")
    refused = {"refused_phone": BAD_CALLING_CODE}
    agency.sandbox.faults(**refused)

    def second_create_fails() -> None:
        agency.sandbox.faults(routes=(CREATE,), error_rate=1.0, **refused)

    is_note = "UPDATE contact_creations SET phone_refused"
    then_fails = before_statement(agency.engine, lambda sql, _: sql.startswith(is_note), second_create_fails)
    with then_fails, pytest.raises(CreationUnsettled):
        await ensure(agency, place, lead_id)
    agency.sandbox.faults(**refused)
    let_it_settle(agency)
    ensured = await ensure(agency, place, lead_id)
    assert agency.requests(place, CREATE) == 3
    assert (ensured.outcome, ensured.phone_refused) == (EventOutcome.CONTACT_CREATED, True)
    assert (the_only_contact(place).phone, agency.row(lead_id)["phone"]) == (None, "+13055550123")


async def test_who_waits_too_long_for_another_event_of_the_person_is_told_to_come_again(
    agency: Agency, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ghl_pipeline.webhooks.ensuring.ensure.TURN_SECONDS", 0.3)
    agency.sandbox.faults(latency_seconds=0.5)
    lead_id = agency.lead(place, email=ADA)
    results = await asyncio.gather(
        *(ensurer(agency).ensure(place.id, lead_id) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["CreationUnsettled", "Ensured"]
    assert writes(agency, place) == (1, 0)
