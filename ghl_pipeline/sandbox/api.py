"""GHL's routes as functions from a call to an answer. Authentication, limits and faults come before: `server.py`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from ghl_pipeline.sandbox.calendars import calendar_answer, calendar_list, free_slots
from ghl_pipeline.sandbox.contact_writes import create_contact, update_contact, upsert_contact
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.conversations import export_page
from ghl_pipeline.sandbox.custom_fields import custom_field_list
from ghl_pipeline.sandbox.opportunities import opportunity_answer, opportunity_in_contact, opportunity_page
from ghl_pipeline.sandbox.responses import (
    Answer,
    JsonObject,
    Refusal,
    bad_request,
    full_contact,
    iso_time,
    list_item,
    search_item,
    unprocessable,
)
from ghl_pipeline.sandbox.search import Page, cut_scan, parse_search, run_search
from ghl_pipeline.sandbox.search_filters import FilterRules
from ghl_pipeline.sandbox.users import user_item
from ghl_pipeline.sandbox.world import Location


@dataclass(frozen=True)
class Call:
    """A request of an authenticated client. `path` and `query` hold decoded parameters."""

    location: Location
    path: Mapping[str, str]
    query: Mapping[str, str]
    content: bytes

    def json(self) -> dict[str, object]:
        """The body.

        Raises:
            Refusal: 400 when it is not a JSON object.
        """
        try:
            return msgspec.json.decode(self.content, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise bad_request("Unexpected token in JSON") from None


@dataclass(frozen=True)
class Route:
    """A method and path template of GHL's, the scope its token needs, and what answers it."""

    method: str
    path: str
    scope: str
    answer: Callable[[Call], Answer]

    @property
    def name(self) -> str:
        """How statistics and faults name the route."""
        return f"{self.method} {self.path}"


def search_contacts(call: Call) -> Answer:
    """Contacts by filters, at most 500 a page."""
    location, body = call.location, call.json()
    _check_location(location, body.get("locationId"))
    faults = location.faults
    search = parse_search(
        body,
        FilterRules(
            time_zone=location.time_zone,
            case_sensitive_email=faults.case_sensitive_email,
            primary_email_only=faults.primary_email_only,
            max_or_leaves=faults.max_or_leaves,
            or_refusal_status=faults.or_refusal_status,
            or_answers_first_leaves=1 if faults.or_answers_first_leaf_only else faults.or_answers_first_leaves,
            custom_kinds=location.custom_fields.data_types(),
        ),
    )
    if (faults.cursors_refused and search.after) or (faults.ranges_refused and search.has_range):
        raise bad_request(
            "Invalid Operator passed for field dateUpdated" if search.has_range else "Invalid searchAfter"
        )
    if faults.unfiltered_status is not None and not search.filters.members:
        raise Refusal(faults.unfiltered_status, "filters should not be empty")
    table = location.searched_contacts
    page = run_search(search, table)
    if faults.ranges_find_nothing and search.has_range:
        page = Page((), (), 0)
    if faults.scan_ends_after is not None:
        page = cut_scan(search, page, table, faults.scan_ends_after)
    location.statistics.searched(search.kind)
    for field, value in search.lookups():
        location.statistics.looked_up(field, value)
    items = [
        search_item(
            contact,
            location.id,
            cursor,
            opportunities=[opportunity_in_contact(each) for each in location.opportunities.of(contact.id)],
            lower_case_names_only=faults.lower_case_names_only,
        )
        for contact, cursor in zip(page.contacts, page.cursors, strict=True)
    ]
    total = page.total + faults.total_surplus
    return Answer(
        {"contacts": items, "total": total if faults.total_at_most is None else min(total, faults.total_at_most)}
    )


def find_duplicate(call: Call) -> Answer:
    """The contact with an e-mail or else a phone, also one written this instant unless that is a fault; else null."""
    _check_location(call.location, call.query.get("locationId"))
    email, phone = call.query.get("email"), call.query.get("number")
    if not email and not phone:
        raise bad_request("Pass at least one of number, email query parameter")
    location = call.location
    if location.faults.duplicate_lookup_follows_setting and location.allow_duplicates:
        return Answer({"contact": None})
    match = location.duplicate_of(email=email, phone=phone, as_indexed=location.faults.duplicate_lookup_lags)
    return Answer({"contact": full_contact(match[0], call.location.id) if match else None})


def get_contact(call: Call) -> Answer:
    """One contact, as stored."""
    return Answer({"contact": full_contact(_contact(call), call.location.id)})


def post_contact(call: Call) -> Answer:
    """Creates a contact."""
    body = call.json()
    _check_location(call.location, body.get("locationId"))
    return Answer({"contact": full_contact(create_contact(call.location, body), call.location.id)}, 201)


def put_contact(call: Call) -> Answer:
    """Changes a contact. `succeded` is GHL's spelling."""
    contact = update_contact(call.location, _contact(call), call.json())
    return Answer({"succeded": True, "contact": full_contact(contact, call.location.id)})


def delete_contact(call: Call) -> Answer:
    """Deletes a contact."""
    call.location.remove(_contact(call).id)
    call.location.statistics.deletes += 1
    return Answer({"succeded": True})


def post_upsert(call: Call) -> Answer:
    """Updates the matching contact or creates one."""
    body = call.json()
    _check_location(call.location, body.get("locationId"))
    contact, new = upsert_contact(call.location, body)
    return Answer({"new": new, "succeded": True, "contact": full_contact(contact, call.location.id)})


