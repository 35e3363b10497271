"""Which error an answer becomes, and that no error carries a value of a person or a token.

The texts are those of GHL's documents and those that others have seen live.
"""

import json
import traceback
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ghl_pipeline.errors import PipelineError
from ghl_pipeline.ghl.errors import (
    CALENDAR_ROUTE,
    CONTACT_ROUTE,
    FREE_SLOTS_ROUTE,
    CalendarNotFound,
    CallFacts,
    ContactNotFound,
    DailyQuotaReached,
    DuplicateContact,
    GhlError,
    GhlServerError,
    GhlTimeout,
    LocationAccessDenied,
    PermanentGhlError,
    RateLimited,
    RequestRejected,
    ScopeMissing,
    SearchContextLost,
    TokenRejected,
    TransientGhlError,
    UnreadableAnswer,
    error_for_status,
)
from ghl_pipeline.ghl.payloads import decode_error
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.search import ContactSearch, equals
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import Connector

SEARCH = "/contacts/search"
TRACE = "0b1f6a2e-2c1d-4f0a-9b57-6a1c2d3e4f50"
CONTACT = "ocQHyuzHvysMo5N5VsXc"
HTML = "<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"


def error_of(status: int, body: object, route: str = SEARCH) -> GhlError:
    """What the client makes of an answer; a `str` body is sent as it is."""
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    said = decode_error(content)
    return error_for_status(CallFacts("L", "GET", route, status, said.trace_id), said.message, said.duplicate_of)


def says(message: object) -> dict[str, object]:
    return {"message": message, "traceId": TRACE}


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        # The token.
        (401, "Invalid token: access token is invalid", TokenRejected),
        (401, "Invalid JWT", TokenRejected),
        (401, "", TokenRejected),
        (401, "Private integration token: PIT expired", TokenRejected),
        # What the token may do.
        (401, "The token is not authorized for this scope.", ScopeMissing),
        (401, "Token's user type mismatch!", ScopeMissing),
        (
            401,
            "This authClass type is not allowed to access this scope. Please verify your IAM configuration",
            ScopeMissing,
        ),
        (403, "You do not have permission to access this resource", ScopeMissing),
        # Where it may do it.
        (403, "The token does not have access to this location.", LocationAccessDenied),
        (401, "The token does not have access to this location.", LocationAccessDenied),
        (403, "", LocationAccessDenied),
        # Our own mistake, although GHL says 401.
        (401, "version header was not found.", RequestRejected),
        (401, "version header is invalid", RequestRejected),
        (400, "Invalid API version segment 'bogus-version' at position 0", RequestRejected),
        # The request.
        (400, "Invalid field contact_name", RequestRejected),
        (400, "Min. 3 characters required for applying contains filter", RequestRejected),
        (413, "Payload Too Large", RequestRejected),
        (422, ["property email should not exist", "pageLimit must be a number"], RequestRejected),
        (422, "Contacts without email, phone, firstName and lastName are not allowed.", RequestRejected),
        (404, "Not Found", RequestRejected),
        (301, "", RequestRejected),
        # The rate, and GHL's own troubles.
        (429, "Too many requests", RateLimited),
        (408, "Request Timeout", GhlServerError),
        (500, "Internal server error", GhlServerError),
        (502, "", GhlServerError),
        (503, None, GhlServerError),
        (529, "", GhlServerError),
        # The lost snapshot, under whatever status and in a list too.
        *((status, "No search context found for id [51]", SearchContextLost) for status in (400, 401, 422, 429, 500)),
        (400, "Point in time has expired", SearchContextLost),
        (500, "point_in_time_expired", SearchContextLost),
        (422, ["a violation", "point-in-time context missing"], SearchContextLost),
        (400, "pit id not found", SearchContextLost),
    ],
)  # fmt: skip
def test_an_answer_becomes(status: int, message: object, expected: type[GhlError]) -> None:
    error = error_of(status, says(message))
    assert type(error) is expected
    assert error.facts.status == status
    assert error.facts.trace_id == TRACE


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "Contact not found", ContactNotFound),
        (400, f"Contact with id {CONTACT} not found", ContactNotFound),
        (404, "Contact not found", ContactNotFound),
        (404, "", ContactNotFound),
        (400, "Bad Request", RequestRejected),
    ],
)
def test_asked_for_one_contact_an_answer_becomes(status: int, message: str, expected: type[GhlError]) -> None:
    assert type(error_of(status, says(message), CONTACT_ROUTE)) is expected


