"""Reading what GHL really sends: two shapes of a contact, and every oddity that was seen or can be feared."""

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ghl_pipeline.ghl.payloads import (
    Contact,
    Location,
    User,
    decode_contact,
    decode_error,
    decode_location,
    decode_search,
    decode_users,
)

TRACE = "0b1f6a2e-2c1d-4f0a-9b57-6a1c2d3e4f50"


def contact_of(**fields: object) -> Contact:
    """The contact of a search item with these fields."""
    page = decode_search(json.dumps({"contacts": [{"id": "contact1", **fields}], "total": 1}).encode())
    assert page.unreadable == 0
    return page.contacts[0]


def test_a_search_item_and_a_single_contact_become_the_same() -> None:
    common = {
        "id": "ocQHyuzHvysMo5N5VsXc",
        "firstName": "Ada",
        "lastName": "Lovelace",
        "phone": "+13055550123",
        "companyName": "Analytical Engines",
        "dateUpdated": "2026-04-01T10:00:00.500Z",
    }
    item = {**common, "email": "Ada@Example.com", "additionalEmails": ["a@example.com"], "searchAfter": [1, "x"]}
    whole = {**common, "email": "Ada@Example.com", "additionalEmails": [{"email": "a@example.com", "validEmail": None}]}
    page = decode_search(json.dumps({"contacts": [item], "total": 1, "traceId": TRACE}).encode())
    assert page.next_cursor == (1, "x")
    assert page.contacts == (decode_contact(json.dumps({"contact": whole, "traceId": TRACE}).encode()),)
    assert page.contacts[0] == Contact(
        id="ocQHyuzHvysMo5N5VsXc",
        email="Ada@Example.com",
        additional_emails=("a@example.com",),
        phone="+13055550123",
        first_name="Ada",
        last_name="Lovelace",
        company_name="Analytical Engines",
        date_updated=datetime(2026, 4, 1, 10, 0, 0, 500_000, UTC),
    )


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("Ada", "Ada"),
        ("  Ada ", "Ada"),
        ("A\x00da", "Ada"),
        ('O\'Brien "Obi"', 'O\'Brien "Obi"'),
        (7, "7"),
        (7.0, "7"),
        (7.5, "7.5"),
        (True, None),
        ("", None),
        (" \x00 ", None),
        (None, None),
    ],
)
def test_a_text_is_read_as(sent: object, read: str | None) -> None:
    contact = contact_of(firstName=sent, lastName=sent, phone=sent, email=sent, companyName=sent)
    assert (contact.first_name, contact.last_name, contact.phone, contact.email, contact.company_name) == (read,) * 5


@pytest.mark.parametrize("sent", ["13055550123", "13055550123.0", "1.3055550123e10"])
def test_a_phone_that_an_import_saved_as_a_number_keeps_its_digits(sent: str) -> None:
    page = decode_search(b'{"contacts": [{"id": "contact1", "phone": %s}]}' % sent.encode())
    assert page.contacts[0].phone == "13055550123"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (["a@example.com", "b@example.com"], ("a@example.com", "b@example.com")),
        ([{"email": "a@example.com", "validEmail": True}], ("a@example.com",)),
        (["a@example.com", {"email": "b@example.com"}], ("a@example.com", "b@example.com")),
        (["", " ", None, 7, [], {}, {"email": None}, {"email": 7}, {"mail": "x"}, "a@example.com"], ("a@example.com",)),
        ({"email": "a@example.com"}, ()),
        ("a@example.com", ()),
        (None, ()),
        ([], ()),
    ],
)
def test_additional_addresses_are_read_as(sent: object, read: tuple[str, ...]) -> None:
    assert contact_of(additionalEmails=sent).additional_emails == read


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2026-04-01T00:00:00.000Z", datetime(2026, 4, 1, tzinfo=UTC)),
        ("2026-04-01T02:00:00+02:00", datetime(2026, 4, 1, tzinfo=UTC)),
        ("2026-04-01", datetime(2026, 4, 1, tzinfo=UTC)),
        ("2026-04-01T00:00:00", datetime(2026, 4, 1, tzinfo=UTC)),
        (1_775_001_600_000, datetime(2026, 4, 1, tzinfo=UTC)),
        (1_775_001_600_000.0, datetime(2026, 4, 1, tzinfo=UTC)),
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),
        (10**30, None),
        (-(10**30), None),
        (True, None),
        ("", None),
        (None, None),
    ],
)
def test_a_date_is_read_as(sent: object, read: datetime | None) -> None:
    assert contact_of(dateUpdated=sent).date_updated == read


