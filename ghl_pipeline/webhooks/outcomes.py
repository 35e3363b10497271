"""How an event that was handled ended. A closed set; every handled event has exactly one."""

from enum import StrEnum


class EventOutcome(StrEnum):
    """What became of an event."""

    LEAD_UPDATED = "lead_updated"  # its lead was hydrated, linked, marked or given a status
    CONTACT_CREATED = "contact_created"  # an interested lead's, and the lead is linked to it
    UNCHANGED = "unchanged"  # there was nothing to change
    NO_LEAD = "no_lead"  # it is about somebody who is no lead of the client
    NOT_FOUND = "not_found"  # GHL has no such contact, and this event may create none
    AMBIGUOUS = "ambiguous"  # several contacts, or several leads, have an equal claim
    MESSAGE_STORED = "message_stored"  # a message of a known lead, with nothing else to do
