"""What each kind of event does, for many events of one client at once.

Every step is idempotent, and is written before the events count as done: a process that is killed anywhere in it does
the same again. What can be said without GHL comes first, so that an outage holds up only what needs GHL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol, assert_never

from sqlalchemy import Engine

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.messages import NewMessage, store_messages
from ghl_pipeline.errors import InvalidInput, UnknownClient
from ghl_pipeline.ghl.errors import (
    DailyQuotaReached,
    GhlError,
    LocationAccessDenied,
    ScopeMissing,
    TokenRejected,
    TransientGhlError,
)
from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.outcomes import FOUND, Outcome
from ghl_pipeline.hydration.sync import LeadSync, Unite, check_answers, hydrate_leads
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.webhooks.ensuring.ensure import CreationUnsettled, Ensured
from ghl_pipeline.webhooks.events import EventKind
from ghl_pipeline.webhooks.handling.contact_events import handle_contact_events
from ghl_pipeline.webhooks.handling.known_leads import (
    KnownLead,
    Matches,
    StatusChange,
    change_statuses,
    find_leads,
    leads_by_id,
)
from ghl_pipeline.webhooks.handling.lead_status import opts_out
from ghl_pipeline.webhooks.handling.one_person import OnePerson
from ghl_pipeline.webhooks.handling.verdicts import Item, Place, Verdicts
from ghl_pipeline.webhooks.outcomes import EventOutcome

# Errors of GHL that say nothing of the lead and everything of its location.
OF_LOCATION = (TokenRejected, LocationAccessDenied, ScopeMissing, DailyQuotaReached)
# A creation whose fate stays unknown for so long is somebody's problem: from then on its attempts count.
SETTLES_WITHIN = timedelta(days=1)
CHANGES_STATUS = frozenset(EventKind) - {
    EventKind.CONTACT_CHANGED,
    EventKind.CONTACT_DELETED,
    EventKind.MESSAGE_SENT,
    EventKind.OTHER,
}


class Ensurer(Protocol):
    """What may create a contact; `webhooks.ensure.ContactEnsurer`."""

    async def ensure(self, location_id: str, lead_id: int) -> Ensured:
        """Links the lead to its contact, creating that when GHL has none."""


class EventWork:
    """The work with its collaborators."""

    def __init__(
        self, engine: Engine, hydration: Hydration, ensurer: Ensurer, protected_statuses: frozenset[str]
    ) -> None:
        self._engine = engine
        self._hydration = hydration
        self._ensurer = ensurer
        self._protected = protected_statuses
        self._unite: Unite = OnePerson(engine, protected_statuses).unite

    async def handle(self, place: Place, items: Sequence[Item], verdicts: Verdicts) -> None:
        """Handles events of a client; a verdict for each is left in `verdicts`.

        Raises:
            GhlError: the location refuses, or GHL is down. Events that needed neither have their verdict.
            UnknownClient, InvalidInput, ConfigurationError: the location cannot be worked on.
        """
        found, leads = await in_thread(self._find, place, items)
        updated = await in_thread(self._change_statuses, place, items, leads)
        to_ask: dict[int, list[Item]] = {}
        to_ensure: dict[int, list[Item]] = {}
        messages: list[Item] = []
        contacts: list[Item] = []
        for item in items:
            kind, lead = item.event.kind, leads.get(item.id)
            match kind:
                case EventKind.CONTACT_CHANGED | EventKind.CONTACT_DELETED:
                    contacts.append(item)
                case EventKind.OTHER:
                    verdicts.finish(item, EventOutcome.UNCHANGED)
                case _ if lead is None:
                    verdicts.finish(item, EventOutcome.NO_LEAD)
                case EventKind.MESSAGE_SENT | EventKind.MESSAGE_OF_KNOWN_LEAD:
                    messages.append(item)
                case EventKind.MESSAGE_RECEIVED | EventKind.LEAD_REPLIED:
                    to_ask.setdefault(lead.id, []).append(item)
                case EventKind.LEAD_INTERESTED:
                    to_ensure.setdefault(lead.id, []).append(item)
                case EventKind.LEAD_BOUNCED | EventKind.LEAD_UNSUBSCRIBED:
                    changed = lead.id in updated
                    outcome = EventOutcome.LEAD_UPDATED if changed else EventOutcome.UNCHANGED
                    verdicts.finish(item, outcome, lead.id)
                case _:
                    assert_never(kind)
        await in_thread(self._store_messages, place, messages, leads, verdicts)
        asked, changed_leads, united = await in_thread(
            handle_contact_events, self._engine, place, contacts, found, verdicts, unite=self._unite
        )
        updated |= changed_leads
        for lead_id, events in asked.items():
            to_ask.setdefault(lead_id, []).extend(events)
        # From here on leads can become part of others, and their events are those leads' then. An interested one has
        # an address, so that it is always the one that stays.
        verdicts.moved(united)
        to_ask = _moved(to_ask, united)
        await self._may_be_ensured(place, to_ask, to_ensure, verdicts)
        united = {**united, **await self._hydrate(place, to_ask, updated, verdicts)}
        for lead_id, events in to_ensure.items():
            await self._ensure(place, lead_id, events, verdicts, was_united=lead_id in united.values())

    def _find(self, place: Place, items: Sequence[Item]) -> tuple[dict[int, Matches], dict[int, KnownLead]]:
        """By event id: which leads have the person's keys, and which lead the event is about, if any."""
        with self._engine.connect() as connection:
            persons = [item.event.person or NewLead() for item in items]
            matches = find_leads(connection, place.client_id, persons)
            stored = leads_by_id(connection, place.client_id, {i.claimed.lead_id for i in items if i.claimed.lead_id})
        found = {item.id: match for item, match in zip(items, matches, strict=True)}
        leads = {item.id: stored.get(item.claimed.lead_id or 0) or found[item.id].lead for item in items}
        return found, {event_id: lead for event_id, lead in leads.items() if lead is not None}

    def _change_statuses(self, place: Place, items: Sequence[Item], leads: Mapping[int, KnownLead]) -> set[int]:
        changes = [
            StatusChange(
                leads[item.id].id,
                item.event.kind,
                item.at,
                is_automated=item.event.message is not None and item.event.message.is_automated,
                opts_out=_opts_out(item),
            )
            for item in items
            if item.id in leads and item.event.kind in CHANGES_STATUS
        ]
        if not changes:
            return set()
        with self._engine.begin() as connection:
            return change_statuses(connection, place.client_id, changes, self._protected)

    def _store_messages(
        self, place: Place, items: Sequence[Item], leads: Mapping[int, KnownLead], verdicts: Verdicts
    ) -> None:
        rows: list[tuple[int, int, NewMessage]] = []
        with_message: list[Item] = []
        for item in items:
            if item.event.message is None:
                verdicts.finish(item, EventOutcome.UNCHANGED, leads[item.id].id)
            else:
                sent_at = item.event.message.sent_at or item.at
                message = replace(item.event.message, sent_at=sent_at, source=item.claimed.found_by)
                rows.append((place.client_id, leads[item.id].id, message))
                with_message.append(item)
        if not rows:
            return
        with self._engine.begin() as connection:
            stored = store_messages(connection, rows)
        for item, made in zip(with_message, stored, strict=True):
            if isinstance(made, InvalidInput):
                verdicts.postpone(item.claimed, made)
            else:
                verdicts.finish(item, EventOutcome.MESSAGE_STORED, leads[item.id].id)

    async def _may_be_ensured(
        self, place: Place, to_ask: dict[int, list[Item]], to_ensure: dict[int, list[Item]], verdicts: Verdicts
    ) -> None:
        """Of the interested leads, those that opted out are only looked up; the others need no look-up besides."""

        def now() -> dict[int, KnownLead]:
            with self._engine.connect() as connection:
                return leads_by_id(connection, place.client_id, to_ensure)

        leads = await in_thread(now) if to_ensure else {}
        for lead_id in list(to_ensure):
            if lead_id not in leads:
                for item in to_ensure.pop(lead_id):
                    verdicts.finish(item, EventOutcome.NO_LEAD)
            elif leads[lead_id].opted_out:
                to_ask.setdefault(lead_id, []).extend(to_ensure.pop(lead_id))
            else:
                to_ensure[lead_id].extend(to_ask.pop(lead_id, []))

    async def _hydrate(
        self, place: Place, to_ask: Mapping[int, Sequence[Item]], updated: set[int], verdicts: Verdicts
    ) -> Mapping[int, int]:
        """Looks leads up and fills them; returns those that have become part of another one."""
        if not to_ask:
            return {}
        result = await hydrate_leads(self._hydration, place.location_id, list(to_ask), unite=self._unite)
        verdicts.requests += result.requests
        verdicts.moved(result.united)
        for lead_id, items in to_ask.items():
            for item in items:
                if error := result.failed.get(lead_id):
                    verdicts.postpone(item.claimed, error)
                else:
                    lead = result.leads[lead_id]
                    verdicts.finish(item, _outcome(lead, changed=lead_id in updated), lead.lead_id)
        return result.united

    async def _ensure(
        self, place: Place, lead_id: int, items: Sequence[Item], verdicts: Verdicts, *, was_united: bool
    ) -> None:
        """Ensures the contact of one lead. Whatever goes wrong with it is no other event's problem.

        `was_united`: another lead became part of it just now, by one of these events.

        Raises:
            GhlError: the location refuses, or GHL is down.
        """
        try:
            ensured = await self._ensurer.ensure(place.location_id, lead_id)
        except CreationUnsettled as error:
            for item in items:
                is_fresh = datetime.now(UTC) - item.claimed.received_at < SETTLES_WITHIN
                verdicts.postpone(item.claimed, error, error.retry_at if is_fresh else None)
        except TransientGhlError as error:
            await check_answers(self._hydration, place.location_id)
            for item in items:
                verdicts.postpone(item.claimed, error)
        except OF_LOCATION:
            raise
        except (GhlError, UnknownClient) as error:  # the latter: the lead was deleted just now
            for item in items:
                verdicts.postpone(item.claimed, error)
        else:
            verdicts.requests += ensured.requests
            verdicts.phones_refused += ensured.phone_refused
            verdicts.moved(ensured.united)
            is_more = was_united and ensured.outcome is EventOutcome.UNCHANGED
            outcome = EventOutcome.LEAD_UPDATED if is_more else ensured.outcome
            for item in items:
                verdicts.finish(item, outcome, ensured.united.get(lead_id, lead_id))


def _moved(by_lead: Mapping[int, list[Item]], united: Mapping[int, int]) -> dict[int, list[Item]]:
    """Events by lead, when leads have become part of others."""
    moved: dict[int, list[Item]] = {}
    for lead_id, items in by_lead.items():
        moved.setdefault(united.get(lead_id, lead_id), []).extend(items)
    return moved


def _opts_out(item: Item) -> bool:
    """Whether the event says that the person does not want to be written to."""
    event = item.event
    if event.kind is EventKind.LEAD_UNSUBSCRIBED:
        return True
    if event.kind is not EventKind.MESSAGE_RECEIVED or event.message is None or event.message.channel != "sms":
        return False
    return opts_out(event.message.body)


def _outcome(lead: LeadSync, *, changed: bool) -> EventOutcome:
    """What became of an event for whose lead GHL was asked; `changed`: the event itself changed it."""
    if changed or lead.lead_updated:
        return EventOutcome.LEAD_UPDATED
    if lead.outcome is Outcome.AMBIGUOUS:
        return EventOutcome.AMBIGUOUS
    return EventOutcome.UNCHANGED if lead.outcome in FOUND else EventOutcome.NOT_FOUND
