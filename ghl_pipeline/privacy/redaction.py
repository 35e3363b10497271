"""The log side of privacy: no log record of this process carries a person's value or a token.

`install()` is called once by every entry point (the command line, the definitions, the instance storage). What a value
looks like in text is in `patterns.py`; encrypting tokens is in `tokens.py`.

Two rules: messages pass `redact`, and an exception is logged with its type and its stack but without its text, unless
the text was written by this project. The text of a foreign exception may quote anything: a constraint's key, a JSON
body, a row.

Left out: values handed to a logger as `extra=`, which no formatter of this project prints.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from ghl_pipeline.errors import PipelineError
from ghl_pipeline.privacy.patterns import redact

__all__ = ["install", "redact", "safe_error_text"]

# They print URLs, with the query, below WARNING.
_LOGGERS_THAT_PRINT_URLS = ("aiohttp", "asyncio", "httpcore", "httpx", "urllib3")
_MASK_USER_ERRORS = "DAGSTER_REDACT_USER_CODE_ERRORS"
# dagster/_utils/error.py reads the mask's variable at each error, this one when it is imported.
_MASKED_ERRORS_LOGGER = "DAGSTER_REDACTED_ERROR_LOGGER_NAME"
# asyncio puts the repr of a task, and so of the exception it died of, into the message.
_TASK_EXCEPTION = re.compile(r"exception=([A-Za-z_][\w.]*)\(.*\)(?=>)", re.DOTALL)


def install() -> None:
    """Make this process's log records safe; a second call changes nothing.

    Sets `DAGSTER_REDACT_USER_CODE_ERRORS=1` unless the environment says otherwise, so that Dagster stores an error id
    in place of a user-code exception. Dagster logs the original under `dagster.redacted_errors`, which goes to stderr
    and so into the compute logs: there it keeps its error id, type and stack and loses its text.
    """
    os.environ.setdefault(_MASK_USER_ERRORS, "1")
    current = logging.getLogRecordFactory()
    if not isinstance(current, _RedactingFactory):
        logging.setLogRecordFactory(_RedactingFactory(current))
    masked = logging.getLogger(os.environ.get(_MASKED_ERRORS_LOGGER, "dagster.redacted_errors"))
    # The factory does this already; the filter stays when somebody replaces the factory.
    if not any(isinstance(present, _WithoutErrorText) for present in masked.filters):
        masked.addFilter(_WithoutErrorText())
    for name in _LOGGERS_THAT_PRINT_URLS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))


def safe_error_text(error: BaseException) -> str:
    """What may be shown and stored of an error.

    An error of this project: its own text, redacted. Any other: its class with the module (`psycopg.errors.DataError`),
    because its text may quote what it choked on.
    """
    return redact(str(error)) if isinstance(error, PipelineError) else _class_name(type(error))


def _class_name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _SafeError(Exception):
    """Stands in for an exception in a log record. Prints as the original's class, with its text if that is ours."""


@lru_cache(maxsize=256)
def _stand_in(module: str, qualname: str) -> type[_SafeError]:
    kind = type(qualname.rpartition(".")[2], (_SafeError,), {"__module__": module})
    kind.__qualname__ = qualname
    return kind


def _safe_error(error: BaseException, seen: frozenset[int] = frozenset()) -> BaseException:
    """A copy of the error and of its causes that keeps types and stacks and has no foreign text or notes."""
    if isinstance(error, _SafeError):
        return error
    text = ""
    # Dagster's own errors say what is wrong with the set-up; those that wrap user code are masked by Dagster.
    if isinstance(error, PipelineError) or type(error).__module__.startswith("dagster."):
        text = redact(str(error))
    elif isinstance(error, BaseExceptionGroup):
        text = f"{len(error.exceptions)} errors: " + "; ".join(safe_error_text(each) for each in error.exceptions)
    kind = _stand_in(type(error).__module__, type(error).__qualname__)
    safe = (kind(text) if text else kind()).with_traceback(error.__traceback__)
    seen |= {id(error)}
    if error.__cause__ is not None and id(error.__cause__) not in seen:
        safe.__cause__ = _safe_error(error.__cause__, seen)
    elif error.__context__ is not None and not error.__suppress_context__ and id(error.__context__) not in seen:
        safe.__context__ = _safe_error(error.__context__, seen)
    return safe


class _RedactingFactory:
    """Makes log records through the factory it replaces and redacts message, arguments, exception and stack."""

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self._inner = inner

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record = self._inner(*args, **kwargs)
        _redact_message(record)
        _redact_exception(record)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return record


class _WithoutErrorText(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        _redact_exception(record)
        return True


def _redact_exception(record: logging.LogRecord) -> None:
    if record.exc_info and record.exc_info[1] is not None:
        error = _safe_error(record.exc_info[1])
        record.exc_info = (type(error), error, record.exc_info[2])
    if record.exc_text:
        record.exc_text = redact(record.exc_text)


def _redact_message(record: logging.LogRecord) -> None:
    """Redact the message and keep its arguments where they are harmless: uvicorn's formatter unpacks them."""
    if isinstance(record.msg, BaseException):
        record.msg = safe_error_text(record.msg)
    if isinstance(record.args, Mapping):
        record.args = {key: _safe_argument(value) for key, value in record.args.items()}
    elif record.args:
        record.args = tuple(_safe_argument(value) for value in record.args)
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - whatever an argument's __str__ raises; logging would print the raw arguments
        record.msg, record.args = f"{redact(str(record.msg))} (its arguments do not fit)", ()
        return
    safe = redact(message)
    if record.name == "asyncio":
        safe = _TASK_EXCEPTION.sub(r"exception=\1", safe)
    if safe != message:
        record.msg, record.args = safe, ()


def _safe_argument(value: object) -> object:
    """The value itself, so that `%d` and `%.1f` still work, unless its text gives something away."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, BaseException):
        return safe_error_text(value)
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ must not break the work that logs
        return f"<{type(value).__name__}>"
    safe = redact(text)
    return value if safe == text else safe
