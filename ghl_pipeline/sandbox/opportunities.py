"""A location's opportunities, `GET /opportunities/search` and how a contact's search item shows its own.

Whether GHL's list heeds `order`, `country`, `campaignId` and the `get...` parameters is not documented; they are taken
and not heeded here. The opportunities of a deleted contact are gone with it.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, tzinfo
from typing import Final, Literal
from urllib.parse import urlencode

import msgspec

from ghl_pipeline.sandbox.contacts import Contact, ContactTable
from ghl_pipeline.sandbox.people import ghl_id, seeded
from ghl_pipeline.sandbox.records import record
from ghl_pipeline.sandbox.responses import JsonObject, bad_request, iso_time, unprocessable
from ghl_pipeline.sandbox.search_fields import day_start

MAX_LIMIT: Final = 100
_STATUSES: Final = ("open", "won", "lost", "abandoned", "all")
_NOT_HEEDED: Final = {"order", "country", "campaignId", "getTasks", "getNotes", "getCalendarEvents"}
_PARAMETERS: Final = _NOT_HEEDED | {
    "location_id", "limit", "startAfter", "startAfterId", "page", "id", "contact_id", "pipeline_id",
    "pipeline_stage_id", "assigned_to", "status", "q", "date", "endDate",
}  # fmt: skip
_URL: Final = "https://services.leadconnectorhq.com/opportunities/search"


class Opportunity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One opportunity as the location stores it. Times are epoch milliseconds (UTC)."""

    id: str
    contact_id: str
    created_at: int
    updated_at: int
    pipeline_id: str
    pipeline_stage_id: str
    name: str = ""
    status: Literal["open", "won", "lost", "abandoned"] = "open"
    monetary_value: float = 0
    assigned_to: str | None = None
    source: str | None = None


class Opportunities:
    """All opportunities of a location. `now` gives epoch milliseconds."""

    def __init__(self, location_id: str, now: Callable[[], int], lock: threading.RLock) -> None:
        self._rng = seeded("opportunities", location_id)
        self._now = now
        self._lock = lock
        self.by_id: dict[str, Opportunity] = {}
        self._by_contact: dict[str, list[Opportunity]] = {}
        self._newest_first: list[Opportunity] | None = None
        self.pipeline_id, self.stage_id = ghl_id(self._rng), ghl_id(self._rng)

    def __len__(self) -> int:
        return len(self.by_id)

    def load(self, opportunities: Iterable[Opportunity]) -> None:
        """Adds many at once, under ids that are not taken."""
        with self._lock:
            self._newest_first = None
            for opportunity in opportunities:
                self.by_id[opportunity.id] = opportunity
                self._by_contact.setdefault(opportunity.contact_id, []).append(opportunity)

    def add(self, contact_id: str, **fields: object) -> Opportunity:
        """Adds one of a contact with further fields of `Opportunity`; what is not given is made.

        Raises:
            InvalidInput: a field that an opportunity does not have, or a value of the wrong type.
        """
        with self._lock:
            now = self._now()
            made: dict[str, object] = {
                "id": ghl_id(self._rng),
                "contact_id": contact_id,
                "created_at": now,
                "updated_at": now,
                "pipeline_id": self.pipeline_id,
                "pipeline_stage_id": self.stage_id,
            }
            opportunity = record(Opportunity, made | fields, "an opportunity")
            self.load([opportunity])
            return opportunity

    def remove(self, opportunity_id: str) -> bool:
        """Deletes one; False when there was none."""
        with self._lock:
            opportunity = self.by_id.pop(opportunity_id, None)
            if opportunity is None:
                return False
            self._by_contact[opportunity.contact_id].remove(opportunity)
            self._newest_first = None
            return True

    def of(self, contact_id: str) -> list[Opportunity]:
        """Those of a contact, in the order in which they were added."""
        return self._by_contact.get(contact_id, [])

    def newest_first(self) -> list[Opportunity]:
        """All of them. The caller must not change the list."""
        if self._newest_first is None:
            self._newest_first = sorted(self.by_id.values(), key=_order_key, reverse=True)
        return self._newest_first


def _order_key(opportunity: Opportunity) -> tuple[int, str]:
    return opportunity.created_at, opportunity.id


def opportunity_page(
    opportunities: Opportunities,
    contacts: ContactTable,
    location_id: str,
    query: Mapping[str, str],
    *,
    time_zone: tzinfo,
    hidden: Iterable[str] = (),
) -> JsonObject:
    """One page, newest first, of the opportunities that a query asks for.

    Args:
        opportunities: of the location.
        contacts: of the location; what belongs to none of them is not shown.
        location_id: of the location.
        query: the parameters, decoded. `startAfter` and `startAfterId` count only together, and before `page`.
        time_zone: in which `date` and `endDate`, given as mm-dd-yyyy, are days of creation.
        hidden: ids of contacts and opportunities that are not shown.

    Raises:
        Refusal: 422 for parameters that GHL does not document, 400 for a `limit` over 100.
    """
    unknown = [name for name in query if name not in _PARAMETERS]
    if unknown:
        raise unprocessable(*(f"property {name[:75]} should not exist" for name in unknown))
    limit, page = _number("limit", query.get("limit", "20")), _number("page", query.get("page", "1"))
    if limit > MAX_LIMIT:
        raise bad_request(f"limit must not be greater than {MAX_LIMIT}")
    wanted, concealed = _wanted(query, time_zone, contacts), frozenset(hidden)
    chosen = [
        each
        for each in opportunities.newest_first()
        if each.contact_id in contacts.by_id and not concealed & {each.id, each.contact_id} and wanted(each)
    ]
    start = (page - 1) * limit
    if "startAfter" in query and "startAfterId" in query:
        after = (_number("startAfter", query["startAfter"], least=0), query["startAfterId"])
        start = next((n for n, each in enumerate(chosen) if _order_key(each) < after), len(chosen))
    shown = chosen[start : start + limit]
    return {
        "opportunities": [opportunity_item(each, contacts.by_id[each.contact_id], location_id) for each in shown],
        "meta": _meta(query, shown, len(chosen), page, more=start + limit < len(chosen)),
        "aggregations": {},
    }


