"""Where alerts go: the log, Slack, a webhook of the operator's. The only module here that speaks HTTP.

An address is a secret: who has Slack's can post. It is in no error, no log line and no reason that is stored; httpx's
own lines, which quote it, are withheld by `privacy/redaction.py`.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import httpx
import msgspec
from pydantic import SecretStr

from ghl_pipeline.operations.alerting.alerts import Alert

log = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 10.0
# Slack cuts a text at 40,000 characters and asks for 4,000 at most (docs.slack.dev, chat.postMessage); below 3,000 it
# is shown without being folded into parts.
SLACK_MOST_CHARACTERS: Final = 3000
# Slack takes one message a second of each webhook (docs.slack.dev, rate limits).
SLACK_PAUSE_SECONDS: Final = 1.1
# Of an answer no more is read: whoever is at the address could fill the memory of the process that runs the sensors.
MOST_ANSWER_BYTES: Final = 4096
SIGNATURE_HEADER: Final = "x-ghl-pipeline-signature"
ALERT_HEADER: Final = "x-ghl-pipeline-alert"
WEBHOOK_VERSION: Final = 1
# Slack's refusals are one word, such as invalid_token or no_service.
_SLACK_WORD: Final = re.compile(rb"[a-z_]{2,40}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a channel did not take an alert. `retry_after_seconds`: when it said so."""

    reason: str
    retry_after_seconds: float | None = None


class Channel(Protocol):
    """One way out."""

    @property
    def name(self) -> str:
        """As the outbox calls it."""

    @property
    def pause_seconds(self) -> float:
        """Between two alerts."""

    def send(self, alert: Alert) -> Refusal | None:
        """Sends it; None when it was taken. Blocks for `TIMEOUT_SECONDS` at most."""


@dataclass(frozen=True)
class LogChannel:
    """One line in the log of whichever process delivers; always there."""

    ui_url: str | None = None
    name: str = "log"
    pause_seconds: float = 0.0

    def send(self, alert: Alert) -> Refusal | None:
        """Writes the line; never refuses."""
        run = alert.run_url(self.ui_url) or alert.run_id
        log.warning("alert: %s", " | ".join([*alert.lines(), *([f"Run: {run}"] if run else [])]))
        return None


@dataclass(frozen=True)
class SlackChannel:
    """Slack's incoming webhook."""

    url: SecretStr
    ui_url: str | None = None
    name: str = "slack"
    pause_seconds: float = SLACK_PAUSE_SECONDS

    def send(self, alert: Alert) -> Refusal | None:
        """Posts the text, in Slack's markup."""
        answer = _post(self.url, msgspec.json.encode({"text": slack_text(alert, self.ui_url)}), {})
        if isinstance(answer, Refusal):
            return answer
        head, said = answer
        if head.is_success:
            return None
        word = said if _SLACK_WORD.fullmatch(said) else b""
        return _refusal(head, word.decode())


@dataclass(frozen=True)
class WebhookChannel:
    """A POST of JSON; docs/runbook.md has its fields."""

    url: SecretStr
    secret: SecretStr | None = None
    ui_url: str | None = None
    name: str = "webhook"
    pause_seconds: float = 0.0

    def send(self, alert: Alert) -> Refusal | None:
        """Posts the alert; signed when there is a secret."""
        body = msgspec.json.encode(webhook_body(alert, self.ui_url))
        headers = {ALERT_HEADER: str(alert.id)}
        if self.secret is not None:
            headers[SIGNATURE_HEADER] = signature(self.secret, body, int(time.time()))
        answer = _post(self.url, body, headers)
        if isinstance(answer, Refusal):
            return answer
        head, _ = answer
        return None if head.is_success else _refusal(head)


def slack_text(alert: Alert, ui_url: str | None) -> str:
    """The alert in Slack's markup: `&`, `<` and `>` escaped, as Slack asks, so that nothing in it can call anybody."""
    lines = [line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in alert.lines()]
    lines[0] = f"*{lines[0]}*"
    url = alert.run_url(ui_url)
    run = f"\n<{url}|The run>" if url else f"\nRun: {alert.run_id}" if alert.run_id else ""
    room = SLACK_MOST_CHARACTERS - len(run)
    text = "\n".join(lines)
    if len(text) > room:
        # Not in the middle of an escaped character.
        text = re.sub(r"&[a-z]{0,3}$", "", text[: room - 1]) + "…"
    return text + run


def webhook_body(alert: Alert, ui_url: str | None) -> Mapping[str, object]:
    """The fields of a post to the operator's webhook."""
    return {
        "version": WEBHOOK_VERSION,
        "id": alert.id,
        "kind": alert.kind.value,
        "title": alert.title(),
        "text": "\n".join(alert.lines()),
        "capability": alert.capability,
        "error_class": alert.error_class,
        "locations": list(alert.locations),
        "location_count": alert.location_count,
        "suppressed": alert.suppressed,
        "what_to_do": alert.what_to_do(),
        "run_id": alert.run_id,
        "run_url": alert.run_url(ui_url),
        "made_at": alert.made_at,
    }


def signature(secret: SecretStr, body: bytes, at: int) -> str:
    """The header of a signed post: the time in epoch seconds, and HMAC-SHA256 of that time, a full stop and the body.

    The time is signed too, so that who receives can refuse an old post that somebody sends again.
    """
    digest = hmac.new(secret.get_secret_value().encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _post(url: SecretStr, body: bytes, headers: Mapping[str, str]) -> tuple[httpx.Response, bytes] | Refusal:
    """The answer's head and the first bytes of its body."""
    try:
        return asyncio.run(_exchange(url, body, headers))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError) as error:
        # The class alone: the text may quote the address.
        return Refusal(f"no answer ({type(error).__name__})")


async def _exchange(url: SecretStr, body: bytes, headers: Mapping[str, str]) -> tuple[httpx.Response, bytes]:
    # httpx's own timeout is for each read: an answer that trickles in would hold the sensor for ever, and the claim on
    # the delivery would run out, so that another process sends it again.
    async with (
        asyncio.timeout(TIMEOUT_SECONDS),
        httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client,
        client.stream(
            "POST",
            url.get_secret_value(),
            content=body,
            headers={"content-type": "application/json", "accept-encoding": "identity", **headers},
            # A redirect would take the alert, and its signature, to an address that nobody has configured.
            follow_redirects=False,
        ) as answer,
    ):
        said = b""
        async for part in answer.aiter_raw(MOST_ANSWER_BYTES):
            said += part
            if len(said) >= MOST_ANSWER_BYTES:
                break
        return answer, said


def _refusal(answer: httpx.Response, word: str = "") -> Refusal:
    kind = "redirected, which is not followed: " if answer.is_redirect else ""
    after = answer.headers.get("retry-after", "")
    said = f"{kind}HTTP {answer.status_code}{f' ({word})' if word else ''}"
    return Refusal(said, float(after) if after.isdigit() and after.isascii() else None)