@pytest.mark.parametrize(
    ("fields", "names", "whole"),
    [
        ({"firstName": "Ada", "firstNameLowerCase": "ada"}, ("Ada", None), True),
        ({"firstNameLowerCase": "ada", "lastNameLowerCase": "lovelace"}, (None, None), False),
        ({"firstName": None, "lastName": "", "lastNameLowerCase": "lovelace"}, (None, None), False),
        ({"firstNameLowerCase": None, "lastNameLowerCase": ""}, (None, None), True),
        ({}, (None, None), True),
    ],
)
def test_lower_cased_names_are_a_sign_that_there_are_real_ones(
    fields: dict[str, object], names: tuple[str | None, str | None], whole: bool
) -> None:
    contact = contact_of(**fields)
    assert (contact.first_name, contact.last_name) == names
    assert contact.names_are_whole is whole


def test_what_stands_in_for_a_missing_field() -> None:
    contact = contact_of(email=None, emailLowerCase="ada@example.com", companyName="", businessName="Engines")
    assert (contact.email, contact.company_name) == ("ada@example.com", "Engines")


@pytest.mark.parametrize(
    "broken",
    [
        "null", "7", '"text"', "[]", "{}",
        '{"id": null}', '{"id": 7}', '{"id": ""}', '{"id": "a\\u0000b"}', '{"id": "a b"}',
        '{"id": "x", "email": {}}', '{"id": "x", "firstName": []}', '{"id": "x", "dateUpdated": 1e999}',
    ],
)  # fmt: skip
def test_a_broken_item_loses_only_itself(broken: str) -> None:
    items = ", ".join(('{"id": "contact1"}', broken, '{"id": "contact3", "searchAfter": [3]}'))
    page = decode_search(f'{{"contacts": [{items}], "total": 3}}'.encode())
    assert [contact.id for contact in page.contacts] == ["contact1", "contact3"]
    assert (page.unreadable, page.total, page.next_cursor) == (1, 3, (3,))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb"Ada \ud83d", "Ada"),
        (rb"\ude00 Ada", "Ada"),
        (rb"Ada \ud83d\ude00", "Ada 😀"),
        (rb"\ud83d\ud83d\ude00", "😀"),
        (rb"Ada \\ud83d \ud83d", r"Ada \ud83d"),
        (rb"\u00c4da \ud83d", "Äda"),
        (b"Ada \xff\xfe", "Ada"),
        ("Ada 😀".encode()[:-1], "Ada"),
    ],
)
def test_half_a_character_costs_no_page(text: bytes, read: str) -> None:
    """Node cuts texts inside an emoji and writes the half; a page of 500 contacts must not be lost for one of them."""
    page = decode_search(
        b'{"contacts": [{"id": "contact1", "firstName": "%s"}, {"id": "contact2"}], "total": 2}' % text
    )
    assert [(contact.id, contact.first_name) for contact in page.contacts] == [("contact1", read), ("contact2", None)]


@pytest.mark.parametrize(
    ("sent", "total"),
    [("2", 2), ("2.0", 2), ('"2"', 2), ("null", None), ('"many"', None), ("-1", None), ("true", None)],
)
def test_a_total_is_read_as(sent: str, total: int | None) -> None:
    assert decode_search(b'{"contacts": [], "total": %s}' % sent.encode()).total == total


@pytest.mark.parametrize("sent", ["null", "[]", '"x"', "{}", "7"])
def test_a_cursor_that_is_none_ends_the_paging_and_loses_no_contact(sent: str) -> None:
    page = decode_search(b'{"contacts": [{"id": "contact1", "searchAfter": %s}]}' % sent.encode())
    assert (len(page.contacts), page.next_cursor) == (1, None)


def test_a_cursor_goes_back_as_it_came() -> None:
    sent = [1_764_003_536_678, "ocQHyuzHvysMo5N5VsXc", 1.5, None]
    page = decode_search(json.dumps({"contacts": [{"id": "contact1", "searchAfter": sent}]}).encode())
    assert page.next_cursor is not None
    assert json.loads(msgspec.json.encode(list(page.next_cursor))) == sent


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"{}", b'{"contacts": null}', b'{"contacts": {}}', b"<html>", b"\xff", b"[" * 100_000,
     b'{"contacts": [], "x": ' + b"[" * 100_000],
)  # fmt: skip
def test_a_body_that_is_no_search_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_search(body)


