"""Every metric there is: name, kind, labels, meaning. docs/reference/metrics.md is made from this file.

Belongs here: words. What the values are is read in `readings.py` and, of the receiver, in `webhooks/receiving/`; how
they are written down is in `exposition.py`. Labels hold ids of locations and words of this project, nothing of a
person.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """As Prometheus has them. A counter only grows, until its process or the database starts anew."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: as it is asked for in Prometheus; a counter's ends with `_total`.
        kind: what may be done with it.
        meaning: with unit.
        labels: names of labels, in the order of a sample's values.
        per_location: left out where there are more locations than METRICS_PER_LOCATION_UP_TO.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    per_location: bool = False


def _counter(name: str, meaning: str, *labels: str, per_location: bool = False) -> Family:
    return Family(f"ghl_pipeline_{name}_total", Kind.COUNTER, meaning, labels, per_location)


def _gauge(name: str, meaning: str, *labels: str, per_location: bool = False) -> Family:
    return Family(f"ghl_pipeline_{name}", Kind.GAUGE, meaning, labels, per_location)


def _histogram(name: str, meaning: str, *labels: str) -> Family:
    return Family(f"ghl_pipeline_{name}", Kind.HISTOGRAM, meaning, labels)


# --- the receiver's own; counted since its processes started

ANSWERS: Final = _counter("receiver_answers", "Answers of the receiver, by route and HTTP status.", "route", "status")
REFUSALS: Final = _counter(
    "receiver_refusals", "Answers that were no success, by the word that the sender was told.", "route", "reason"
)
ANSWER_SECONDS: Final = _histogram(
    "receiver_answer_seconds", "Seconds from a request's headers to its answer, the storing included.", "route"
)
BATCHES: Final = _counter("receiver_batches", "Transactions that stored events.")
BATCH_EVENTS: Final = _counter("receiver_batch_events", "Events handed to those transactions.")
BATCH_FAILURES: Final = _counter("receiver_batch_failures", "Of those transactions, the ones that failed as a whole.")
BATCH_SECONDS: Final = _histogram("receiver_batch_seconds", "Seconds of one such transaction.")
WAITING: Final = _gauge("receiver_waiting", "Events that wait for the next transaction.")
RECEIVER_PROCESSES: Final = _gauge("receiver_processes", "Processes of the receiver that are counted together here.")

RECEIVER: Final = (
    ANSWERS,
    REFUSALS,
    ANSWER_SECONDS,
    BATCHES,
    BATCH_EVENTS,
    BATCH_FAILURES,
    BATCH_SECONDS,
    WAITING,
    RECEIVER_PROCESSES,
)

# --- how the reading itself went

DATABASE_UP: Final = _gauge(
    "database_up", "1 when what follows was read from the database; 0 when it could not be, and is missing."
)
READING_SECONDS: Final = _gauge("database_reading_seconds", "Seconds that the last reading of the database took.")
READING_AGE: Final = _gauge("database_reading_age_seconds", "Seconds since the values below were read.")

# --- of all locations of active clients; what only ever grows counts former clients too

TOLD_APART: Final = _gauge(
    "locations_told_apart",
    "1 when the values of each location are told too; 0 when there are more than METRICS_PER_LOCATION_UP_TO.",
)
LOCATIONS: Final = _gauge(
    "locations",
    "Locations by how their latest attempt stands: running, succeeded, failed, interrupted, waiting_for_quota, or held "
    "(a failure that stays until somebody acts).",
    "capability",
    "state",
)
OLDEST_SUCCESS: Final = _gauge(
    "oldest_success_timestamp_seconds",
    "The last success of the location where it is longest ago, in Unix time; locations without any are left out.",
    "capability",
)
NEWEST_SUCCESS: Final = _gauge(
    "newest_success_timestamp_seconds", "The latest success at any location, in Unix time.", "capability"
)
NEVER_SUCCEEDED: Final = _gauge(
    "locations_never_succeeded", "Locations that were tried and never succeeded.", "capability"
)
ATTEMPTS: Final = _counter(
    "attempts", "Attempts that ended, by how; those that found a location busy are left out.", "capability", "state"
)
REQUESTS: Final = _counter("requests", "Requests to providers, of attempts that left a report.", "capability")
WAITED: Final = _counter(
    "limit_wait_seconds", "Seconds that attempts waited on the limit, added up over locations.", "capability"
)
LEADS: Final = _counter("leads", "Leads that hydration looked at, by outcome.", "outcome")
FIELDS: Final = _counter("fields_filled", "Empty fields of leads that hydration filled.", "field")
WORK: Final = _counter("work", "What other work has done, by its own words.", "capability", "what")
REQUESTS_TODAY: Final = _gauge("requests_today", "Requests to GHL since midnight UTC, of all processes.")
QUOTA_USED: Final = _gauge(
    "quota_used_ratio_max", "Share of the day's requests that is used, of the location that used most."
)
BLOCKED: Final = _gauge("blocked_locations", "Locations whose requests pause because GHL answered 429.")
RATE_REFUSALS: Final = _counter("rate_refusals", "429 answers of GHL, of all processes.")
EVENTS_PENDING: Final = _gauge("events_pending", "Events that wait to be handled.")
EVENTS_DEAD: Final = _gauge("events_dead", "Events that failed for the last time and wait for a person.")
EVENTS_OLDEST: Final = _gauge("events_oldest_pending_seconds", "Seconds since the oldest waiting event came; 0: none.")
DRAFTS: Final = _gauge("drafts", "Drafts that wait for a person (pending) or could not be written (failed).", "state")
CALENDARS: Final = _gauge("calendars", "Calendars of active clients by state of their free times.", "state")
CALENDAR_AGE: Final = _gauge(
    "calendar_age_seconds_max", "Seconds since free times were read, of the calendar where it is longest ago; 0: none."
)
ALERTS: Final = _gauge("alerts_undelivered", "Alerts that wait for a channel or were given up.", "channel", "state")

