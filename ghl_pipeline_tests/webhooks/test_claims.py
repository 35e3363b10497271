"""Claims: each event is handled once, whoever works, stops or dies; and none waits for ever or dies of an outage."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import text

from ghl_pipeline.locations.clients import TokenMissing, deactivate_client, set_token
from ghl_pipeline.orchestration.attempts import record_refusal
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.handling.event_work import EventWork
from ghl_pipeline.webhooks.handling.handle_events import EventHandling, HandlingRules
from ghl_pipeline.webhooks.handling.verdicts import Item, Verdicts
from ghl_pipeline.webhooks.inbox import claims
from ghl_pipeline.webhooks.inbox.claims import (
    Claimed,
    Done,
    Postponed,
    abandoned_batch_size,
    claim,
    due_locations,
    finish,
    postpone,
    release,
    renew,
)
from ghl_pipeline.webhooks.inbox.dead_letters import list_events, purge_bodies
from ghl_pipeline.webhooks.inbox.replays import replay
from ghl_pipeline.webhooks.outcomes import EventOutcome
from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.handling_tools import Inbox, bison, contact_deleted, sms

MAX_ATTEMPTS = 3


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


@pytest.fixture
def inbox(agency: Agency) -> Inbox:
    return Inbox(agency, HandlingRules(max_attempts=MAX_ATTEMPTS))


def take(agency: Agency, place: Place, holder: str, size: int = 200, lease_seconds: float = 60) -> list[Claimed]:
    with agency.engine.begin() as connection:
        return claim(
            connection, place.id, holder, size=size, lease_seconds=lease_seconds, max_attempts=MAX_ATTEMPTS
        )  # fmt: skip


def strangers(place: Place, number: int) -> list[dict[str, object]]:
    return [contact_deleted(place, f"{n:020}") for n in range(number)]


def due(agency: Agency, *, rested: bool = False) -> list[str]:
    with agency.engine.connect() as connection:
        return due_locations(connection, rested=rested)


def test_two_workers_take_500_events_each_once_and_in_order(agency: Agency, place: Place, inbox: Inbox) -> None:
    ids = inbox.deliver(place, *strangers(place, 500))
    taken: dict[str, list[int]] = {"one": [], "two": []}
    finished: Counter[str] = Counter()

    def work(holder: str) -> None:
        while batch := take(agency, place, holder, size=20):
            assert [event.id for event in batch] == sorted(event.id for event in batch)
            taken[holder].extend(event.id for event in batch)
            with agency.engine.begin() as connection:
                finished[holder] += finish(connection, holder, [Done(e.id, EventOutcome.NO_LEAD) for e in batch])

    workers = [threading.Thread(target=work, args=(holder,)) for holder in taken]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(taken["one"] + taken["two"]) == sorted(ids)
    assert sum(finished.values()) == 500
    assert {(event["state"], event["attempts"]) for event in inbox.events()} == {("done", 1)}


async def test_two_handlers_at_one_location_handle_each_event_once(agency: Agency, place: Place, inbox: Inbox) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    small = Inbox(agency, HandlingRules(batch_size=7))
    inbox.deliver(place, *(sms(place, contact.id, f"message {n}") for n in range(100)))
    reports = await asyncio.gather(small.handle(place), small.handle(place))
    assert sum(report.handled for report in reports) == 100
    assert {(event["state"], event["attempts"]) for event in inbox.events()} == {("done", 1)}
    assert len(agency.rows()) == 1


def test_a_claim_that_ran_out_is_taken_over_and_its_late_worker_counts_for_nothing(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    (event_id,) = inbox.deliver(place, *strangers(place, 1))
    assert [event.id for event in take(agency, place, "slow")] == [event_id]
    assert take(agency, place, "quick") == []
    assert due(agency) == []
    inbox.let_claims_run_out()
    assert due(agency) == [place.id]
    assert [event.id for event in take(agency, place, "quick")] == [event_id]
    with agency.engine.begin() as connection:
        assert finish(connection, "slow", [Done(event_id, EventOutcome.UNCHANGED)]) == 0
        assert postpone(connection, "slow", [Postponed(event_id, "Bug", "")], max_attempts=1).dead == 0
        assert release(connection, "slow", [event_id], error=None, due_at=datetime.now(UTC)) == 0
        assert renew(connection, place.id, "slow", 60) == 0
        assert finish(connection, "quick", [Done(event_id, EventOutcome.NO_LEAD)]) == 1
    assert inbox.outcomes() == ["no_lead"]


def test_a_renewed_claim_stays(agency: Agency, place: Place, inbox: Inbox) -> None:
    inbox.deliver(place, *strangers(place, 3))
    take(agency, place, "worker", lease_seconds=0.2)
    with agency.engine.begin() as connection:
        assert renew(connection, place.id, "worker", 60) == 3
    time.sleep(0.3)
    assert take(agency, place, "other") == []


def test_an_event_that_kills_its_process_dies_and_takes_none_with_it(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    """Whoever touches the first event is killed. Its neighbours are handled, in the end one by one."""
    killer, *others = inbox.deliver(place, *strangers(place, 4))
    for round_ in range(20):
        batch = take(agency, place, f"process {round_}")
        if not batch:
            break
        if killer in [event.id for event in batch]:
            inbox.let_claims_run_out()
            continue
        with agency.engine.begin() as connection:
            finish(connection, f"process {round_}", [Done(event.id, EventOutcome.NO_LEAD) for event in batch])
    dead, *done = inbox.events([killer, *others])
    assert (dead["state"], dead["error_class"], dead["attempts"]) == ("dead", "HandlerDied", MAX_ATTEMPTS)
    assert {event["state"] for event in done} == {"done"}


def test_pauses_double_and_end_as_a_dead_letter_that_can_be_replayed(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    (event_id,) = inbox.deliver(place, *strangers(place, 1))
    for attempt, (low, high) in enumerate([(7, 13), (15, 26)], start=1):
        take(agency, place, "worker")
        with agency.engine.begin() as connection:
            setback = postpone(connection, "worker", [Postponed(event_id, "Odd", "text")], max_attempts=MAX_ATTEMPTS)
        (event,) = inbox.events()
        pause = (event["due_at"] - datetime.now(UTC)).total_seconds()
        assert (setback.postponed, event["attempts"], low < pause < high) == (1, attempt, True)
        assert take(agency, place, "worker") == []
        inbox.make_due()
    take(agency, place, "worker")
    with agency.engine.begin() as connection:
        assert postpone(connection, "worker", [Postponed(event_id, "Odd", "t")], max_attempts=MAX_ATTEMPTS).dead == 1
    assert (due(agency), take(agency, place, "worker")) == ([], [])
    with agency.engine.begin() as connection:
        (row,) = list_events(connection, state="dead")
        assert (row.id, row.error_class, row.attempts) == (event_id, "Odd", MAX_ATTEMPTS)
    assert replay(agency.engine, event_ids=[event_id]) == [event_id]
    assert [event.attempts for event in take(agency, place, "worker")] == [1]


def test_due_are_locations_of_active_clients(agency: Agency, place: Place, inbox: Inbox) -> None:
    inactive, idle = agency.place("Gone"), agency.place("Idle")
    for each in (place, inactive):
        inbox.deliver(each, *strangers(each, 1))
    with agency.engine.begin() as connection:
        deactivate_client(connection, inactive.id)
    assert due(agency) == [place.id]
    assert idle.id not in due(agency)


async def test_without_a_token_whatever_needs_none_is_handled_and_the_rest_waits_for_it(
    agency: Agency, inbox: Inbox
) -> None:
    """An opt-out behind events that need GHL, in batches of one."""
    tokenless = agency.place("Tokenless", token=None)
    contact = tokenless.ghl.add(email="ada@example.com", phone="+13055550123")
    small = Inbox(agency, HandlingRules(batch_size=1))
    inbox.deliver(tokenless, sms(tokenless, contact.id, "Hello"), bison("LEAD_REPLIED", email="ben@example.com"))
    inbox.deliver(tokenless, bison("LEAD_UNSUBSCRIBED", email="ben@example.com", reply_id=None))
    inbox.deliver(tokenless, *strangers(tokenless, 1))
    assert due(agency, rested=True) == [tokenless.id]
    with pytest.raises(TokenMissing):
        await small.handle(tokenless)
    assert inbox.outcomes() == ["pending", "pending", "lead_updated", "no_lead"]
    assert [(event["attempts"], event["error_class"]) for event in inbox.events()[:2]] == [(0, "TokenMissing")] * 2
    assert [row["opted_out_at"] is not None for row in agency.rows()] == [False, True]
    inbox.make_due()
    assert due(agency) == [], "nothing new, and no token"
    inbox.deliver(tokenless, contact_deleted(tokenless, "E" * 20))
    assert due(agency) == [tokenless.id]
    record_refusal(
        agency.engine, FailedLocation(tokenless.id, "TokenMissing", "a text", permanent=True), None, "webhooks"
    )
    assert due(agency, rested=True) == [], "it rests, or each new event would start a run"
    agency.sql("DELETE FROM location_attempts")
    with agency.engine.begin() as connection:
        set_token(connection, agency.cipher, tokenless.id, SecretStr(tokenless.ghl.token))
    inbox.make_due()
    assert due(agency) == [tokenless.id]
    await small.handle(tokenless)
    assert {event["state"] for event in inbox.events()} == {"done"}


@pytest.mark.parametrize(
    ("permanent", "error_class", "ended", "is_due"),
    [
        (True, "TokenRejected", 300, False),
        (True, "TokenRejected", 700, True),
        (False, "GhlServerError", 5, False),
        (False, "GhlServerError", 15, True),
        (False, "DailyQuotaReached", 300, False),
        (False, "LocationBusy", 1, True),
    ],
)
def test_a_location_that_failed_a_moment_ago_rests(
    agency: Agency, place: Place, inbox: Inbox, permanent: bool, error_class: str, ended: int, is_due: bool
) -> None:
    inbox.deliver(place, *strangers(place, 1))
    agency.sql(
        """INSERT INTO location_attempts (location_id, capability, state, error_class, permanent, ended_at)
           VALUES (:place, 'webhooks', 'failed', :error_class, :permanent, now() - make_interval(secs => :ended))""",
        place=place.id, error_class=error_class, permanent=permanent, ended=ended,
    )  # fmt: skip
    assert due(agency, rested=True) == ([place.id] if is_due else [])
    assert due(agency) == [place.id]


def test_bodies_are_dropped_when_they_are_old_and_handled(agency: Agency, place: Place, inbox: Inbox) -> None:
    old, fresh, _pending, dead = inbox.deliver(place, *strangers(place, 4))
    agency.sql("UPDATE webhook_events SET state = 'done' WHERE id IN (:old, :fresh)", old=old, fresh=fresh)
    agency.sql("UPDATE webhook_events SET state = 'dead' WHERE id = :dead", dead=dead)
    agency.sql("UPDATE webhook_events SET received_at = now() - interval '31 days' WHERE id <> :fresh", fresh=fresh)
    assert purge_bodies(agency.engine, timedelta(days=30)) == 1
    assert {event["id"] for event in inbox.events() if event["body"] is None} == {old}


def test_a_claim_holds_so_many_bytes_and_at_least_one_event(agency: Agency, place: Place, inbox: Inbox) -> None:
    def of_size(name: str, size: int) -> dict[str, object]:
        return {**contact_deleted(place, name * 20), "padding": "x" * size}

    sizes = {"A": 400_000, "B": 400_000, "C": 400_000, "D": 2_000_000, "E": 10, "F": 10}
    ids = [inbox.deliver(place, of_size(name, size))[0] for name, size in sizes.items()]
    taken = []
    for number in range(5):
        with agency.engine.begin() as connection:
            batch = claim(
                connection, place.id, f"worker {number}", size=200, lease_seconds=60, max_attempts=8,
                most_bytes=1_000_000,
            )  # fmt: skip
        taken.append([event.id for event in batch])
    first, second, third, large, *small = ids
    assert taken == [[first, second], [third], [large], small, []]


async def test_bodies_are_let_go_before_the_work_begins(agency: Agency, place: Place, inbox: Inbox) -> None:
    """Fifty locations wait for GHL with a batch each."""

    class Observed:
        def __init__(self) -> None:
            self.events = 0
            self.held = 0

        async def handle(self, _: object, items: Sequence[Item], verdicts: Verdicts) -> None:
            gc.collect()
            self.held, _peak = tracemalloc.get_traced_memory()
            self.events = len(items)
            for item in items:
                verdicts.finish(item, EventOutcome.NO_LEAD)

    inbox.deliver(place, *({**contact_deleted(place, f"{n:020}"), "padding": "x" * 1_000_000} for n in range(8)))
    observed = Observed()
    handling = EventHandling(agency.engine, cast(EventWork, observed), inbox.rules)
    tracemalloc.start()
    try:
        await handling.handle_location(place.id)
    finally:
        tracemalloc.stop()
    assert observed.events == 8
    assert observed.held < 4_000_000


def test_a_handler_that_was_killed_twice_does_not_leave_hundreds_of_batches_of_one(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    inbox.deliver(place, *strangers(place, 200))
    sizes = []
    for number in range(20):
        with agency.engine.begin() as connection:
            batch = claim(connection, place.id, f"process {number}", size=200, lease_seconds=60, max_attempts=8)
            if not batch:
                break
            sizes.append(len(batch))
            if number >= 2:
                finish(connection, f"process {number}", [Done(event.id, EventOutcome.NO_LEAD) for event in batch])
        inbox.let_claims_run_out()
    assert sizes[:2] == [200, 200]
    assert (sum(sizes[2:]), len(sizes[2:])) == (200, 3)


@given(size=st.integers(1, 500), max_attempts=st.integers(1, 20))
def test_events_that_were_abandoned_are_tried_by_fewer_and_at_last_alone(size: int, max_attempts: int) -> None:
    sizes = [abandoned_batch_size(size, attempts, max_attempts) for attempts in range(1, max_attempts)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(1 <= each <= size for each in sizes)
    assert sizes[1:-1] == [] or sizes[1] <= max(1, size // 2)
    if len(sizes) > 1:
        assert sizes[-1] == 1


def test_claims_use_small_indexes_with_a_backlog_behind_a_long_history(agency: Agency, place: Place) -> None:
    """20,000 pending events behind 200,000 that are done; of some, claims ran out."""
    agency.sql(
        """INSERT INTO webhook_events (provider, dedupe_key, event_type, client_id, location_id, body, state,
               claimed_by, claimed_until, attempts)
           SELECT 'ghl', n::text, 'ContactDelete', :client_id, :place, '\\x7b7d', CASE WHEN n <= 200000 THEN 'done'
               ELSE 'pending' END, CASE WHEN n > 219000 THEN 'gone' END, CASE WHEN n > 219000 THEN now() END, 1
           FROM generate_series(1, 220000) AS n""",
        client_id=place.client_id, place=place.id,
    )  # fmt: skip
    with agency.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE webhook_events"))
    values = {
        "location_id": place.id, "holder": "me", "seconds": 60, "size": 200, "max_attempts": 8, "attempts": 1,
        "most_bytes": claims.MOST_BYTES_AT_ONCE, "error_class": "HandlerDied", "error_text": "a text",
    }  # fmt: skip
    for statement, index, most_rows in (
        (claims._CLAIM_BATCH, "ix_webhook_events_in_order", 200),
        (claims._CLAIM_ABANDONED, "ix_webhook_events_claimed", 1_000),
        (claims._BURY, "ix_webhook_events_claimed", 1_000),
        (claims._FEWEST_ATTEMPTS, "ix_webhook_events_claimed", 1_000),
        (claims._RENEW, "ix_webhook_events_claimed", 1_000),
        (claims._DUE_LOCATIONS, "ix_webhook_events_", 20_000),
    ):
        asked = {name: value for name, value in values.items() if f":{name}" in statement.text} | (
            {"rested": True} if ":rested" in statement.text else {}
        )
        with agency.engine.connect() as connection:
            plan = connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.text}"), asked).scalar_one()
        scans = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") == "webhook_events"]
        assert scans
        walked = [node.get("Rows Removed by Filter", 0) + node["Actual Rows"] for node in scans]
        assert max(walked) <= most_rows, plan
        assert index in str(plan), plan


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(found for child in plan.get("Plans", []) for found in nodes(child))]


KILLED_HANDLER = """
import asyncio, os, signal, sys
from ghl_pipeline.settings import load_settings
from ghl_pipeline.cli.session import database
from ghl_pipeline.webhooks.build import build_event_handling
from ghl_pipeline.webhooks.handling import handle_events as handling

