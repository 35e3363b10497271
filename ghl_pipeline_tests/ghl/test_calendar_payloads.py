"""Calendars and free times as GHL documents them, and what is not them."""

import msgspec
import pytest

from ghl_pipeline.ghl.calendar_payloads import Calendar, decode_calendar, decode_calendars, decode_free_slots


def test_free_times_are_read_by_day_and_nothing_else_is() -> None:
    body = (
        b'{"2024-10-29":{"slots":["2024-10-29T10:00:00-05:00"]},"traceId":"x","total":{"slots":["no"]},'
        b'"2024-10-28":{"slots":["2024-10-28T10:00:00-05:00","2024-10-28T10:30:00-05:00"],"more":1}}'
    )
    assert decode_free_slots(body) == (
        "2024-10-28T10:00:00-05:00", "2024-10-28T10:30:00-05:00", "2024-10-29T10:00:00-05:00",
    )  # fmt: skip
    assert decode_free_slots(b'{"traceId":"x"}') == ()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"<html>", b'{"2024-10-28":[]}', b'{"2024-10-28":{"slots":[1]}}', b'{"2024-10-28":{}}'],
)
def test_a_broken_day_spoils_the_answer_instead_of_looking_full(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_free_slots(body)


def test_a_calendar_without_an_id_is_left_out_of_a_list_and_none_by_itself() -> None:
    body = b'{"calendars":[{"name":"x"},{"id":"Qx7mKp2Lw9ZtRb4NcVd8","slug":" roof ","isActive":null}]}'
    assert decode_calendars(body) == (Calendar("Qx7mKp2Lw9ZtRb4NcVd8", slug="roof"),)
    with pytest.raises(msgspec.DecodeError):
        decode_calendar(b'{"calendar":{"name":"x"}}')
    with pytest.raises(msgspec.DecodeError):
        decode_calendars(b'{"message":"no"}')


@pytest.mark.parametrize(("said", "is_active"), [(b"true", True), (b"false", False), (b"null", True)])
def test_only_a_calendar_that_is_said_to_be_off_is_off(said: bytes, is_active: bool) -> None:
    body = b'{"calendar":{"id":"Qx7mKp2Lw9ZtRb4NcVd8","isActive":' + said + b"}}"
    assert decode_calendar(body).is_active is is_active
