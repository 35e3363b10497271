"""What is kept for how long, and that dropping the rest needs a person's word or the day's run."""

import os
import time
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ghl_pipeline.definitions import build_defs
from ghl_pipeline.operations import housekeeping
from ghl_pipeline.operations.housekeeping import (
    NEWEST_KEPT,
    Chore,
    ChoresFailed,
    Housekeeping,
    drop_old_alerts,
    drop_old_attempts,
    drop_old_compute_logs,
)
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import Cli
from ghl_pipeline_tests.cli.conftest import cli as cli  # noqa: PLC0414 - a fixture

MONTH = timedelta(days=30)
RUN = "11111111-2222-3333-4444-555555555555"
CHORES = {
    "location_attempts", "alerts", "previous_tokens", "webhook_bodies", "dagster_events", "check_evaluations",
    "asset_history", "runs", "compute_logs",
}  # fmt: skip


def add_attempts(
    engine: Engine, location_id: str, states: str, *, days_ago: float = 100, work: str = "crm"
) -> list[int]:
    """One attempt for each letter, oldest first: s(ucceeded), f(ailed), i(nterrupted), r(unning)."""
    names = {"s": "succeeded", "f": "failed", "i": "interrupted", "r": "running"}
    insert = text("""
        INSERT INTO location_attempts (location_id, capability, state, started_at, ended_at)
        VALUES (:location, :work, :state, now() - CAST(:ago AS interval),
                CASE WHEN :state <> 'running' THEN now() - CAST(:ago AS interval) END) RETURNING id
    """)
    with engine.begin() as connection:
        return [
            connection.execute(
                insert,
                {"location": location_id, "work": work, "state": names[each], "ago": timedelta(days_ago)},
            ).scalar_one()
            for each in states
        ]


