"""The sandbox's answers, held against HighLevel's own OpenAPI documents.

The documents have known gaps; each place where the sandbox knowingly differs is named here with its reason.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from ghl_pipeline.sandbox.api import ROUTES
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller, leaf

DOCUMENTS = Path(__file__).resolve().parents[2].parent / "shared" / "ghl-openapi"
BASE = "https://documents.example/"
pytestmark = pytest.mark.skipif(
    not DOCUMENTS.is_dir(), reason="HighLevel's OpenAPI documents are not beside the repository (../shared/ghl-openapi)"
)

NULL_FOR_EMPTY = {
    "GetContectByIdSchema",
    "CreateContactSchema",
    "ContactsSearchSchema",
    "ExportMessagesResponseDto",  # nextCursor: "Null if no more results"
    "SearchOpportunitiesResponseSchema",
    "SearchOpportunitiesContactResponseSchema",
    "SearchMetaResponseSchema",  # of a last page there is no next one
}
"""Schemas whose fields the documents call plain strings although GHL answers null for some that are empty."""

ANY_VALUE = {"CustomFieldSchema": "value"}
"""A custom field's value is called a string; live it is text, a number, a list or an object."""

UNDOCUMENTED_FIELDS = {
    "SearchOpportunitiesResponseSchema": set[str](),
    "CustomFieldSchema": set[str](),
    "GetContectByIdSchema": {"additionalEmails", "createdBy"},  # seen live
    "CreateContactSchema": {"additionalEmails", "createdBy", "name", "timezone"},  # the answer is the get shape
    "GetLocationByIdSchema": {"dateAdded"},  # seen live
    "UserSchema": set[str](),
    "GetMessageResponseDto": {"dateUpdated", "error"},  # seen live
    "SettingsSchema": {"contactUniqueIdentifiers"},  # seen live
    "CalendarDTO": set[str](),
}
"""Fields the sandbox shows and the documents do not know."""

UNDOCUMENTED_KEYS = {"traceId", "succeded"}
"""Keys beside the record: `traceId` is in every answer (docs/oauth/Overview.md), upsert also has `succeded`."""

WITHOUT_RESPONSE_SCHEMA = {
    "POST /contacts/search": "200 has no schema; the shape follows HighLevel's page and live answers",
    "GET /contacts/search/duplicate": "200 has no schema; live it is {contact|null}",
}
WITHOUT_REQUEST_SCHEMA = {"POST /contacts/search": "SearchBodyV2DTO is empty"}

ACCEPTED_BUT_UNDOCUMENTED = {
    "PUT /contacts/{id}": {"companyName", "type", "ssn", "keyword"}
}  # tried live, field by field
NOT_PLAIN = {"dateOfBirth", "customFields"}
"""The documents call dateOfBirth and several field_values an object; GHL takes a string."""


@cache
def _registry() -> Registry[Any]:
    """All documents, by the URIs their references use, as JSON Schema."""
    resources = []
    for path in DOCUMENTS.glob("**/*.json"):
        document = _as_json_schema(json.loads(path.read_text()))
        uri = BASE + path.relative_to(DOCUMENTS).as_posix()
        resources.append((uri, Resource.from_contents(document, default_specification=DRAFT202012)))
    return Registry().with_resources(resources)


def _as_json_schema(document: Any) -> Any:
    """OpenAPI 3.0's `nullable` as JSON Schema has it, and null where GHL answers it in spite of the documents."""
    document = copy.deepcopy(document)
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        schema.get("properties", {}).pop(ANY_VALUE.get(name), None)
        for field in schema.get("properties", {}).values():
            if "type" in field and (field.get("nullable") or name in NULL_FOR_EMPTY):
                field["type"] = [field["type"], "null"]
    return document


def _document(file: str) -> Any:
    return _registry().contents(BASE + file)


def _operation(route: str) -> tuple[str, Any]:
    """The document's file and its operation for a route of the sandbox."""
    method, path = route.split()
    file = f"apps/{path.split('/')[1]}.json"
    ids = {"contacts": "{contactId}", "locations": "{locationId}", "calendars": "{calendarId}"}
    documented = path.replace("{id}", ids.get(path.split("/")[1], "{id}"))
    return file, _document(file)["paths"][documented][method.lower()]


