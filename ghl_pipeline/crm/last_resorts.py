"""The ways that go through much to find few: the location's opportunities, and a search for who is new."""

from collections.abc import Mapping, Sequence

from ghl_pipeline.crm.gathering import Gathering
from ghl_pipeline.crm.identifiers import KnownRow
from ghl_pipeline.crm.list_scan import walk_list
from ghl_pipeline.crm.row_lookups import RowLookups
from ghl_pipeline.crm.tags import NEW_LEAD_TAG, VENDOR_TAGS
from ghl_pipeline.ghl.errors import GhlUnreachable, RateLimited, RequestRejected, ScopeMissing, TransientGhlError
from ghl_pipeline.ghl.search import ContactSearch, Filter, equals
from ghl_pipeline.hydration.pull import ask_about_nobody

VENDOR_SOURCE = "Vendor Application"


async def find_by_opportunities(at: Gathering, lookups: RowLookups, rows: Sequence[KnownRow], *, most: int) -> None:
    """Gathers contacts of rows by the location's opportunities, newest first, until all are found.

    Args:
        at: the fetch.
        lookups: for the contacts.
        rows: those that nothing else has found.
        most: opportunities to go through.

    Raises:
        GhlError: GHL is down, or the location refuses.
    """
    unlisted = (row.opportunity_id for row in rows if at.owner_of(row.opportunity_id) is None)
    wanted = {opportunity_id for opportunity_id in unlisted if opportunity_id is not None}
    with at.counting("opportunities"):
        await _list_opportunities(at, wanted, most)
    owners = dict.fromkeys(owner for row in rows if (owner := at.owner_of(row.opportunity_id)))
    await lookups.fetch_ids([owner for owner in owners if owner not in at.contacts])
    for row in rows:
        owner = at.owner_of(row.opportunity_id)
        if owner in at.failed_ids and not at.is_found(row):
            at.failed_opportunities[row.opportunity_id or ""] = at.failed_ids[owner]


async def _list_opportunities(at: Gathering, wanted: set[str], most: int) -> None:
    after: Mapping[str, str] | None = None
    received, cursors = 0, set[tuple[tuple[str, str], ...]]()
    while wanted and received < most:
        try:
            page = await at.client.opportunities(after)
        except ScopeMissing:
            at.notes.append("opportunities were left out: the token lacks the scope opportunities.readonly")
            return
        except (RateLimited, GhlUnreachable):
            raise
        except (RequestRejected, TransientGhlError) as error:
            await ask_about_nobody(at.client)
            at.notes.append("the location's opportunities could not be gone through")
            at.failed_opportunities.update(dict.fromkeys(wanted, error))
            return
        for opportunity in page.opportunities:
            at.list_opportunity(opportunity.id, opportunity.contact_id)
            wanted.discard(opportunity.id)
        received, after = received + len(page.opportunities), page.next_cursor
        if after is None or (page.total is not None and received >= page.total):
            return
        mark = tuple(sorted(after.items()))
        if mark in cursors:
            return
        cursors.add(mark)


async def discover(at: Gathering) -> None:
    """Gathers contacts that say of themselves that they are vendors or new leads. Raises GhlError as `scan`."""
    tags = [equals("tags", tag) for tag in sorted(VENDOR_TAGS | {NEW_LEAD_TAG})]
    source: Filter = {"field": "source", "operator": "contains", "value": VENDOR_SOURCE}
    # Oldest first: who is new to GHL comes among the changes, so that the cap costs nobody who comes no other way.
    search = ContactSearch(({"group": "OR", "filters": [*tags, source]},), oldest_first="dateAdded", detailed=True)
    with at.counting("discovery"):
        walk = await walk_list(at.client, search, at.add, cap=at.rules.list_scan_cap, page_size=at.rules.list_scan_page)
    if walk.at_cap:
        at.notes.append(
            f"more than {at.rules.list_scan_cap} contacts have the tags of new vendors and leads, and the rest was not "
            f"looked at: raise LIST_SCAN_CAP"
        )
    elif walk.error is None and walk.came_short:
        # The next whole pass looks again; one an hour would not help where GHL's total is wrong.
        at.notes.append("the search for new vendors and leads ended before all of them came")
    if walk.error is None:
        return
    at.notes.append("new vendors and leads were not looked for: GHL did not answer the search for their tags")
    # What is refused is refused the next time as well; what failed is worth another whole pass.
    at.is_whole = at.is_whole and isinstance(walk.error, RequestRejected)
