"""Values from outside, in a form that PostgreSQL can hold and give back."""

import re
from datetime import UTC, datetime

# PostgreSQL takes neither NUL nor half of a surrogate pair; JSON can bring both.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# A B-tree entry holds about 2,700 bytes.
LONGEST_KEY_BYTES = 2000
# A time that a zone moves out of Python's years is stored, and then every row that has it cannot be read any more.
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)


def storable_text(value: str) -> str:
    """The text without NULs and lone surrogates."""
    return _UNSTORABLE.sub("", value)


def storable_moment(value: datetime | None) -> datetime | None:
    """The time, or None when it has no zone or nothing can have happened then."""
    if value is None or value.tzinfo is None or not _EARLIEST <= value <= _LATEST:
        return None
    return value