def _complaints(file: str, schema: Any, value: Any) -> list[str]:
    # References are meant from the file's place, and "#..." within the file.
    place = f"{BASE}{Path(file).parent.as_posix()}/check.json"
    rooted = {"$id": place, **json.loads(json.dumps(schema).replace('"#/', f'"{BASE}{file}#/'))}
    validator = Draft202012Validator(rooted, registry=_registry())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def _response_schema(route: str, status: int) -> tuple[str, Any] | None:
    file, operation = _operation(route)
    content = operation["responses"].get(str(status), {}).get("content")
    return (file, content["application/json"]["schema"]) if content else None


@pytest.fixture
def full(sandbox: Sandbox) -> Location:
    """A location with plain people, one who has everything and one who has nothing."""
    location = sandbox.add_location(contacts=crowd(40, seed=6))
    location.add(
        first_name="Ada",
        last_name="Lovelace",
        email="Ada@Example.com",
        phone="+12125550101",
        additional_emails=("ada.old@example.org",),
        tags=("vip",),
        custom_fields=(("cf1", "gold"), ("cf2", ("a", "b")), ("cf3", 12.5), ("cf4", {"f1": {"url": "x"}})),
        date_of_birth="1815-12-10",
        website="https://example.com",
        assigned_to="someUser123456789012",
    )
    location.add(phone="+12125550102")
    location.add_user(first_name="Grace", email="grace@example.com", phone="+12125550103")
    location.custom_fields.add("Trade", data_type="SINGLE_OPTIONS", options=["Roofing", "Plumbing"])
    location.custom_fields.add("Certificate", data_type="FILE_UPLOAD")
    location.custom_fields.add("Budget", data_type="MONETORY", model="opportunity")
    for number, contact_id in enumerate(list(location.contacts.by_id)[20:32]):
        location.opportunities.add(contact_id, name=f"Request {number}", monetary_value=100 * number)
        location.add_message(contact_id, f"text {number}", "outbound" if number % 2 else "inbound", source="app")
    location.calendars.add("Introduction")
    location.calendars.add("Draft", is_active=False, group_id="group1", days_ahead=30, hours=[{"closes": 24 * 60}])
    location.add_message(contact_id, "no signal", "outbound", status="failed", error="Unknown destination")
    location.add_message(contact_id, "", "outbound", message_type="TYPE_CALL", status="connected")
    return location


async def _answers(caller: Caller, location: Location) -> dict[str, list[httpx.Response]]:
    """At least one good answer of every route."""
    http, here = caller.http, {"locationId": location.id}
    ids, calendars = list(location.contacts.by_id), list(location.calendars.by_id)
    month = {"startDate": int(time.time() * 1000), "endDate": int(time.time() * 1000) + 31 * 86_400_000 - 5000}
    return {
        "POST /contacts/search": [await caller.search(filters=[leaf("email", "exists")])],
        "GET /contacts/search/duplicate": [
            await http.get("/contacts/search/duplicate", params={**here, "email": email})
            for email in ("ada@example.com", "nobody@example.com")
        ],
        "GET /contacts/{id}": [await http.get(f"/contacts/{contact_id}") for contact_id in ids],
        "GET /contacts/": [await http.get("/contacts/", params={**here, "limit": 50})],
        "POST /contacts/": [await http.post("/contacts/", json={**here, "email": "new@example.com"})],
        "PUT /contacts/{id}": [await http.put(f"/contacts/{ids[0]}", json={"city": "Oslo"})],
        "POST /contacts/upsert": [
            await http.post("/contacts/upsert", json={**here, "email": email})
            for email in ("ada@example.com", "newer@example.com")
        ],
        "DELETE /contacts/{id}": [await http.delete(f"/contacts/{ids[1]}")],
        "GET /locations/{id}": [await http.get(f"/locations/{location.id}")],
        "GET /users/": [await http.get("/users/", params=here)],
        "GET /locations/{locationId}/customFields": [
            await http.get(f"/locations/{location.id}/customFields", params=params)
            for params in ({}, {"model": "contact"}, {"model": "opportunity"}, {"model": "all"})
        ],
        "GET /opportunities/search": [
            await http.get("/opportunities/search", params={"location_id": location.id, "limit": 5, "page": page})
            for page in (1, 2, 3, 4)
        ],
        "GET /opportunities/{id}": [
            await http.get(f"/opportunities/{opportunity_id}") for opportunity_id in location.opportunities.by_id
        ],
        "GET /calendars/": [await http.get("/calendars/", params=here)],
        "GET /calendars/{id}": [await http.get(f"/calendars/{calendar_id}") for calendar_id in calendars],
        "GET /calendars/{id}/free-slots": [
            await http.get(f"/calendars/{calendar_id}/free-slots", params=month) for calendar_id in calendars
        ],
        "GET /conversations/messages/export": [
            await http.get("/conversations/messages/export", params={**here, "limit": limit}) for limit in (10, 500)
        ],
    }


