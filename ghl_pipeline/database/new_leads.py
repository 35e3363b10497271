"""What is known of a person who is to be a lead, and the form in which it goes into the table."""

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ghl_pipeline.database.storable import LONGEST_KEY_BYTES, storable_text
from ghl_pipeline.errors import InvalidInput

LeadValues: TypeAlias = dict[str, str | int]
# By these a person's row is found, in the order in which they count.
KEYS: Final = ("ghl_contact_id", "emailbison_lead_id", "email")
_LARGEST_BIGINT = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLead:
    """What is known of a person who is to be a lead. Its `repr` shows ids only."""

    contact_id: str | None = None
    emailbison_lead_id: int | None = None
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    first_name: str | None = field(default=None, repr=False)
    last_name: str | None = field(default=None, repr=False)
    company_name: str | None = field(default=None, repr=False)
    status: str | None = None  # of a row that is created; a lead that exists keeps its own


def storable_values(lead: NewLead) -> LeadValues:
    """The lead's values by column, cleaned, without the empty ones.

    Raises:
        InvalidInput: the lead has no key, or one that cannot be stored.
    """
    texts = {
        "ghl_contact_id": lead.contact_id,
        "email": lead.email,
        "phone": lead.phone,
        "first_name": lead.first_name,
        "last_name": lead.last_name,
        "company_name": lead.company_name,
    }
    values: LeadValues = {}
    for name, text in texts.items():
        cleaned = storable_text(text or "").strip()
        if cleaned:
            values[name] = cleaned
    for name in ("ghl_contact_id", "email"):
        if len(str(values.get(name, "")).encode()) > LONGEST_KEY_BYTES:
            raise InvalidInput(f"A lead's {name} is longer than {LONGEST_KEY_BYTES} bytes. Correct it at its source.")
    if lead.emailbison_lead_id is not None:
        if not 0 < lead.emailbison_lead_id <= _LARGEST_BIGINT:
            raise InvalidInput("A lead's EmailBison lead id is not a positive 64-bit number. Correct it at its source.")
        values["emailbison_lead_id"] = lead.emailbison_lead_id
    if not any(key in values for key in KEYS):
        raise InvalidInput("A lead has no contact id, EmailBison lead id or e-mail, one of which it needs. Add one.")
    return values
