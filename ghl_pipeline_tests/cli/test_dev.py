"""`ghl-pipeline dev`: whom it serves, what it switches on, and that it ends when told to."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from dagster import DagsterInstance
from sqlalchemy import URL, Connection, make_url, text

from ghl_pipeline.cli import demo_profile, dev
from ghl_pipeline.settings import Settings, load_settings
from ghl_pipeline_tests.cli.conftest import AddClient, Cli

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STUBBORN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, str]]:
    """The environments that the programs would have been started with; they take 10 s, so they are not."""
    environments: list[Mapping[str, str]] = []

    def run_until_stopped(_: Sequence[dev.Program], environment: Mapping[str, str]) -> int:
        environments.append(environment)
        return 0

    monkeypatch.setattr(dev, "run_until_stopped", run_until_stopped)
    return environments


@pytest.fixture
def _signals() -> Iterator[None]:
    """What a command does with signals is undone."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def settings_of(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a process with this environment arrives at, `.env` included."""
    with monkeypatch.context() as patch:
        for name in os.environ.keys() - environment.keys():
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        return load_settings()


@pytest.mark.parametrize(
    ("variable", "option", "on", "told"),
    [
        (None, [], False, "start no work"),
        ("false", [], False, "start no work"),
        ("true", [], True, "start work by themselves"),
        ("false", ["--automation"], True, "start work by themselves"),
        ("true", ["--no-automation"], False, "start no work"),
    ],
)
def test_for_clients_work_starts_by_itself_only_where_that_is_switched_on(
    variable: str | None, option: list[str], on: bool, told: str, cli: Cli, add_client: AddClient,
    started: list[Mapping[str, str]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    add_client()
    if variable is None:
        monkeypatch.delenv("GHL_PIPELINE_AUTOMATION")
    else:
        monkeypatch.setenv("GHL_PIPELINE_AUTOMATION", variable)
    ended = cli("dev", *option)
    assert ended.code == 0
    assert "Serving your clients" in ended.err
    assert told in ended.err
    assert "GHL_PIPELINE_AUTOMATION" in ended.err
    assert settings_of(started[0], monkeypatch).automation is on


@pytest.mark.parametrize(("option", "on"), [([], True), (["--no-automation"], False)])
def test_the_demo_has_everything_on_unless_told_otherwise_and_nothing_of_the_real_databases(
    option: list[str], on: bool, cli: Cli, project: Settings, database_url: URL, administration: Connection,
    instance: DagsterInstance, started: list[Mapping[str, str]], own_environment: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    variables = project.as_environment() | {"GHL_PIPELINE_AUTOMATION": "false"}
    (own_environment / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    monkeypatch.setattr(dev, "FIRST_SAMPLE", demo_profile.SampleSize(locations=1, leads=5, seed=7))
    instance.add_dynamic_partitions("location", ["C6HxU0gdMY76stvsY7nT"])
    try:
        ended = cli("dev", *option)  # there is no client
    finally:
        for name in (f"{database_url.database}_demo", f"{database_url.database}_demo_dagster"):
            administration.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    assert ended.code == 0
    assert "Serving the demo: 1 locations" in ended.err
    assert instance.get_dynamic_partitions("location") == ["C6HxU0gdMY76stvsY7nT"]
    child = settings_of(started[0], monkeypatch)
    assert child.automation is on
    assert child.api_url != project.api_url
    for url, name in ((child.database_url, "demo"), (child.dagster_database_url, "demo_dagster")):
        assert url is not None
        assert make_url(url.get_secret_value()).database == f"{database_url.database}_{name}"


@pytest.mark.usefixtures("_signals")
def test_what_does_not_stop_when_told_is_killed_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "STOP_WITHIN_SECONDS", 0.2)
    ready = tmp_path / "ready"

    def press_ctrl_c() -> None:
        give_up_at = time.monotonic() + 20
        while not ready.exists() and time.monotonic() < give_up_at:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    command = [sys.executable, "-c", STUBBORN, str(ready)]
    finger = threading.Thread(target=press_ctrl_c)
    finger.start()
    code = dev.run_until_stopped([dev.Program("a stubborn program", command)], os.environ)
    finger.join()
    assert code == 0
    assert "a stubborn program did not stop within 0.2 s and was killed" in capsys.readouterr().err


@pytest.mark.usefixtures("_signals")
def test_a_program_that_ends_by_itself_ends_the_others_and_the_command_with_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = tmp_path / "stopped"
    patient = f"""
import pathlib, time
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path({str(stopped)!r}).touch()
"""
    programs = [
        dev.Program("the patient one", [sys.executable, "-c", patient]),
        dev.Program("the hasty one", [sys.executable, "-c", "import time; time.sleep(1); raise SystemExit(3)"]),
    ]
    assert dev.run_until_stopped(programs, os.environ) == 3
    assert stopped.exists()
    assert "the hasty one ended by itself with exit code 3" in capsys.readouterr().err


@pytest.mark.usefixtures("_signals")
def test_a_program_that_dies_after_a_while_is_started_again_a_few_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "SOON_SECONDS", 0.0)
    monkeypatch.setattr(dev, "MOST_RESTARTS", 2)
    starts = tmp_path / "starts"
    mortal = f"import pathlib; pathlib.Path({str(starts)!r}).open('a').write('x')"
    # It ends with 0, as Dagster does when its daemon was killed; whoever looks after `dev` has to see a failure.
    assert dev.run_until_stopped([dev.Program("a mortal one", [sys.executable, "-c", mortal])], os.environ) == 1
    assert starts.read_text() == "xxx"
    assert capsys.readouterr().err.count("it is started again") == 2


@pytest.mark.usefixtures("_signals")
def test_what_needs_another_program_starts_after_it_and_stops_before_it(tmp_path: Path) -> None:
    told, ready = tmp_path / "told", tmp_path / "ready"
    patient = f"""
import pathlib, sys, time
name, ready = sys.argv[1:]
told = pathlib.Path({str(told)!r})
time.sleep(0.5)
told.open("a").write(f"{{name}} is there\\n")
pathlib.Path(ready).touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    told.open("a").write(f"{{name}} is gone\\n")
"""
    asked = [sys.executable, "-c", patient, "asked", str(ready)]
    asking = [sys.executable, "-c", patient, "asking", str(tmp_path / "both")]

    def press_ctrl_c() -> None:
        give_up_at = time.monotonic() + 20
        while not (tmp_path / "both").exists() and time.monotonic() < give_up_at:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press_ctrl_c)
    finger.start()
    programs = [dev.Program("asking", asking, needs=ready), dev.Program("asked", asked)]
    assert dev.run_until_stopped(programs, os.environ) == 0
    finger.join()
    assert told.read_text().splitlines() == ["asked is there", "asking is there", "asking is gone", "asked is gone"]
