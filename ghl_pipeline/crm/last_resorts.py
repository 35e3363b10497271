"""The ways that go through much to find few: the location's list, its opportunities, and a search for who is new."""

from collections.abc import Mapping, Sequence

from ghl_pipeline.crm.gathering import Gathering, links_of
from ghl_pipeline.crm.identifiers import KnownRow
from ghl_pipeline.crm.list_scan import walk_list
from ghl_pipeline.crm.row_lookups import RowLookups
from ghl_pipeline.crm.tags import NEW_LEAD_TAG, VENDOR_TAGS
from ghl_pipeline.ghl.errors import GhlUnreachable, RateLimited, RequestRejected, ScopeMissing, TransientGhlError
from ghl_pipeline.ghl.search import MAX_PAGE, ContactSearch, Filter, equals
from ghl_pipeline.hydration.plan import lookup_calls, pull_calls
from ghl_pipeline.hydration.pull import ask_about_nobody
from ghl_pipeline.hydration.resolve import askable_address

# Groups take so few people's data with them that they go before a scan which costs somewhat less.
MORE_THAN_A_SCAN = 2
FEW_GROUPS = 20
VENDOR_SOURCE = "Vendor Application"


async def scan_if_cheaper(at: Gathering) -> None:
    """Goes through the list first where the groups of everybody known would cost far more than that.

    Raises:
        GhlError: GHL is down, or the location refuses.
    """
    knowledge = at.knowledge
    links = links_of(at.rows)
    addresses = {askable_address(row.email) for row in at.rows if at.is_dead(row)} - {None}
    size, case_matters = knowledge.group_size.ceiling, bool(knowledge.case_matters)
    groups = lookup_calls(len(links), size, case_matters=False)
    groups += lookup_calls(len(addresses), size, case_matters=case_matters)
    cap = at.rules.list_scan_cap
    if groups <= FEW_GROUPS or (knowledge.contacts is not None and knowledge.contacts > 2 * cap):
        return
    with at.counting("list_pages"):
        page = await knowledge.first_page()
    total = page.total if page else None
    if total is not None and total <= cap and groups > MORE_THAN_A_SCAN * pull_calls(total):
        await scan(at)


async def scan(at: Gathering) -> None:
    """Gathers the location's list, oldest first, as far as the cap. Raises GhlError as `scan_if_cheaper`."""
    search = ContactSearch(oldest_first="dateAdded", detailed=True)
    with at.counting("list_pages"):
        # The page that a survey begins with is the scan's first one, too.
        first = await at.knowledge.first_page() if at.rules.list_scan_cap >= MAX_PAGE else None
        is_usable = first is not None and all(contact.details is not None for contact in first.contacts)
        at.scan = await walk_list(
            at.client, search, at.add, cap=at.rules.list_scan_cap, first=first if is_usable else None
        )
    if at.scan.error is not None:
        at.is_whole = False
        at.notes.append("the location's list could not be gone through")
    elif at.scan.at_cap:
        at.notes.append(f"the location has more than the {at.rules.list_scan_cap} contacts that a scan goes through")
    elif not at.scan.is_complete:
        at.notes.append("the location's list ended before all contacts came, so that nobody counts as gone by it")


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
    search = ContactSearch(({"group": "OR", "filters": [*tags, source]},), detailed=True)
    with at.counting("discovery"):
        walk = await walk_list(at.client, search, at.add, cap=at.rules.list_scan_cap)
    if walk.error is None:
        return
    at.notes.append("new vendors and leads were not looked for: GHL did not answer the search for their tags")
    # What is refused is refused the next time as well; what failed is worth another whole pass.
    at.is_whole = at.is_whole and isinstance(walk.error, RequestRejected)
