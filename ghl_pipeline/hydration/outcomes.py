"""The closed sets of hydration: why a lead is eligible, which fields can be filled, how a lead ends, and the counts.

Sets that are stored per lead are bit flags, so that a list of a million leads stays small and counts come from one
query.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum


class Outcome(StrEnum):
    """How a lead that was looked at ended. Every one ends in exactly one of these."""

    LINKED_AND_HYDRATED = "linked_and_hydrated"
    HYDRATED = "hydrated"
    UNCHANGED = "unchanged"
    NOT_FOUND = "not_found"
    AMBIGUOUS = "ambiguous"
    INVALID_CONTACT_ID = "invalid_contact_id"
    CONTACT_DELETED = "contact_deleted"
    FAILED = "failed"


REPAIRED = frozenset({Outcome.LINKED_AND_HYDRATED, Outcome.HYDRATED})
# Outcomes of leads whose contact was found.
FOUND = REPAIRED | {Outcome.UNCHANGED}


class Reason(IntFlag):
    """Why a lead is eligible. A lead may have several reasons."""

    NO_CONTACT_LINK = 1
    NO_EMAIL = 2
    NO_PHONE = 4
    NO_FIRST_NAME = 8
    NO_LAST_NAME = 16
    NO_COMPANY_NAME = 32


class LeadField(IntFlag):
    """What hydration can write into a lead."""

    CONTACT_LINK = 1
    EMAIL = 2
    PHONE = 4
    FIRST_NAME = 8
    LAST_NAME = 16
    COMPANY_NAME = 32


def flag_names(flags: IntFlag) -> tuple[str, ...]:
    """The members set in `flags`, in lower case: `("no_phone", "no_email")`."""
    return tuple(member.name.lower() for member in type(flags) if member in flags and member.name)


@dataclass(frozen=True, slots=True)
class Counts:
    """Leads by outcome, and filled fields by name. `leads` is the sum of the outcomes by construction."""

    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    fields: Mapping[LeadField, int] = field(default_factory=dict)

    @property
    def leads(self) -> int:
        """Leads that were looked at."""
        return sum(self.outcomes.values())

    def outcome_counts(self) -> dict[str, int]:
        """Every outcome by name, zeros included, in the order of the enum."""
        return {outcome.value: self.outcomes.get(outcome, 0) for outcome in Outcome}

    def field_counts(self) -> dict[str, int]:
        """Every field by name, zeros included, in the order of the enum."""
        return {member.name.lower(): self.fields.get(member, 0) for member in LeadField if member.name}

    def __add__(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(
            {o: self.outcomes.get(o, 0) + other.outcomes.get(o, 0) for o in Outcome},
            {f: self.fields.get(f, 0) + other.fields.get(f, 0) for f in LeadField},
        )
