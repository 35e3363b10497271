"""Where the files of an embedded server are, and writing them so that a crash leaves either the old or the new.

In `<home>/postgres`: `data/`, `server.log`, `port`, `users.lock`, `start.lock` and `password`. Started as root, the
server runs as an unprivileged OS user; if that user cannot get to the home folder, all but the password are in
`/var/lib/ghl-pipeline/<hash of home>/`, and `<home>/postgres/location` says so. No folder that was not made here ever
gets other permissions.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ghl_pipeline.database.embedded.locks import exclusive_lock
from ghl_pipeline.database.embedded.machine import OsUser, choose_os_user, copy_binaries, copy_name, find_binaries
from ghl_pipeline.errors import ConfigurationError, DatabaseUnavailable

SYSTEM_FOLDER: Final = Path("/var/lib/ghl-pipeline")

_COPY_SECONDS: Final = 240.0

# pg_ctl pastes the data folder into a shell command between double quotes.
_UNSAFE_LETTERS: Final = '"$`\\'


@dataclass(frozen=True)
class Files:
    """The files of the server of one home folder."""

    home: Path
    wanted_os_user: str | None

    @property
    def control(self) -> Path:
        """The folder that is always in the home folder."""
        return self.home / "postgres"

    @property
    def password(self) -> Path:
        """The superuser's password. It stays in the project: whoever deletes the project deletes the key."""
        return self.control / "password"

    @property
    def pointer(self) -> Path:
        """Says where the server's folder is, when that is not `control`."""
        return self.control / "location"

    def os_user(self, folder: Path) -> OsUser:
        """Who runs the server whose files are in `folder`; see `choose_os_user`."""
        return choose_os_user(self.wanted_os_user, folder / "data")

    def existing_folder(self) -> Path | None:
        """The server's folder, if a server was ever set up."""
        folder = self._pointed_at() or self.control
        return folder if (folder / "data").exists() else None

    def folder(self) -> Path:
        """The server's folder; made when there is none yet.

        Raises:
            ConfigurationError: the home folder's path cannot be used, or no OS user can run the server.
            DatabaseUnavailable: the database was set up elsewhere and is gone.
        """
        if any(letter in str(self.home) for letter in _UNSAFE_LETTERS):
            raise ConfigurationError(
                f"The embedded PostgreSQL cannot live in {self.home}: its path has one of the letters "
                f"{' '.join(_UNSAFE_LETTERS)}. Set GHL_PIPELINE_HOME to another folder."
            )
        # As root others may pass through, not look around: the server's OS user has to get to its data.
        for folder in (self.home, self.control):
            make_folder(folder, 0o711 if os.geteuid() == 0 else 0o700)
        settled = self.existing_folder()
        if settled is not None:
            return settled
        if self.pointer.exists():
            raise DatabaseUnavailable(
                f"{self.pointer} says that the database is in {self._pointed_at()}, but it is gone. Restore it from a "
                f"backup, or delete {self.pointer} to start with an empty one."
            )
        if self.os_user(self.control).reaches(self.control):
            return self.control
        folder = SYSTEM_FOLDER / hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        make_folder(SYSTEM_FOLDER, 0o755)
        make_folder(folder, 0o711)
        return folder

    def binaries(self, os_user: OsUser) -> Path:
        """The installation to run: the wheel's, or a copy where the OS user can get to it.

        Raises:
            ConfigurationError: the wheel is not installed.
        """
        installed = find_binaries()
        if os_user.reaches(installed / "bin"):
            return installed
        make_folder(SYSTEM_FOLDER, 0o755)
        with exclusive_lock(SYSTEM_FOLDER / "copy.lock", wait_seconds=_COPY_SECONDS):
            return copy_binaries(installed, SYSTEM_FOLDER / copy_name())

    def _pointed_at(self) -> Path | None:
        return Path(self.pointer.read_text().strip()) if self.pointer.exists() else None


def make_folder(path: Path, mode: int) -> None:
    """Makes a folder that has its mode from the first moment, whatever the umask; leaves one that exists as it is."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    made.chmod(mode)
    try:
        made.rename(path)
    except OSError:  # another process was faster and has put something in
        made.rmdir()
        if not path.is_dir():
            raise


def write_private(path: Path, text: str) -> None:
    """Writes a file of mode 0600."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read_number(path: Path) -> int | None:
    """The number a file holds; None when there is no such file, or not a number in it."""
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
