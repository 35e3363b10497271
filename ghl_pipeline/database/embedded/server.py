"""One PostgreSQL server process on one data folder: set up, start, stop, and what a crash leaves behind.

Nothing here is safe against two processes at once; the caller holds the lock that makes it so (`shared.py`).
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from ghl_pipeline.database.embedded.machine import POSTGRES_MAJOR, OsUser
from ghl_pipeline.errors import DatabaseUnavailable

HOST: Final = "127.0.0.1"
SUPERUSER: Final = "ghl_pipeline"

_START_SECONDS: Final = 120  # includes replaying the log after a crash
_STOP_SECONDS: Final = 30
_ORPHAN_SECONDS: Final = 10
_START_ATTEMPTS: Final = 4

_SETTINGS: Final = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # no socket: its path may not exceed 107 bytes, and TCP serves everybody
    "max_connections": "200",  # runs, web server, daemon and CLI each keep a pool
    "max_locks_per_transaction": "128",
    # Error texts, DETAIL lines and statements quote people's values; clients get them, the log file does not.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}
_NOT_DURABLE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

_COMPLAINT: Final = re.compile(r"(?P<what>(?:(?:FATAL|PANIC|error):|running bootstrap script .* failed:)[^\n]*)")
_PROC: Final = Path("/proc")
_UNFINISHED: Final = "data.unfinished-"


class _PidFile(NamedTuple):
    pid: int
    port: int


@dataclass(frozen=True)
class Server:
    """The server of one data folder. `folder` holds the data and the server's log."""

    folder: Path
    binaries: Path
    os_user: OsUser
    durable: bool

    @property
    def data(self) -> Path:
        """The data folder, mode 0700."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What initdb and the server said, mode 0600."""
        return self.folder / "server.log"

    def initialise(self, password: str) -> None:
        """Makes an empty cluster whose superuser has the given password. A half-made one is never used.

        Raises:
            DatabaseUnavailable: initdb failed; the text names the log.
        """
        for leftover in (*self.folder.glob(f"{_UNFINISHED}*"), *self.folder.glob("password-*")):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()
        # A new name each time: the initdb of a killed process may still be writing to its own.
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.folder))
        descriptor, secret = tempfile.mkstemp(prefix="password-", dir=self.folder)
        try:
            with open(descriptor, "w") as file:  # noqa: PTH123 - a descriptor, not a path
                file.write(password)
            self.os_user.own(Path(secret))
            self.os_user.own(unfinished)
            told = self._run(
                "initdb",
                *("--pgdata", str(unfinished), "--username", SUPERUSER, "--pwfile", secret),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-instructions"),
                # Sorting and lower() by PostgreSQL's own tables: the same on every machine and after every upgrade.
                *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                # Iterations slow down guessing; this password is 256 random bits, and each log-in is 6 ms faster.
                *("--set", "scram_iterations=1"),
                *(() if self.durable else ("--no-sync",)),
            )
            if not (unfinished / "global" / "pg_control").is_file():  # initdb removes what it could not finish
                raise DatabaseUnavailable(f"The embedded PostgreSQL cannot be set up: {self._complaint(told)}")
            unfinished.rename(self.data)
        finally:
            Path(secret).unlink(missing_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)

    def port(self) -> int | None:
        """The port of the live server of this data folder; None when there is none."""
        pidfile = self._pidfile()
        return pidfile.port if pidfile is not None and self._alive(pidfile.pid) else None

    def start(self, remembered_port: int | None) -> int:
        """Starts the server, on the remembered port when that is free, and returns its port.

        Raises:
            DatabaseUnavailable: it does not start; the text names the log.
        """
        self._check_version()
        if not self.os_user.reaches(self.data):
            raise DatabaseUnavailable(
                f"OS user {self.os_user.name}, who runs the embedded PostgreSQL, cannot get to {self.data} any more: "
                f"a folder above it is closed. Open it again (chmod o+x), or move the project to where others may pass."
            )
        self._clear_away_the_dead()
        settings = _SETTINGS | ({} if self.durable else _NOT_DURABLE)
        told = ""
        for attempt in range(_START_ATTEMPTS):
            # Between choosing a port and using it somebody may take it; sessions of a crashed server may need a moment.
            time.sleep(attempt * 0.25)
            chosen = _free_port(remembered_port)
            options = ["-p", str(chosen), *(f"--{key}={value}" for key, value in settings.items())]
            told = self._run(
                "pg_ctl",
                *("start", "--pgdata", str(self.data), "--wait", "--timeout", str(_START_SECONDS), "--silent"),
                *("--options", shlex.join(options)),
            )
            port = self.port()
            if port is not None:
                return port
        raise DatabaseUnavailable(f"The embedded PostgreSQL does not start: {self._complaint(told)}")

    def stop(self) -> None:
        """Stops the server, ending its sessions; one that does not comply is cut off and recovers at the next start.

        Raises:
            DatabaseUnavailable: it still runs.
        """
        told = ""
        for mode in ("fast", "immediate"):
            if self.port() is None:
                return
            told = self._run(
                "pg_ctl",
                *("stop", "--pgdata", str(self.data), "--wait", "--timeout", str(_STOP_SECONDS), "--silent"),
                *("--mode", mode),
            )
        if self.port() is not None:
            raise DatabaseUnavailable(f"The embedded PostgreSQL does not stop: {self._complaint(told)}")

    def _run(self, program: str, *arguments: str) -> str:
        """Runs one of the programs and returns what the log says about it.

        Whether it worked, callers see from what it left: exit codes are lost where SIGCHLD is ignored.
        """
        try:
            with open(self.log, "a+b", opener=_private) as log:
                before = log.seek(0, os.SEEK_END)
                command = [str(self.binaries / "bin" / program), *arguments]
                self.os_user.run(command, timeout=_START_SECONDS + 30, output=log.fileno())
                log.seek(before)
                return log.read().decode(errors="replace")
        except (OSError, subprocess.SubprocessError) as error:
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise DatabaseUnavailable(
                f"{program} of the embedded PostgreSQL cannot be run as OS user {self.os_user.name}: {reason}. "
                f"Its log is {self.log}"
            ) from None

    def _complaint(self, told: str) -> str:
        """The first complaint, which names the cause, and where to read the rest. It holds no values of people."""
        found = _COMPLAINT.search(told)
        return f"{found['what'] if found else 'no reason given'}. The whole story is at the end of {self.log}"

    def _check_version(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != POSTGRES_MAJOR:
            raise DatabaseUnavailable(
                f"The database in {self.data} was made by PostgreSQL {made_by}; the installed package brings "
                f"{POSTGRES_MAJOR}. Dump it with the version that made it, move the folder away, and restore the dump."
            )

    # --- telling the living from the dead -----------------------------------------------------------------------------

    def _pidfile(self) -> _PidFile | None:
        # Its lines: pid, data folder, start time, port, ... (PostgreSQL 18 manual, 66.1 Database File Layout).
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return _PidFile(pid=int(lines[0]), port=int(lines[3]))
        except (FileNotFoundError, ValueError, IndexError):
            return None

    def _alive(self, pid: int) -> bool:
        """Whether the process is the server of this data folder: no zombie, no other process that got its id."""
        data = os.fsencode(self.data)
        if not (_PROC / "self").exists():
            listed = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
            return b"-D " + data in listed.stdout
        try:
            # What even root may read in a container without SYS_PTRACE. A zombie's is empty, a session's has no path.
            return data in (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False

    def _clear_away_the_dead(self) -> None:
        """Removes what keeps a new server from starting after a crash.

        That is a pid file whose process is a zombie or somebody else, which PostgreSQL takes for a living server, and
        sessions that outlived their server and hold its shared memory.
        """
        if self.port() is not None:
            return
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while orphans := self._orphans():
            patient = time.monotonic() < deadline - _ORPHAN_SECONDS / 2
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT if patient else signal.SIGKILL)
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"Processes {orphans} of a crashed PostgreSQL still use {self.data}. End them and try again."
                )
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _orphans(self) -> list[int]:
        """PostgreSQL processes at work in the data folder; none where /proc is missing or closed to us."""
        found = []
        for process in _PROC.glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().strip() == "postgres" and (process / "cwd").samefile(self.data):
                    found.append(int(process.name))
        return found


def _free_port(wanted: int | None) -> int:
    for port in (wanted, 0) if wanted else (0,):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does: ignores TIME_WAIT
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise DatabaseUnavailable(f"No TCP port is free on {HOST} for the embedded PostgreSQL.")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