if sys.argv[2] == "before finish":
    handling.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
settings = load_settings()
with database(settings) as engine:
    report = asyncio.run(build_event_handling(settings, engine).handle_location(sys.argv[1]))
print(report.handled)
"""


@pytest.mark.slow
def test_interested_five_times_with_the_handler_killed_in_between_creates_one_contact(
    agency: Agency, project: Settings, inbox: Inbox
) -> None:
    """Processes of their own: two are killed after they created and before the events count as done, then one at a
    random moment; each time the lead is interested again."""
    agency.cipher = agency.cipher.from_settings(project)
    place = agency.place()

    def run(how: str, *, kill_after: float | None = None) -> int:
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED_HANDLER, place.id, how], env=dict(os.environ), stdout=subprocess.DEVNULL
        )
        if kill_after is not None:
            time.sleep(kill_after)
            child.send_signal(signal.SIGKILL)
        return child.wait(timeout=60)

    def interested(number: int) -> None:
        inbox.deliver(place, bison("LEAD_REPLIED", reply_id=number), bison("LEAD_INTERESTED", reply_id=number))
        inbox.let_claims_run_out()
        inbox.make_due()

    interested(1)
    assert run("before finish") == -signal.SIGKILL
    interested(2)
    assert run("before finish") == -signal.SIGKILL
    interested(3)
    run("to its end", kill_after=2.5)
    interested(4)
    interested(5)
    assert run("to its end") == 0
    assert {event["state"] for event in inbox.events()} == {"done"}
    stats = agency.sandbox.stats(place.id)
    assert (stats["creates"], len(place.ghl.contacts.by_id)) == (1, 1)
    (row,) = agency.rows()
    (contact_id,) = place.ghl.contacts.by_id
    assert (row["ghl_contact_id"], row["status"]) == (contact_id, "interested")
