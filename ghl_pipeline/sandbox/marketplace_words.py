"""The words of a sample marketplace: fields, tags, trades, places, and what people write about where they work."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from ghl_pipeline.sandbox.custom_fields import DataType

FIELDS: Final[Mapping[str, DataType]] = {
    "contact.service_categories": "MULTIPLE_OPTIONS",
    "contact.services_offered": "LARGE_TEXT",
    "contact.service_zip_codes": "LARGE_TEXT",
    "contact.taking_new_work": "RADIO",
    "contact.last_lead_assigned": "DATE",
    "contact.lead_close_percentage": "NUMERICAL",
    "contact.primary_service_category": "SINGLE_OPTIONS",
    "contact.ghl_user_id": "TEXT",
    "contact.specific_service_requested": "TEXT",
    "contact.opportunity_id": "TEXT",
    "contact.insurance_certificate": "FILE_UPLOAD",
    "contact.internal_notes": "LARGE_TEXT",
    "opportunity.budget": "MONETORY",
}
"""Key -> kind of the custom fields a marketplace has defined."""

LEVELS: Final = (
    ("new vendor application", "new application"),
    ("onboarding in process", "onboarding in process"),
    ("manual approval", "pending"),
    ("manually approved", "active"),
    ("deactivated", "deactivated"),
    ("reactivated", "active"),
)
"""Tag and the status it stands for, from the lowest level to the highest."""
VENDOR_TAGS: Final = frozenset({"new vendor", "new vendor application", "manually approved"})
"""Tags that alone make a vendor."""
VENDOR_SOURCES: Final = ("Vendor Application", "vendor application form", "Website - VENDOR APPLICATION 2")
LEAD_SOURCES: Final = ("landing page", "Facebook Ads", "public api", None)
NEW_LEAD: Final = "new lead"
OTHER_TAGS: Final = ("newsletter", "webinar", "vip", "referred")

TRADES: Final = (
    ("Roofing", ("Roof repair", "Gutter cleaning", "Skylights")),
    ("Plumbing", ("Leak detection", "Water heaters", "Drain cleaning")),
    ("Electrical", ("Rewiring", "EV chargers", "Lighting")),
    ("Landscaping", ("Lawn care", "Irrigation", "Tree removal")),
    ("Moving & Storage", ("Local moves", "Piano moving")),
    ("Pool Service", ("Cleaning, weekly", "Pump repair")),
)
"""Category and its services; one has a comma in it, as people type them."""

PLACES: Final = (
    ("33301", "Fort Lauderdale", "FL", "Broward"),
    ("33139", "Miami Beach", "FL", "Miami-Dade"),
    ("33401", "West Palm Beach", "FL", "Palm Beach"),
    ("30303", "Atlanta", "GA", "Fulton"),
    ("78701", "Austin", "TX", "Travis"),
    ("10001", "New York", "NY", "New York"),
    ("60601", "Chicago", "IL", "Cook"),
    ("90012", "Los Angeles", "CA", "Los Angeles"),
    ("02108", "Boston", "MA", "Suffolk"),  # begins with 0
    ("97201", "Portland", "OR", "Multnomah"),
)
"""ZIP, city, state and county."""

CoverageKind: TypeAlias = Literal["global", "national", "states", "counties", "zips", "unreadable"]
COVERAGES: Final[tuple[tuple[CoverageKind | None, str | None], ...]] = (
    ("global", "Global"),
    ("national", "National"),
    ("states", "FL, GA, SC"),
    ("counties", "Broward County, FL; Palm Beach County, FL"),
    ("zips", "33301, 33304, 33139"),
    ("unreadable", "wherever the job is"),
    ("states", "Florida"),
    ("counties", "Travis County, TX"),
    ("zips", "02108"),
    (None, None),
    ("states", "tx"),
    ("national", "nationwide"),
    ("counties", "miami-dade county, fl"),
    ("zips", "60601 60602\n60603"),
    ("unreadable", "International"),  # not a nation
    ("states", "new york, Illinois"),
    ("global", "global"),
)
"""What vendors write about where they work, and what they mean by it; None for those who write nothing."""
