"""Whether it is believed that so many contacts are gone.

GHL's word for a single contact is believed. That a fifth of a side is gone at once is more likely a token of another
sub-account, an import that went wrong or a bulk deletion by mistake than the truth, so a person is asked first.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ghl_pipeline.crm.identifiers import Identifiers, KnownRow, Side
from ghl_pipeline.errors import PipelineError

# The status of a row whose contact is gone.
MISSING_STATUS = "inactive_ghl_deleted"
MOST_MISSING = 0.20


class TooManyMissing(PipelineError):
    """So many contacts are gone at once that a person has to look first. Nothing of the location was written."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Of a side: `gone` rows that are not marked yet, `of` so many that have a contact id and are not marked."""

    gone: int
    of: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.gone / self.of if self.of else 0.0


def check_share(
    identifiers: Identifiers,
    gone: Collection[str],
    *,
    location_id: str,
    most_missing: float = MOST_MISSING,
    accept: bool = False,
) -> Mapping[Side, Missing]:
    """How many rows of each side would be newly marked.

    Args:
        identifiers: everybody known.
        gone: contact ids that GHL said are gone, as a fetch gives them.
        location_id: for the error's text.
        most_missing: the share of a side, 0 to 1, from above which a person is asked.
        accept: a person was asked and said yes.

    Raises:
        TooManyMissing: more than that of either side.
    """
    missing = {
        Side.VENDOR: _missing(identifiers.vendors, gone),
        Side.LEAD: _missing(identifiers.leads, gone),
    }
    too_many = [
        f"{each.gone} of {each.of} {side.value}s ({each.share:.0%})"
        for side, each in missing.items()
        if each.share > most_missing
    ]
    if too_many and not accept:
        raise TooManyMissing(
            f"TooManyMissing: location {location_id}: GHL says that the contacts of {' and '.join(too_many)} are gone, "
            f"more than {most_missing:.0%}. Nothing was written. Look into the location; if it is true, run: "
            f"ghl-pipeline crm-sync --location {location_id} --accept-missing"
        )
    return missing


def _missing(rows: Collection[KnownRow], gone: Collection[str]) -> Missing:
    unmarked = [row.contact_id for row in rows if row.contact_id is not None and row.status != MISSING_STATUS]
    return Missing(sum(contact_id in gone for contact_id in unmarked), len(unmarked))