@pytest.mark.parametrize(
    ("route", "status", "message", "expected"),
    [
        (CALENDAR_ROUTE, 400, "Calendar not found", CalendarNotFound),
        (CALENDAR_ROUTE, 422, "", CalendarNotFound),
        (CALENDAR_ROUTE, 404, "Not Found", CalendarNotFound),
        (FREE_SLOTS_ROUTE, 404, "", CalendarNotFound),
        (FREE_SLOTS_ROUTE, 400, "The calendar does not exist", CalendarNotFound),
        (FREE_SLOTS_ROUTE, 422, ["Date range cannot be more than 31 days"], RequestRejected),
        (FREE_SLOTS_ROUTE, 400, "Bad Request", RequestRejected),
        (SEARCH, 400, "Calendar not found", RequestRejected),
    ],
)
def test_asked_for_a_calendar_an_answer_becomes(
    route: str, status: int, message: object, expected: type[GhlError]
) -> None:
    assert type(error_of(status, says(message), route)) is expected


def test_contact_not_found_means_nothing_where_no_contact_was_asked_for() -> None:
    assert type(error_of(400, says("Contact not found"), SEARCH)) is RequestRejected


def test_a_duplicate_names_the_contact_that_was_there_first() -> None:
    body = {
        "statusCode": 400,
        "message": "This location does not allow duplicated contacts.",
        "meta": {"contactId": CONTACT, "contactName": "ada lovelace", "matchingField": "email"},
    }
    error = error_of(400, body)
    assert isinstance(error, DuplicateContact)
    assert error.contact_id == CONTACT
    unusable: list[object] = [None, [], "text", {}, {"contactId": None}, {"contactId": "ada@example.com"}]
    for meta in unusable:
        error = error_of(400, {**body, "meta": meta})
        assert isinstance(error, DuplicateContact)
        assert error.contact_id is None


@pytest.mark.parametrize("body", [HTML, "", "null", "[]", '"text"', "17", "{", '{"message": {"a": 1}}', "\x00"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, RequestRejected),
        (401, TokenRejected),
        (403, LocationAccessDenied),
        (429, RateLimited),
        (502, GhlServerError),
    ],
)
def test_a_body_that_says_nothing_leaves_the_status(status: int, expected: type[GhlError], body: str) -> None:
    assert type(error_of(status, body)) is expected


def test_the_tree_says_what_is_worth_another_try() -> None:
    for worth_it in (GhlTimeout, RateLimited, GhlServerError, SearchContextLost, UnreadableAnswer):
        assert issubclass(worth_it, TransientGhlError)
    for final in (
        TokenRejected,
        LocationAccessDenied,
        ScopeMissing,
        ContactNotFound,
        DuplicateContact,
        DailyQuotaReached,
    ):
        assert issubclass(final, PermanentGhlError)
    assert issubclass(TransientGhlError, GhlError)
    assert issubclass(PermanentGhlError, GhlError)
    assert issubclass(GhlError, PipelineError)


def test_an_error_says_what_happened_where_and_what_to_do() -> None:
    error = error_for_status(CallFacts("Loc1", "POST", SEARCH, 403, TRACE), "no access")
    assert str(error) == (
        f"LocationAccessDenied: location Loc1: POST /contacts/search (403), trace {TRACE} says the token has no access "
        "to this location. Check that the client's location id and token come from the same sub-account"
    )
    assert str(GhlTimeout(CallFacts("Loc1", "GET", CONTACT_ROUTE))) == (
        "GhlTimeout: location Loc1: GET /contacts/{contactId} gave no answer in time"
    )


def test_a_used_up_day_says_when_the_work_goes_on() -> None:
    error = DailyQuotaReached(CallFacts("Loc1", "GET", SEARCH), resets_at=datetime(2026, 3, 1, tzinfo=UTC))
    assert "00:00 UTC" in str(error)


# --- nothing of a person in any error

PERSON = {
    "email": "ada.lovelace@example.com",
    "phone": "+13055550123",
    "name": "Augusta Ada King",
    "token": "pit-11111111-2222-4333-8444-555555555555",
}


def everything_of(error: BaseException) -> str:
    """All that a log, a traceback or a stored event could show of the error and of what it came from."""
    texts: list[str] = []
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        texts += [str(current), repr(current), repr(current.args), repr(vars(current))]
        request = getattr(current, "_request", None)
        if isinstance(request, httpx.Request):
            texts += [str(request.url), str(request.headers.raw), str(request.content)]
        queue += [current.__cause__, current.__context__]
    return "\n".join([*texts, *traceback.format_exception(error)])


