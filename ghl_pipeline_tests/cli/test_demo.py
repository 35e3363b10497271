"""`ghl-pipeline demo`: one document with everything, the same sums, and never anything real touched."""

import os
from collections import Counter
from pathlib import Path

import pytest
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, make_url, text

from ghl_pipeline.cli.demo_profile import demo_profile
from ghl_pipeline.database.connection import create_engine, database_urls
from ghl_pipeline.orchestration.runs import open_instance
from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import Cli


@pytest.fixture
def _dropped(project: Settings, administration: Connection, database_url: URL) -> object:
    """The demo's databases are dropped afterwards."""
    yield
    for name in (f"{database_url.database}_demo", f"{database_url.database}_demo_dagster"):
        administration.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


@pytest.mark.usefixtures("_dropped")
def test_a_demo_is_one_document_with_what_was_repaired_and_can_be_run_again_with_other_sizes(
    cli: Cli, project: Settings, database_url: URL
) -> None:
    project.home.rmdir()  # a first use beside a database of one's own: nothing has made the folder yet
    for locations, leads, seed in ((2, 400, 7), (1, 60, 8)):
        ended = cli("demo", "--locations", locations, "--leads", leads, "--seed", seed, "--json")
        assert (ended.code, ended.err) == (0, "")
        told = ended.document()
        agency = sample_agency(locations=locations, leads=leads, seed=seed)
        for expected, location in zip(agency.locations, told["locations"], strict=True):
            assert {"location", "eligible", "outcomes", "fields", "requests", "seconds"} <= location.keys()
            assert (location["location"], location["eligible"]) == (expected.id, expected.eligible)
            assert {name: n for name, n in location["outcomes"].items() if n} == expected.outcomes
            assert sum(location["outcomes"].values()) == location["eligible"]
            filled = {name: n for name, n in location["fields"].items() if n and name != "contact_link"}
            assert filled == expected.fills
        totals = told["totals"]
        for measure in ("outcomes", "fields"):
            sums: Counter[str] = Counter()
            for location in told["locations"]:
                sums.update(location[measure])
            assert totals[measure] == dict(sums)
        for measure in ("eligible", "requests"):
            assert totals[measure] == sum(location[measure] for location in told["locations"])
        assert totals["requests_per_lead"] == pytest.approx(totals["requests"] / totals["eligible"], abs=1e-5)
        shown = make_url(told["database_url"])
        assert (shown.drivername, shown.password) == ("postgresql", None)
        assert "***" not in told["database_url"]
        assert shown.database == f"{database_url.database}_demo"
        assert told["sandbox_url"].startswith("http://127.0.0.1:")


# --- a history of its own

REAL = "C6HxU0gdMY76stvsY7nT"


def ours() -> dict[str, str]:
    """The project's variables in the environment."""
    return {name: value for name, value in os.environ.items() if name.startswith("GHL_")}


@pytest.fixture
def env_file(project: Settings, own_environment: Path) -> Path:
    """A `.env` with the project's variables, which are in the environment as well."""
    file = own_environment / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in project.as_environment().items()))
    return file


@pytest.mark.usefixtures("_dropped", "env_file")
def test_a_demo_leaves_no_trace_in_the_real_history(cli: Cli, project: Settings, instance: DagsterInstance) -> None:
    instance.add_dynamic_partitions("location", [REAL])
    ended = cli("demo", "--locations", 1, "--leads", 10, "--json")
    assert ended.code == 0, ended.err
    assert instance.get_dynamic_partitions("location") == [REAL]
    assert instance.get_runs() == []
    demo = create_engine(demo_profile(project).urls.dagster)
    with demo.connect() as connection:
        assert connection.execute(text("SELECT run_id FROM runs")).scalars().all() == [ended.document()["run_id"]]
    demo.dispose()


@pytest.mark.usefixtures("env_file")
@pytest.mark.parametrize("in_the_environment", [True, False])
def test_an_instance_has_its_history_where_its_settings_say_and_leaves_the_environment_alone(
    in_the_environment: bool, project: Settings, database_url: URL, administration: Connection, dagster_template: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not in_the_environment:  # then only in .env
        monkeypatch.delenv("GHL_PIPELINE_DAGSTER_DATABASE_URL")
    before = ours()
    beside = f"{database_url.database}_dagster"
    administration.execute(text(f"CREATE DATABASE {beside} TEMPLATE {dagster_template} STRATEGY file_copy"))
    try:
        with open_instance(project.model_copy(update={"dagster_database_url": None})) as opened:
            engine: Engine = vars(opened.run_storage)["_engine"]  # not public
            assert engine.url.database == beside
            assert ours() == before
    finally:
        administration.execute(text(f"DROP DATABASE {beside} WITH (FORCE)"))


def test_the_demos_history_is_beside_its_leads_wherever_the_real_one_is(project: Settings, database_url: URL) -> None:
    elsewhere = "postgresql+psycopg2://dagster:secret@history.example.com/history"
    real = project.model_copy(update={"dagster_database_url": SecretStr(elsewhere)})
    profile = demo_profile(real)
    assert profile.settings.dagster_database_url is not None
    assert profile.urls == database_urls(profile.settings)
    assert profile.urls.app.database == f"{database_url.database}_demo"
    assert profile.urls.dagster == profile.urls.app.set(
        database=f"{database_url.database}_demo_dagster", drivername="postgresql+psycopg2"
    )


@pytest.mark.usefixtures("_dropped")
def test_commands_can_work_on_the_demo_instead_of_on_the_clients(cli: Cli, project: Settings) -> None:
    assert cli("demo", "--locations", 1, "--leads", 40, "--seed", 7).code == 0
    (demo_client,) = cli("--demo", "clients", "list", "--json").document()["clients"]
    assert demo_client["location"] == sample_agency(locations=1, leads=40, seed=7).locations[0].id
    for name, value in project.as_environment().items():
        os.environ[name] = value  # what the command before did to its process ends with it, for a user
    assert cli("clients", "list", "--json").document()["clients"] == []
    refused = cli("--demo", "dev")
    assert refused.code == 2
    assert "--demo goes with commands" in refused.err
