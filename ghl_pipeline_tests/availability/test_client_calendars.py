"""Giving a client a link, a calendar and a token: what is stored, what stays, and what is refused."""

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from ghl_pipeline.availability.client_calendars import calendar_locations, find_calendar, set_calendar
from ghl_pipeline.errors import InvalidInput, UnknownClient
from ghl_pipeline.locations.clients import deactivate_client
from ghl_pipeline_tests.availability.conftest import WIDGET, Agency, Place, in_hours

TOKEN = SecretStr("eyJraWQiOiIxCANARY")


def test_what_is_not_given_stays_and_an_empty_value_is_none(agency: Agency, place: Place) -> None:
    calendar = place.ghl.calendars.add("Roof")
    place.set(f" {WIDGET}/bookings/roof ", calendar)
    with agency.engine.begin() as connection:
        stored = set_calendar(connection, agency.cipher, "acme", calendly_token=TOKEN)
    assert (stored.booking_link, stored.auto_booking_calendar_id) == (f"{WIDGET}/bookings/roof", calendar.id)
    encrypted = stored.calendly_token_encrypted or ""
    assert TOKEN.get_secret_value() not in encrypted
    assert agency.cipher.decrypt(encrypted) == TOKEN
    with agency.engine.begin() as connection:
        stored = set_calendar(connection, agency.cipher, place.id, link="", calendar_id=" ")
    assert (stored.booking_link, stored.auto_booking_calendar_id, stored.is_configured) == (None, None, False)
    assert stored.calendly_token_encrypted == encrypted


def test_after_a_change_the_stored_times_are_stale_and_the_client_is_first(agency: Agency, place: Place) -> None:
    other = agency.place("Other")
    for each in (place, other):
        each.set(f"{WIDGET}/bookings/roof")
        assert each.state() == ("never", None)
        each.change(state="fresh", tried_at=in_hours(-1)[0])
    other.set(f"{WIDGET}/bookings/roof")
    assert other.state() == ("fresh", None), "nothing was changed"
    other.set(f"{WIDGET}/bookings/wall")
    row = other.row()
    assert (row["state"], row["reason"], row["tried_at"]) == ("stale", "link_changed", None)
    assert row["stale_since"] is not None
    with agency.engine.connect() as connection:
        assert calendar_locations(connection) == [other.id, place.id]


def test_only_active_clients_with_something_to_ask_are_due(agency: Agency, place: Place) -> None:
    off, token_only = agency.place("Off"), agency.place("Token only")
    off.set(f"{WIDGET}/bookings/roof")
    place.set(calendar=place.ghl.calendars.add("Roof"))
    with agency.engine.begin() as connection:
        deactivate_client(connection, off.id)
        set_calendar(connection, agency.cipher, token_only.id, calendly_token=TOKEN)
        assert calendar_locations(connection) == [place.id]


@pytest.mark.parametrize(
    "values",
    [
        {"link": "https://example.com/\nwidget"},
        {"link": f"https://example.com/{'x' * 2000}"},
        {"calendar_id": "roof-inspection"},
        {"calendly_token": SecretStr("two words")},
        {"calendly_token": SecretStr("")},
    ],
)
def test_what_cannot_be_stored_is_refused_and_not_repeated(
    agency: Agency, place: Place, values: dict[str, object]
) -> None:
    with agency.engine.begin() as connection, pytest.raises(InvalidInput) as refused:
        set_calendar(connection, agency.cipher, place.id, **values)  # type: ignore[arg-type]
    assert not any(word in str(refused.value) for word in ("widget", "xxx", "roof", "two words"))
    with agency.engine.connect() as connection:
        assert connection.execute(text("SELECT booking_link FROM booking_calendars")).scalar() is None


def test_an_unknown_client_is_refused(agency: Agency) -> None:
    with agency.engine.begin() as connection, pytest.raises(UnknownClient):
        set_calendar(connection, agency.cipher, "Nobody", link="https://example.com")


def test_no_repr_shows_link_or_token(agency: Agency, place: Place) -> None:
    place.set(f"{WIDGET}/bookings/canary")
    with agency.engine.connect() as connection:
        found = find_calendar(connection, place.id)
    assert found is not None
    assert "canary" not in repr(found)