def list_contacts(call: Call) -> Answer:
    """The deprecated list, newest first; `startAfter` and `startAfterId` are both needed to go on."""
    location, query = call.location, call.query
    _check_location(location, query.get("locationId"))
    limit = _number("limit", query.get("limit", "20"))
    if not 1 <= limit <= 100:
        raise unprocessable("limit must not be greater than 100")
    body: dict[str, object] = {"pageLimit": limit, "query": query.get("query", "")}
    if "startAfter" in query and "startAfterId" in query:
        body["searchAfter"] = [_number("startAfter", query["startAfter"]), query["startAfterId"]]
    page = run_search(parse_search(body, FilterRules(time_zone=location.time_zone)), location.searched_contacts)
    last = page.cursors[-1] if page.cursors else (None, None)
    meta: JsonObject = {"total": page.total, "startAfter": last[0], "startAfterId": last[1]}
    contacts = [list_item(contact, location.id) for contact in page.contacts]
    return Answer({"contacts": contacts, "count": len(contacts), "meta": meta})


def get_location(call: Call) -> Answer:
    """The location itself."""
    location = call.location
    _check_location(location, call.path["id"])
    body: JsonObject = {
        "id": location.id,
        "companyId": location.company_id,
        "name": location.name,
        "country": "US",
        "timezone": str(location.time_zone),
        "email": "office@example.com",
        "phone": "+12125550198",
        "settings": {
            "allowDuplicateContact": location.allow_duplicates,
            "allowDuplicateOpportunity": False,
            "allowFacebookNameMerge": False,
            "disableContactTimezone": False,
            "contactUniqueIdentifiers": ["email", "phone"],
        },
        "dateAdded": iso_time(0),
    }
    return Answer({"location": body})


def list_users(call: Call) -> Answer:
    """Who works in the location."""
    _check_location(call.location, call.query.get("locationId"))
    return Answer({"users": [user_item(user, call.location.id) for user in call.location.users]})


def list_custom_fields(call: Call) -> Answer:
    """The definitions of custom fields, whose ids the contacts' values carry."""
    _check_location(call.location, call.path["locationId"])
    return Answer(custom_field_list(call.location.custom_fields, call.location.id, call.query))


def search_opportunities(call: Call) -> Answer:
    """Opportunities, newest first, at most 100 a page."""
    location = call.location
    _check_location(location, call.query.get("location_id"), "location_id")
    page = opportunity_page(
        location.opportunities,
        location.contacts,
        location.id,
        call.query,
        time_zone=location.time_zone,
        hidden=location.faults.hidden_from_search,
    )
    return Answer(page)


def get_opportunity(call: Call) -> Answer:
    """One opportunity, as stored."""
    location = call.location
    return Answer(opportunity_answer(location.opportunities, location.contacts, location.id, call.path["id"]))


def export_messages(call: Call) -> Answer:
    """The location's messages, page by page."""
    location = call.location
    _check_location(location, call.query.get("locationId"))
    return Answer(export_page(location.messages, location.id, call.query, location.faults))


def list_calendars(call: Call) -> Answer:
    """The location's calendars."""
    _check_location(call.location, call.query.get("locationId"))
    return Answer(calendar_list(call.location.calendars, call.location.id, call.query))


def get_calendar(call: Call) -> Answer:
    """One calendar."""
    return Answer(calendar_answer(call.location.calendars, call.location.id, call.path["id"]))


def get_free_slots(call: Call) -> Answer:
    """A calendar's free times, by day."""
    empty = call.location.faults.empty_calendars
    return Answer(free_slots(call.location.calendars, call.path["id"], call.query, empty=empty))


ROUTES: Final = (
    Route("POST", "/contacts/search", "contacts.readonly", search_contacts),
    Route("GET", "/contacts/search/duplicate", "contacts.readonly", find_duplicate),
    Route("POST", "/contacts/upsert", "contacts.write", post_upsert),
    Route("GET", "/contacts/{id}", "contacts.readonly", get_contact),
    Route("PUT", "/contacts/{id}", "contacts.write", put_contact),
    Route("DELETE", "/contacts/{id}", "contacts.write", delete_contact),
    Route("GET", "/contacts/", "contacts.readonly", list_contacts),
    Route("POST", "/contacts/", "contacts.write", post_contact),
    Route("GET", "/locations/{id}", "locations.readonly", get_location),
    Route("GET", "/locations/{locationId}/customFields", "locations/customFields.readonly", list_custom_fields),
    Route("GET", "/opportunities/search", "opportunities.readonly", search_opportunities),
    Route("GET", "/opportunities/{id}", "opportunities.readonly", get_opportunity),
    Route("GET", "/users/", "users.readonly", list_users),
    Route("GET", "/calendars/", "calendars.readonly", list_calendars),
    Route("GET", "/calendars/{id}", "calendars.readonly", get_calendar),
    Route("GET", "/calendars/{id}/free-slots", "calendars.readonly", get_free_slots),
    Route("GET", "/conversations/messages/export", "conversations/message.readonly", export_messages),
)


def _check_location(location: Location, asked: object, name: str = "locationId") -> None:
    if not isinstance(asked, str) or not asked:
        raise unprocessable(f"{name} must be a string", f"{name} should not be empty")
    if asked != location.id:
        raise Refusal(403, "The token does not have access to this location.")


def _contact(call: Call) -> Contact:
    contact = call.location.contacts.by_id.get(call.path["id"])
    if contact is None:
        raise bad_request("Contact not found")  # a 400, as seen live
    return contact


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise unprocessable(f"{name} must be a number conforming to the specified constraints") from None
