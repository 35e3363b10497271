"""Which messages want a draft: the rule as a table on real rows, and what counts as the newest message."""

from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from ghl_pipeline.drafts.client_settings import find_draft_client, set_drafts
from ghl_pipeline.drafts.outcomes import SkipReason
from ghl_pipeline.drafts.wanting import candidates, due_locations, skip_reason
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import deactivate_client
from ghl_pipeline_tests.drafts.conftest import Agency, Place

SETUP = "0123456789abcdef"
WEEK = timedelta(days=7)


def reasons(place: Place, setup: str | None = SETUP, *, again: bool = False) -> dict[int, SkipReason | None]:
    """Of every message that is looked at."""
    with place.engine.connect() as connection:
        found = candidates(connection, WEEK, [place.id])
    return {each.message_id: skip_reason(each, setup, again=again) for each in found}


def due(place: Place, setup: str = SETUP) -> list[str]:
    with place.engine.connect() as connection:
        return due_locations(connection, WEEK, setup)


PAST = "2026-01-01T00:00:00+00:00"
# Of the lead, of the message, and why there is no draft; a text message unless `email` is said.
CASES: list[tuple[str, Mapping[str, object], Mapping[str, object], SkipReason | None]] = [
    ("sms", {}, {}, None),
    ("sms", {"status": "replied"}, {}, None),
    ("sms", {"status": "interested"}, {}, None),
    ("email", {"email": "ada@example.com"}, {}, None),
    ("email", {"email": "ada@example.com"}, {"is_interested": False}, SkipReason.NOT_POSITIVE),
    ("email", {"email": "ada@example.com", "status": " Interested "}, {"is_interested": False}, None),
    ("sms", {"opted_out_at": PAST}, {}, SkipReason.OPTED_OUT),
    ("sms", {"status": "unsubscribed"}, {}, SkipReason.OPTED_OUT),
    ("sms", {"status": " Do_Not_Contact "}, {}, SkipReason.OPTED_OUT),
    ("sms", {}, {"body": "STOP"}, SkipReason.OPTED_OUT),
    ("sms", {}, {"body": "  stop all!! "}, SkipReason.OPTED_OUT),
    ("sms", {}, {"body": "Please stop by at noon"}, None),
    ("email", {"email": "ada@example.com"}, {"body": "Unsubscribe."}, SkipReason.OPTED_OUT),
    ("sms", {"status": "bounced"}, {}, None),
    ("email", {"email": "ada@example.com", "status": "bounced"}, {}, SkipReason.BOUNCED),
    ("sms", {}, {"body": "stop texting me"}, SkipReason.OPTED_OUT_IN_WORDS),
    ("sms", {}, {"body": "Stop\n\nSent from my iPhone"}, SkipReason.OPTED_OUT_IN_WORDS),
    ("email", {"email": "ada@example.com"}, {"body": "Take me off the list."}, SkipReason.OPTED_OUT_IN_WORDS),
    ("email", {"email": "ada@example.com"}, {"subject": "Undeliverable: Hello"}, SkipReason.MACHINE),
    ("email", {"email": "ada@example.com"}, {"subject": "Automatic reply: Hello"}, SkipReason.MACHINE),
    ("email", {"email": "ada@example.com"}, {"subject": "Re: Delivery of the roof"}, None),
    ("sms", {"contact_deleted_at": PAST}, {}, SkipReason.CONTACT_DELETED),
    ("sms", {}, {"is_automated": True}, SkipReason.AUTOMATED),
    ("email", {"email": "ada@example.com"}, {"is_automated": True}, SkipReason.AUTOMATED),
    ("email", {"email": "MAILER-DAEMON@example.com"}, {}, SkipReason.MACHINE),
    ("email", {"email": "postmaster@example.com"}, {}, SkipReason.MACHINE),
    ("email", {"email": "no-reply@example.com"}, {}, SkipReason.MACHINE),
    ("email", {"email": "DoNotReply@example.com"}, {}, SkipReason.MACHINE),
    ("email", {"email": "bounces+12-ada=example.org@example.com"}, {}, SkipReason.MACHINE),
    ("email", {"email": "norma.reply@example.com"}, {}, None),
    ("sms", {"email": "no-reply@example.com"}, {}, None),
    ("sms", {}, {"body": " \n\t"}, SkipReason.NO_TEXT),
    ("email", {"email": None}, {}, None),
]


@pytest.mark.parametrize(("kind", "lead", "message", "reason"), CASES)
def test_who_gets_a_draft(
    place: Place, kind: str, lead: Mapping[str, object], message: Mapping[str, object], reason: SkipReason | None
) -> None:
    write: Callable[..., int] = place.email if kind == "email" else place.message
    message_id = write(place.lead(**lead), **message)
    assert reasons(place) == {message_id: reason}
    assert due(place) == ([place.id] if reason is None else [])