def test_an_unknown_contact_is_none() -> None:
    assert decode_contact(b'{"contact": null, "traceId": "t"}') is None
    assert decode_contact(b'{"traceId": "t"}') is None


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (
            {"timezone": "Europe/Berlin", "country": "DE", "settings": {"allowDuplicateContact": False}},
            Location("L1", "Europe/Berlin", "DE", False),
        ),
        ({"settings": {}}, Location("L1", None, None, None)),
        ({"timezone": None, "country": "", "settings": None}, Location("L1", None, None, None)),
        ({}, Location("L1", None, None, None)),
    ],
)
def test_a_location_is_read_as(sent: dict[str, object], read: Location) -> None:
    assert decode_location(json.dumps({"location": {"id": "L1", **sent}}).encode()) == read


def test_staff_are_read_with_and_without_their_details() -> None:
    body = {"users": [{"id": "u1", "email": "owner@example.com", "phone": "+13055550198", "roles": {}}, {"id": "u2"}]}
    assert decode_users(json.dumps(body).encode()) == (
        User("u1", "owner@example.com", "+13055550198"),
        User("u2", None, None),
    )


def test_violations_in_a_list_are_one_message() -> None:
    said = decode_error(json.dumps({"message": ["one", None, 2], "traceId": TRACE}).encode())
    assert (said.message, said.trace_id) == ("one; 2", TRACE)


@pytest.mark.parametrize("trace", ["ada@example.com", "+13055550123", "Ada Lovelace", 7, None, f"{TRACE} Ada"])
def test_what_does_not_look_like_a_trace_id_is_dropped(trace: object) -> None:
    assert decode_error(json.dumps({"traceId": trace}).encode()).trace_id is None


# --- whatever is sent

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "email", "emailLowerCase", "additionalEmails", "phone", "firstName", "lastName", "firstNameLowerCase",
    "lastNameLowerCase", "companyName", "businessName", "dateUpdated", "searchAfter",
)  # fmt: skip
values = dict.fromkeys(FIELDS, anything)
items = st.fixed_dictionaries({"id": anything | st.just("contact1")}, optional=values)
sound_items = st.fixed_dictionaries({"id": st.just("contact1")}, optional=values)


@settings(deadline=None)
@given(sent=st.lists(items | anything, max_size=4), total=anything)
def test_any_list_is_a_page_whose_items_are_contacts_or_counted(sent: list[object], total: object) -> None:
    try:
        page = decode_search(json.dumps({"contacts": sent, "total": total}).encode())
    except msgspec.DecodeError:
        assert isinstance(total, list | dict)
        return
    assert len(page.contacts) + page.unreadable == len(sent)
    for contact in page.contacts:
        texts = (contact.email, contact.phone, contact.first_name, contact.last_name, contact.company_name)
        for text in (contact.id, *contact.additional_emails, *(text for text in texts if text is not None)):
            assert text
            assert text == text.strip()
            assert "\x00" not in text
            text.encode()
        assert contact.date_updated is None or contact.date_updated.tzinfo is UTC


@settings(deadline=None)
@given(sent=st.lists(sound_items, max_size=4))
def test_a_broken_item_changes_nothing_of_how_the_others_are_read(sent: list[object]) -> None:
    """A page without one is read in one go, with one item by item."""
    whole, broken = (decode_search(json.dumps({"contacts": page}).encode()) for page in (sent, [None, *sent]))
    assert (broken.contacts, broken.next_cursor) == (whole.contacts, whole.next_cursor)
    assert broken.unreadable == whole.unreadable + 1


@settings(deadline=None)
@given(body=st.binary(max_size=200) | anything.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"message": ' + b"[" * 100_000)
@example(b'{"message": "\xff"}')
def test_any_error_body_can_be_read(body: bytes) -> None:
    said = decode_error(body)
    assert said.message is not None


@settings(deadline=None)
@given(body=st.binary(max_size=200) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_other_body_is_read_or_is_a_decode_error(body: bytes) -> None:
    for decode in (decode_search, decode_contact, decode_location, decode_users):
        try:
            decode(body)
        except msgspec.DecodeError:
            continue
