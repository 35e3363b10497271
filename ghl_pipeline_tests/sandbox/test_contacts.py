"""The other contact routes: who may ask, single contacts, duplicates, writes, the old list, locations and users."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller, leaf


@pytest.mark.parametrize(
    ("version", "status", "text"),
    [
        (None, 401, "version header was not found."),
        ("2020-01-01", 401, "version header is invalid"),
        ("bogus-version", 400, "Invalid API version segment 'bogus-version' at position 0"),
        ("2021-04-15", 200, None),
        ("v3", 200, None),
    ],
)
async def test_the_version_header_is_mandatory(
    sandbox: Sandbox, location: Location, version: str | None, status: int, text: str | None
) -> None:
    headers = {"Authorization": f"Bearer {location.token}", **({"Version": version} if version else {})}
    async with httpx.AsyncClient(verify=False) as client:
        response = await client.get(f"{sandbox.url}/locations/{location.id}", headers=headers)
    assert (response.status_code, response.json().get("message")) == (status, text)


@pytest.mark.parametrize("authorization", ["Bearer pit-unknown", "Basic abc", ""])
async def test_an_unknown_token_is_refused_without_headers_of_anybody_s_limit(
    caller: Caller, authorization: str, sandbox: Sandbox
) -> None:
    response = await caller.http.get("/contacts/x", headers={"Authorization": authorization})
    assert response.status_code == 401
    assert response.json()["message"] == "Invalid token: access token is invalid"
    assert "X-RateLimit-Max" not in response.headers
    assert sandbox.world.unidentified == {"GET /contacts/{id}": 1}


async def test_a_token_opens_its_own_location_only(sandbox: Sandbox, caller: Caller) -> None:
    other = sandbox.add_location()
    contact = other.add(email="ada@example.com")
    refused = [
        await caller.http.get(f"/locations/{other.id}"),
        await caller.http.get("/users/", params={"locationId": other.id}),
        await caller.http.get("/contacts/", params={"locationId": other.id}),
        await caller.http.get("/contacts/search/duplicate", params={"locationId": other.id, "email": "a@example.com"}),
        await caller.http.post("/contacts/", json={"locationId": other.id, "email": "new@example.com"}),
        await caller.http.post("/contacts/upsert", json={"locationId": other.id, "email": "new@example.com"}),
    ]
    assert {(r.status_code, r.json()["message"]) for r in refused} == {
        (403, "The token does not have access to this location.")
    }
    assert (await caller.http.get(f"/contacts/{contact.id}")).status_code == 400
    assert sandbox.stats(other.id)["creates"] == 0


async def test_a_contact_is_shown_as_stored(location: Location, caller: Caller) -> None:
    contact = location.add(first_name="Ada", last_name="O'Neil", email="Ada@Example.com", address1="1 Main St")
    response = await caller.http.get(f"/contacts/{contact.id}")
    shown = response.json()["contact"]
    assert shown["email"] == "Ada@Example.com"
    assert shown["emailLowerCase"] == "ada@example.com"
    assert shown["fullNameLowerCase"] == "ada o'neil"
    assert shown["address1"] == "1 Main St"
    assert "searchAfter" not in shown
    assert response.json()["traceId"]


async def test_an_unknown_and_a_deleted_contact_are_a_400(location: Location, caller: Caller) -> None:
    contact = location.add(email="gone@example.com")
    assert (await caller.http.delete(f"/contacts/{contact.id}")).json()["succeded"] is True
    for contact_id in (contact.id, "neverExisted12345678"):
        response = await caller.http.get(f"/contacts/{contact_id}")
        assert (response.status_code, response.json()["message"]) == (400, "Contact not found")
    assert await caller.found() == []


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"email": "ADA@example.com"}, "Ada"),
        ({"email": "ada.old@example.org"}, "Ada"),
        ({"number": "+12125550101"}, "Ada"),
        ({"email": "nobody@example.com", "number": "+12125550101"}, "Ada"),
        ({"email": "nobody@example.com"}, None),
        ({"email": "a" * 80 + "@example.com"}, "Long"),
    ],
)
async def test_the_duplicate_lookup(
    location: Location, caller: Caller, query: dict[str, str], name: str | None
) -> None:
    location.add(
        first_name="Ada", email="Ada@Example.com", phone="+12125550101", additional_emails=("ada.old@example.org",)
    )
    location.add(first_name="Long", email="a" * 80 + "@example.com")
    response = await caller.http.get("/contacts/search/duplicate", params={"locationId": location.id, **query})
    contact = response.json()["contact"]
    assert (contact and contact["firstName"]) == name


async def test_the_duplicate_lookup_needs_something_to_look_for(location: Location, caller: Caller) -> None:
    response = await caller.http.get("/contacts/search/duplicate", params={"locationId": location.id})
    assert response.status_code == 400


async def test_a_create_creates_and_is_counted(sandbox: Sandbox, location: Location, caller: Caller) -> None:
    body = {"locationId": location.id, "name": "Ada Lovelace", "email": "ada@example.com", "tags": ["VIP"]}
    response = await caller.http.post("/contacts/", json=body)
    assert response.status_code == 201
    created = response.json()["contact"]
    assert (created["firstName"], created["lastName"], created["tags"]) == ("Ada", "Lovelace", ["vip"])
    assert (await caller.http.get(f"/contacts/{created['id']}")).status_code == 200
    assert sandbox.stats(location.id)["creates"] == 1


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"email": "ADA@example.com"}, 400, "This location does not allow duplicated contacts."),
        ({"phone": "+12125550101"}, 400, "This location does not allow duplicated contacts."),
        ({"name": "Only Name"}, 422, "Contacts without email, phone, firstName and lastName are not allowed."),
        ({"email": "b@example.com", "additionalEmails": []}, 422, ["property additionalEmails should not exist"]),
        ({"email": 5}, 422, ["email must be a string"]),
        ({"email": "b@example.com", "tags": "vip"}, 422, ["each value in tags must be a string"]),
    ],
)
async def test_a_create_that_is_refused_creates_nothing(
    sandbox: Sandbox, location: Location, caller: Caller, body: dict[str, Any], status: int, message: Any
) -> None:
    location.add(first_name="Ada", email="ada@example.com", phone="+12125550101")
    response = await caller.http.post("/contacts/", json={"locationId": location.id, **body})
    assert (response.status_code, response.json()["message"]) == (status, message)
    assert sandbox.stats(location.id)["creates"] == 0
    assert len(location.contacts) == 1


async def test_a_refused_duplicate_names_the_contact_it_would_double(location: Location, caller: Caller) -> None:
    contact = location.add(first_name="Ada", phone="+12125550101")
    response = await caller.http.post("/contacts/", json={"locationId": location.id, "phone": "+12125550101"})
    assert response.json()["meta"] == {"contactId": contact.id, "contactName": "Ada", "matchingField": "phone"}


async def test_duplicates_are_created_where_they_are_allowed(
    sandbox: Sandbox, caller_of: Callable[[Location], Caller]
) -> None:
    location = sandbox.add_location(allow_duplicates=True)
    location.add(email="ada@example.com")
    body = {"locationId": location.id, "email": "ada@example.com"}
    assert (await caller_of(location).http.post("/contacts/", json=body)).status_code == 201
    shown = (await caller_of(location).http.get(f"/locations/{location.id}")).json()["location"]
    assert shown["settings"]["allowDuplicateContact"] is True
    assert (
        len((await caller_of(location).search(filters=[leaf("email", "eq", "ada@example.com")])).json()["contacts"])
        == 2
    )


async def test_an_update_changes_what_it_names_and_moves_the_date(location: Location, caller: Caller) -> None:
    contact = location.add(
        first_name="Ada", city="Oslo", tags=("a", "b"), custom_fields=(("cf1", "1"), ("cf2", "2")), date_updated=5
    )
    body = {"companyName": "Acme", "tags": ["C"], "customFields": [{"id": "cf2", "field_value": "new"}]}
    response = await caller.http.put(f"/contacts/{contact.id}", json=body)
    assert response.json()["succeded"] is True
    stored = location.contacts.by_id[contact.id]
    assert (stored.first_name, stored.city, stored.company_name) == ("Ada", "Oslo", "Acme")
    assert stored.tags == ("c",)
    assert stored.custom_fields == (("cf1", "1"), ("cf2", "new"))
    assert stored.date_updated > 5
    assert stored.date_added == contact.date_added


@pytest.mark.parametrize("name", ["locationId", "gender", "id", "emailLowerCase", "firstNameLowerCase", "invented"])
async def test_an_update_refuses_what_ghl_refuses(location: Location, caller: Caller, name: str) -> None:
    contact = location.add(first_name="Ada")
    response = await caller.http.put(f"/contacts/{contact.id}", json={name: "x"})
    assert (response.status_code, response.json()["message"]) == (422, [f"property {name} should not exist"])


async def test_an_update_to_somebody_else_s_address_is_refused(location: Location, caller: Caller) -> None:
    location.add(email="taken@example.com")
    contact = location.add(email="own@example.com")
    assert (await caller.http.put(f"/contacts/{contact.id}", json={"email": "taken@example.com"})).status_code == 400
    assert (await caller.http.put(f"/contacts/{contact.id}", json={"email": "OWN@example.com"})).status_code == 200


async def test_an_upsert_finds_by_address_then_phone_else_creates(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    async def upsert(**body: str) -> dict[str, Any]:
        response = await caller.http.post("/contacts/upsert", json={"locationId": location.id, **body})
        assert response.status_code == 200
        answer: dict[str, Any] = response.json()
        return answer

    first = await upsert(email="ada@example.com", firstName="Ada")
    again = await upsert(email="ADA@example.com", phone="+12125550101")
    by_phone = await upsert(phone="+12125550101", lastName="Lovelace")
    assert [first["new"], again["new"], by_phone["new"]] == [True, False, False]
    assert {answer["contact"]["id"] for answer in (first, again, by_phone)} == {first["contact"]["id"]}
    counts = sandbox.stats(location.id)
    assert (counts["creates"], counts["updates"]) == (1, 2)


async def test_an_upsert_of_two_people_updates_the_first_match_and_drops_the_phone(
    location: Location, caller: Caller
) -> None:
    by_email = location.add(email="ada@example.com")
    by_phone = location.add(phone="+12125550101")
    body = {"locationId": location.id, "email": "ada@example.com", "phone": "+12125550101", "city": "Oslo"}
    response = await caller.http.post("/contacts/upsert", json=body)
    assert response.json()["contact"]["id"] == by_email.id
    assert location.contacts.by_id[by_email.id].city == "Oslo"
    assert location.contacts.by_id[by_email.id].phone is None
    assert location.contacts.by_id[by_phone.id] == by_phone


async def test_an_upsert_by_an_additional_address_makes_it_the_primary_one(location: Location, caller: Caller) -> None:
    contact = location.add(email="ada@example.com", additional_emails=("ada.old@example.org",))
    body = {"locationId": location.id, "email": "ada.old@example.org"}
    assert (await caller.http.post("/contacts/upsert", json=body)).json()["contact"]["id"] == contact.id
    assert location.contacts.by_id[contact.id].email == "ada.old@example.org"


async def test_an_upsert_needs_an_address_or_a_phone(location: Location, caller: Caller) -> None:
    body = {"locationId": location.id, "email": "", "firstName": "Ada"}
    response = await caller.http.post("/contacts/upsert", json=body)
    assert (response.status_code, response.json()["message"]) == (
        400,
        "Pass at least one of number, email query parameter",
    )


async def test_the_old_list_pages_with_both_cursors(sandbox: Sandbox, caller_of: Callable[[Location], Caller]) -> None:
    contacts = crowd(25, seed=5)
    caller = caller_of(sandbox.add_location(contacts=contacts))
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    for size in (10, 10, 5):
        params = {"locationId": caller.location.id, "limit": 10, **cursor}
        page = (await caller.http.get("/contacts/", params=params)).json()
        assert page["count"] == size
        assert page["meta"]["total"] == 25
        seen += [item["id"] for item in page["contacts"]]
        cursor = {key: page["meta"][key] for key in ("startAfter", "startAfterId")}
    assert set(seen) == {contact.id for contact in contacts}
    first_again = await caller.http.get(
        "/contacts/", params={"locationId": caller.location.id, "limit": 10, "startAfter": cursor["startAfter"]}
    )
    assert [item["id"] for item in first_again.json()["contacts"]] == seen[:10]  # one of the two is not enough
    too_many = await caller.http.get("/contacts/", params={"locationId": caller.location.id, "limit": 101})
    assert too_many.status_code == 422


async def test_users_belong_to_the_location(location: Location, caller: Caller) -> None:
    (user,) = (await caller.http.get("/users/", params={"locationId": location.id})).json()["users"]
    assert user["roles"]["locationIds"] == [location.id]


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("PATCH", "/contacts/x"), ("GET", "/v2/contacts/x/notes")])
async def test_any_other_route_is_a_404(caller: Caller, method: str, path: str) -> None:
    response = await caller.http.request(method, path)
    assert response.status_code == 404
    assert response.json().keys() == {"statusCode", "message", "traceId"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff\xfe"])
async def test_a_body_that_is_no_json_object_is_a_400(caller: Caller, content: bytes) -> None:
    response = await caller.http.post("/contacts/search", content=content)
    assert response.status_code == 400
