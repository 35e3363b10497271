"""Runs on several machines with one database: each location's limit holds, and what a lost machine had is taken up.

The machines are network namespaces (`hosts.py`). What is lost is lost for good: everything in one machine is killed at
once, and another one's cable is pulled. The sandbox keeps its limits in true time. With `-s` the story tells its times.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
from cryptography.fernet import Fernet
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from ghl_pipeline.database.connection import DAGSTER_DRIVER, DatabaseUrls, create_engine, ensure_databases
from ghl_pipeline.database.migrate import upgrade
from ghl_pipeline.orchestration.celery_app import WORKER_TAG
from ghl_pipeline.orchestration.presence import is_present
from ghl_pipeline.sandbox.agency import FIELDS, SampleAgency, SampleLocation
from ghl_pipeline.sandbox.limits import Limits, RateLimiter
from ghl_pipeline.sandbox.sample_messages import add_sample_messages
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.deploy import hosts
from ghl_pipeline_tests.deploy.dagster_services import ROOT, Orders, dagster_services, runs_by_id
from ghl_pipeline_tests.deploy.hosts import Network, wait_until
from ghl_pipeline_tests.fixtures.project import add_sample_agency, lead_rows
from ghl_pipeline_tests.fixtures.receiver import PROGRAM
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import prefer_lookups

LOCATIONS = 8
LEADS = 100
LIMIT = 10
GROUP = 10
PAGE = 20
RUNS_PER_MACHINE = 2
HYDRATION = ("hydrate_leads", "lead_hydration")
MESSAGES = ("import_messages", "message_import")
FREED_WITHIN_SECONDS = 75  # of a pulled cable: 30 s idle, three probes 10 s apart
NOTICED_WITHIN_SECONDS = 40  # of a kill: looks 2 s apart, 12 s without presence, and a machine with much to do
BOTH_DONE = 2 * LOCATIONS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(hosts.why_not() is not None, reason=str(hosts.why_not()))]


@dataclass
class Agency:
    """Everything that the story needs in hand."""

    network: Network
    sandbox: Sandbox
    engine: Engine
    instance: DagsterInstance
    orders: Orders
    sample: SampleAgency
    began: float

    def ids(self) -> list[str]:
        return [location.id for location in self.sample.locations]

    def under_way(self, name: str) -> list[dg.DagsterRun]:
        """Hydrations that this machine is in the middle of."""
        query = text("""
            SELECT location_id FROM work_lists JOIN clients ON clients.id = client_id
            WHERE looked_up > 0 AND looked_up < listed
        """)
        with self.engine.connect() as connection:
            begun = set(connection.execute(query).scalars())
        started = self.instance.get_runs(
            dg.RunsFilter(job_name="hydrate_leads", statuses=[dg.DagsterRunStatus.STARTED])
        )
        return [run for run in started if worker_of(run) == name and location_of(run) in begun]

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {what}")  # noqa: T201 - figures for who asks with -s


def location_of(run: dg.DagsterRun) -> str:
    (op,) = cast("dict[str, dict[str, Any]]", run.run_config["ops"]).values()
    (location,) = op["config"]["locations"]
    return str(location)


def worker_of(run: dg.DagsterRun) -> str:
    return run.tags.get(WORKER_TAG, "").partition("@")[0]


@pytest.fixture
def agency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agency]:
    """Three machines without workers yet, and on this side everything else."""
    began = time.monotonic()
    with (
        hosts.network(tmp_path, "a", "b", "c") as network,
        hosts.postgres(tmp_path / "home", network.address) as server,
        hosts.redis(network.address, "s3cret") as broker,
        hosts.sandbox_at(network.address) as sandbox,
    ):
        dagster_home = tmp_path / "dagster"
        dagster_home.mkdir()
        configuration = (ROOT / "deploy" / "dagster.yaml").read_text()
        for production, here in (
            ("/var/lib/ghl-pipeline", str(tmp_path)),
            ("poll_interval_seconds: 10", "poll_interval_seconds: 2"),
            ("max_concurrent_runs: 9", f"max_concurrent_runs: {3 * RUNS_PER_MACHINE}"),
        ):
            assert production in configuration
            configuration = configuration.replace(production, here)
        (dagster_home / "dagster.yaml").write_text(configuration)
        settings = production_settings(server, sandbox, broker, tmp_path)
        environment = settings.as_environment() | {"DAGSTER_HOME": str(dagster_home), "GRPC_VERBOSITY": "ERROR"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ensure_databases(DatabaseUrls(server.set(database="app"), server.set(database="app_dagster")))
        engine = create_engine(server.set(database="app"))
        upgrade(engine)
        sample = add_sample_agency(engine, settings, sandbox, locations=LOCATIONS, leads=LEADS)
        for location in sample.locations:
            prefer_lookups(engine, location.id, GROUP)
            place = sandbox.world.locations[location.id]
            place.limiter = RateLimiter(Limits(LIMIT))
            add_sample_messages(place, location, seed=3, now=int(sandbox.world.clock() * 1000))
        with DagsterInstance.from_config(str(dagster_home)) as instance:
            for machine in network.machines:
                machine.start(
                    [str(PROGRAM), "worker", "--name", machine.label, "--concurrency", str(RUNS_PER_MACHINE)],
                    os.environ,
                )
            with dagster_services(tmp_path, os.environ, instance) as orders:
                yield Agency(network, sandbox, engine, instance, orders, sample, began)
        engine.dispose()


def production_settings(server: URL, sandbox: Sandbox, broker: str, folder: Path) -> Settings:
    return Settings(
        home=folder / "files",
        database_url=SecretStr(server.set(database="app").render_as_string(hide_password=False)),
        dagster_database_url=SecretStr(
            server.set(database="app_dagster", drivername=DAGSTER_DRIVER).render_as_string(hide_password=False)
        ),
        token_keys=SecretStr(Fernet.generate_key().decode()),
        celery_broker_url=SecretStr(broker),
        api_url=sandbox.url,
        requests_per_10s=LIMIT,
        interactive_requests_per_10s=0,
        page_size=PAGE,
    )


def test_what_lost_machines_had_is_taken_up_by_another_and_no_location_is_ever_asked_too_often(agency: Agency) -> None:
    _, b, c = agency.network.machines
    agency.say("services are up")
    # Two kinds of work at each location at the same time: they share its limit, whichever machines they are on.
    for id_ in agency.ids():
        agency.orders.launch(*HYDRATION, [[id_]])
        agency.orders.launch(*MESSAGES, [[id_]])
    agency.say("runs are asked for")
    wait_until(lambda: bool(agency.under_way("b")) and bool(agency.under_way("c")), 60, lambda: told(agency))
    lost_power, cut_off = agency.under_way("b"), agency.under_way("c")
    b.lose_power()
    c.pull_the_cable()
    agency.say(f"sessions: {sessions(agency.engine)}")
    agency.say(f"b has lost its power with {len(lost_power)} runs, c its network with {len(cut_off)}")

    took = wait_until(lambda: ended(agency, lost_power), NOTICED_WITHIN_SECONDS, lambda: told(agency))
    agency.say(f"b's runs are failed {took:.1f} s later")
    terminated = what_a_person_terminates_is_canceled(agency)
    wait_until(
        lambda: not any(is_present(agency.engine, run.run_id) for run in cut_off),
        FREED_WITHIN_SECONDS,
        lambda: told(agency),
    )
    agency.say("c's presence is freed")
    wait_until(lambda: ended(agency, cut_off), NOTICED_WITHIN_SECONDS, lambda: told(agency))
    agency.say("c's runs are failed")
    wait_until(lambda: all_done(agency), 180, lambda: told(agency))
    agency.say("all is done")

    runs = agency.instance.get_runs()
    assert {worker_of(run) for run in runs} >= {"a", "b", "c"}
    assert at_the_same_location_at_the_same_time_on_two_machines(agency)
    assert runs_by_id(agency.instance)[terminated].status is dg.DagsterRunStatus.CANCELED
    for run in (*lost_power, *cut_off):
        (again,) = [other for other in runs if other.parent_run_id == run.run_id]
        assert worker_of(again) == "a"
        assert again.status is dg.DagsterRunStatus.SUCCESS
    for sample in agency.sample.locations:
        counted = agency.sandbox.stats(sample.id)
        assert counted["window_seconds"] == 10.0
        assert counted["highest_in_window"] <= LIMIT
        assert counted["refused_429"] == 0
        assert counted["creates"] == 0
        assert filled(agency.engine, sample) == expected(sample)
        # Each time a run of the location was cut short costs the page in flight, and no more.
        cut_short = [
            run for run in runs if location_of(run) == sample.id and run.status is not dg.DagsterRunStatus.SUCCESS
        ]
        assert counted["lookups"]["email"]["repeated"] <= PAGE * len(cut_short)

    # The machine that was cut off comes back, and finds that nothing is its own any more.
    rows, events = lead_rows(agency.engine), materializations(agency, cut_off)
    c.plug_the_cable_in()
    time.sleep(5)
    assert lead_rows(agency.engine) == rows
    assert materializations(agency, cut_off) == events
    assert ended(agency, cut_off)


def what_a_person_terminates_is_canceled(agency: Agency) -> str:
    """Terminates a run in the middle of its work, and asks for its location again; returns its id."""
    wait_until(lambda: bool(agency.under_way("a")), 60, lambda: told(agency))
    run = agency.under_way("a")[0]
    agency.orders.terminate(run.run_id)
    took = wait_until(
        lambda: runs_by_id(agency.instance)[run.run_id].status is dg.DagsterRunStatus.CANCELED, 20, lambda: told(agency)
    )
    agency.say(f"a run that was terminated is canceled after {took:.1f} s")
    agency.orders.launch(*HYDRATION, [[location_of(run)]])
    return run.run_id


def at_the_same_location_at_the_same_time_on_two_machines(agency: Agency) -> bool:
    """Whether that happened, or the story proves less than it says."""
    records = [record for record in agency.instance.get_run_records() if record.start_time and record.end_time]
    return any(
        location_of(one.dagster_run) == location_of(other.dagster_run)
        and worker_of(one.dagster_run) != worker_of(other.dagster_run)
        and one.dagster_run.job_name != other.dagster_run.job_name
        and (one.start_time or 0) < (other.end_time or 0)
        and (other.start_time or 0) < (one.end_time or 0)
        for one in records
        for other in records
    )


def sessions(engine: Engine) -> dict[str, int]:
    """Sessions of PostgreSQL by database, or by address for machines."""
    query = text("""
        SELECT datname || coalesce(' from ' || host(client_addr), ''), count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' GROUP BY 1 ORDER BY 1
    """)
    with engine.connect() as connection:
        return {str(name): int(number) for name, number in connection.execute(query)}


def filled(engine: Engine, sample: SampleLocation) -> dict[str, int]:
    """Field -> leads of the location that have it."""
    columns = ", ".join(f"count(nullif({name}, ''))" for name in FIELDS)
    query = text(f"SELECT {columns} FROM leads JOIN clients ON clients.id = client_id WHERE location_id = :id")
    with engine.connect() as connection:
        return dict(zip(FIELDS, connection.execute(query, {"id": sample.id}).one(), strict=True))


def expected(sample: SampleLocation) -> dict[str, int]:
    """Field -> leads that have it once all are repaired."""
    return {
        name: sum(bool(getattr(lead, name)) for lead in sample.leads) + sample.fills.get(name, 0) for name in FIELDS
    }


def materializations(agency: Agency, runs: Sequence[dg.DagsterRun]) -> int:
    kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION}
    return sum(len(agency.instance.all_logs(run.run_id, of_type=kinds)) for run in runs)


def ended(agency: Agency, runs: Sequence[dg.DagsterRun]) -> bool:
    """Whether all of them are failed."""
    found = runs_by_id(agency.instance)
    return all(found[run.run_id].status is dg.DagsterRunStatus.FAILURE for run in runs)


def all_done(agency: Agency) -> bool:
    runs = agency.instance.get_runs()
    green = {(run.job_name, location_of(run)) for run in runs if run.status is dg.DagsterRunStatus.SUCCESS}
    return len(green) == BOTH_DONE and all(run.is_finished for run in runs)


def told(agency: Agency) -> str:
    """What is known when something takes too long."""
    runs = [
        f"{run.run_id[:8]} {run.job_name} {run.status.value} {worker_of(run)}" for run in agency.instance.get_runs()
    ]
    logs = [
        f"--- {path.name}\n{path.read_text()[-1500:]}" for path in agency.network.machines[0].log.parent.glob("*.log")
    ]
    return "\n".join([*runs, *logs])
