"""Which strings can be ids of GHL contacts and calendars, so that test junk and pasted addresses are never sent."""

import re

# Observed ids have 20 characters, old ones up to 24; the bounds leave room on both sides.
CONTACT_ID_PATTERN = "[A-Za-z0-9]{15,64}"
_CONTACT_ID = re.compile(CONTACT_ID_PATTERN)


def is_contact_id(value: str | None) -> bool:
    """Whether `value` has the form of a GHL contact id (15 to 64 letters and digits, nothing else)."""
    return value is not None and _CONTACT_ID.fullmatch(value) is not None


# Calendars' ids have 20 characters; from 18 on a booking link's last part can be one.
_CALENDAR_ID = re.compile("[A-Za-z0-9]{18,64}")


def is_calendar_id(value: str | None) -> bool:
    """Whether `value` has the form of a GHL calendar id (18 to 64 letters and digits, nothing else)."""
    return value is not None and _CALENDAR_ID.fullmatch(value) is not None
