"""Going through a list of contacts by cursor, and knowing afterwards whether that was all of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import GhlError, GhlUnreachable, RateLimited, RequestRejected, TransientGhlError
from ghl_pipeline.ghl.payloads import Contact, SearchPage
from ghl_pipeline.ghl.search import MAX_PAGE, ContactSearch
from ghl_pipeline.hydration.pull import ask_about_nobody, ask_page

# Contacts that may be deleted while a list is gone through, as a share of it and at least. More than that is rather a
# search that lost part of its index than people who tidy up: 30 pages take some ten seconds.
DELETED_MEANWHILE = 0.01
DELETED_AT_LEAST = 10


@dataclass(slots=True)
class ListWalk:
    """How far a list was gone through.

    Attributes:
        received: contacts that came, each counted once.
        unreadable: items that were none.
        first_total, last_total: how many GHL said there are, on the first page and on the last one.
        ended: the list ended by itself.
        at_cap: it goes on beyond what was asked for.
        error: what it broke off with, though GHL answers other questions.
    """

    received: int = 0
    unreadable: int = 0
    first_total: int | None = None
    last_total: int | None = None
    ended: bool = False
    at_cap: bool = False
    error: GhlError | None = None

    @property
    def came_short(self) -> bool:
        """Whether fewer contacts came than GHL says there are."""
        return self.last_total is not None and self.received + self.unreadable < self.last_total

    @property
    def is_complete(self) -> bool:
        """Whether a contact that did not come is not on the list.

        Contacts deleted meanwhile lower the total, so the first one may be missed by a few. Without a total nothing is
        proven, nor with items that could not be read, as each may be anybody.
        """
        if not self.ended or self.unreadable or self.first_total is None or self.last_total is None:
            return False
        deleted = max(DELETED_AT_LEAST, int(self.first_total * DELETED_MEANWHILE))
        return not self.came_short and self.received >= self.first_total - deleted


@dataclass(slots=True)
class _Marks:
    ids: set[str] = field(default_factory=set[str])
    cursors: set[tuple[str, ...]] = field(default_factory=set[tuple[str, ...]])


async def page_or_error(client: LocationClient, search: ContactSearch) -> SearchPage | GhlError:
    """One page; or why GHL does not answer this question, though it answers others.

    Raises:
        GhlError: GHL is down, or the location refuses.
    """
    try:
        return await ask_page(client, search)
    except (RateLimited, GhlUnreachable):
        raise
    except (RequestRejected, TransientGhlError) as error:
        await ask_about_nobody(client)
        return error


async def walk_list(
    client: LocationClient,
    search: ContactSearch,
    keep: Callable[[Sequence[Contact]], None],
    *,
    cap: int,
    page_size: int = MAX_PAGE,
    first: SearchPage | None = None,
) -> ListWalk:
    """Goes through the pages of a search, by cursor.

    Args:
        client: the location's.
        search: what is asked; its page limit is lowered where the cap is nearer.
        keep: is given the contacts of each page.
        cap: most contacts that are asked for.
        page_size: contacts that are asked for at a time.
        first: the first page, if it was asked for already, with as many.

    Raises:
        GhlError: GHL is down, or the location refuses. What came before was kept.
    """
    walk, marks = ListWalk(), _Marks()
    page: SearchPage | GhlError | None = first
    while True:
        limit = min(page_size, cap - walk.received - walk.unreadable)
        page = page or await page_or_error(client, replace(search, page_limit=limit))
        if isinstance(page, GhlError):
            walk.error = page
            return walk
        keep(page.contacts)
        _count(walk, marks, page)
        if _is_last(walk, marks, page, limit) or page.next_cursor is None:
            walk.ended = True
            return walk
        search = search.following(page.next_cursor)
        if walk.received + walk.unreadable >= cap:
            await _look_beyond(client, search, walk)
            return walk
        page = None


def _count(walk: ListWalk, marks: _Marks, page: SearchPage) -> None:
    marks.ids.update(contact.id for contact in page.contacts)
    walk.received = len(marks.ids)
    walk.unreadable += page.unreadable
    if walk.first_total is None:
        walk.first_total = page.total
    walk.last_total = page.total


def _is_last(walk: ListWalk, marks: _Marks, page: SearchPage, limit: int) -> bool:
    """Whether nothing follows.

    Not at the total alone: what is deleted meanwhile lowers it, and a search engine may stop counting.
    """
    if page.next_cursor is None:
        return True
    mark = tuple(map(str, page.next_cursor))
    comes_again = mark in marks.cursors
    marks.cursors.add(mark)
    is_full = len(page.contacts) + page.unreadable >= limit
    return comes_again or (not is_full and not walk.came_short)


async def _look_beyond(client: LocationClient, search: ContactSearch, walk: ListWalk) -> None:
    """As many came as may. That this is all is asked where the total says so, which may have stopped counting."""
    walk.at_cap = True
    if walk.came_short or walk.last_total is None:
        return
    page = await page_or_error(client, replace(search, page_limit=1))
    if isinstance(page, SearchPage) and not page.contacts and not page.unreadable:
        walk.at_cap, walk.ended = False, True
