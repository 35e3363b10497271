"""What a lead's row becomes: pure rules over the row as it is and what its contact says.

What GHL does not say overwrites nothing. Where a lead lives is only filled in: the dashboard may know better.
"""

import re
from datetime import datetime, timedelta

from ghl_pipeline.crm.identifiers import Side
from ghl_pipeline.crm.key_owners import Row
from ghl_pipeline.crm.lead_fields import LeadValues
from ghl_pipeline.crm.missing import MISSING_STATUS
from ghl_pipeline.crm.places import place_of
from ghl_pipeline.crm.side_rules import Columns, SideRules
from ghl_pipeline.crm.vendor_store import kept_address, lost_row, status_of_its_own
from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.hydration.merge import NOT_NEEDED

FIRST_STATUS = "unassigned"
NEW_LEAD = "new lead"
# As the handling of events has them: who must not be written to, and what events say of leads that are new no longer.
OPTED_OUT = frozenset({"unsubscribed", "do_not_contact"})
SET_BY_EVENTS = frozenset({"unsubscribed", "interested", "bounced", "replied"})
# A search shows a deleted contact for up to a minute; an event that told of it came at once.
INDEX_LAG = timedelta(minutes=2)

COLUMNS = {
    "ghl_contact_id": "text",
    "email": "text",
    "phone": "text",
    "first_name": "text",
    "last_name": "text",
    "status": "text",
    "status_before_missing": "text",
    "enrichment_status": "text",
    "enrichment_source": "text",
    "enriched_at": "timestamptz",
    "contact_deleted_at": "timestamptz",
    "opted_out_at": "timestamptz",
    "primary_service_category": "text",
    "specific_service_requested": "text",
    "zip_code": "text",
    "county": "text",
    "state": "text",
}
_ZIP = re.compile(r"\s*(\d{5})(?:[-\s]?\d{4})?\s*", re.ASCII)


def lead_rules(protected: frozenset[str], began_at: datetime) -> SideRules[LeadValues]:
    """How leads are written.

    Args:
        protected: statuses, lower-case, that a tag never changes.
        began_at: the database's clock before the contacts were asked for.
    """

    def merged(row: Row, values: LeadValues) -> Columns:
        return merged_lead(row, values, protected, began_at)

    return SideRules(Side.LEAD, COLUMNS, merged=merged, made=new_lead, lost=lost_lead)


def merged_lead(row: Row, values: LeadValues, protected: frozenset[str], began_at: datetime) -> Columns:
    """The lead with what its contact says.

    One that has opted out keeps the address that it opted out with: under another one nobody would know of it, and a
    contact that has the old one would be written to.
    """
    own_status = status_of_its_own(row, first=FIRST_STATUS)
    said = {
        "phone": values.phone,
        "first_name": values.first_name,
        "last_name": values.last_name,
        "primary_service_category": values.primary_service_category,
        "specific_service_requested": values.specific_service_requested,
    }
    return {
        **{name: value for name, value in said.items() if value is not None},
        **_place(row["zip_code"], row["county"], row["state"], values),
        **_enrichment(row, values),
        "ghl_contact_id": values.contact_id,
        "email": row["email"] if _keeps_address(row, own_status) else kept_address(row["email"], values.email),
        "status": lead_status(own_status, row["opted_out_at"], is_new=values.is_new, protected=protected),
        "status_before_missing": None,
        "contact_deleted_at": None if _is_alive(row, values, began_at) else row["contact_deleted_at"],
    }


def lead_status(own: str, opted_out_at: datetime | None, *, is_new: bool, protected: frozenset[str]) -> str:
    """A lead's status: `new lead` if it is tagged so, else its own.

    The tag stays on the contact for as long as nobody takes it off, so it says nothing of a lead that has opted out,
    has answered since (what events set), or is further on (protected statuses).
    """
    now = own.strip().lower()
    keeps = opted_out_at is not None or now in OPTED_OUT | SET_BY_EVENTS | protected
    return NEW_LEAD if is_new and not keeps else own


def new_lead(values: LeadValues) -> Columns:
    """A lead that only GHL knew."""
    return {
        **dict.fromkeys(COLUMNS),
        "ghl_contact_id": values.contact_id,
        "email": kept_address(None, values.email),
        "phone": values.phone,
        "first_name": values.first_name,
        "last_name": values.last_name,
        "status": NEW_LEAD if values.is_new else FIRST_STATUS,
        "primary_service_category": values.primary_service_category,
        "specific_service_requested": values.specific_service_requested,
        **_place(None, None, None, values),
    }


def lost_lead(row: Row) -> Columns:
    """A lead whose contact is gone. When that was is known if an event told it.

    Where only the status said that the person must not be written to, it is noted, as this status takes its place.
    """
    opted_out = _says_opted_out(row["status"])
    return lost_row(row) | {
        "contact_deleted_at": row["contact_deleted_at"] or row["now"],
        "opted_out_at": row["opted_out_at"] or (row["now"] if opted_out else None),
    }


def _says_opted_out(status: object) -> bool:
    return str(status).strip().lower() in OPTED_OUT


def _keeps_address(row: Row, own_status: str) -> bool:
    has_opted_out = row["opted_out_at"] is not None or _says_opted_out(own_status)
    return has_opted_out and not is_blank(row["email"])


def _is_alive(row: Row, values: LeadValues, began_at: datetime) -> bool:
    """Whether the contact being there takes back that it was deleted: not if that was told just now."""
    is_another = row["ghl_contact_id"] != values.contact_id
    deleted_at = row["contact_deleted_at"]
    return is_another or row["status"] == MISSING_STATUS or deleted_at is None or deleted_at < began_at - INDEX_LAG


def _enrichment(row: Row, values: LeadValues) -> Columns:
    """As hydration does: a phone was filled in where there was none."""
    if values.phone is None or not is_blank(row["phone"]) or row["enrichment_status"] == NOT_NEEDED:
        return {}
    return {"enrichment_status": "enriched", "enrichment_source": "ghl", "enriched_at": row["now"]}


def _place(zip_code: str | None, county: str | None, state: str | None, values: LeadValues) -> Columns:
    """ZIP, county and state, filled in where they are empty; the last two of the ZIP that the lead has then."""
    zip_code = values.zip_code or zip_code if is_blank(zip_code) else zip_code
    found = _ZIP.fullmatch(zip_code or "")
    place = place_of(found[1]) if found else None
    return {
        "zip_code": zip_code,
        "county": county if place is None or not is_blank(county) else place.county or county,
        "state": state if place is None or not is_blank(state) else place.state,
    }
