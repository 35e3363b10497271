"""What a fetch relies on, and what is remembered of the ones before."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from ghl_pipeline.ghl.search import MAX_PAGE


@dataclass(frozen=True, slots=True)
class FetchRules:
    """What is relied on.

    Attributes:
        list_scan_cap: most contacts that one scan of the list brings.
        list_scan_page: contacts on a page of it, and of the search for who is new.
        full_pass_every: how often everybody is looked up although changes can be searched for: a deletion leaves none.
        look_up_again: for how long it is believed that a scan did not find a row, and that a contact is gone.
        overlap: how far before the last pass changes are looked for again: for the search's lag behind writes (up to a
            minute was seen) and for clocks that differ.
        confirm_gets: so many contacts that a complete scan did not bring are verified by GET; if all of them are gone,
            the scan is believed for the rest.
    """

    list_scan_cap: int = 15_000
    list_scan_page: int = MAX_PAGE
    full_pass_every: timedelta = timedelta(days=7)
    look_up_again: timedelta = timedelta(days=30)
    overlap: timedelta = timedelta(minutes=10)
    confirm_gets: int = 100


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the passes before have come to.

    Attributes:
        now: the database's clock, before anything is asked.
        changes_seen_until: contacts changed before then are in step; None before the first complete pass.
        full_pass_at: when a pass that can see deletions last ended.
    """

    now: datetime
    changes_seen_until: datetime | None = None
    full_pass_at: datetime | None = None
