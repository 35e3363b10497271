"""Whether it is believed that so many contacts are gone.

GHL's word for a single contact is believed. That a fifth of a side is gone at once is more likely a token of another
sub-account, an import that went wrong or a bulk deletion by mistake than the truth, so a person is asked first.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ghl_pipeline.crm.identifiers import MISSING_STATUS, Identifiers, KnownRow, Side
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.ghl.ids import is_contact_id

MOST_MISSING = 0.20

__all__ = ["MISSING_STATUS", "MOST_MISSING", "Missing", "TooManyMissing", "check_share"]


class TooManyMissing(PipelineError):
    """So many contacts are gone at once that a person has to look first. Nothing of the location was written.

    `sides`: those of which too many are.
    """

    waits_for_person = True

    def __init__(self, text: str, sides: Sequence[Side] = ()) -> None:
        super().__init__(text)
        self.sides = tuple(sides)


@dataclass(frozen=True, slots=True)
class Missing:
    """Of a side: `gone` rows that are not marked yet, `of` so many that are linked and not marked.

    What can be no contact's id is no link: it would make the share smaller than it is.
    """

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
    sides = [side for side, each in missing.items() if each.share > most_missing]
    too_many = [
        f"{missing[side].gone} of {missing[side].of} {side.value}s ({missing[side].share:.0%})" for side in sides
    ]
    if too_many and not accept:
        raise TooManyMissing(
            f"TooManyMissing: location {location_id}: GHL says that the contacts of {' and '.join(too_many)} are gone, "
            f"more than {most_missing:.0%}. Nothing was written. Look into the location; if it is true, run: "
            f"ghl-pipeline crm-sync --location {location_id} --accept-missing --full",
            sides,
        )
    return missing


def _missing(rows: Collection[KnownRow], gone: Collection[str]) -> Missing:
    unmarked = [row.contact_id for row in rows if is_contact_id(row.contact_id) and row.status != MISSING_STATUS]
    return Missing(sum(contact_id in gone for contact_id in unmarked), len(unmarked))
