"""What tags say: who is a vendor, how far a vendor has come, and which lead is new. Pure.

Tags arrive as `contact_details.tags_of` gives them: lower-case, each once. Their order does not matter.
"""

from collections.abc import Collection
from dataclasses import dataclass

# Any of these makes a contact a vendor.
VENDOR_TAGS = frozenset({"new vendor", "new vendor application", "manually approved"})
NEW_LEAD_TAG = "new lead"


@dataclass(frozen=True, slots=True)
class StatusLevel:
    """A tag that stands for a vendor's status. Of several the one with the highest level counts."""

    level: int
    tag: str
    status: str


STATUS_LEVELS = (
    StatusLevel(0, "new vendor application", "new application"),
    StatusLevel(1, "onboarding in process", "onboarding in process"),
    StatusLevel(2, "manual approval", "pending"),
    StatusLevel(3, "manually approved", "active"),
    StatusLevel(4, "deactivated", "deactivated"),
    StatusLevel(5, "reactivated", "active"),
)


def has_vendor_tag(tags: Collection[str]) -> bool:
    """Whether any tag makes the contact a vendor."""
    return not VENDOR_TAGS.isdisjoint(tags)


def vendor_status(tags: Collection[str]) -> str | None:
    """The vendor's status by the highest level among the tags; None when no tag says anything of it."""
    held = [level for level in STATUS_LEVELS if level.tag in tags]
    return max(held, key=lambda level: level.level).status if held else None


def is_new_lead(tags: Collection[str]) -> bool:
    """Whether the contact is tagged as a new lead."""
    return NEW_LEAD_TAG in tags
