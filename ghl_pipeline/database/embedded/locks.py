"""Locks between processes that the kernel drops when their holder dies, however it dies.

flock(2) on files of mode 0600. A lock belongs to the process that took it: programs it starts do not inherit it
(O_CLOEXEC), and a forked child lets go of its copies at once, or it would keep them locked after its parent's death.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from ghl_pipeline.errors import DatabaseUnavailable

POLL_SECONDS: Final = 0.02

_open: Final[set[int]] = set()


class SharedLock:
    """A shared lock on a file, which its holder may try to have alone."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = _open_file(path)
        if not _try(self._descriptor, fcntl.LOCK_SH):
            self.close()
            raise DatabaseUnavailable(f"Another program has locked {path} for itself. End it and try again.")

    def alone(self) -> bool:
        """Whether nobody else holds the lock. Afterwards it is held alone or not at all: only for who leaves."""
        return self._descriptor is not None and _try(self._descriptor, fcntl.LOCK_EX)

    def close(self) -> None:
        """Lets go."""
        if self._descriptor is not None:
            _close_file(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def exclusive_lock(path: Path, *, wait_seconds: float) -> Iterator[None]:
    """Holds an exclusive lock on a file.

    Raises:
        DatabaseUnavailable: somebody else held it all the time.
    """
    descriptor = _open_file(path)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _try(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"Another process has been starting or stopping the embedded PostgreSQL for {wait_seconds:.0f} s. "
                    f"End the process that holds {path} (fuser names it) and try again."
                )
            time.sleep(POLL_SECONDS)
        yield
    finally:
        _close_file(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_file(path: Path) -> int:
    _watch_forks()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _open.add(descriptor)
    return descriptor


def _close_file(descriptor: int) -> None:
    if descriptor in _open:  # else this is a forked child, which has closed it, and the number may be another file's
        _open.discard(descriptor)
        os.close(descriptor)


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_drop_the_parents_locks)


def _drop_the_parents_locks() -> None:
    for descriptor in _open:
        os.close(descriptor)  # not unlocked: that would take the lock from the parent too
    _open.clear()
