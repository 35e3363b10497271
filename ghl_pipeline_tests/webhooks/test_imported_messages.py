"""What imported messages say of their leads' status, by the rule that events follow."""

from datetime import timedelta

import pytest

from ghl_pipeline.database.messages import NewMessage
from ghl_pipeline.webhooks.handling.imported_messages import ImportedMessage, news_of_imports
from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.ensuring import PROTECTED
from ghl_pipeline_tests.webhooks.handling_tools import START


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


def tell(agency: Agency, client_id: int, *messages: ImportedMessage) -> None:
    with agency.engine.begin() as connection:
        news_of_imports(PROTECTED)(connection, client_id, messages)


def said(lead_id: int, body: str, *, is_news: bool, minutes: float = 0, **message: object) -> ImportedMessage:
    values: dict[str, object] = {"provider": "ghl", "channel": "sms", "direction": "inbound", **message}
    return lead_id, NewMessage(body=body, **values), START + timedelta(minutes=minutes), is_news  # type: ignore[arg-type]


def test_an_opt_out_counts_at_any_age_and_from_the_first_time(agency: Agency, place: Place) -> None:
    booked, fresh = agency.lead(place, status="booked"), agency.lead(place, status="new")
    tell(
        agency, place.client_id,
        said(booked, "Stop", is_news=False, minutes=9), said(booked, "STOP", is_news=False, minutes=3),
        said(fresh, "quit", is_news=True),
    )  # fmt: skip
    rows = [agency.row(lead_id) for lead_id in (booked, fresh)]
    assert [row["status"] for row in rows] == ["unsubscribed", "unsubscribed"]
    assert [row["opted_out_at"] for row in rows] == [START + timedelta(minutes=3), START]


def test_any_other_message_counts_while_it_is_news(agency: Agency, place: Place) -> None:
    old, fresh, booked, automatic, written_to = (
        agency.lead(place, status=status) for status in ("new", "new", "booked", "new", "new")
    )
    tell(
        agency, place.client_id,
        said(old, "Yes", is_news=False), said(fresh, "Yes", is_news=True), said(booked, "Yes", is_news=True),
        said(automatic, "I am away", is_news=True, is_automated=True),
        said(written_to, "STOP", is_news=True, direction="outbound"),
    )  # fmt: skip
    statuses = [agency.row(lead_id)["status"] for lead_id in (old, fresh, booked, automatic, written_to)]
    assert statuses == ["new", "replied", "booked", "new", "new"]


def test_no_other_clients_lead_is_reached(agency: Agency, place: Place) -> None:
    theirs = agency.lead(agency.place("Other"), status="new")
    tell(agency, place.client_id, said(theirs, "STOP", is_news=True))
    assert (agency.row(theirs)["status"], agency.row(theirs)["opted_out_at"]) == ("new", None)
