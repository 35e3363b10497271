"""Fetching only who changed since the last pass."""

from datetime import datetime

from ghl_pipeline.crm.fetch_rules import FetchRules, Remembered
from ghl_pipeline.crm.gathering import Gathering
from ghl_pipeline.crm.list_scan import page_or_error, walk_list
from ghl_pipeline.crm.row_lookups import try_dates
from ghl_pipeline.ghl.payloads import SearchPage
from ghl_pipeline.ghl.search import ContactSearch, changed_since
from ghl_pipeline.ghl.survey import are_changed_since


def changes_suffice(remembered: Remembered, rules: FetchRules) -> bool:
    """Whether the last full pass is not so long ago that deletions have to be looked for again."""
    full_pass_at = remembered.full_pass_at
    if remembered.changes_seen_until is None or full_pass_at is None:
        return False
    return remembered.now - full_pass_at < rules.full_pass_every


async def searches_by_date(at: Gathering) -> bool:
    """Whether the location answers date searches rightly; tried now if it is not known.

    Raises:
        GhlError: GHL is down, or the location refuses.
    """
    if at.knowledge.searches_by_date is None:
        with at.counting("list_pages"):
            page = await at.knowledge.first_page()
        with at.counting("survey"):
            await try_dates(at, page.contacts if page else ())
    return bool(at.knowledge.searches_by_date)


async def gather_changes(at: Gathering, since: datetime) -> bool:
    """Gathers the contacts changed since then, oldest change first.

    Returns:
        False when that does not work, or is more than going through everybody: nothing is gathered then.

    Raises:
        GhlError: GHL is down, or the location refuses.
    """
    search = ContactSearch((changed_since(since),), oldest_first="dateUpdated", detailed=True)
    with at.counting("changes"):
        first = await page_or_error(at.client, search)
        if not isinstance(first, SearchPage):
            at.notes.append("GHL did not answer the search for changes, so that everybody was looked up")
            return False
        if not are_changed_since(first.contacts, since):
            await at.knowledge.dates_are_searched(rightly=False)
            at.notes.append("GHL answered the search for changes wrongly, so that everybody was looked up")
            return False
        if first.total is not None and first.total > at.rules.list_scan_cap:
            at.notes.append(f"{first.total} contacts changed, so that everybody was looked up")
            return False
        walk = await walk_list(at.client, search, at.add, cap=at.rules.list_scan_cap, first=first)
    if walk.error is not None or walk.at_cap or walk.came_short:
        at.is_whole = False
        at.notes.append("not all changes came; the next run looks for them again")
    return True
