"""What a vendor's row becomes: pure rules over the row as it is and what its contact says.

What GHL does not say overwrites nothing; what it says counts, because vendors keep their own data there.
"""

from ghl_pipeline.crm.identifiers import Side
from ghl_pipeline.crm.key_owners import Row
from ghl_pipeline.crm.missing import MISSING_STATUS
from ghl_pipeline.crm.side_rules import Columns, SideRules
from ghl_pipeline.crm.vendor_fields import VendorValues
from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.hydration.matching import normal_address
from ghl_pipeline.hydration.merge import MAX_EMAIL

FIRST_STATUS = "pending"

COLUMNS = {
    "ghl_contact_id": "text",
    "email": "text",
    "phone": "text",
    "name": "text",
    "company_name": "text",
    "status": "text",
    "status_before_missing": "text",
    "service_categories": "text[]",
    "services_offered": "text[]",
    "service_zip_codes": "text",
    "coverage_kind": "text",
    "coverage_states": "text[]",
    "coverage_counties": "text[]",
    "coverage_zip_codes": "text[]",
    "coverage_unread": "text[]",
    "taking_new_work": "boolean",
    "last_lead_assigned_at": "timestamptz",
    "lead_close_percentage": "numeric",
    "primary_service_category": "text",
    "ghl_user_id": "text",
}


def vendor_rules() -> SideRules[VendorValues]:
    """How vendors are written."""
    return SideRules(Side.VENDOR, COLUMNS, merged=merged_vendor, made=new_vendor, lost=lost_row)


def merged_vendor(row: Row, values: VendorValues) -> Columns:
    """The vendor with what its contact says."""
    said = {name: value for name, value in _said(values).items() if value not in (None, ())}
    if values.name_is_companys and not is_blank(row["name"]):
        said.pop("name", None)  # a person's name that somebody typed here is no worse for GHL having none
    return {
        **said,
        "ghl_contact_id": values.contact_id,
        "email": kept_address(row["email"], values.email),
        "status": status_there(row, values.status, first=FIRST_STATUS),
        "status_before_missing": None,
    }


def new_vendor(values: VendorValues) -> Columns:
    """A vendor that only GHL knew."""
    empty: Columns = {name: [] if type_ == "text[]" else None for name, type_ in COLUMNS.items()}
    return {
        **empty,
        "coverage_kind": "none",
        **{name: value for name, value in _said(values).items() if value is not None},
        "ghl_contact_id": values.contact_id,
        "email": kept_address(None, values.email),
        "status": values.status or FIRST_STATUS,
    }


def lost_row(row: Row) -> Columns:
    """A row whose contact is gone: it keeps the status that comes back with the contact."""
    if row["status"] == MISSING_STATUS:
        return {}
    return {"status": MISSING_STATUS, "status_before_missing": row["status"]}


def status_there(row: Row, told: str | None, *, first: str) -> str:
    """The status of a row whose contact is there: what the tags tell, else its own.

    Args:
        row: as it is.
        told: by the contact's tags; None when they say nothing.
        first: of a row that is marked as missing and has no status to come back to.
    """
    return told or status_of_its_own(row, first=first)


def status_of_its_own(row: Row, *, first: str) -> str:
    """The status a row has when nothing else is told of it: the one before its contact was gone, if it was."""
    own = row["status_before_missing"] if row["status"] == MISSING_STATUS else row["status"]
    return first if is_blank(own) or own == MISSING_STATUS else str(own)


def kept_address(own: str | None, told: str | None) -> str | None:
    """The address as it is, where GHL's is the same in other letters, no address at all, or none that fits."""
    if told is None or len(told) > MAX_EMAIL or normal_address(own) == told:
        return own
    return told


def _said(values: VendorValues) -> Columns:
    """What the contact says, by column; None and empty where it says nothing."""
    coverage = values.coverage
    said: Columns = {
        "phone": values.phone,
        "name": values.name,
        "company_name": values.company_name,
        "service_categories": values.service_categories,
        "services_offered": values.services_offered,
        "taking_new_work": values.taking_new_work,
        "last_lead_assigned_at": values.last_lead_assigned_at,
        "lead_close_percentage": values.lead_close_percentage,
        "primary_service_category": values.primary_service_category,
        "ghl_user_id": values.ghl_user_id,
    }
    if values.service_zip_codes is not None:
        # What was read belongs to the text, also where nothing of it could be.
        said |= {
            "service_zip_codes": values.service_zip_codes,
            "coverage_kind": coverage.kind.value,
            "coverage_states": list(coverage.states),
            "coverage_counties": list(coverage.counties),
            "coverage_zip_codes": list(coverage.zip_codes),
            "coverage_unread": list(coverage.unread),
        }
    return said
