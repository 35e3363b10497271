"""Going through a location's whole list for one fetch: when that costs less than asking otherwise, and how it ends."""

import math

from ghl_pipeline.crm.gathering import Gathering, links_of
from ghl_pipeline.crm.list_scan import walk_list
from ghl_pipeline.ghl.search import MAX_PAGE, ContactSearch
from ghl_pipeline.hydration.plan import lookup_calls
from ghl_pipeline.hydration.resolve import askable_address

# Groups take so few people's data with them that they go before a scan which costs somewhat less.
MORE_THAN_A_SCAN = 2
FEW_GROUPS = 20


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
    if total is not None and total <= cap and groups > MORE_THAN_A_SCAN * scan_calls(at, total):
        await scan(at)


async def scan(at: Gathering) -> None:
    """Gathers the location's list, oldest first, as far as the cap. Raises GhlError as `scan_if_cheaper`."""
    search = ContactSearch(oldest_first="dateAdded", detailed=True)
    with at.counting("list_pages"):
        # The page that a survey begins with is the scan's first one, too.
        takes_whole_pages = min(at.rules.list_scan_cap, at.rules.list_scan_page) >= MAX_PAGE
        first = await at.knowledge.first_page() if takes_whole_pages else None
        is_usable = first is not None and all(contact.details is not None for contact in first.contacts)
        at.scan = await walk_list(
            at.client,
            search,
            at.add,
            cap=at.rules.list_scan_cap,
            page_size=at.rules.list_scan_page,
            first=first if is_usable else None,
        )
    if at.scan.error is not None:
        at.is_whole = False
        at.notes.append("the location's list could not be gone through")
    elif at.scan.at_cap:
        at.notes.append(f"the location has more than the {at.rules.list_scan_cap} contacts that a scan goes through")
    elif not at.scan.is_complete:
        at.notes.append("the location's list ended before all contacts came, so that nobody counts as gone by it")


async def costs_no_more(at: Gathering, calls: int) -> bool:
    """Whether the whole list can be gone through with at most so many calls. Raises GhlError as `scan_if_cheaper`."""
    cap = at.rules.list_scan_cap
    if calls < 1 or (at.knowledge.contacts is not None and at.knowledge.contacts > 2 * cap):
        return False
    with at.counting("list_pages"):
        page = await at.knowledge.first_page()
    total = page.total if page else None
    return total is not None and total <= cap and scan_calls(at, total) <= calls


def scan_calls(at: Gathering, contacts: int) -> int:
    """Pages that so many contacts are on: one at least, to learn that there are none."""
    return max(1, math.ceil(contacts / at.rules.list_scan_page))
