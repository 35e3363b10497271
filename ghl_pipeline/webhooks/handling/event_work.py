"""What each kind of event does, for many events of one client at once.

Every step is idempotent, and is written before the events count as done: a process that is killed anywhere in it does
the same again. What can be said without GHL comes first, so that an outage holds up only what needs GHL.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

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
from ghl_pipeline.webhooks.handling.early_events import EarlyEvents
from ghl_pipeline.webhooks.handling.known_leads import KnownLead, Matches, find_leads, leads_by_id
from ghl_pipeline.webhooks.handling.lead_senders import Sighting, note_senders
from ghl_pipeline.webhooks.handling.lead_status import message_opts_out
from ghl_pipeline.webhooks.handling.left_to_do import left_to_do
from ghl_pipeline.webhooks.handling.one_person import OnePerson
from ghl_pipeline.webhooks.handling.status_changes import StatusChange, applied_events, change_statuses, note_applied
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
        early = EarlyEvents(self._engine, place)
        waiting = await in_thread(early.of_these_leads, items, leads)
        updated = await in_thread(self._change_statuses, place, items, found, leads)
        await in_thread(self._note_senders, place, items, leads)
        left = left_to_do(items, found, leads, waiting=waiting, updated=updated, verdicts=verdicts)
        await in_thread(self._store_messages, place, left.messages, leads, verdicts)
        to_ask, changed_leads, united = await in_thread(
            handle_contact_events, self._engine, place, left.contacts, found, verdicts, unite=self._unite
        )
        updated |= changed_leads
        for lead_id, events in left.to_ask.items():
            to_ask.setdefault(lead_id, []).extend(events)
        to_ensure = left.to_ensure
        # From here on leads can become part of others, and their events are those leads' then. An interested one has
        # an address, so that it is always the one that stays.
        verdicts.moved(united)
        to_ask = _moved(to_ask, united)
        await in_thread(early.note_strangers, items, verdicts)
        try:
            await self._may_be_ensured(place, to_ask, to_ensure, verdicts)
            united = {**united, **await self._hydrate(place, to_ask, updated, verdicts)}
            for lead_id, events in to_ensure.items():
                await self._ensure(place, lead_id, events, verdicts, was_united=lead_id in united.values())
        finally:
            # Also when GHL fails: what is done by then is not looked at again.
            await in_thread(early.of_leads_of, verdicts)

    def _find(self, place: Place, items: Sequence[Item]) -> tuple[dict[int, Matches], dict[int, KnownLead]]:
        """By event id: which leads have the person's keys, and which lead the event is about, if any."""
        with self._engine.connect() as connection:
            persons = [item.event.person or NewLead() for item in items]
            matches = find_leads(connection, place.client_id, persons)
            stored = leads_by_id(connection, place.client_id, {i.claimed.lead_id for i in items if i.claimed.lead_id})
        found = {item.id: match for item, match in zip(items, matches, strict=True)}
        leads = {item.id: stored.get(item.claimed.lead_id or 0) or found[item.id].lead for item in items}
        return found, {event_id: lead for event_id, lead in leads.items() if lead is not None}

    def _change_statuses(
        self, place: Place, items: Sequence[Item], found: Mapping[int, Matches], leads: Mapping[int, KnownLead]
    ) -> set[int]:
        """Gives leads the status that the events ask for; returns those that changed.

        An event does so once, since a person may have set another one before it is tried again. An opt-out is never
        undone, and holds for every lead that has one of the person's keys.
        """
        telling = [item for item in items if item.id in leads and item.event.kind in CHANGES_STATUS]
        if not telling:
            return set()
        with self._engine.begin() as connection:
            applied = applied_events(connection, [item.id for item in telling])
            changes = [
                change
                for item in telling
                if item.id not in applied or _opts_out(item)
                for change in _status_changes(item, leads[item.id].id, found[item.id].ids)
            ]
            changed = change_statuses(connection, place.client_id, changes, self._protected) if changes else set()
            note_applied(connection, [item.id for item in telling])
        return changed

    def _note_senders(self, place: Place, items: Sequence[Item], leads: Mapping[int, KnownLead]) -> None:
        sightings = [
            Sighting(leads[item.id].id, item.event.sent_by, item.at)
            for item in items
            if item.id in leads and item.event.sent_by is not None
        ]
        if sightings:
            with self._engine.begin() as connection:
                note_senders(connection, place.client_id, sightings)

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
            verdicts.values_refused += ensured.values_refused
            verdicts.moved(ensured.united)
            is_more = was_united and ensured.outcome is EventOutcome.UNCHANGED
            outcome = EventOutcome.LEAD_UPDATED if is_more else ensured.outcome
            cause = min((item.id for item in items if item.event.kind is EventKind.LEAD_INTERESTED), default=None)
            for item in items:
                is_others = outcome is EventOutcome.CONTACT_CREATED and item.id != cause  # it is one contact
                own = EventOutcome.LEAD_UPDATED if is_others else outcome
                verdicts.finish(item, own, ensured.united.get(lead_id, lead_id))


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
    return event.kind is EventKind.MESSAGE_RECEIVED and event.message is not None and message_opts_out(event.message)


def _status_changes(item: Item, lead_id: int, matching: Collection[int]) -> list[StatusChange]:
    """What the event asks for its lead, and an opt-out for all leads that the person's keys match."""
    message = item.event.message
    opts_out = _opts_out(item)
    return [
        StatusChange(
            id_,
            item.event.kind,
            item.at,
            is_automated=message is not None and message.is_automated,
            opts_out=opts_out,
        )
        for id_ in sorted({lead_id, *matching} if opts_out else {lead_id})
    ]


def _outcome(lead: LeadSync, *, changed: bool) -> EventOutcome:
    """What became of an event for whose lead GHL was asked; `changed`: the event itself changed it."""
    if changed or lead.lead_updated:
        return EventOutcome.LEAD_UPDATED
    if lead.outcome is Outcome.AMBIGUOUS:
        return EventOutcome.AMBIGUOUS
    return EventOutcome.UNCHANGED if lead.outcome in FOUND else EventOutcome.NOT_FOUND
