"""The embedded server: first start, sharing between processes, crashes, and machines that make it hard."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ghl_pipeline.database.embedded import EmbeddedPostgres, ServerAddress, files, machine
from ghl_pipeline.errors import ConfigurationError, DatabaseUnavailable

StartProcess = Callable[[str], "subprocess.Popen[str]"]

as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="an OS user of its own is for servers started as root")
on_linux_only = pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")

PREAMBLE = """
import os, signal, sys
from pathlib import Path
from ghl_pipeline.database.embedded import EmbeddedPostgres
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` lets its children ignore it
server = EmbeddedPostgres(Path(sys.argv[1]), durable=False)
def say(word): print(word, flush=True)
"""
HOLD = PREAMBLE + "say(server.attach().port); sys.stdin.readline()"


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder that every OS user can get to; pytest's own temporary folders are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="ghl-pipeline-test-"))
    folder.chmod(0o711)
    yield folder / "home"
    EmbeddedPostgres(folder / "home").stop()
    shutil.rmtree(folder)


@pytest.fixture
def start(home: Path) -> Iterator[StartProcess]:
    """Starts a Python process that runs a script with the home folder as its argument."""
    started: list[subprocess.Popen[str]] = []

    def start_process(script: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", textwrap.dedent(script), str(home)]
        process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start_process
    for process in started:
        with process:  # closes its pipes and waits
            process.kill()


def heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ends(process: "subprocess.Popen[str]") -> None:
    """Lets a process that waits for a line go on, and expects a clean end."""
    _, errors = process.communicate("\n", timeout=60)
    assert process.returncode == 0, errors


def query(address: ServerAddress, statement: str) -> list[tuple[object, ...]]:
    url = address.url("postgres").set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def test_the_first_start_makes_a_server_that_only_its_password_opens(home: Path) -> None:
    server = EmbeddedPostgres(home, durable=False)
    assert not server.running()
    assert not home.exists(), "asking leaves no trace"
    with server as address:
        assert query(address, "SHOW server_version_num")[0] >= ("180000",)
        assert query(address, "SELECT lower('ÉTÉ'), current_setting('TimeZone')") == [("été", "UTC")]
        for wrong in ("", "postgres"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                query(ServerAddress(address.host, address.port, address.user, wrong), "SELECT 1")
        assert mode(home / "postgres" / "data") == 0o700
        for name in ("password", "port", "server.log", "start.lock", "users.lock"):
            assert mode(home / "postgres" / name) == 0o600, name
        assert list(home.rglob("password-*")) == []
        assert address.password not in repr(address) + str(address.url("postgres"))
    assert address.password not in (home / "postgres" / "server.log").read_text()
    assert not server.running()


@on_linux_only
def test_the_password_and_the_values_of_rows_stay_out_of_command_lines_and_the_log(home: Path) -> None:
    with EmbeddedPostgres(home, durable=False) as address:
        command_line = Path(f"/proc/{postmaster(home)}/cmdline").read_text()
        query(address, "CREATE TABLE t (email text UNIQUE)")
        query(address, "INSERT INTO t VALUES ('canary@example.com')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            query(address, "INSERT INTO t VALUES ('canary@example.com')")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            query(address, "SELECT 'canary@example.com'::int")
        with pytest.raises(psycopg.errors.AdminShutdown):
            query(address, "SELECT 'canary@example.com', pg_terminate_backend(pg_backend_pid())")
    assert address.password not in command_line
    log = (home / "postgres" / "server.log").read_text()
    assert "terminating connection" in log, "the log still tells what happens to the server"
    assert "canary" not in log


def test_processes_share_one_server_and_the_last_one_out_stops_it(home: Path, start: StartProcess) -> None:
    first, second = start(HOLD), start(HOLD)
    assert heard(first) == heard(second)
    ends(first)
    server = EmbeddedPostgres(home, durable=False)
    assert server.running(), "the second process still uses it"
    ends(second)
    assert not server.running()


def test_four_processes_that_race_for_the_first_start_get_the_same_server(home: Path, start: StartProcess) -> None:
    processes = [start(HOLD) for _ in range(4)]
    ports = {heard(process) for process in processes}
    assert len(ports) == 1
    assert ports != {""}
    for process in processes:
        ends(process)
    assert not EmbeddedPostgres(home).running()
    assert list((home / "postgres").glob("*unfinished*")) == []


def test_a_server_left_by_a_killed_process_is_found_again_and_stopped(home: Path, start: StartProcess) -> None:
    owner = start(HOLD)
    port = heard(owner)
    owner.kill()
    owner.wait()
    server = EmbeddedPostgres(home, durable=False)
    left_behind = postmaster(home)
    assert server.running()
    assert str(server.attach().port) == port
    assert postmaster(home) == left_behind
    server.release()
    assert not server.running()


@on_linux_only
def test_ctrl_c_ends_the_process_but_not_the_server_under_the_others(home: Path, start: StartProcess) -> None:
    owner = start(HOLD)
    heard(owner)
    with EmbeddedPostgres(home, durable=False) as address:
        os.killpg(owner.pid, signal.SIGINT)  # what a terminal does: to everything in the group
        owner.wait(timeout=60)
        assert query(address, "SELECT 1") == [(1,)]


def test_a_forked_child_neither_stops_the_server_nor_keeps_it_alive(home: Path, start: StartProcess) -> None:
    owner = start(
        PREAMBLE
        + """
server.attach()
short = os.fork()
if not short:
    sys.exit()                      # runs the exit handlers it inherited
os.waitpid(short, 0)
say(server.running())
long = os.fork()
if not long:
    signal.pause()
say(long)
sys.stdin.readline()
"""
    )
    assert heard(owner) == "True"
    child = int(heard(owner))
    try:
        owner.kill()
        owner.wait()
        server = EmbeddedPostgres(home, durable=False)
        assert server.running()
        with server:
            pass
        assert not server.running(), "the child holds nothing"
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_attaches_holds_the_server_for_itself(home: Path, start: StartProcess) -> None:
    owner = start(
        PREAMBLE
        + """
port = server.attach().port
if os.fork():
    sys.exit()                      # the parent leaves first
say(server.attach().port == port)
say(server.running())
sys.exit()
"""
    )
    assert [heard(owner), heard(owner)] == ["True", "True"]
    ends_at = time.monotonic() + 30
    while EmbeddedPostgres(home).running() and time.monotonic() < ends_at:
        time.sleep(0.05)
    assert not EmbeddedPostgres(home).running()


@on_linux_only
def test_after_a_killed_server_the_same_process_attaches_again_and_finds_its_data(home: Path) -> None:
    server = EmbeddedPostgres(home, durable=True)
    address = server.attach()
    query(address, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
    crashed = postmaster(home)
    os.kill(crashed, signal.SIGKILL)
    assert query(server.attach(), "SELECT n FROM kept") == [(42,)]
    assert postmaster(home) != crashed
    assert server.attach() == address, "the port is kept, so the URLs of other processes stay right"
    server.release()


@on_linux_only
def test_a_session_that_outlives_its_server_does_not_keep_the_next_one_from_starting(
    home: Path, start: StartProcess
) -> None:
    with EmbeddedPostgres(home, durable=False) as address:
        url = address.url("postgres").set(drivername="postgresql").render_as_string(hide_password=False)
        script = f"import psycopg; psycopg.connect({url!r}).execute('DO $$ BEGIN LOOP END LOOP; END $$')"
        busy = start(script)
        busy_session = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'DO%'"
        give_up = time.monotonic() + 30
        while not (found := query(address, busy_session)) and time.monotonic() < give_up:
            time.sleep(0.05)
        os.kill(postmaster(home), signal.SIGKILL)
        with EmbeddedPostgres(home, durable=False) as again:
            assert query(again, "SELECT 1") == [(1,)]
        assert gone(int(str(found[0][0])))
        assert busy.wait(timeout=60) != 0


def test_a_pid_file_whose_number_belongs_to_another_process_is_seen_through(home: Path) -> None:
    with EmbeddedPostgres(home, durable=False):
        pid_file = (home / "postgres" / "data" / "postmaster.pid").read_text()
    stale = home / "postgres" / "data" / "postmaster.pid"
    stale.write_text("\n".join([str(os.getpid()), *pid_file.splitlines()[1:]]))
    server = EmbeddedPostgres(home, durable=False)
    assert not server.running()
    with server as address:
        assert query(address, "SELECT 1") == [(1,)]


def test_a_taken_port_is_replaced_and_the_new_one_remembered(home: Path) -> None:
    with EmbeddedPostgres(home, durable=False) as address:
        before = address.port
    with socket.create_server(("127.0.0.1", before)), EmbeddedPostgres(home, durable=False) as address:
        after = address.port
        assert after != before
        assert query(address, "SELECT 1") == [(1,)]
    with EmbeddedPostgres(home, durable=False) as address:
        assert address.port == after


def test_a_server_started_amid_ignored_and_blocked_signals_still_obeys(home: Path, start: StartProcess) -> None:
    with EmbeddedPostgres(home, durable=False):
        pass
    odd = """
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGCHLD"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1})
"""
    owner = start(PREAMBLE + odd + "say(server.attach().port); sys.stdin.readline()")
    assert heard(owner).isdigit()
    server = EmbeddedPostgres(home)
    assert server.running()
    started = time.monotonic()
    server.stop()
    assert not server.running()
    assert time.monotonic() - started < 10, "stopped by the first, polite signal"
    ends(owner)


def test_a_half_made_cluster_and_a_half_made_password_are_thrown_away(home: Path) -> None:
    control = home / "postgres"
    half_made = control / "data.unfinished-x"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    (control / "password-x").write_text("half")
    for folder in (home, control):
        folder.chmod(0o711)
    with EmbeddedPostgres(home, durable=False) as address:
        assert query(address, "SELECT 1") == [(1,)]
    assert not half_made.exists()
    assert not (control / "password-x").exists()


# --- started as root --------------------------------------------------------------------------------------------------


@pytest.fixture
def system_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for /var/lib/ghl-pipeline."""
    folder = home.parent / "system"
    monkeypatch.setattr(files, "SYSTEM_FOLDER", folder)
    return folder


@as_root_only
def test_a_project_that_the_os_user_cannot_reach_keeps_its_data_in_the_system_folder(
    home: Path, system_folder: Path
) -> None:
    closed = home.parent / "closed"
    closed.mkdir(mode=0o700)
    inside = closed / "project" / ".ghl_pipeline"
    with EmbeddedPostgres(inside, durable=False) as address:
        query(address, "CREATE TABLE kept AS SELECT 42 AS n")
    folder = Path((inside / "postgres" / "location").read_text().strip())
    assert folder.parent == system_folder
    assert (folder / "data").stat().st_uid != 0
    assert mode(folder / "data") == 0o700
    assert mode(inside / "postgres" / "password") == 0o600
    assert mode(closed) == 0o700, "no parent was opened"
    with EmbeddedPostgres(inside, durable=False) as address:
        assert query(address, "SELECT n FROM kept") == [(42,)]

    shutil.rmtree(closed / "project")
    with EmbeddedPostgres(inside, durable=False) as address:
        assert query(address, "SELECT to_regclass('kept')") == [(None,)], "a project made anew starts empty"
    assert len(list(folder.glob("data.left-*"))) == 1, "and what the old one left is not deleted"

    shutil.rmtree(folder)
    with pytest.raises(DatabaseUnavailable, match="but it is gone"):
        EmbeddedPostgres(inside).attach()


@as_root_only
def test_binaries_that_the_os_user_cannot_reach_are_copied_once(
    home: Path, system_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = home.parent / "closed"
    closed.mkdir(mode=0o700)
    installation = machine.copy_binaries(machine.find_binaries(), closed / "site-packages")
    monkeypatch.setattr(files, "find_binaries", lambda: installation)
    copy = system_folder / machine.copy_name()
    (system_folder / f"{copy.name}.unfinished" / "bin").mkdir(parents=True)  # what a killed process left
    for folder in (system_folder, *system_folder.rglob("*")):
        folder.chmod(0o755)
    with EmbeddedPostgres(home, durable=False) as address:
        assert query(address, "SELECT 1") == [(1,)]
    assert sorted(path.name for path in system_folder.iterdir()) == ["copy.lock", copy.name]
    made_at = copy.stat().st_mtime_ns
    with EmbeddedPostgres(home, durable=False):
        assert copy.stat().st_mtime_ns == made_at
    assert mode(closed) == 0o700


@as_root_only
def test_a_folder_closed_after_the_first_start_is_an_error_and_not_an_empty_database(home: Path) -> None:
    with EmbeddedPostgres(home, durable=False):
        pass
    home.parent.chmod(0o700)
    with pytest.raises(DatabaseUnavailable, match=r"cannot get to .*/data any more.*chmod o\+x"):
        EmbeddedPostgres(home).attach()
    home.parent.chmod(0o711)
    with EmbeddedPostgres(home, durable=False) as address:
        assert query(address, "SELECT 1") == [(1,)]


@as_root_only
@pytest.mark.parametrize(
    ("os_user", "says"), [("no-such-user", "no-such-user does not exist"), ("root", "does not run as root")]
)
def test_an_os_user_that_cannot_run_the_server_is_named(home: Path, os_user: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{says}.*GHL_PIPELINE_POSTGRES_USER"):
        EmbeddedPostgres(home, os_user=os_user).attach()


@as_root_only
def test_the_data_keeps_its_owner_and_another_os_user_is_refused(home: Path) -> None:
    with EmbeddedPostgres(home, os_user="nobody", durable=False):
        owner = (home / "postgres" / "data").stat().st_uid
    with EmbeddedPostgres(home, durable=False) as address:  # nobody named: the owner runs it
        assert query(address, "SELECT 1") == [(1,)]
    with pytest.raises(ConfigurationError, match=f"belongs to the OS user with id {owner}.*chown -R daemon"):
        EmbeddedPostgres(home, os_user="daemon").attach()


# --- what cannot work -------------------------------------------------------------------------------------------------


def test_missing_binaries_are_a_configuration_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PACKAGE", "no_such_package")
    with pytest.raises(ConfigurationError, match="make setup"):
        EmbeddedPostgres(home).attach()


def test_a_home_that_cannot_be_made_is_named(home: Path) -> None:
    home.write_text("a file where the folder should be")
    with pytest.raises(DatabaseUnavailable, match=r"home.*belongs to the user who runs this"):
        EmbeddedPostgres(home).attach()
    home.unlink()


def test_a_home_with_letters_that_a_shell_would_read_is_refused(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="GHL_PIPELINE_HOME"):
        EmbeddedPostgres(home / "$(id)").attach()


def test_a_home_with_spaces_quotes_and_a_very_long_name_works(home: Path) -> None:
    odd = home / "agency's project, été" / ("long" * 50)
    with EmbeddedPostgres(odd, durable=False) as address:
        assert query(address, "SELECT 1") == [(1,)]


def test_a_lost_password_is_not_answered_with_an_empty_database(home: Path) -> None:
    with EmbeddedPostgres(home, durable=False):
        pass
    (home / "postgres" / "password").unlink()
    with pytest.raises(DatabaseUnavailable, match=r"password file .* is gone"):
        EmbeddedPostgres(home).attach()


def test_a_wrong_password_file_is_told_apart_from_a_dead_server(home: Path) -> None:
    with EmbeddedPostgres(home, durable=False):
        (home / "postgres" / "password").write_text("wrong")
        with pytest.raises(DatabaseUnavailable, match="refuses the project's password"):
            EmbeddedPostgres(home).attach()


def test_data_of_another_major_version_is_named_before_anything_is_touched(home: Path) -> None:
    with EmbeddedPostgres(home, durable=False):
        pass
    (home / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(DatabaseUnavailable, match="made by PostgreSQL 17"):
        EmbeddedPostgres(home).attach()


def test_a_server_that_does_not_start_gives_its_reason_and_its_log(home: Path) -> None:
    with EmbeddedPostgres(home, durable=False):
        pass
    (home / "postgres" / "data" / "global" / "pg_control").unlink()
    with pytest.raises(DatabaseUnavailable, match=r"does not start: .*pg_control.*server\.log"):
        EmbeddedPostgres(home).attach()
