"""The grammar of `POST /contacts/search`, as far as this project speaks it.

GHL documents leaves `{field, operator, value}` and nested groups `{group: AND|OR, filters}`, 500 contacts a page,
values of at most 75 characters, and a cursor (`searchAfter`) inside each item. It documents no
limit on the number of leaves; requests of 69 leaves and OR groups of 100 `id eq` leaves have been seen to work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypeAlias

MAX_PAGE = 500
MAX_VALUE_LENGTH = 75

Filter: TypeAlias = dict[str, object]
LookupField: TypeAlias = Literal["id", "email"]
SortField: TypeAlias = Literal["dateAdded", "dateUpdated"]


def equals(field: str, value: str) -> Filter:
    """The leaf `field eq value`."""
    return {"field": field, "operator": "eq", "value": value}


def any_of(field: LookupField, values: Sequence[str]) -> Filter:
    """One filter for contacts whose `field` equals any of `values`: a bare leaf for one value, else an OR group."""
    if len(values) == 1:
        return equals(field, values[0])
    return {"group": "OR", "filters": [equals(field, value) for value in values]}


def changed_since(moment: datetime) -> Filter:
    """The filter for contacts changed at or after `moment`.

    A full instant in UTC: GHL reads a bare date as a whole day in the location's own time zone.
    """
    instant = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"field": "dateUpdated", "operator": "range", "value": {"gte": instant}}


def fits_eq(value: str) -> bool:
    """Whether `eq` accepts the value. Longer ones are answered with an error, so they need another lookup."""
    return len(value) <= MAX_VALUE_LENGTH


# Values that no contact has, to find out whether a question is answered at all.
NOBODY: dict[LookupField, str] = {"id": "0" * 20, "email": "nobody@example.com"}


@dataclass(frozen=True, slots=True)
class ContactSearch:
    """One request of the contacts search; `after` is the cursor of the page before.

    `oldest_first` orders by that date: a pull that is paged by cursor then meets contacts added, or changed, meanwhile
    at its end, and none moves past it unseen. `detailed` is not part of the request: whether the contacts' details are
    read from the answer.
    """

    filters: tuple[Filter, ...] = ()
    page_limit: int = MAX_PAGE
    after: tuple[object, ...] | None = None
    oldest_first: SortField | None = None
    detailed: bool = False

    def following(self, cursor: tuple[object, ...]) -> "ContactSearch":
        """The same search, one page on. Filters and order stay: they are part of what the cursor means."""
        return replace(self, after=cursor)

    def body(self, location_id: str) -> dict[str, object]:
        """The JSON body. GHL refuses any property it does not know, so nothing optional is sent empty."""
        body: dict[str, object] = {"locationId": location_id, "pageLimit": self.page_limit}
        if self.filters:
            body["filters"] = list(self.filters)
        if self.oldest_first is not None:
            body["sort"] = [{"field": self.oldest_first, "direction": "asc"}]
        if self.after is not None:
            body["searchAfter"] = list(self.after)
        return body