@pytest.mark.parametrize(
    "message",
    [
        {"direction": "outbound"},
        {"channel": "whatsapp"},
        {"channel": "email", "is_interested": True},  # of GHL: nobody sends e-mails there
        {"minutes": 8 * 24 * 60.0},
    ],
)
def test_other_messages_are_not_even_looked_at(place: Place, message: Mapping[str, object]) -> None:
    place.message(place.lead(), **message)  # type: ignore[arg-type]
    assert reasons(place) == {}


def test_only_the_newest_message_of_a_lead_on_a_channel_wants_one(place: Place) -> None:
    lead = place.lead(email="ada@example.com")
    place.message(lead, minutes=9)
    newest = place.message(lead, minutes=3)
    email = place.email(lead, minutes=6)
    other = place.sms()
    assert reasons(place) == dict.fromkeys((newest, email, other))


def test_an_answer_on_the_same_channel_ends_the_wish(place: Place) -> None:
    answered, by_email, came_back = place.lead(), place.lead(), place.lead()
    message = place.message(answered, minutes=9)
    place.message(answered, minutes=3, direction="outbound")
    still = place.message(by_email, minutes=9)
    place.message(by_email, minutes=3, direction="outbound", channel="email", provider="emailbison")
    place.message(came_back, minutes=9, direction="outbound")
    again = place.message(came_back, minutes=3)
    assert reasons(place) == {message: SkipReason.ANSWERED, still: None, again: None}


def test_clients_that_are_off_or_inactive_are_left_alone(agency: Agency) -> None:
    never, off, inactive, on = (
        agency.place("Never", on=False), agency.place("Off"), agency.place("Inactive"), agency.place("On"),
    )  # fmt: skip
    for each in (never, off, inactive, on):
        each.sms()
    with agency.engine.begin() as connection:
        set_drafts(connection, off.id, enabled=False)
        deactivate_client(connection, inactive.id)
    assert due(on) == [on.id]
    assert [reasons(each) for each in (never, off, inactive)] == [{}, {}, {}]


def test_without_a_key_nothing_is_wanted(place: Place) -> None:
    message = place.sms()
    assert reasons(place, None) == {message: SkipReason.NO_KEY}


@pytest.mark.parametrize(
    ("state", "failure", "retry_in", "expected"),
    [
        ("failed", "timeout", "-1 minute", None),
        ("failed", "timeout", "1 minute", SkipReason.RESTING),
        ("failed", "timeout", None, SkipReason.GIVEN_UP),
        ("failed", "refused", None, SkipReason.GIVEN_UP),
        ("failed", "key_refused", None, None),
    ],
)
def test_what_failed_is_tried_again_when_its_time_has_come(
    place: Place, state: str, failure: str, retry_in: str | None, expected: SkipReason | None
) -> None:
    message = place.sms()
    place.sql(
        """INSERT INTO reply_drafts (client_id, lead_id, message_id, channel, state, failure, retry_at)
           SELECT client_id, lead_id, id, channel, :state, :failure, now() + CAST(:retry_in AS interval)
           FROM messages WHERE id = :message""",
        state=state, failure=failure, retry_in=retry_in, message=message,
    )  # fmt: skip
    assert reasons(place) == {message: expected}
    assert reasons(place, again=True) == {message: None}


@pytest.mark.parametrize("state", ["pending", "approved", "rejected"])
def test_a_message_that_has_a_draft_wants_no_other(place: Place, state: str) -> None:
    message = place.sms()
    place.sql(
        """INSERT INTO reply_drafts (client_id, lead_id, message_id, channel, state, body)
           SELECT client_id, lead_id, id, channel, :state, 'Hello' FROM messages WHERE id = :message""",
        state=state, message=message,
    )  # fmt: skip
    assert reasons(place, again=True) == {}


def test_settings_of_a_client_keep_what_is_not_given(place: Place) -> None:
    with place.engine.begin() as connection:
        set_drafts(connection, place.id, tone=" Warm. ", slots_offered=5)
        set_drafts(connection, "Acme", enabled=False)
        stored = find_draft_client(connection, place.id)
        assert stored is not None
        assert (stored.enabled, stored.tone, stored.slots_offered) == (False, "Warm.", 5)
        assert set_drafts(connection, place.id, tone=" ").tone is None
        for wrong in ({"slots_offered": 11}, {"tone": "x" * 2_001}):
            with pytest.raises(InvalidInput):
                set_drafts(connection, place.id, **wrong)
