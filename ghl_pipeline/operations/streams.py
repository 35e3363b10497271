"""The kinds of work that go on at locations: whose partitions they fill, how often each is due, how to ask for it.

Work that events start has no rhythm: that nothing came for a week says nothing about it.
"""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Limits:
    """From which age on a last success is warned of, and from which on it is an error."""

    warn: timedelta
    error: timedelta


@dataclass(frozen=True, slots=True)
class Stream:
    """A kind of work.

    `capability` is its name in `location_attempts` and `location_standings`, `asset` the one whose partitions it fills,
    `at_once` how a person asks for it, with LOCATION in place of the id. `limits` is None where there is no rhythm.
    `keeps_itself`: it has its own way of trying again, so that no rerun is planned for it.
    """

    capability: str
    asset: str
    at_once: str
    limits: Limits | None = None
    keeps_itself: bool = False


# A run every night may be late by half a day; of one every hour, three may be missed before somebody has to know.
NIGHTLY = Limits(timedelta(hours=36), timedelta(days=3))
HOURLY = Limits(timedelta(hours=4), timedelta(days=1))
# Every 15 or 30 minutes.
OFTEN = Limits(timedelta(hours=2), timedelta(days=1))

HYDRATION = Stream("hydration", "hydrated_leads", "ghl-pipeline backfill --location LOCATION", NIGHTLY)
STREAMS = (
    HYDRATION,
    Stream("conversations", "sms_messages", "ghl-pipeline import-messages --location LOCATION", OFTEN),
    Stream("webhooks", "handled_events", "ghl-pipeline events handle --location LOCATION", keeps_itself=True),
    Stream("reconcile", "reconciled_events", "ghl-pipeline events reconcile --location LOCATION", HOURLY),
    Stream("crm", "crm_contacts", "ghl-pipeline crm-sync --location LOCATION --yes", HOURLY),
    Stream("availability", "availability_slots", "ghl-pipeline availability --location LOCATION", OFTEN),
    Stream("drafts", "reply_drafts", "ghl-pipeline drafts write --location LOCATION", keeps_itself=True),
    Stream("senders", "sender_accounts", "ghl-pipeline senders sync --location LOCATION", HOURLY),
)
BY_CAPABILITY = {stream.capability: stream for stream in STREAMS}
