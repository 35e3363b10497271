"""`POST /contacts/search`: the body's rules, sorting and paging. The filter grammar is `search_filters.py`.

GHL documents 500 contacts per page, page numbers up to 10,000 records and `searchAfter` beyond; where the text of a
refusal is not known, it is the sandbox's own and only the status matters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from ghl_pipeline.sandbox.contacts import DATES, SORT_VALUES, Contact, ContactTable, SortValue
from ghl_pipeline.sandbox.responses import bad_request, unprocessable
from ghl_pipeline.sandbox.search_filters import (
    MAX_VALUE_LENGTH,
    FilterRules,
    Group,
    Leaf,
    Span,
    leaves,
    matches,
    parse_filters,
    select,
)
from ghl_pipeline.sandbox.statistics import LIST_SEARCHES, SearchKind

MAX_PAGE_LIMIT: Final = 500
MAX_RECORDS_BY_PAGE: Final = 10_000
MAX_SORTS: Final = 2
_NEWEST_FIRST: Final = (("dateAdded", True),)
_KEYS: Final = frozenset({"locationId", "pageLimit", "page", "searchAfter", "filters", "sort", "query"})

Cursor = tuple[SortValue, ...]


@dataclass(frozen=True)
class ContactSearch:
    """A search that passed the validation. `sort` holds (field, descending)."""

    filters: Group
    sort: tuple[tuple[str, bool], ...]
    limit: int
    page: int
    after: Cursor | None
    words: tuple[str, ...]

    @property
    def has_range(self) -> bool:
        """Whether a filter is a range of dates."""
        return any(leaf.operator == "range" for leaf in leaves(self.filters))

    @property
    def kind(self) -> SearchKind:
        """What it selects by, as the statistics count it."""
        fields = {leaf.field for leaf in leaves(self.filters)}
        if self.words:
            return "other"
        if len(fields) == 1 and next(iter(fields)) in {"id", "email"}:
            return "ids" if "id" in fields else "emails"
        if self.filters.members and fields <= DATES.keys():
            return "dates"
        return "other" if self.filters.members else "none"

    def lookups(self) -> Iterator[tuple[str, str]]:
        """Field and value of every `eq` leaf."""
        return ((leaf.field, str(leaf.value)) for leaf in leaves(self.filters) if leaf.operator == "eq")


@dataclass(frozen=True)
class Page:
    """The contacts of a page, the cursor after each, and how many contacts the search selects in all."""

    contacts: Sequence[Contact]
    cursors: Sequence[Cursor]
    total: int


def parse_search(body: Mapping[str, object], rules: FilterRules) -> ContactSearch:
    """The search a body asks for; the caller has looked at its `locationId`.

    Raises:
        Refusal: 422 or 400, as GHL's validation.
    """
    violations = [f"property {key[:MAX_VALUE_LENGTH]} should not exist" for key in body if key not in _KEYS]
    violations += _number_violations("pageLimit", body.get("pageLimit"), MAX_PAGE_LIMIT)
    if body.get("page") is not None:
        violations += _number_violations("page", body["page"], None)
    query = body.get("query", "")
    if not isinstance(query, str) or len(query) > MAX_VALUE_LENGTH:
        violations.append(f"query must be a string shorter than or equal to {MAX_VALUE_LENGTH} characters")
    if violations:
        raise unprocessable(*violations)
    limit, page = _whole(body.get("pageLimit")), _whole(body.get("page") or 1)
    sort = _parse_sort(body.get("sort") or [])
    after = _parse_cursor(body["searchAfter"], sort) if body.get("searchAfter") else None
    if after is not None and body.get("page") is not None:
        raise bad_request("Only one of page and searchAfter can be passed")
    if page * limit > MAX_RECORDS_BY_PAGE:
        raise bad_request(f"Records beyond {MAX_RECORDS_BY_PAGE} need searchAfter instead of page")
    filters = parse_filters(body.get("filters") or [], rules)
    return ContactSearch(filters, sort, limit, page, after, tuple(str(query).lower().split()))


def run_search(search: ContactSearch, table: ContactTable) -> Page:
    """Executes the search.

    Cheap for look-ups by id, e-mail and phone, for date ranges sorted by their date and for no filter at all; any
    other filter looks at every contact, because `total` counts them all.
    """
    span = _only_span(search)
    field, descending = search.sort[0]
    if len(search.sort) == 1 and not search.words and (span is not None or not search.filters.members):
        order = table.ordered(field)
        first, end = span.bounds(order) if span else (0, len(order))
        return _page_of_order(search, order, first, end, descending=descending)
    found = select(search.filters, table)
    if found is None:
        found = [contact for contact in table.by_id.values() if matches(search.filters, contact)]
    if search.words:
        found = [contact for contact in found if _has_words(contact, search.words)]
    return _page_of_selection(search, found)


def cut_scan(search: ContactSearch, page: Page, table: ContactTable, most: int) -> Page:
    """The page without what lies beyond the first `most` contacts of a list; its `total` still counts them."""
    if search.kind not in LIST_SEARCHES:
        return page
    first = run_search(replace(search, limit=most, page=1, after=None), table).contacts
    shown = {contact.id for contact in first}
    kept = [pair for pair in zip(page.contacts, page.cursors, strict=True) if pair[0].id in shown]
    return Page([contact for contact, _ in kept], [cursor for _, cursor in kept], page.total)


def _only_span(search: ContactSearch) -> Span | None:
    """The date range, when it is the only filter and the search is sorted by its date."""
    members = search.filters.members
    if len(members) == 1 and isinstance(members[0], Leaf):
        span = members[0].span
        if span is not None and span.field == search.sort[0][0]:
            return span
    return None


def _page_of_order(search: ContactSearch, order: list[Contact], first: int, end: int, *, descending: bool) -> Page:
    """The page out of `order[first:end]`, ascending by the search's only sort field and id, without copying it."""
    value = SORT_VALUES[search.sort[0][0]]
    if search.after is not None:
        position = _position(order, value_and_id=search.after, field=search.sort[0][0], past=not descending)
        start = min(position, end) - 1 if descending else max(position, first)
    else:
        skipped = (search.page - 1) * search.limit
        start = end - 1 - skipped if descending else first + skipped
    positions = range(start, first - 1, -1) if descending else range(start, end)
    contacts = [order[position] for position in islice(positions, search.limit)]
    return Page(contacts, [(value(contact), contact.id) for contact in contacts], end - first)


