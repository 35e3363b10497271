"""Creating and changing a contact: what is sent, how often, and what a refusal is called."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
from pydantic import SecretStr

from ghl_pipeline.ghl.contact_writer import ContactWriter, open_writer
from ghl_pipeline.ghl.errors import (
    ContactNotFound,
    DuplicateContact,
    GhlServerError,
    GhlUnreachable,
    PhoneRejected,
    RateLimited,
    RequestRejected,
    ScopeMissing,
    UnreadableAnswer,
)
from ghl_pipeline.ghl.standard_fields import StandardFields
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import QUICK, Unlimited

ADA = StandardFields(first_name="Ada", last_name=" ", email="ada@example.com", phone="+13055550123")
CREATE, UPDATE = "POST /contacts/", "PUT /contacts/{id}"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def writer(stack: AsyncExitStack, sandbox: Sandbox, location: Location) -> ContactWriter:
    return await stack.enter_async_context(
        open_writer(
            base_url=sandbox.url,
            location_id=location.id,
            token=SecretStr(location.token),
            throttle=Unlimited(),
            policy=QUICK,
            timeout_seconds=5.0,
        )
    )


async def answered(stack: AsyncExitStack, status: int, body: object) -> ContactWriter:
    """A writer whose every call is answered so."""
    return await stack.enter_async_context(
        open_writer(
            base_url="https://ghl.example",
            location_id="LocationAAAAAAAAAAAA",
            token=SecretStr("pit-00000000-0000-0000-0000-000000000000"),
            throttle=Unlimited(),
            policy=QUICK,
            timeout_seconds=5.0,
            transport=httpx.MockTransport(lambda _: httpx.Response(status, content=msgspec.json.encode(body))),
        )
    )


def requests(sandbox: Sandbox, location: Location, route: str) -> int:
    return sum(sandbox.stats(location.id)["by_route"].get(route, {}).values())


async def test_a_contact_is_created_with_what_is_not_blank(
    writer: ContactWriter, sandbox: Sandbox, location: Location
) -> None:
    contact = await writer.create(ADA)
    (stored,) = location.contacts.by_id.values()
    assert (contact.id, contact.email, contact.phone) == (stored.id, "ada@example.com", "+13055550123")
    assert (stored.first_name, stored.last_name, stored.company_name, stored.tags) == ("Ada", None, None, ())
    assert writer.usage.calls == requests(sandbox, location, CREATE) == 1


async def test_an_update_changes_these_fields_and_no_others(writer: ContactWriter, location: Location) -> None:
    before = location.add(first_name="A.", last_name="Byron", email="ada@example.com", tags=("vip",), city="London")
    await writer.update(before.id, StandardFields(first_name="Ada", last_name=""))
    after = location.contacts.by_id[before.id]
    assert after == msgspec.structs.replace(before, first_name="Ada", date_updated=after.date_updated)


@pytest.mark.parametrize("fault", [{"error_rate": 1.0}, {"drop_rate": 1.0}, {"garbage_rate": 1.0}])
async def test_a_create_is_never_sent_twice(
    writer: ContactWriter, sandbox: Sandbox, location: Location, fault: dict[str, Any]
) -> None:
    sandbox.faults(times=1, **fault)
    with pytest.raises((GhlServerError, GhlUnreachable, UnreadableAnswer)):
        await writer.create(ADA)
    assert requests(sandbox, location, CREATE) == 1


async def test_a_create_that_was_refused_for_its_rate_is_sent_again(
    writer: ContactWriter, sandbox: Sandbox, location: Location
) -> None:
    sandbox.faults(storm_requests=2)
    await writer.create(ADA)
    assert (requests(sandbox, location, CREATE), len(location.contacts)) == (3, 1)
    sandbox.faults(storm_requests=20)
    with pytest.raises(RateLimited):
        await writer.create(ADA)


async def test_an_update_may_be_sent_twice(writer: ContactWriter, sandbox: Sandbox, location: Location) -> None:
    contact = location.add(email="ada@example.com")
    sandbox.faults(times=1, drop_rate=1.0)
    await writer.update(contact.id, ADA)
    assert requests(sandbox, location, UPDATE) == 2


async def test_a_duplicate_names_the_contact(writer: ContactWriter, location: Location) -> None:
    known = location.add(email="ada@example.com")
    with pytest.raises(DuplicateContact) as caught:
        await writer.create(ADA)
    assert caught.value.contact_id == known.id


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "message",
    [
        "Invalid country calling code",
        "The string supplied did not seem to be a phone number: 555-0123",
        ["phone must be a string"],
        "country must be a valid enum value",
        "INVALID_COUNTRY",
        "NOT_A_NUMBER",
        "TOO_SHORT",
        "too_long",
        "INVALID_LENGTH",
        "invalid_phone",
        "contactPhone must be valid",
        "Invalid phoneNumber",
        "Mobile is invalid",
    ],
)
async def test_a_refusal_that_names_the_phone_is_told_apart_and_shows_no_number(
    stack: AsyncExitStack, status: int, message: object
) -> None:
    writer = await answered(stack, status, {"statusCode": status, "message": message})
    for call in (writer.create(ADA), writer.update("ContactAAAAAAAAAAAAA", ADA)):
        with pytest.raises(PhoneRejected) as caught:
            await call
        assert "555" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (422, "property gender should not exist"),
        (422, "Contacts without email, phone, firstName and lastName are not allowed."),
        (400, "email must be an email"),
        (413, "phone"),
    ],
)
async def test_other_refusals_are_not_about_the_phone(stack: AsyncExitStack, status: int, message: str) -> None:
    writer = await answered(stack, status, {"statusCode": status, "message": message})
    with pytest.raises(RequestRejected) as caught:
        await writer.create(ADA)
    assert type(caught.value) is RequestRejected


@pytest.mark.parametrize("message", ["TOO_SHORT", "firstName must not be a number", "country is not valid"])
async def test_words_of_a_phone_are_about_something_else_when_none_was_sent(
    stack: AsyncExitStack, message: str
) -> None:
    writer = await answered(stack, 422, {"statusCode": 422, "message": message})
    for call in (
        writer.create(replace(ADA, phone=None)),
        writer.update("ContactAAAAAAAAAAAAA", replace(ADA, phone=" ")),
    ):
        with pytest.raises(RequestRejected) as caught:
            await call
        assert type(caught.value) is RequestRejected


async def test_an_answer_without_a_contact_is_no_success(stack: AsyncExitStack) -> None:
    for body in ({"contact": None}, {"contact": {"id": "junk"}}, {}):
        writer = await answered(stack, 201, body)
        with pytest.raises(UnreadableAnswer):
            await writer.create(ADA)


async def test_an_id_that_cannot_be_one_is_not_sent(
    writer: ContactWriter, sandbox: Sandbox, location: Location
) -> None:
    with pytest.raises(ContactNotFound):
        await writer.update("../users", ADA)
    assert sandbox.stats(location.id)["requests"] == 0


async def test_a_missing_scope_is_named(writer: ContactWriter, sandbox: Sandbox) -> None:
    sandbox.faults(missing_scopes=("contacts.write",))
    with pytest.raises(ScopeMissing, match=r"contacts\.write"):
        await writer.create(ADA)


def test_there_is_no_other_way_to_write() -> None:
    public = {name for name in dir(ContactWriter) if not name.startswith("_")}
    assert public == {"create", "update", "usage"}


async def test_no_person_and_no_token_is_shown(writer: ContactWriter, location: Location) -> None:
    shown = repr((writer, ADA))
    assert [value for value in ("ada", "555", location.token) if value in shown.lower()] == []
