"""Alerting as the sensors and the command line use it: failed runs are noted, what is due is delivered."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from ghl_pipeline.operations.alerting.alerts import Alert, AlertKind
from ghl_pipeline.operations.alerting.channels import Channel, LogChannel, Refusal, SlackChannel, WebhookChannel
from ghl_pipeline.operations.alerting.noting import FailedRun, note_failed_run
from ghl_pipeline.operations.alerting.outbox import Delivery, claim_next, not_taken, sent
from ghl_pipeline.settings import Settings

log = logging.getLogger(__name__)

# A tick of a sensor may take a minute; another delivery is begun only while there is time for its timeout.
DELIVER_FOR_SECONDS: Final = 25.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a look at the outbox did: alerts that a channel took, that it did not take, that were given up."""

    sent: int = 0
    not_taken: int = 0
    given_up: int = 0


@dataclass(frozen=True)
class Alerting:
    """The outbox and its channels.

    Attributes:
        engine: the dashboard database.
        channels: where alerts go.
        every: the least time between two alerts of the same error, work and location.
        sleep: between two alerts of a channel.
    """

    engine: Engine
    channels: Sequence[Channel]
    every: timedelta
    sleep: Callable[[float], None] = time.sleep

    def note(self, run: FailedRun) -> int:
        """Stores what is news of a failed run; see `note_failed_run`."""
        return note_failed_run(self.engine, run, [channel.name for channel in self.channels], every=self.every)

    def deliver(self) -> Delivered:
        """Sends what is due. A channel that does not take one is left alone until the next look."""
        channels = {channel.name: channel for channel in self.channels}
        left_alone: list[str] = []
        done = Delivered()
        stop_at = time.monotonic() + DELIVER_FOR_SECONDS
        while time.monotonic() < stop_at:
            delivery = claim_next(self.engine, without=left_alone)
            if delivery is None:
                break
            channel = channels.get(delivery.channel)
            refusal = channel.send(delivery.alert) if channel else Refusal("it is configured no more")
            if refusal is None:
                sent(self.engine, delivery)
                done = Delivered(done.sent + 1, done.not_taken, done.given_up)
            else:
                given_up = self._refused(delivery, refusal, is_final=channel is None)
                done = Delivered(done.sent, done.not_taken + 1, done.given_up + given_up)
                left_alone += [delivery.channel] if channel else []
            if channel and channel.pause_seconds:
                self.sleep(channel.pause_seconds)
        return done

    def _refused(self, delivery: Delivery, refusal: Refusal, *, is_final: bool) -> bool:
        # More than a day would be more than the outbox waits.
        asked = min(refusal.retry_after_seconds or 0.0, 86_400.0)
        pause = timedelta(seconds=asked) if asked else None
        given_up = not_taken(self.engine, delivery, refusal.reason, pause=pause, is_final=is_final)
        log.warning(
            "alert %d: %s did not take it (%s); %s",
            delivery.alert.id, delivery.channel, refusal.reason, "given up" if given_up else "it is tried again",
        )  # fmt: skip
        return given_up

    def test(self) -> dict[str, Refusal | None]:
        """Sends a test to each channel, past the outbox; how each answered, by name."""
        alert = Alert(
            0, AlertKind.TEST, "alerts", "Test", [], 0, suppressed=0, error_text=None, run_id=None,
            made_at=datetime.now(UTC),
        )  # fmt: skip
        return {channel.name: channel.send(alert) for channel in self.channels}


def build_alerting(settings: Settings, engine: Engine) -> Alerting:
    """Alerting as the settings describe it. Opens no connection."""
    channels: list[Channel] = [LogChannel(settings.ui_url)]
    if settings.alert_slack_url is not None:
        channels.append(SlackChannel(settings.alert_slack_url, settings.ui_url))
    if settings.alert_webhook_url is not None:
        channels.append(WebhookChannel(settings.alert_webhook_url, settings.alert_webhook_secret, settings.ui_url))
    return Alerting(engine, channels, timedelta(seconds=settings.alert_every_seconds))
