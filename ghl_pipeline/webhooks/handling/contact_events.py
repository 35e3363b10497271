"""What it means for leads that GHL changed or deleted a contact. Never makes a lead.

GHL delivers in any order and repeats itself, so an event counts by the time it happened: of several of one contact the
latest counts, and one that tells of an earlier time than was handled already is old news.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeGuard

from sqlalchemy import Engine

from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.sync import Unite, hydrate_from_contacts
from ghl_pipeline.webhooks.events import EventKind, Provider
from ghl_pipeline.webhooks.handling.contact_news import (
    ContactSeen,
    contact_news,
    mark_alive,
    mark_deleted,
    note_contacts,
)
from ghl_pipeline.webhooks.handling.known_leads import KnownLead, Matches
from ghl_pipeline.webhooks.handling.verdicts import Item, Place, Verdicts
from ghl_pipeline.webhooks.outcomes import EventOutcome


@dataclass(slots=True)
class _OfContact:
    """The events of one contact, and the lead that is linked to it."""

    lead: KnownLead
    changes: list[Item] = field(default_factory=list)
    deletions: list[Item] = field(default_factory=list)


def handle_contact_events(
    engine: Engine,
    place: Place,
    items: Sequence[Item],
    found: Mapping[int, Matches],
    verdicts: Verdicts,
    *,
    unite: Unite,
) -> tuple[dict[int, list[Item]], set[int], Mapping[int, int]]:
    """Handles the events that need no call; blocking.

    Args:
        engine: the dashboard database.
        place: whose events they are.
        items: events of the two kinds about contacts.
        found: by event id, the leads that have the contact's keys.
        verdicts: of the batch; filled.
        unite: makes one lead of two that a contact shows to be one person.

    Returns:
        By lead id, the events for whose lead GHL has to be asked; the leads that changed; and those that have become
        part of another one, each with that one.
    """
    contacts: dict[str, _OfContact] = {}
    to_ask: dict[int, list[Item]] = {}
    for item in items:
        matches, contact_id = found[item.id], _contact_id(item)
        if matches.by_contact is not None and contact_id is not None:
            group = contacts.setdefault(contact_id, _OfContact(matches.by_contact))
            (group.deletions if item.event.kind is EventKind.CONTACT_DELETED else group.changes).append(item)
        elif item.event.kind is EventKind.CONTACT_CHANGED and _may_be_linked(matches.by_email):
            # Which of several contacts with one address is the lead's, only GHL can tell.
            to_ask.setdefault(matches.by_email.id, []).append(item)
        else:
            verdicts.finish(item, EventOutcome.NO_LEAD)
    _note_contacts(engine, [*(item for asked in to_ask.values() for item in asked), *_changes(contacts)])
    changed, united = _apply(engine, place, contacts, unite)
    for group in contacts.values():
        outcome = EventOutcome.LEAD_UPDATED if group.lead.id in changed else EventOutcome.UNCHANGED
        for item in (*group.changes, *group.deletions):
            if item.event.kind is EventKind.CONTACT_CHANGED and not _says_all(item):
                to_ask.setdefault(group.lead.id, []).append(item)
            else:
                verdicts.finish(item, outcome, group.lead.id)
    return to_ask, changed, united


def _apply(
    engine: Engine, place: Place, contacts: Mapping[str, _OfContact], unite: Unite
) -> tuple[set[int], Mapping[int, int]]:
    """Writes what the latest events of each contact say; returns the leads that changed, and those that were united."""
    with engine.connect() as connection:
        news = contact_news(connection, {(group.lead.id, contact_id) for contact_id, group in contacts.items()})
    told: list[tuple[int, Contact]] = []
    deleted: list[ContactSeen] = []
    alive: list[ContactSeen] = []
    shown: list[Contact] = []
    for contact_id, group in contacts.items():
        lead_id = group.lead.id
        seen_at: datetime | None = news.get((lead_id, contact_id))
        latest = max(group.changes, key=lambda item: (item.at, item.id), default=None)
        if latest is not None and (seen_at is None or latest.at >= seen_at):
            seen_at = latest.at
            alive.append(ContactSeen(lead_id, contact_id, latest.at))
            if latest.event.contact is not None:
                told.append((lead_id, latest.event.contact))
                if latest.event.provider is Provider.GHL:  # what a workflow says is its author's word, not GHL's
                    shown.append(latest.event.contact)
        deletion = max(group.deletions, key=lambda item: item.at, default=None)
        if deletion is not None and (seen_at is None or deletion.at >= seen_at):
            deleted.append(ContactSeen(lead_id, contact_id, deletion.at))
    united = unite(place.client_id, [(contact.id, contact.email) for contact in shown])
    if united:
        told = [(united.get(lead_id, lead_id), contact) for lead_id, contact in told]
        alive = [replace(seen, lead_id=united.get(seen.lead_id, seen.lead_id)) for seen in alive]
        deleted = [replace(seen, lead_id=united.get(seen.lead_id, seen.lead_id)) for seen in deleted]
        for group in contacts.values():
            group.lead = replace(group.lead, id=united.get(group.lead.id, group.lead.id))
    changed = set(united.values()) | {
        lead.lead_id for lead in hydrate_from_contacts(engine, place.location_id, told).values() if lead.lead_updated
    }
    if alive or deleted:
        with engine.begin() as connection:
            changed |= mark_alive(connection, place.client_id, alive)
            changed |= mark_deleted(connection, place.client_id, deleted)
    return changed, united


def _changes(contacts: Mapping[str, _OfContact]) -> list[Item]:
    return [item for group in contacts.values() for item in group.changes]


def _note_contacts(engine: Engine, items: Sequence[Item]) -> None:
    """What a later event of the same contact is compared with, if these end as the lead's."""
    contact_ids = {item.id: contact_id for item in items if (contact_id := _contact_id(item)) is not None}
    if contact_ids:
        with engine.begin() as connection:
            note_contacts(connection, contact_ids)


def _contact_id(item: Item) -> str | None:
    if item.event.contact is not None:
        return item.event.contact.id
    return item.event.person.contact_id if item.event.person else None


def _says_all(item: Item) -> bool:
    """Whether the payload is the whole contact: an app's is; a workflow's has what its author put into it."""
    contact = item.event.contact
    return item.event.provider is Provider.GHL and contact is not None and contact.names_are_whole


def _may_be_linked(lead: KnownLead | None) -> TypeGuard[KnownLead]:
    """Whether a lead with the contact's address may be the contact's: it has no link, or one that leads nowhere."""
    if lead is None:
        return False
    return is_blank(lead.contact_id) or not is_contact_id(lead.contact_id) or lead.contact_deleted_at is not None
