"""What the doctor says: findings, each one check of one thing, with what to do about it.

A finding holds counts, ids and settings, never a value of a person or a token.
"""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from ghl_pipeline.database.connection import unavailable
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.privacy.redaction import safe_error_text


class Check(StrEnum):
    """What is looked at: first what concerns this side, then each location."""

    SETTINGS = "settings"
    TOKEN_KEYS = "token keys"  # noqa: S105 - the name of a check
    DATABASE = "database"
    CLIENTS = "clients"
    TOKEN = "token"  # noqa: S105 - the name of a check
    ACCESS = "access"
    SEARCH = "search"
    SCOPES = "scopes"
    RATE_LIMIT = "rate limit"
    DAILY_LIMIT = "daily limit"
    CLOCK = "clock"
    GROUPS = "groups"
    LETTER_CASE = "letter case"
    DUPLICATES = "duplicates"
    TIME_ZONE = "time zone"
    REGION = "region"


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # works, though not as well as it could
    PROBLEM = "problem"  # does not work until a person acts


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of one check. `location` is None for this side; `advice` is empty when nothing is to be done."""

    check: Check
    level: Level
    text: str
    advice: str = ""
    location: str | None = None

    def __str__(self) -> str:
        """One line: what, and what to do. No full stop at its end: it may end in a command that somebody copies."""
        return f"{self.text}. {self.advice}" if self.advice else self.text


def finding_of(check: Check, error: Exception, *, location: str | None = None, level: Level = Level.PROBLEM) -> Finding:
    """An error as a finding. The project's errors say in their first sentence what happened, then what to do."""
    what, _, advice = safe_error_text(error).rstrip(".").partition(". ")
    if not isinstance(error, PipelineError):
        what = f"a bug: {what}"
        advice = "Please report it; its stack, which holds no value of a person, is on stderr"
    return Finding(check, level, what, advice or "Try again later; if it stays, ask GHL's support", location)


def as_database_error(engine: Engine, error: Exception) -> Exception:
    """The error, or, when it is a lost connection, the one that says where and what to do."""
    return unavailable(engine.url, error) if isinstance(error, OperationalError | InterfaceError) else error
