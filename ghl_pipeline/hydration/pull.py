"""Pulling many contacts by cursor: the next page is asked for while the last one is stored."""

import asyncio
from collections.abc import Callable

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import GhlUnreachable, RateLimited, RequestRejected, TransientGhlError
from ghl_pipeline.ghl.payloads import SearchPage
from ghl_pipeline.ghl.search import NOBODY, ContactSearch, changed_since, equals
from ghl_pipeline.hydration.plan import Plan, Way
from ghl_pipeline.orchestration.blocking import in_thread

# A page of a pull cannot be passed over, so one whose attempts were all in vain is asked for again that often. With one
# answer in five failing, five attempts fail once in 3,000 pages, three times as many once in 30 thousand millions.
ROUNDS = 3


def search_of(plan: Plan) -> ContactSearch:
    """The search whose pages the plan pulls, from where it has come to."""
    if plan.way is Way.DELTA and plan.since is not None:
        return ContactSearch((changed_since(plan.since),), after=plan.search_after, oldest_first="dateUpdated")
    return ContactSearch(after=plan.search_after, oldest_first="dateAdded")


async def ask_page(client: LocationClient, search: ContactSearch) -> SearchPage:
    """One page, asked for in up to `ROUNDS` rounds of the client's own attempts.

    Raises:
        GhlError: GHL refuses, is not reachable, or failed in every round.
    """
    for _ in range(ROUNDS - 1):
        try:
            return await client.search_contacts(search)
        except (RateLimited, GhlUnreachable):
            raise
        except TransientGhlError:
            pass
    return await client.search_contacts(search)


async def page_or_none(client: LocationClient, search: ContactSearch) -> SearchPage | None:
    """One page as `ask_page` gives it; None when GHL does not answer this question, though it answers others.

    Raises:
        GhlError: GHL is down, or the location refuses.
    """
    try:
        return await ask_page(client, search)
    except (RateLimited, GhlUnreachable):
        raise
    except (RequestRejected, TransientGhlError):
        await ask_about_nobody(client)
        return None


async def ask_about_nobody(client: LocationClient) -> None:
    """A small question, to tell a location where one thing fails from one where everything does. Raises GhlError."""
    await client.search_contacts(ContactSearch((equals("email", NOBODY["email"]),), page_limit=1))


async def pull(
    client: LocationClient, plan: Plan, keep: Callable[[SearchPage, Plan], None], first: SearchPage | None = None
) -> Plan:
    """Pulls what the plan still lacks.

    Args:
        client: the location's.
        plan: whose pull is not through.
        keep: stores a page together with the plan after it, in one transaction; called in a thread.
        first: the first page, if it was asked for already.

    Returns:
        The plan with its pull through.

    Raises:
        GhlError: as `ask_page`; what was pulled is stored.
    """
    page = first or await ask_page(client, search_of(plan))
    while True:
        plan = plan.after_page(page)
        if plan.pulled:
            await in_thread(keep, page, plan)
            return plan
        following = asyncio.create_task(ask_page(client, search_of(plan)))
        try:
            await in_thread(keep, page, plan)
        except BaseException:
            following.cancel()
            await asyncio.wait([following])
            if not following.cancelled():
                following.exception()  # looked at, or asyncio reports it as lost
            raise
        page = await following