async def test_every_good_answer_fits_its_schema(full: Location, caller_of: Callable[[Location], Caller]) -> None:
    answers = await _answers(caller_of(full), full)
    assert answers.keys() == {route.name for route in ROUTES}
    for route, responses in answers.items():
        for response in responses:
            assert response.status_code in {200, 201}, (route, response.text)
            schema = _response_schema(route, response.status_code)
            assert (schema is None) is (route in WITHOUT_RESPONSE_SCHEMA), route
            if schema is not None:
                assert _complaints(*schema, _documented(route, response.json())) == [], route


def _documented(route: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body without what is knowingly beside the schema: of free slots every key is documented as a day."""
    return {key: value for key, value in body.items() if key != "traceId" or not route.endswith("free-slots")}


def _records(body: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in ("contact", "location", "opportunity", "calendar"):
        if isinstance(body.get(key), dict):
            yield key, body[key]
    for key in ("users", "messages", "opportunities", "customFields", "calendars"):
        yield from ((key, each) for each in body.get(key, []))


async def test_no_answer_shows_a_field_that_neither_the_documents_nor_live_answers_have(
    full: Location, caller_of: Callable[[Location], Caller]
) -> None:
    answers = await _answers(caller_of(full), full)
    for route, schema_name in (
        ("GET /contacts/{id}", "GetContectByIdSchema"),
        ("PUT /contacts/{id}", "GetContectByIdSchema"),
        ("POST /contacts/upsert", "GetContectByIdSchema"),
        ("POST /contacts/", "CreateContactSchema"),
        ("GET /locations/{id}", "GetLocationByIdSchema"),
        ("GET /users/", "UserSchema"),
        ("GET /locations/{locationId}/customFields", "CustomFieldSchema"),
        ("GET /opportunities/search", "SearchOpportunitiesResponseSchema"),
        ("GET /opportunities/{id}", "SearchOpportunitiesResponseSchema"),
        ("GET /conversations/messages/export", "GetMessageResponseDto"),
        ("GET /calendars/", "CalendarDTO"),
        ("GET /calendars/{id}", "CalendarDTO"),
    ):
        file, operation = _operation(route)
        schemas = _document(file)["components"]["schemas"]
        known = schemas[schema_name]["properties"].keys() | UNDOCUMENTED_FIELDS[schema_name]
        for response in answers[route]:
            body = response.json()
            reference = operation["responses"][str(response.status_code)]["content"]["application/json"]["schema"]
            documented = schemas[reference["$ref"].rpartition("/")[2]]["properties"].keys()
            assert body.keys() <= documented | UNDOCUMENTED_KEYS, route
            for _, record in _records(body):
                assert record.keys() <= known, route
    settings = answers["GET /locations/{id}"][0].json()["location"]["settings"]
    documented = _document("apps/locations.json")["components"]["schemas"]["SettingsSchema"]["properties"].keys()
    assert settings.keys() == documented | UNDOCUMENTED_FIELDS["SettingsSchema"]


async def test_error_bodies_have_the_documented_shape_and_nothing_else(
    sandbox: Sandbox, full: Location, caller_of: Callable[[Location], Caller]
) -> None:
    caller = caller_of(full)
    common = _document("common/common-schemas.json")["components"]["schemas"]
    for response, name, undocumented in (
        (await caller.search(filters=[leaf("nope", "eq", 1)]), "BadRequestDTO", {"error"}),
        (await caller.http.get("/contacts/unknownContact123456"), "BadRequestDTO", {"error"}),
        (await caller.http.get("/calendars/unknownCalendar12345"), "BadRequestDTO", {"error"}),
        (await caller.search(pageLimit=501), "UnprocessableDTO", set()),
        (await caller.http.get("/users/", headers={"Authorization": "Bearer x"}), "UnauthorizedDTO", set()),
        (
            await caller.http.post("/contacts/", json={"locationId": full.id, "email": "ada@example.com"}),
            "BadRequestDTO",
            {"error", "meta"},  # seen live
        ),
    ):
        body = response.json()
        assert body["statusCode"] == response.status_code
        assert body.keys() == common[name]["properties"].keys() | undocumented | {"traceId"}
        assert _complaints("common/common-schemas.json", common[name], body) == []


def _example(field: dict[str, Any]) -> Any:
    kinds = field.get("type", "object")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    return {"string": "text", "boolean": True, "array": [], "object": {}}[kind]


@pytest.mark.parametrize("route", ["POST /contacts/", "PUT /contacts/{id}", "POST /contacts/upsert"])
async def test_a_write_takes_exactly_the_documented_properties(
    full: Location, caller_of: Callable[[Location], Caller], route: str
) -> None:
    caller = caller_of(full)
    file, operation = _operation(route)
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    documented = _document(file)["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
    method, path = route.split()
    path = path.replace("{id}", next(iter(full.contacts.by_id)))
    base = {} if method == "PUT" else {"locationId": full.id, "email": "unlike.others@example.com"}

    async def is_known(name: str, value: Any) -> bool:
        response = await caller.http.request(method, path, json={**base, name: value})
        return f"property {name} should not exist" not in response.json().get("message", [])

    for name, field in documented.items():
        if name != "locationId":
            assert await is_known(name, _example(field)), name
    extra = ACCEPTED_BUT_UNDOCUMENTED.get(route, set())
    for name in ("companyName", "type", "ssn", "keyword", "gender", "additionalEmails", "emailLowerCase", "invented"):
        if name not in documented:
            assert await is_known(name, "text") is (name in extra), name


@pytest.mark.parametrize("route", ["POST /contacts/", "PUT /contacts/{id}", "POST /contacts/upsert"])
async def test_a_write_that_fits_the_schema_is_taken(
    full: Location, caller_of: Callable[[Location], Caller], route: str
) -> None:
    file, operation = _operation(route)
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    body: dict[str, Any] = {
        "firstName": "Grace",
        "lastName": None,
        "email": "grace@example.com",
        "phone": "+12125550103",
        "city": "Oslo",
        "tags": ["one"],
        "dnd": False,
        "customFields": [{"id": "cf1", "field_value": "silver"}],
        "country": "NO",
    }
    method, path = route.split()
    if method != "PUT":
        body["locationId"] = full.id
    assert _complaints(file, schema, body) == []
    response = await caller_of(full).http.request(
        method, path.replace("{id}", next(iter(full.contacts.by_id))), json=body
    )
    assert response.status_code in {200, 201}
    assert response.json()["contact"]["customFields"] == [{"id": "cf1", "value": "silver"}]


def test_the_gaps_are_still_there() -> None:
    """When HighLevel fills a gap, the exception for it must go."""
    for route in WITHOUT_RESPONSE_SCHEMA:
        assert _response_schema(route, 200) is None
    for route in WITHOUT_REQUEST_SCHEMA:
        file, operation = _operation(route)
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert not _document(file)["components"]["schemas"][reference.rpartition("/")[2]].get("properties")


async def test_free_slots_are_days_with_slots_of_that_day_and_a_trace_id(
    full: Location, caller_of: Callable[[Location], Caller]
) -> None:
    open_calendar, draft = (await _answers(caller_of(full), full))["GET /calendars/{id}/free-slots"]
    days = _documented("free-slots", open_calendar.json())
    assert len(days) >= 20
    for day, slots in days.items():
        assert date.fromisoformat(day).isoformat() == day
        assert slots["slots"]
        assert all(slot.startswith(f"{day}T") for slot in slots["slots"])
    assert draft.json().keys() == {"traceId"}


async def test_free_slots_take_exactly_the_documented_parameters(
    full: Location, caller_of: Callable[[Location], Caller]
) -> None:
    caller, calendar_id = caller_of(full), next(iter(full.calendars.by_id))
    begins = int(time.time() * 1000)
    asked = {"startDate": str(begins), "endDate": str(begins + 1000)}
    examples = {"timezone": "America/Chihuahua", "userId": "user1", "userIds": "user1"}
    _, operation = _operation("GET /calendars/{id}/free-slots")
    documented = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
    assert documented == asked.keys() | examples.keys()
    for params, status in ((asked | examples, 200), ({**asked, "locationId": full.id}, 422), (examples, 422)):
        response = await caller.http.get(f"/calendars/{calendar_id}/free-slots", params=params)
        assert response.status_code == status, response.text
