"""What tests of alerts share: a server that takes what is posted, and attempts as runs leave them."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.ghl.errors import GhlUnreachable
from ghl_pipeline.operations.alerting.alerting import Alerting
from ghl_pipeline.operations.alerting.channels import LogChannel, SlackChannel, WebhookChannel
from ghl_pipeline.operations.alerting.noting import FailedRun
from ghl_pipeline.orchestration.attempts import begin_attempt, end_attempt
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.settings import Settings

UNREACHABLE = GhlUnreachable.__name__
REFUSED = "TokenRejected"
# As Slack's addresses are: whoever has it can post.
SECRET_PATH = "/services/T0CANARY/B0CANARY/xoxCanaryPath"


@dataclass
class Taken:
    """One post as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.body)
        return read


@dataclass
class Inbox:
    """A server on this machine; `answers` with a status, and keeps what it was sent."""

    url: str
    status: int = 200
    word: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    taken: list[Taken] = field(default_factory=list)

    def texts(self) -> list[str]:
        return [str(each.document["text"]) for each in self.taken]


@contextmanager
def running_inbox() -> Iterator[Inbox]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            inbox.taken.append(Taken(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(inbox.status)
            for name, value in inbox.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(inbox.word)))
            self.end_headers()
            self.wfile.write(inbox.word)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    inbox = Inbox(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield inbox
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def alerting_to(engine: Engine, inbox: Inbox, *, webhook: bool = False, every: float = 3600) -> Alerting:
    """Alerting to the server, as Slack or as the operator's webhook."""
    settings = Settings(ui_url="https://dagster.example.com")
    url = SecretStr(inbox.url + SECRET_PATH)
    channel = (
        WebhookChannel(url, SecretStr("a-secret-of-the-test"), settings.ui_url)
        if webhook
        else SlackChannel(url, settings.ui_url)
    )
    return Alerting(engine, [LogChannel(settings.ui_url), channel], timedelta(seconds=every), sleep=lambda _: None)


def failed_run(
    engine: Engine,
    run_id: str,
    locations: Sequence[str],
    error_class: str = UNREACHABLE,
    *,
    capability: str = "hydration",
    permanent: bool = False,
    error_text: str = "GHL did not answer. It is tried again.",
    is_repeat: bool = False,
) -> FailedRun:
    """A run in which the work failed at these locations, as the capabilities leave it on record."""
    for location_id in locations:
        attempt = begin_attempt(engine, location_id, run_id, capability)
        failure = FailedLocation(location_id, error_class, error_text, permanent)
        end_attempt(engine, attempt, "failed", failure=failure)
    return FailedRun(run_id, "hydrate_leads", is_repeat)


def succeed(engine: Engine, location_id: str, capability: str = "hydration") -> None:
    """The work succeeds there."""
    end_attempt(engine, begin_attempt(engine, location_id, "run-well", capability), "succeeded")


def time_passes(engine: Engine, **interval: float) -> None:
    """Moves everything that alerts remember into the past; `hours=1` and the like."""
    moved = {"by": timedelta(**interval)}
    with engine.begin() as connection:
        for statement in (
            "UPDATE alerts SET made_at = made_at - :by",
            "UPDATE alert_deliveries SET due_at = due_at - :by, ended_at = ended_at - :by",
            "UPDATE alert_memory SET told_at = told_at - :by, seen_at = seen_at - :by",
            "UPDATE location_standings SET succeeded_at = succeeded_at - :by",
        ):
            connection.execute(text(statement), moved)