TOTALS: Final = (
    TOLD_APART,
    LOCATIONS,
    OLDEST_SUCCESS,
    NEWEST_SUCCESS,
    NEVER_SUCCEEDED,
    ATTEMPTS,
    REQUESTS,
    WAITED,
    LEADS,
    FIELDS,
    WORK,
    REQUESTS_TODAY,
    QUOTA_USED,
    BLOCKED,
    RATE_REFUSALS,
    EVENTS_PENDING,
    EVENTS_DEAD,
    EVENTS_OLDEST,
    DRAFTS,
    CALENDARS,
    CALENDAR_AGE,
    ALERTS,
)

# --- of each location of an active client

_OF_LOCATION: Final = ("location", "capability")
LAST_SUCCESS: Final = _gauge(
    "last_success_timestamp_seconds", "The last success, in Unix time; missing before the first.", *_OF_LOCATION,
    per_location=True,
)  # fmt: skip
FAILURES: Final = _gauge(
    "failures_in_a_row", "Attempts since the last success that did not succeed.", *_OF_LOCATION, per_location=True
)
HELD: Final = _gauge(
    "held", "1 while the location is left alone until somebody acts, else 0.", *_OF_LOCATION, per_location=True
)
LOCATION_ATTEMPTS: Final = _counter(
    "location_attempts", "Attempts that ended, by how.", *_OF_LOCATION, "state", per_location=True
)
LOCATION_REQUESTS: Final = _counter(
    "location_requests", "Requests to providers, of attempts that left a report.", *_OF_LOCATION, per_location=True
)
LOCATION_REQUESTS_TODAY: Final = _gauge(
    "location_requests_today", "Requests to GHL since midnight UTC, of all processes.", "location", per_location=True
)
LOCATION_REQUESTS_LIMIT: Final = _gauge(
    "location_requests_per_day_limit", "Most requests to GHL in a day.", "location", per_location=True
)
LOCATION_BLOCKED: Final = _gauge(
    "location_blocked_seconds", "Seconds for which requests still pause after a 429.", "location", per_location=True
)
LOCATION_RATE_REFUSALS: Final = _counter(
    "location_rate_refusals", "429 answers of GHL, of all processes.", "location", per_location=True
)
LOCATION_EVENTS_PENDING: Final = _gauge(
    "location_events_pending", "Events that wait to be handled; missing without any.", "location", per_location=True
)
LOCATION_EVENTS_DEAD: Final = _gauge(
    "location_events_dead", "Events that wait for a person; missing without any.", "location", per_location=True
)
LOCATION_EVENTS_OLDEST: Final = _gauge(
    "location_events_oldest_pending_seconds",
    "Seconds since the oldest waiting event came; missing without any.",
    "location",
    per_location=True,
)
LOCATION_CALENDAR_AGE: Final = _gauge(
    "location_calendar_age_seconds", "Seconds since the free times were read.", "location", per_location=True
)

PER_LOCATION: Final = (
    LAST_SUCCESS,
    FAILURES,
    HELD,
    LOCATION_ATTEMPTS,
    LOCATION_REQUESTS,
    LOCATION_REQUESTS_TODAY,
    LOCATION_REQUESTS_LIMIT,
    LOCATION_BLOCKED,
    LOCATION_RATE_REFUSALS,
    LOCATION_EVENTS_PENDING,
    LOCATION_EVENTS_DEAD,
    LOCATION_EVENTS_OLDEST,
    LOCATION_CALENDAR_AGE,
)

FROM_DATABASE: Final = (*TOTALS, *PER_LOCATION)
FAMILIES: Final = (*RECEIVER, DATABASE_UP, READING_SECONDS, READING_AGE, *FROM_DATABASE)

# --- what of the reports is counted; other numbers in them are no sums (accounts that there are, slots that are free)

OUTCOMES: Final = (
    "linked_and_hydrated", "hydrated", "unchanged", "not_found", "ambiguous", "invalid_contact_id", "contact_deleted",
    "failed",
)  # fmt: skip
FILLED_FIELDS: Final = ("contact_link", "email", "phone", "first_name", "last_name", "company_name")
COUNTED_WORK: Final = {
    "crm": (
        "ghl_contacts_fetched", "vendors_created", "vendors_updated", "vendors_missing_in_ghl", "leads_created",
        "leads_updated", "leads_deleted", "errors",
    ),
    "conversations": ("messages_seen", "messages_imported", "leads_created"),
    "webhooks": ("events_handled", "events_postponed", "dead_letters", "contact_created", "lead_updated"),
    "reconcile": ("events_seen", "events_new", "events_not_stored"),
    "senders": ("leads_healed",),
    "drafts": ("drafted.sms", "drafted.email", "calls", "tokens_in", "tokens_out"),
    "availability": ("added", "removed"),
}  # fmt: skip