def opportunity_item(opportunity: Opportunity, contact: Contact, location_id: str) -> JsonObject:
    """An opportunity as GET and the list of opportunities show it."""
    updated = iso_time(opportunity.updated_at)
    return {
        "id": opportunity.id,
        "name": opportunity.name,
        "monetaryValue": opportunity.monetary_value,
        "pipelineId": opportunity.pipeline_id,
        "pipelineStageId": opportunity.pipeline_stage_id,
        "assignedTo": opportunity.assigned_to,
        "status": opportunity.status,
        "source": opportunity.source,
        "lastStatusChangeAt": updated,
        "lastStageChangeAt": updated,
        "createdAt": iso_time(opportunity.created_at),
        "updatedAt": updated,
        "contactId": contact.id,
        "locationId": location_id,
        "contact": {
            "id": contact.id,
            "name": contact.name,
            "companyName": contact.company_name,
            "email": contact.email,
            "phone": contact.phone,
            "tags": contact.tags,
        },
        "notes": [],
        "tasks": [],
        "calendarEvents": [],
        "customFields": [],
        "followers": [],
    }


def opportunity_in_contact(opportunity: Opportunity) -> JsonObject:
    """An opportunity as the search item of its contact shows it."""
    return {
        "id": opportunity.id,
        "pipelineId": opportunity.pipeline_id,
        "pipelineStageId": opportunity.pipeline_stage_id,
        "monetaryValue": opportunity.monetary_value,
        "status": opportunity.status,
    }


def _number(name: str, text: str, least: int = 1) -> int:
    try:
        number = int(text)
    except ValueError:
        raise unprocessable(f"{name} must be a number conforming to the specified constraints") from None
    if number < least:
        raise unprocessable(f"{name} must not be less than {least}")
    return number


def _wanted(query: Mapping[str, str], time_zone: tzinfo, contacts: ContactTable) -> Callable[[Opportunity], bool]:
    names = ("id", "contact_id", "pipeline_id", "pipeline_stage_id", "assigned_to", "status")
    values = {name: query[name] for name in names if query.get(name)}
    status = values.get("status", "all")
    if status not in _STATUSES:
        raise unprocessable(f"status must be one of the following values: {', '.join(_STATUSES)}")
    if status == "all":
        values.pop("status", None)
    low = _day("date", query["date"], time_zone)[0] if query.get("date") else None
    high = _day("endDate", query["endDate"], time_zone)[1] if query.get("endDate") else None
    part = query.get("q", "").lower()

    def wanted(opportunity: Opportunity) -> bool:
        if any(getattr(opportunity, name) != value for name, value in values.items()):
            return False
        if (low is not None and opportunity.created_at < low) or (high is not None and opportunity.created_at >= high):
            return False
        contact = contacts.by_id[opportunity.contact_id]
        texts = (opportunity.name, contact.name, contact.email, contact.phone)
        return not part or any(part in text.lower() for text in texts if text)

    return wanted


def _day(name: str, text: str, time_zone: tzinfo) -> tuple[int, int]:
    """First millisecond of the day, and of the day after."""
    try:
        day = datetime.strptime(text, "%m-%d-%Y").date()  # noqa: DTZ007 - only its day counts
    except ValueError:
        raise unprocessable(f"{name} must be in the format mm-dd-yyyy") from None
    return day_start(day, time_zone), day_start(day + timedelta(days=1), time_zone)


def _meta(query: Mapping[str, str], shown: list[Opportunity], total: int, page: int, *, more: bool) -> JsonObject:
    last = shown[-1] if shown else None
    following: JsonObject = {}
    if last is not None:
        following = {"startAfter": last.created_at, "startAfterId": last.id}
    next_url = f"{_URL}?{urlencode({**query, **following, 'page': page + 1})}" if more else None
    return {
        "total": total,
        "nextPageUrl": next_url,
        "startAfter": last and last.created_at,
        "startAfterId": last and last.id,
        "currentPage": page,
        "nextPage": page + 1 if more else None,
        "prevPage": page - 1 if page > 1 else None,
    }


def opportunity_answer(
    opportunities: Opportunities, contacts: ContactTable, location_id: str, opportunity_id: str
) -> JsonObject:
    """One opportunity, as stored.

    Raises:
        Refusal: 400 when there is none, or its contact is gone; the text of GHL's is not known.
    """
    opportunity = opportunities.by_id.get(opportunity_id)
    contact = contacts.by_id.get(opportunity.contact_id) if opportunity else None
    if opportunity is None or contact is None:
        raise bad_request("Opportunity not found")
    return {"opportunity": opportunity_item(opportunity, contact, location_id)}