def _position(order: list[Contact], value_and_id: Cursor, field: str, *, past: bool) -> int:
    """Where the cursor stands in `order`: before the contact it names, or past it."""
    value = SORT_VALUES[field]
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        key = (value(order[middle]), order[middle].id)
        if key < value_and_id or (past and key == value_and_id):
            low = middle + 1
        else:
            high = middle
    return low


def _page_of_selection(search: ContactSearch, found: list[Contact]) -> Page:
    """The page out of contacts in no order."""
    descending_ids = search.sort[0][1]
    found.sort(key=lambda contact: contact.id, reverse=descending_ids)
    for field, descending in reversed(search.sort):
        found.sort(key=SORT_VALUES[field], reverse=descending)
    keys = [_cursor(search, contact) for contact in found]
    start = (search.page - 1) * search.limit
    if search.after is not None:
        directions = [*(descending for _, descending in search.sort), descending_ids]
        start = next((i for i, key in enumerate(keys) if _is_after(key, search.after, directions)), len(keys))
    chosen = slice(start, start + search.limit)
    return Page(found[chosen], keys[chosen], len(found))


def _cursor(search: ContactSearch, contact: Contact) -> Cursor:
    return (*(SORT_VALUES[field](contact) for field, _ in search.sort), contact.id)


def _is_after(key: Cursor, cursor: Cursor, directions: Sequence[bool]) -> bool:
    for own, other, descending in zip(key, cursor, directions, strict=True):
        if own != other:
            return (own < other) is descending  # type: ignore[operator] # of one type: see _parse_cursor
    return False


def _has_words(contact: Contact, words: Sequence[str]) -> bool:
    """Whether the words are prefixes of words of the contact, in this order, as observed of `query`."""
    texts = (contact.name, contact.email, contact.phone, contact.company_name)
    own = iter(" ".join(text.lower() for text in texts if text).split())
    return all(any(candidate.startswith(word) for candidate in own) for word in words)


def _number_violations(name: str, value: object, most: int | None) -> list[str]:
    if not isinstance(value, int) or isinstance(value, bool):
        return [f"{name} must be a number conforming to the specified constraints"]
    if value < 1:
        return [f"{name} must not be less than 1"]
    if most is not None and value > most:
        return [f"{name} must not be greater than {most}"]
    return []


def _whole(value: object) -> int:
    assert isinstance(value, int)  # noqa: S101 - _number_violations let it pass
    return value


def _parse_sort(sort: object) -> tuple[tuple[str, bool], ...]:
    if not isinstance(sort, list) or len(sort) > MAX_SORTS:
        raise unprocessable(f"sort must be an array of at most {MAX_SORTS} elements")
    parsed = []
    for item in sort:
        if not isinstance(item, dict) or item.keys() != {"field", "direction"}:
            raise unprocessable("each value in sort must be an object of field and direction")
        if item["field"] not in SORT_VALUES:
            raise bad_request("Invalid field passed for sort")
        if item["direction"] not in {"asc", "desc"}:
            raise unprocessable("direction must be one of the following values: asc, desc")
        parsed.append((str(item["field"]), item["direction"] == "desc"))
    return tuple(parsed) or _NEWEST_FIRST


def _parse_cursor(cursor: object, sort: Sequence[tuple[str, bool]]) -> Cursor:
    """The cursor, whose values must be of the types of the sort's fields followed by an id."""
    numbers = {"dateAdded", "dateUpdated", "dnd"}
    types = [*(int if field in numbers else str for field, _ in sort), str]
    if not isinstance(cursor, list) or len(cursor) != len(types):
        raise bad_request("searchAfter does not fit the sort")
    if not all(isinstance(value, kind) for value, kind in zip(cursor, types, strict=True)):
        raise bad_request("searchAfter does not fit the sort")
    return tuple(cursor)
