"""Failures become few messages, and each of these arrives."""

import contextlib
import hashlib
import hmac
import logging
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.ghl.errors import DailyQuotaReached
from ghl_pipeline.operations.alerting import channels
from ghl_pipeline.operations.alerting.alerts import Alert, AlertKind
from ghl_pipeline.operations.alerting.channels import SLACK_MOST_CHARACTERS, SlackChannel, WebhookChannel, slack_text
from ghl_pipeline.operations.alerting.news import Told, is_news
from ghl_pipeline.operations.alerting.noting import FailedRun
from ghl_pipeline.operations.alerting.outbox import list_alerts
from ghl_pipeline.orchestration.attempts import begin_attempt
from ghl_pipeline.privacy import redaction
from ghl_pipeline_tests.operations.alert_tools import (
    REFUSED,
    SECRET_PATH,
    Inbox,
    alerting_to,
    failed_run,
    running_inbox,
    succeed,
    time_passes,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with running_inbox() as running:
        yield running


@pytest.fixture
def redacted() -> Iterator[None]:
    """As every process of the project logs; undone after the test."""
    factory = logging.getLogRecordFactory()
    levels = {name: logging.getLogger(name).level for name in ("httpcore", "httpx")}
    redaction.install()
    yield
    logging.setLogRecordFactory(factory)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


# --- what is news


@pytest.mark.parametrize(
    ("told", "is_held", "is_repeat", "news"),
    [
        (None, False, False, True),
        (None, True, True, True),
        # The same again within the hour, and after it.
        (Told(NOW - HOUR / 2, False, True, False), False, False, False),
        (Told(NOW - HOUR, False, True, False), False, False, True),
        # A rerun of the same says nothing new however late; of another error it does.
        (Told(NOW - 9 * HOUR, False, True, False), False, True, False),
        (Told(NOW - 9 * HOUR, False, False, False), False, True, True),
        # Held: once, until it was well or failed in another way in between, or when it becomes so.
        (Told(NOW - 99 * HOUR, True, True, False), True, False, False),
        (Told(NOW - HOUR / 2, True, True, True), True, False, True),
        (Told(NOW - HOUR / 2, True, False, False), True, True, True),
        (Told(NOW - HOUR / 2, False, True, False), True, True, True),
    ],
)
def test_what_is_news(told: Told | None, is_held: bool, is_repeat: bool, news: bool) -> None:
    assert is_news(told, is_held=is_held, is_repeat=is_repeat, now=NOW, every=HOUR) is news


@given(hours=st.floats(0, 1000), held=st.booleans(), latest=st.booleans(), well=st.booleans())
def test_a_repeat_is_never_news_where_a_first_attempt_would_not_be(
    hours: float, held: bool, latest: bool, well: bool
) -> None:
    told = Told(NOW - timedelta(hours=hours), held, latest, well)
    first, repeat = (is_news(told, is_held=held, is_repeat=it, now=NOW, every=HOUR) for it in (False, True))
    assert first or not repeat


# --- few messages


def test_200_locations_that_fail_for_one_reason_are_one_message(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    alerting.note(failed_run(engine, "run-1", [f"Location{number:012}" for number in range(200)]))
    alerting.deliver()
    [message] = inbox.texts()
    assert message.splitlines() == [
        "*hydration failed at 200 locations: GhlUnreachable*",
        "Where: " + ", ".join(f"Location{number:012}" for number in range(5)) + " and 195 more",
        "Why, of the first: GHL did not answer. It is tried again.",
        "What to do: Nothing yet: it is tried again by itself, with growing pauses. To see it: ghl-pipeline status",
        "<https://dagster.example.com/runs/run-1|The run>",
    ]


def test_many_runs_in_a_few_minutes_are_two_messages(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    for number in range(30):
        alerting.note(failed_run(engine, f"run-{number}", [f"Location{number:012}"]))
        alerting.deliver()
    assert len(inbox.taken) == 1
    time_passes(engine, minutes=6)
    alerting.deliver()
    titles = [message.splitlines()[0] for message in inbox.texts()]
    assert titles == [
        "*hydration failed at 1 location: GhlUnreachable*", "*hydration failed at 29 locations: GhlUnreachable*",
    ]  # fmt: skip


def test_the_first_attempt_is_told_and_its_repetitions_are_counted(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    alerting.note(failed_run(engine, "run-1", ["LocationOne"]))
    for number in (2, 3):
        alerting.note(failed_run(engine, f"run-{number}", ["LocationOne"], is_repeat=True))
    alerting.note(failed_run(engine, "run-4", ["LocationOne"]))  # the next schedule, within the hour
    alerting.deliver()
    assert len(inbox.taken) == 1
    time_passes(engine, hours=2)
    alerting.note(failed_run(engine, "run-5", ["LocationOne"]))
    alerting.deliver()
    assert "+3 suppressed since the last alert of it" in inbox.texts()[1].splitlines()


def test_a_rerun_that_fails_in_another_way_is_news(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    alerting.note(failed_run(engine, "run-1", ["LocationOne", "LocationTwo"]))
    alerting.note(failed_run(engine, "run-2", ["LocationOne"], "ServerError", is_repeat=True))
    alerting.note(failed_run(engine, "run-3", ["LocationTwo"], is_repeat=True))
    alerting.deliver()
    titles = [message.splitlines()[0] for message in inbox.texts()]
    assert titles == [
        "*hydration failed at 2 locations: GhlUnreachable*",
        "*hydration failed at 1 location: ServerError*",
    ]


def test_a_held_location_is_told_once_with_what_to_do_until_it_was_well(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)

    def refuse(run_id: str) -> int:
        alerting.note(failed_run(engine, run_id, ["LocationOne"], REFUSED, permanent=True))
        alerting.deliver()
        return len(inbox.taken)

    assert refuse("run-1") == 1
    assert "*hydration is held at 1 location until somebody acts: TokenRejected*" in inbox.texts()[0]
    assert "ghl-pipeline doctor --location LocationOne" in inbox.texts()[0]
    time_passes(engine, days=3)
    assert refuse("run-2") == 1
    succeed(engine, "LocationOne")
    assert refuse("run-3") == 2


def test_a_location_that_was_put_right_before_its_run_ended_is_not_told(engine: Engine, inbox: Inbox) -> None:
    """A long run tells of its failures at its end; meanwhile somebody gave the location a new token."""
    alerting = alerting_to(engine, inbox)
    run = failed_run(engine, "run-1", ["LocationOne", "LocationTwo"], REFUSED, permanent=True)
    succeed(engine, "LocationOne")
    assert alerting.note(run) == 1
    alerting.deliver()
    assert "is held at 1 location" in inbox.texts()[0]
    assert "LocationTwo" in inbox.texts()[0]
    # Its next refusal is the first that anybody hears of.
    assert alerting.note(failed_run(engine, "run-2", ["LocationOne"], REFUSED, permanent=True)) == 1


def test_a_bug_that_ends_as_held_is_told_once_more(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    for number in range(6):
        run = failed_run(engine, f"run-{number}", ["LocationOne"], "KeyError", permanent=True, is_repeat=number > 0)
        alerting.note(run)
        time_passes(engine, minutes=10)
        alerting.deliver()
        with engine.begin() as connection:  # as the sensor that asks again does
            connection.execute(text("UPDATE location_standings SET reruns = reruns + 1"))
    titles = [message.splitlines()[0] for message in inbox.texts()]
    assert titles == [
        "*hydration failed at 1 location: KeyError*",
        "*hydration is held at 1 location until somebody acts: KeyError*",
    ]


def test_the_daily_quota_and_a_busy_location_alarm_nobody(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    alerting.note(failed_run(engine, "run-1", ["LocationOne"], DailyQuotaReached.__name__))
    alerting.note(failed_run(engine, "run-2", ["LocationOne"], "LocationBusy"))
    assert alerting.deliver().sent == 0


def test_a_run_that_died_is_told_although_no_location_says_why(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    begin_attempt(engine, "LocationOne", "run-1")
    alerting.note(FailedRun("run-1", "hydrate_leads", is_repeat=False))
    alerting.note(FailedRun("run-2", "hydrate_leads", is_repeat=True))
    alerting.note(FailedRun("run-3", "sync_crm", is_repeat=False))
    alerting.deliver()
    titles = [message.splitlines()[0] for message in inbox.texts()]
    assert titles == [
        "*A run of hydrate_leads ended in the middle, with 1 location not finished*",
        "*A run of sync_crm failed and names no location*",
    ]


# --- each arrives


def test_what_slack_could_not_take_arrives_when_it_can_again(
    engine: Engine, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    alerting = alerting_to(engine, inbox)
    inbox.status, inbox.word = 503, b"down"
    for number in range(3):
        alerting.note(failed_run(engine, f"run-{number}", ["LocationOne"], f"Error{number}"))
    assert alerting.deliver().sent == 3  # to the log
    assert len(inbox.taken) == 1, "one that is down is not asked for each"
    assert alerting.deliver().not_taken == 1
    inbox.status, inbox.word = 200, b"ok"
    inbox.taken.clear()
    time_passes(engine, hours=1)
    assert alerting.deliver().sent == 3
    assert [f"Error{number}" in message for number, message in enumerate(sorted(inbox.texts()))] == [True] * 3
    assert alerting.deliver().sent == 0
    assert [record.getMessage() for record in caplog.records if record.getMessage().startswith("alert: ")] != []


def test_a_pause_that_slack_asks_for_is_kept(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    inbox.status, inbox.headers = 429, {"retry-after": "600"}
    alerting.note(failed_run(engine, "run-1", ["LocationOne"]))
    alerting.deliver()
    inbox.status = 200
    time_passes(engine, minutes=9)
    assert alerting.deliver().sent == 0
    time_passes(engine, minutes=2)
    assert alerting.deliver().sent == 1


def test_a_channel_that_takes_nothing_for_a_day_is_given_up(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    inbox.status, inbox.word = 404, b"no_service"
    alerting.note(failed_run(engine, "run-1", ["LocationOne"]))
    alerting.deliver()
    time_passes(engine, hours=25)
    assert alerting.deliver().given_up == 1
    time_passes(engine, hours=25)
    assert alerting.deliver().not_taken == 0
    with engine.connect() as connection:
        [stored] = list_alerts(connection, 10)
    assert stored.deliveries["log"].state == "sent"
    assert (stored.deliveries["slack"].state, stored.deliveries["slack"].reason) == (
        "given_up",
        "HTTP 404 (no_service)",
    )


def test_a_delivery_whose_process_died_is_made_again(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox)
    alerting.note(failed_run(engine, "run-1", ["LocationOne"]))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlackChannel, "send", die)
        with pytest.raises(KeyboardInterrupt):
            alerting.deliver()
    assert alerting.deliver().sent == 0, "it is still claimed"
    time_passes(engine, minutes=2)
    assert alerting.deliver().sent == 1
    assert len(inbox.taken) == 1


def test_an_alert_that_is_being_sent_takes_nothing_more(engine: Engine, inbox: Inbox) -> None:
    """What is added to a message after its text was made would never be read."""
    alerting = alerting_to(engine, inbox)
    alerting.note(failed_run(engine, "run-1", ["LocationOne"]))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alert_deliveries SET attempts = 1 WHERE channel = 'slack'"))
    alerting.note(failed_run(engine, "run-2", ["LocationTwo"]))
    with engine.connect() as connection:
        assert [each.alert.locations for each in list_alerts(connection, 10)] == [["LocationTwo"], ["LocationOne"]]


def test_a_redirect_is_not_followed(engine: Engine, inbox: Inbox) -> None:
    with running_inbox() as elsewhere:
        inbox.status, inbox.word, inbox.headers = 307, b"", {"location": elsewhere.url}
        [_, refusal] = alerting_to(engine, inbox).test().values()
        assert refusal is not None
        assert refusal.reason == "redirected, which is not followed: HTTP 307"
        assert elsewhere.taken == []


# --- what it says


def test_an_answer_that_trickles_in_or_has_no_end_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one would hold the sensor for as long as it likes, the other fill its memory."""
    monkeypatch.setattr(channels, "TIMEOUT_SECONDS", 0.5)
    sent: list[int] = []
    for part, pause in ((b"x", 0.1), (b"x" * 1_000_000, 0.0)):
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=_answer_at_length, args=(server, part, pause, sent), daemon=True)
            thread.start()
            url = SecretStr(f"http://127.0.0.1:{server.getsockname()[1]}/")
            began = time.monotonic()
            refusal = WebhookChannel(url).send(Alert(1, AlertKind.TEST, "a", "b", [], 0, 0, None, None, NOW))
            assert time.monotonic() - began < 5
            assert (refusal and refusal.reason) == ("no answer (TimeoutError)" if pause else None)
            thread.join(30)
    assert max(sent) < 100_000_000


def _answer_at_length(server: socket.socket, part: bytes, pause: float, sent: list[int]) -> None:
    connection, _ = server.accept()
    told = 0
    with connection, contextlib.suppress(OSError):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        for _ in range(200):
            connection.sendall(part)
            told += len(part)
            time.sleep(pause)
    sent.append(told)


def test_the_webhooks_post_can_be_proven_and_read_by_a_program(engine: Engine, inbox: Inbox) -> None:
    alerting = alerting_to(engine, inbox, webhook=True)
    alerting.note(failed_run(engine, "run-1", ["LocationOne", "LocationTwo"]))
    alerting.deliver()
    [post] = inbox.taken
    at, _, given = post.headers["x-ghl-pipeline-signature"].partition(",")
    signed = f"{at.removeprefix('t=')}.".encode() + post.body
    assert given == "v1=" + hmac.new(b"a-secret-of-the-test", signed, hashlib.sha256).hexdigest()
    assert {name: post.document[name] for name in ("kind", "capability", "error_class", "locations", "run_url")} == {
        "kind": "failed",
        "capability": "hydration",
        "error_class": "GhlUnreachable",
        "locations": ["LocationOne", "LocationTwo"],
        "run_url": "https://dagster.example.com/runs/run-1",
    }
    assert post.headers["x-ghl-pipeline-alert"] == str(post.document["id"])


@given(st.text(max_size=5000))
def test_nothing_in_a_text_is_markup_for_slack(said: str) -> None:
    alert = Alert(
        1, AlertKind.FAILED, "crm", "Error", ["LocationOne"], 1, suppressed=0, error_text=f"<!channel> {said}",
        run_id="run-1", made_at=NOW,
    )  # fmt: skip
    message = slack_text(alert, "https://dagster.example.com")
    assert message.endswith("\n<https://dagster.example.com/runs/run-1|The run>")
    before = message.removesuffix("<https://dagster.example.com/runs/run-1|The run>")
    assert not {"<", ">"} & set(before)
    assert len(message) <= SLACK_MOST_CHARACTERS


@pytest.mark.usefixtures("redacted")
def test_no_address_and_no_person_leaks(engine: Engine, inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    alerting = alerting_to(engine, inbox)
    inbox.status = 500
    canary = "zyxwinda.canary@example.com"
    alerting.note(failed_run(engine, "run-1", ["LocationOne"], error_text=f"{canary} (305) 555-0187 was refused"))
    alerting.deliver()
    inbox.status = 200
    time_passes(engine, hours=1)
    alerting.deliver()
    nobody = SlackChannel(SecretStr(f"http://127.0.0.1:9{SECRET_PATH}"))
    refusal = nobody.send(Alert(1, AlertKind.TEST, "a", "b", [], 0, 0, None, None, NOW))
    with engine.connect() as connection:
        stored = str(connection.execute(text("SELECT reason FROM alert_deliveries")).all())
    kept = caplog.text + stored + str(refusal) + repr(nobody) + "".join(inbox.texts())
    assert len(inbox.texts()) == 2
    for secret in ("xoxCanaryPath", "zyxwinda", "0187"):
        assert secret not in kept
