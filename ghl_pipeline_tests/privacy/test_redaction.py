"""What ends up in the log once `install()` was called, through the standard formatters."""

import asyncio
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from uvicorn.logging import AccessFormatter

from ghl_pipeline.errors import InvalidInput, PipelineError
from ghl_pipeline.privacy.redaction import install, safe_error_text

CANARY_NAME, CANARY_EMAIL, CANARY_PHONE = "Zaphodina Quux", "zaphodina@example.com", "+13055550123"
CANARIES = re.compile(f"{CANARY_NAME}|zaphodina|{re.escape(CANARY_PHONE)}|5550123")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`install()`, undone after the test."""
    factory = logging.getLogRecordFactory()
    levels = {name: logging.getLogger(name).level for name in ("asyncio", "httpcore", "httpx", "urllib3")}
    monkeypatch.setenv("DAGSTER_REDACT_USER_CODE_ERRORS", "")
    monkeypatch.delenv("DAGSTER_REDACT_USER_CODE_ERRORS")
    install()
    yield
    logging.setLogRecordFactory(factory)
    logging.getLogger("dagster.redacted_errors").filters.clear()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger and what its handler wrote."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.Logger("of this test")  # noqa: LOG001 - not in the hierarchy, so nothing outlives the test
    logger.addHandler(handler)
    yield logger, written
    handler.close()


def test_message_and_arguments_lose_what_is_personal_and_keep_the_rest(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    logger.info("lead %d of %s: %s, %.2f s", 7, "ve9EPM428h8vShlRW1KT", CANARY_EMAIL, 1.5)
    logger.info(f"in the text {CANARY_PHONE}")  # noqa: G004 - other people's code does this
    logger.info("by name %(mail)s %(count)d", {"mail": CANARY_EMAIL, "count": 3})
    logger.info("in halves %s@%s", "zaphodina", "example.com")
    logger.info({"email": CANARY_EMAIL})
    assert written.getvalue().splitlines() == [
        "INFO lead 7 of ve9EPM428h8vShlRW1KT: [email], 1.50 s",
        "INFO in the text [phone]",
        "INFO by name [email] 3",
        "INFO in halves [email]",
        "INFO {'email': '[email]'}",
    ]


def test_an_exception_keeps_types_and_stack_and_loses_its_text(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log

    def parse_lead() -> None:
        try:
            raise KeyError(CANARY_NAME)
        except KeyError as error:
            raise ValueError(f"cannot read {CANARY_NAME}") from error

    try:
        parse_lead()
    except ValueError as error:
        error.add_note(f"about {CANARY_EMAIL}")
        logger.exception("it failed: %s", error)  # noqa: TRY401 - the argument is the point
        logger.error(error)  # noqa: TRY400
    text = written.getvalue()
    assert not CANARIES.search(text.replace('f"cannot read {CANARY_NAME}"', ""))
    assert text.startswith("ERROR it failed: ValueError\nTraceback")
    assert "in parse_lead" in text
    assert "\nKeyError\n\nThe above exception was the direct cause" in text
    assert text.endswith("\nValueError\nERROR ValueError\n")


def test_the_text_of_our_own_errors_is_shown_in_the_log(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    try:
        raise ExceptionGroup(CANARY_NAME, [InvalidInput("line 3: no name"), ValueError(CANARY_NAME)])
    except ExceptionGroup:
        logger.exception("two")
    try:
        raise PipelineError(f"Location abc is busy, not {CANARY_EMAIL}.")
    except PipelineError:
        logger.exception("one")
    text = written.getvalue()
    assert "2 errors: line 3: no name; ValueError\n" in text
    assert text.endswith("PipelineError: Location abc is busy, not [email].\n")
    assert not CANARIES.search(text)


def test_stack_and_broken_arguments_do_not_give_anything_away(
    log: tuple[logging.Logger, io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError(CANARY_NAME)

    logger, written = log
    logger.info("too many", CANARY_EMAIL, 3)  # noqa: PLE1205
    logger.info("%d", CANARY_PHONE)
    logger.info("%s", Broken())
    logger.info("here", stack_info=True)  # zaphodina@example.com
    text = written.getvalue()
    assert text.startswith(
        "INFO too many (its arguments do not fit)\nINFO %d (its arguments do not fit)\nINFO <Broken>\n"
    )
    assert "Stack (most recent call last)" in text
    assert not CANARIES.search(text + capsys.readouterr().err)


def test_an_access_line_can_still_be_formatted_by_uvicorn() -> None:
    for path, shown in (("/hooks/abc", "/hooks/abc"), (f"/hooks?email={CANARY_EMAIL}", "/hooks?email=[email]")):
        record = logging.getLogRecordFactory()(
            "uvicorn.access", logging.INFO, "h.py", 1, '%s - "%s %s HTTP/%s" %d',
            ("127.0.0.1:54321", "POST", path, "1.1", 200), None,
        )  # fmt: skip
        line = AccessFormatter("%(client_addr)s %(request_line)s %(status_code)s", use_colors=False).format(record)
        assert line == f"127.0.0.1:54321 POST {shown} HTTP/1.1 200 OK"


async def test_a_task_that_died_unwatched_is_reported_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError(CANARY_NAME)

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    assert "exception=ValueError>" in caplog.text
    assert CANARY_NAME not in caplog.text


def test_a_user_code_error_leaves_neither_event_log_nor_stderr_a_trace_of_its_text(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # No `from`: what Dagster sees is the foreign error itself.
    @dg.asset
    def leaking() -> None:
        raise ValueError(f"{CANARY_NAME} has {CANARY_EMAIL}")

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([leaking], instance=instance, raise_on_error=False)
        assert not result.success
        stored = "\n".join(str(record) for record in instance.all_logs(result.run_id))
    written = capfd.readouterr().err
    assert "error ID" in stored
    assert not CANARIES.search(stored)
    error_id = re.search(r"error ID ([0-9a-f-]{36})", written)
    assert error_id is not None
    assert error_id.group(1) in stored
    # Source lines of a traceback are the program's, not a person's; this one names the constants.
    assert not CANARIES.search(written)


def test_the_masked_errors_stay_safe_when_somebody_replaces_the_record_factory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.setLogRecordFactory(logging.LogRecord)
    masked = logging.getLogger("dagster.redacted_errors")
    handler = logging.StreamHandler()
    masked.addHandler(handler)
    try:
        raise ValueError(CANARY_NAME)
    except ValueError:
        masked.exception("error ID 1")
    finally:
        masked.removeHandler(handler)
    written = capsys.readouterr().err
    assert written.startswith("error ID 1\nTraceback")
    assert CANARY_NAME not in written


def test_installing_twice_changes_nothing_and_a_chosen_setting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["DAGSTER_REDACT_USER_CODE_ERRORS"] == "1"
    factory = logging.getLogRecordFactory()
    monkeypatch.setenv("DAGSTER_REDACT_USER_CODE_ERRORS", "0")
    logging.getLogger("httpx").setLevel(logging.ERROR)
    install()
    assert logging.getLogRecordFactory() is factory
    assert len(logging.getLogger("dagster.redacted_errors").filters) == 1
    assert os.environ["DAGSTER_REDACT_USER_CODE_ERRORS"] == "0"
    assert logging.getLogger("httpx").level == logging.ERROR
    assert not logging.getLogger("httpcore").isEnabledFor(logging.INFO)


def test_a_foreign_error_is_told_by_its_class_and_ours_by_its_text(tmp_path: Path) -> None:
    assert safe_error_text(InvalidInput("Lead 7 has no e-mail. Add one.")) == "Lead 7 has no e-mail. Add one."
    assert safe_error_text(InvalidInput(f"Not {CANARY_EMAIL}")) == "Not [email]"
    assert safe_error_text(ValueError(CANARY_NAME)) == "ValueError"
    assert safe_error_text(dg.DagsterInvariantViolationError(CANARY_NAME)) == (
        "dagster._core.errors.DagsterInvariantViolationError"
    )
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / CANARY_NAME).read_text()
    assert safe_error_text(missing.value) == "FileNotFoundError"