def assert_tells_nothing(error: BaseException) -> None:
    told = everything_of(error)
    for value in (*PERSON.values(), "ada.lovelace", "3055550123", "Augusta"):
        assert value not in told


async def failed_call(connect: Connector, answer: httpx.Response | Exception) -> GhlError:
    """The error of a duplicate lookup, whose query holds an address, when the server answers or the wire fails so."""

    def handler(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, httpx.RequestError):
            answer.request = request
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = await connect.answered_by(handler, RetryPolicy(max_attempts=1, max_429=0))
    with pytest.raises(GhlError) as raised:
        await client.duplicate_of(PERSON["email"])
    return raised.value


hostile_text = st.sampled_from([*PERSON.values(), " ".join(PERSON.values())])
hostile_message = st.one_of(
    hostile_text,
    st.lists(hostile_text, max_size=3),
    st.dictionaries(hostile_text, hostile_text, max_size=2),
    hostile_text.map(lambda text: f"Contact with id {text} not found"),
    hostile_text.map(lambda text: f"point in time {text}"),
    hostile_text.map(lambda text: f"This location does not allow duplicated contacts. {text}"),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.sampled_from([200, 201, 301, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503]),
    message=hostile_message,
    trace=hostile_text,
    meta=st.one_of(hostile_text, st.dictionaries(st.just("contactId"), hostile_text)),
    retry_after=st.one_of(st.none(), hostile_text),
)
async def test_no_error_repeats_what_the_server_said_or_was_asked(
    connect: Connector, status: int, message: object, trace: str, meta: object, retry_after: str | None
) -> None:
    # As an answer of success it is not a contact either.
    body = {"statusCode": status, "message": message, "traceId": trace, "meta": meta, "contact": message or "x"}
    headers = {"Retry-After": retry_after} if retry_after else {}
    if isinstance(message, dict):
        body["contact"] = {"id": {**message}}
    assert_tells_nothing(await failed_call(connect, httpx.Response(status, json=body, headers=headers)))


@pytest.mark.parametrize(
    "content",
    [
        f"<html>{PERSON['email']}</html>".encode(),
        f'{{"contact": {{"id": "{PERSON["name"]}"'.encode(),
        f'{{"contact": {{"id": ["{PERSON["email"]}"]}}}}'.encode(),
        b'{"contact": {"id": "x", "email": 1, "message": "' + PERSON["email"].encode() + b'\xff"',
        PERSON["email"].encode() + b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("status", [200, 400])
async def test_no_error_quotes_a_body_that_is_not_ghl_s(connect: Connector, content: bytes, status: int) -> None:
    error = await failed_call(connect, httpx.Response(status, content=content))
    assert_tells_nothing(error)
    assert type(error) is (UnreadableAnswer if status == 200 else RequestRejected)


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError(f"cannot connect for {PERSON['email']}"),
        httpx.ReadTimeout(f"{PERSON['token']}"),
        httpx.PoolTimeout("no connection"),
        httpx.LocalProtocolError(f"Illegal header value b'Bearer {PERSON['token']}'"),
        httpx.RemoteProtocolError(f"peer closed after {PERSON['name']}"),
        TimeoutError(PERSON["phone"]),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_no_error_carries_what_the_connection_said(connect: Connector, failure: Exception) -> None:
    error = await failed_call(connect, failure)
    assert_tells_nothing(error)
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_over_the_wire_no_error_tells_the_token_or_the_address(
    sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    client = await connect(location, policy=RetryPolicy(max_attempts=1, max_429=0), timeout=0.3)
    searched = ContactSearch((equals("email", PERSON["email"]),))
    told = []
    for faults in (
        {"error_rate": 1.0}, {"hang_rate": 1.0}, {"drop_rate": 1.0}, {"garbage_rate": 1.0}, {"storm_seconds": 60.0},
        {"token_revoked": True}, {"missing_scopes": ["contacts.readonly"]}, {"search_context_rate": 1.0},
    ):  # fmt: skip
        sandbox.faults(location.id, **faults)
        with pytest.raises(GhlError) as raised:
            await client.search_contacts(searched)
        assert_tells_nothing(raised.value)
        assert location.token not in everything_of(raised.value)
        told.append(type(raised.value).__name__)
    assert told == [
        "GhlServerError", "GhlTimeout", "GhlUnreachable", "UnreadableAnswer", "RateLimited",
        "TokenRejected", "ScopeMissing", "SearchContextLost",
    ]  # fmt: skip
