"""Who uses the embedded server, and how to log in.

Every attached process holds a shared lock on the file `users.lock`. Whoever leaves takes `start.lock`, tries to have
the first lock alone, and if that works was the last and stops the server. The kernel drops the locks of a killed
process, so there are no stale entries; a server that it left behind is found by the next one that attaches.
"""

import atexit
import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

import psycopg
from sqlalchemy import URL

from ghl_pipeline.database.embedded.files import Files, read_number, write_private
from ghl_pipeline.database.embedded.locks import POLL_SECONDS, SharedLock, exclusive_lock
from ghl_pipeline.database.embedded.server import HOST, SUPERUSER, Server
from ghl_pipeline.errors import ConfigurationError, DatabaseUnavailable

_LOCK_SECONDS: Final = 240.0  # longer than a slow start or stop by somebody else
_ANSWER_SECONDS: Final = 180.0


@dataclass(frozen=True)
class ServerAddress:
    """Where the embedded server is and how to log in."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)

    def url(self, database: str) -> URL:
        """The URL of one of its databases, for psycopg 3."""
        return URL.create("postgresql+psycopg", self.user, self.password, self.host, self.port, database)


class EmbeddedPostgres:
    """This process's hold on the embedded server of a home folder. Threads may share it; a forked child starts anew.

    Args:
        home: the project's folder for what it writes; made with all it needs when missing.
        os_user: unprivileged OS user to run the server as when this process is root; otherwise not looked at.
        durable: False for tests: faster, and a power cut may cost the data.
    """

    def __init__(self, home: Path, os_user: str | None = None, durable: bool = True) -> None:
        self._files = Files(home.resolve(), os_user)
        self._durable = durable
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        self._hold: SharedLock | None = None

    def __enter__(self) -> ServerAddress:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def attach(self) -> ServerAddress:
        """Makes sure the server runs, and keeps it running until `release()` or the end of this process.

        Calling it again checks the server again, and starts it again if it died.

        Raises:
            DatabaseUnavailable: it does not start, or its files cannot be used; the text names the log or the file.
            ConfigurationError: binaries or OS user are missing or cannot be used.
        """
        with self._this_process(), self._explained():
            folder = self._files.folder()
            with _starting_or_stopping(folder), contextlib.ExitStack() as undo:
                if self._hold is None:
                    self._hold = SharedLock(folder / "users.lock")
                    atexit.register(self._release_at_exit)
                    undo.callback(self._let_go)
                address = self._serve(folder)
                undo.pop_all()
                return address

    def release(self) -> None:
        """Gives up this process's hold; the last to do so stops the server. Called at exit when nobody else did.

        Raises:
            DatabaseUnavailable: the server does not stop.
        """
        with self._this_process(), self._explained():
            if self._hold is None:
                return
            try:
                folder = self._files.existing_folder()
                if folder is not None:  # else it was deleted, and the server notices that by itself
                    with _starting_or_stopping(folder):
                        if self._hold.alone():
                            self._server(folder).stop()
            finally:
                self._let_go()

    def stop(self) -> None:
        """Stops the server now, whoever else uses it.

        Raises:
            DatabaseUnavailable: the server does not stop.
        """
        with self._this_process(), self._explained():
            folder = self._files.existing_folder()
            if folder is not None:
                with _starting_or_stopping(folder):
                    self._server(folder).stop()
            self._let_go()

    def remove(self) -> None:
        """Stops the server and deletes its data and password, also where they had to be kept outside the project.

        Raises:
            DatabaseUnavailable: the server does not stop, or a file cannot be deleted.
        """
        with self._this_process(), self._explained():
            folder = self._files.existing_folder()
            self.stop()
            for made in (folder, self._files.control):
                if made is not None and made.exists():
                    shutil.rmtree(made)

    def running(self) -> bool:
        """Whether a server of this home folder is alive, whoever started it."""
        with self._this_process(), self._explained():
            folder = self._files.existing_folder()
            return folder is not None and self._server(folder).port() is not None

    def is_ours(self) -> bool:
        """Whether the home folder has a server's files that were made here, be it running, stopped or half set up."""
        return self._files.password.exists() or self._files.pointer.exists()

    # --- the hold -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _this_process(self) -> Iterator[None]:
        if self._pid != os.getpid():  # forked: the hold is the parent's, and its mutex may have been copied locked
            self._begin()
        with self._mutex:
            yield

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.close()
            self._hold = None
        atexit.unregister(self._release_at_exit)

    def _release_at_exit(self) -> None:
        if self._pid == os.getpid():  # a forked child that ends leaves its parent's server alone
            with contextlib.suppress(DatabaseUnavailable, ConfigurationError):  # the next to attach will be told
                self.release()

    # --- the server ---------------------------------------------------------------------------------------------------

    def _server(self, folder: Path) -> Server:
        os_user = self._files.os_user(folder)
        return Server(folder, self._files.binaries(os_user), os_user, self._durable)

    def _serve(self, folder: Path) -> ServerAddress:
        """The address of the live server; sets up and starts what is missing. The caller holds `start.lock`."""
        server = self._server(folder)
        pointer, port_file = self._files.pointer, folder / "port"
        elsewhere = folder != self._files.control
        if elsewhere and not pointer.exists() and server.data.exists():
            # A project that was deleted and made again at the same path must not wake up with the old one's data.
            server.stop()
            server.data.rename(server.data.with_name(f"data.left-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"))
        if not server.data.exists():
            password = secrets.token_urlsafe(32)
            write_private(self._files.password, password)
            server.initialise(password)
        if elsewhere and not pointer.exists():
            write_private(pointer, f"{folder}\n")
        if not self._files.password.exists():
            raise DatabaseUnavailable(
                f"The database in {server.data} is there, but its password file {self._files.password} is gone. "
                f"Restore it from a backup, or move the data folder away to start with an empty database."
            )
        port = server.port() or server.start(read_number(port_file))
        if port != read_number(port_file):
            write_private(port_file, f"{port}\n")
        address = ServerAddress(HOST, port, SUPERUSER, self._files.password.read_text().strip())
        self._wait_until_it_answers(server, address)
        return address

    @staticmethod
    def _wait_until_it_answers(server: Server, address: ServerAddress) -> None:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                psycopg.connect(
                    host=address.host,
                    port=address.port,
                    user=address.user,
                    password=address.password,
                    dbname="postgres",
                    connect_timeout=10,
                    require_auth="scram-sha-256",  # whoever else listens there is not told the password
                ).close()
            except psycopg.OperationalError as error:
                reason = str(error)
            else:
                return
            if "too many clients" in reason or "reserved for roles" in reason:
                return  # it is alive, and busy
            if "password authentication failed" in reason:
                raise DatabaseUnavailable(
                    f"The embedded PostgreSQL on port {address.port} refuses the project's password. "
                    f"Restore the file `password` that belongs to {server.data}."
                )
            if server.port() is None or time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"The embedded PostgreSQL on port {address.port} does not answer. "
                    f"The reason is at the end of {server.log}"
                )
            time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or "while writing"
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL in {self._files.home} cannot be used: {error.strerror} ({where}). "
                f"Check that the disk is not full and that the folder belongs to the user who runs this."
            ) from None


@contextlib.contextmanager
def _starting_or_stopping(folder: Path) -> Iterator[None]:
    with exclusive_lock(folder / "start.lock", wait_seconds=_LOCK_SECONDS):
        yield
