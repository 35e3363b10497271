"""The file beside the embedded database with the keys of stored tokens: one a line, the newest first.

Several machines that share a database have no such file but `GHL_PIPELINE_TOKEN_KEYS`. Whatever is interrupted here
leaves the old file or the new one: a key that is lost takes every token with it that it encrypted.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.fernet import Fernet

from ghl_pipeline.errors import ConfigurationError

KEY_FILE_NAME = "token.key"


def keys_in_file(path: Path) -> list[Fernet]:
    """The keys, newest first; the file is made with one key when there is none.

    Raises:
        ConfigurationError: it cannot be read or made, is open to others, or holds something else.
    """
    return [Fernet(line) for line in _lines(path)]


def add_key(path: Path) -> int:
    """Puts a new key in front; the ones before stay. Returns how many keys the file has now.

    Raises:
        ConfigurationError: as `keys_in_file`; the file is as it was.
    """
    with _turn(path):
        lines = [Fernet.generate_key(), *_lines(path)]
        _write(path, lines)
        return len(lines)


def retire_keys(path: Path, *, expected: int) -> int:
    """Leaves only the newest key. Returns how many were removed.

    Args:
        path: the file.
        expected: how many keys it had when the caller saw that nothing is under the older ones. A key that was added
            since would be the newest, and everything under the one before would be lost.

    Raises:
        ConfigurationError: as `keys_in_file`, or there are more or fewer keys by now; the file is as it was.
    """
    with _turn(path):
        newest, *retired = lines = _lines(path)
        if len(lines) != expected:
            raise ConfigurationError(
                f"The token key {path} was changed meanwhile, so no key was removed. See: ghl-pipeline keys check"
            )
        if retired:
            _write(path, [newest])
        return len(retired)


def _lines(path: Path) -> list[bytes]:
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"The token key {path} can be read by others. Close it: chmod 600 {path}")
        lines = [line.strip() for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise _not_accessible(path, error) from None
    try:
        for line in lines:
            Fernet(line)
    except ValueError:
        lines = []
    if not lines:
        raise ConfigurationError(
            f"The token key {path} is damaged. Restore it from a copy; without one, delete the file and store every "
            "client's token again: ghl-pipeline clients import FILE.csv"
        )
    return lines


def _not_accessible(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The token key {path} cannot be read or made ({error.strerror}). Give this user access to the folder, or "
        "set GHL_PIPELINE_HOME to another one, or the key itself in GHL_PIPELINE_TOKEN_KEYS."
    )


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One process at a time changes the file: of two that add a key at once, neither may lose the other's."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _not_accessible(path, error) from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _make(path: Path) -> None:
    """Write the key under a temporary name, then link it: of two processes one wins, and nobody sees half a key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = _draft(path, [Fernet.generate_key()])
    try:
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
    _sync_folder(path)


def _write(path: Path, lines: Sequence[bytes]) -> None:
    try:
        draft = _draft(path, lines)
        try:
            owner = path.stat()
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(draft, owner.st_uid, owner.st_gid)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path)
    except OSError as error:
        raise _not_accessible(path, error) from None


def _draft(path: Path, lines: Sequence[bytes]) -> Path:
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"\n".join(lines))
        file.flush()
        os.fsync(file.fileno())
    return draft


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # a key lost in a power failure would take every token stored since with it
    finally:
        os.close(folder)
