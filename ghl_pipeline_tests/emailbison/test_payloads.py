"""The forms in which EmailBison shows an event of its log."""

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.emailbison.payloads import JsonObject, read_event_row, read_page

PAYLOAD = {"event": {"type": "LEAD_REPLIED", "workspace_id": 1}, "data": {"reply": {"id": 7}}}
AT = "2026-04-01T10:00:00.000000Z"


@pytest.mark.parametrize(
    "row",
    [
        {"id": 1, "uuid": "x", "payload": PAYLOAD, "created_at": AT},
        {"id": 1, "payload": json.dumps(PAYLOAD), "created_at": AT},
        {"id": 1, "event_payload": PAYLOAD, "created_at": AT},
        {"id": 1, "data": PAYLOAD, "created_at": AT},
        {"id": 1, **PAYLOAD, "webhook_deliveries": [], "created_at": AT},
    ],
)
def test_the_payload_is_found_under_every_name_and_is_the_webhooks(row: JsonObject) -> None:
    found = read_event_row(row)

    assert json.loads(found.body) == PAYLOAD
    assert found.created_at == datetime(2026, 4, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("row", [{}, {"payload": None}, {"payload": "no"}, {"payload": {"event": "LEAD_REPLIED"}}])
def test_a_row_without_a_payload_is_given_as_it_is_so_that_somebody_notices(row: JsonObject) -> None:
    assert json.loads(read_event_row(row).body) == row


@pytest.mark.parametrize("at", [None, "", "yesterday", 5, ["x"]])
def test_a_row_without_a_time_is_kept(at: object) -> None:
    found = read_event_row({"payload": PAYLOAD, "created_at": at})

    assert found.created_at is None


def test_half_a_character_in_a_reply_loses_nothing_else() -> None:
    body = b'{"data": [{"payload": {"event": {"type": "X"}, "data": {"t": "cut \\ud83d"}}}, 5]}'

    page = read_page(body, "https://bison.example.com")

    assert len(page.rows) == 1
    assert b"cut" in read_event_row(page.rows[0]).body


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["data", "meta", "links", "next", "next_cursor", "current_page", "last_page"]), inner),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_body_is_a_page_or_no_page(body: bytes) -> None:
    try:
        page = read_page(body, "https://bison.example.com")
    except msgspec.DecodeError:
        return
    assert page.following is None or list(page.following) in (["cursor"], ["page"])
    assert all(json.loads(read_event_row(row).body) is not None for row in page.rows)