def attempts_left(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT id FROM location_attempts ORDER BY id")).scalars())


def test_old_attempts_go_but_the_newest_of_each_location_and_work(engine: Engine) -> None:
    busy = add_attempts(engine, "Busy", "s" * 50)
    quiet = add_attempts(engine, "Quiet", "s" * 5)
    other_work = add_attempts(engine, "Busy", "s" * 5, work="hydration")
    young = add_attempts(engine, "Busy", "s" * 30, days_ago=10)
    assert drop_old_attempts(engine, MONTH, dry_run=True) == len(busy)
    assert attempts_left(engine) == sorted(busy + quiet + other_work + young), "it only counted"
    assert drop_old_attempts(engine, MONTH) == len(busy)
    assert attempts_left(engine) == sorted(quiet + other_work + young)
    assert drop_old_attempts(engine, MONTH) == 0


def test_the_last_success_is_kept_however_long_ago_because_the_next_attempt_goes_on_from_it(engine: Engine) -> None:
    made = add_attempts(engine, "Failing", "ssi" + "f" * 40)
    drop_old_attempts(engine, MONTH)
    assert attempts_left(engine) == [made[1], *made[-NEWEST_KEPT:]]


def test_the_first_of_all_is_kept_while_none_has_succeeded(engine: Engine) -> None:
    made = add_attempts(engine, "Failing", "f" * 40)
    drop_old_attempts(engine, MONTH)
    assert attempts_left(engine) == [made[0], *made[-NEWEST_KEPT:]]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.text("sfi", min_size=1, max_size=30), min_size=1, max_size=3),
    st.integers(1, 40),
)
def test_whatever_the_size_of_a_page_the_same_attempts_are_left(engine: Engine, states: list[str], page: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE location_attempts"))
    made = {name: add_attempts(engine, f"Location{name}", each) for name, each in enumerate(states)}
    expected = set()
    for name, each in enumerate(states):
        ids = made[name]
        expected |= set(ids[-NEWEST_KEPT:])
        expected.add(ids[each.rindex("s")] if "s" in each else ids[0])
    before = housekeeping.ATTEMPTS_PER_STATEMENT
    housekeeping.ATTEMPTS_PER_STATEMENT = page
    try:
        foreseen = drop_old_attempts(engine, MONTH, dry_run=True)
        assert drop_old_attempts(engine, MONTH) == foreseen
    finally:
        housekeeping.ATTEMPTS_PER_STATEMENT = before
    assert set(attempts_left(engine)) == expected


def test_an_alert_that_waits_for_its_delivery_is_kept(engine: Engine) -> None:
    with engine.begin() as connection:
        for number, state in enumerate(("sent", "waiting", "given_up", "sent")):
            ago = timedelta(days=100 if number < 3 else 1)
            alert = connection.execute(
                text("""
                    INSERT INTO alerts (kind, capability, error_class, made_at)
                    VALUES ('failed', 'crm', 'TokenRejected', now() - CAST(:ago AS interval)) RETURNING id
                """),
                {"ago": ago},
            ).scalar_one()
            connection.execute(
                text("INSERT INTO alert_deliveries (alert_id, channel, state) VALUES (:id, 'slack', :state)"),
                {"id": alert, "state": state},
            )
    assert drop_old_alerts(engine, MONTH, dry_run=True) == 2
    assert drop_old_alerts(engine, MONTH) == 2
    with engine.connect() as connection:
        left = connection.execute(text("SELECT state FROM alert_deliveries ORDER BY alert_id")).scalars().all()
    assert left == ["waiting", "sent"]


def test_an_error_that_nobody_saw_for_long_is_forgotten(engine: Engine) -> None:
    remember = text("""
        INSERT INTO alert_memory (location_id, capability, error_class, is_permanent, told_at, seen_at)
        VALUES (:location, 'crm', 'TokenRejected', true, now() - interval '1 year',
                now() - CAST(:ago AS interval))
    """)
    with engine.begin() as connection:
        connection.execute(remember, {"location": "Gone", "ago": timedelta(days=40)})
        connection.execute(remember, {"location": "Still", "ago": timedelta(days=1)})
    drop_old_alerts(engine, MONTH, dry_run=True)
    drop_old_alerts(engine, MONTH)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT location_id FROM alert_memory")).scalars().all() == ["Still"]


def test_of_what_runs_printed_only_old_folders_of_runs_go(tmp_path: Path) -> None:
    logs = tmp_path / "compute_logs"
    long_ago = time.time() - 40 * 86400
    for name in (RUN, RUN.replace("1", "7"), "somebody's notes"):
        (logs / name).mkdir(parents=True)
        (logs / name / "step.out").touch()
    for name in (RUN, "somebody's notes"):
        os.utime(logs / name, (long_ago, long_ago))
    assert drop_old_compute_logs(tmp_path, MONTH, dry_run=True) == 1
    assert drop_old_compute_logs(tmp_path, MONTH) == 1
    assert sorted(each.name for each in logs.iterdir()) == [RUN.replace("1", "7"), "somebody's notes"]
    assert drop_old_compute_logs(tmp_path / "elsewhere", MONTH) == 0


def test_one_kind_that_fails_stops_no_other_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def fails(dry_run: bool) -> int:
        raise ValueError("ada@example.com")

    def goes_well(dry_run: bool) -> int:
        done.append(dry_run)
        return 3

    done: list[bool] = []
    chores = [Chore("broken", "of no kind", fails), Chore("well", "of another", goes_well)]
    told: dict[str, int] = {}
    with pytest.raises(ChoresFailed, match=r"Not dropped: broken \(ValueError\)"):
        Housekeeping(chores).run(told=told.__setitem__)
    assert (told, done) == ({"well": 3}, [False])
    assert "ada@example.com" not in caplog.text


def test_the_command_counts_and_deletes_only_when_told_to(
    engine: Engine, project: Settings, instance: DagsterInstance, cli: Cli
) -> None:
    add_attempts(engine, "Busy", "s" * 50)

    counted = cli("db", "purge", "--json").document()
    assert counted == {"deleted": False, "rows": dict.fromkeys(CHORES, 0) | {"location_attempts": 30}}
    assert len(attempts_left(engine)) == 50
    printed = cli("db", "purge")
    assert printed.code == 0
    assert "Would be deleted" in printed.words()
    assert "Nothing was deleted. To delete it: ghl-pipeline db purge --yes" in printed.words()
    assert cli("db", "purge", "--yes", "--json").document() == {**counted, "deleted": True}
    assert len(attempts_left(engine)) == 20


def test_the_days_run_tells_what_it_dropped(engine: Engine, project: Settings, instance: DagsterInstance) -> None:
    add_attempts(engine, "Busy", "s" * 50)
    result = build_defs().resolve_job_def("keep_house").execute_in_process(instance=instance)
    assert result.success
    (output,) = [event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_OUTPUT]
    told = {name: value.value for name, value in output.step_output_data.metadata.items()}
    assert told == dict.fromkeys(CHORES, 0) | {"location_attempts": 30}
