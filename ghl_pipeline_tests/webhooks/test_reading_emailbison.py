"""What EmailBison's webhooks are read as."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ghl_pipeline.webhooks.events import Event, EventKind, Provider, SentBy
from ghl_pipeline.webhooks.reading.read_event import UnreadableEvent, read_event

LOCATION = "ve9EPM428h8vShlRW1KT"
REPLY = {
    "id": 1609175,
    "uuid": "a2beed02-9f0a-4c58-8f5f-3a105d7ed3a6",
    "email_subject": "Re: A question",
    "interested": False,
    "automated_reply": False,
    "html_body": "<div>Yes, tell me more.</div>",
    "text_body": "Yes, tell me more.",
    "date_received": "2026-04-01T10:00:00.000000Z",
    "type": "Tracked Reply",
    "folder": "Inbox",
    "from_name": "Ann Example",
    "from_email_address": "ann@example.com",
    "primary_to_email_address": "sam@example.net",
}
LEAD = {
    "id": 4711,
    "email": "ann@example.com",
    "first_name": "Ann",
    "last_name": "Example",
    "company": "Example & Co",
    "custom_variables": [{"name": "city", "value": "Miami"}, {"name": "Mobile-Phone", "value": "(305) 555-0123"}],
}
OF_CAMPAIGN = {"scheduled_email": {"id": 31, "lead_id": 4711}, "campaign_event": {"id": 77, "type": "replied"}}


def read(event_type: str, data: dict[str, Any], *, workspace: object = 42, location_id: str | None = LOCATION) -> Event:
    body = {"event": {"type": event_type, "workspace_id": workspace, "workspace_name": "Ann's"}, "data": data}
    return read_event(Provider.EMAILBISON, json.dumps(body).encode(), location_id=location_id)


def test_a_reply_is_a_message_of_the_campaigns_lead() -> None:
    event = read("lead_replied", {"reply": REPLY, "lead": LEAD, **OF_CAMPAIGN})

    assert (event.kind, event.event_type, event.workspace_id) == (EventKind.LEAD_REPLIED, "LEAD_REPLIED", 42)
    assert event.dedupe_key == f"{LOCATION}:42:LEAD_REPLIED:1609175"
    assert event.occurred_at == datetime(2026, 4, 1, 10, tzinfo=UTC)
    person = event.person
    assert person is not None
    assert (person.emailbison_lead_id, person.email, person.phone) == (4711, "ann@example.com", "(305) 555-0123")
    assert (person.first_name, person.last_name, person.company_name) == ("Ann", "Example", "Example & Co")
    message = event.message
    assert message is not None
    assert (message.provider, message.external_id, message.channel) == ("emailbison", "1609175", "email")
    assert (message.direction, message.subject, message.body) == ("inbound", "Re: A question", "Yes, tell me more.")
    assert (message.is_automated, message.is_interested) == (False, False)
    assert event.makes_lead


def test_an_interested_lead_is_one_with_and_without_its_reply() -> None:
    both = read("LEAD_INTERESTED", {"reply": REPLY, "lead": LEAD, **OF_CAMPAIGN})
    alone = read("LEAD_INTERESTED", {"lead": LEAD, **OF_CAMPAIGN})

    assert both.kind is alone.kind is EventKind.LEAD_INTERESTED
    assert both.message is not None
    assert both.message.is_interested
    assert alone.message is None
    assert alone.person == both.person
    assert alone.dedupe_key == f"{LOCATION}:42:LEAD_INTERESTED:31:77"


def test_reply_and_interest_bring_one_message_in_two_events() -> None:
    data = {"reply": REPLY, "lead": LEAD, **OF_CAMPAIGN}
    replied, interested = read("LEAD_REPLIED", data), read("LEAD_INTERESTED", data)

    assert replied.dedupe_key != interested.dedupe_key
    assert replied.message is not None
    assert interested.message is not None
    assert replied.message.external_id == interested.message.external_id


def test_an_automatic_reply_is_told_apart() -> None:
    message = read("LEAD_REPLIED", {"reply": {**REPLY, "automated_reply": True}, "lead": LEAD}).message

    assert message is not None
    assert message.is_automated


def test_a_bounce_is_about_the_lead_and_what_the_mailer_daemon_wrote_is_no_message() -> None:
    bounce = {**REPLY, "type": "Bounced", "folder": "Bounced", "from_email_address": "mailer-daemon@example.net"}
    event = read("EMAIL_BOUNCED", {"reply": bounce, "lead": LEAD})
    without_lead = read("EMAIL_BOUNCED", {"reply": bounce})
    by_number = read("EMAIL_BOUNCED", {"reply": {**bounce, "lead_id": 4711}})

    assert (event.kind, event.message, event.makes_lead) == (EventKind.LEAD_BOUNCED, None, False)
    assert event.person is not None
    assert event.person.email == "ann@example.com"
    assert (without_lead.kind, without_lead.person) == (EventKind.OTHER, None)
    assert by_number.person is not None
    assert (by_number.person.emailbison_lead_id, by_number.person.email) == (4711, None)


BOUNCES = [{"type": "Bounced"}, {"folder": "bounced"}, {"from_email_address": "MAILER-DAEMON@mail.example.net"}]


@pytest.mark.parametrize("bounced", BOUNCES)
def test_a_reply_that_a_mail_server_wrote_is_a_bounce_and_no_message(bounced: dict[str, str]) -> None:
    event = read("LEAD_REPLIED", {"reply": REPLY | bounced, "lead": LEAD, **OF_CAMPAIGN})
    without_lead = read("LEAD_REPLIED", {"reply": REPLY | bounced})

    assert (event.kind, event.event_type) == (EventKind.LEAD_BOUNCED, "LEAD_REPLIED")
    assert (event.message, event.makes_lead) == (None, False)
    assert event.person is not None
    assert event.person.email == "ann@example.com"
    assert (without_lead.kind, without_lead.person) == (EventKind.OTHER, None)
    assert read("UNTRACKED_REPLY_RECEIVED", {"reply": REPLY | bounced}).kind is EventKind.OTHER


@pytest.mark.parametrize("bounced", BOUNCES)
def test_whom_a_person_marked_as_interested_is_interested(bounced: dict[str, str]) -> None:
    event = read("LEAD_INTERESTED", {"reply": REPLY | bounced, "lead": LEAD, **OF_CAMPAIGN})

    assert (event.kind, event.makes_lead) == (EventKind.LEAD_INTERESTED, True)


def test_a_mail_to_no_campaign_makes_no_lead() -> None:
    event = read("UNTRACKED_REPLY_RECEIVED", {"reply": REPLY})

    assert (event.kind, event.makes_lead) == (EventKind.MESSAGE_OF_KNOWN_LEAD, False)
    assert event.person is not None
    assert (event.person.email, event.person.emailbison_lead_id) == ("ann@example.com", None)
    assert event.message is not None
    assert event.message.direction == "inbound"


def test_an_untracked_bounce_is_nobodys_message() -> None:
    assert read("UNTRACKED_REPLY_RECEIVED", {"reply": {**REPLY, "folder": "Bounced"}}).kind is EventKind.OTHER


def test_a_mail_sent_by_hand_is_an_outbound_message_of_the_lead() -> None:
    sent = {**REPLY, "from_email_address": "sam@example.net", "primary_to_email_address": "ann@example.com"}
    event, without_lead = (read("MANUAL_EMAIL_SENT", {"reply": sent} | more) for more in ({"lead": LEAD}, {}))

    assert event.kind is EventKind.MESSAGE_SENT
    assert event.message is not None
    assert event.message.direction == "outbound"
    assert without_lead.person is not None
    assert without_lead.person.email == "ann@example.com"


def test_an_unsubscribed_lead_is_told_once_by_its_e_mail_or_its_number() -> None:
    of_campaign = read("LEAD_UNSUBSCRIBED", {"lead": LEAD, **OF_CAMPAIGN})
    alone = read("LEAD_UNSUBSCRIBED", {"lead": LEAD})

    assert of_campaign.kind is alone.kind is EventKind.LEAD_UNSUBSCRIBED
    assert of_campaign.dedupe_key == f"{LOCATION}:42:LEAD_UNSUBSCRIBED:31:77"
    assert alone.dedupe_key == f"{LOCATION}:42:LEAD_UNSUBSCRIBED:lead:4711"


@pytest.mark.parametrize("event_type", ["EMAIL_SENT", "EMAIL_OPENED", "TAG_ATTACHED", "SOMETHING_NEW"])
def test_what_nobody_waits_for_is_kept_with_a_key_of_its_own(event_type: str) -> None:
    first = read(event_type, {"lead": LEAD, "tag_id": 5})
    second = read(event_type, {"lead": LEAD, "tag_id": 6})

    assert (first.kind, first.person, first.event_type) == (EventKind.OTHER, None, event_type)
    assert first.dedupe_key != second.dedupe_key
    assert first.dedupe_key == read(event_type, {"tag_id": 5, "lead": LEAD}).dedupe_key


def test_two_instances_that_number_alike_do_not_take_each_others_keys() -> None:
    data = {"reply": REPLY, "lead": LEAD}
    keys = {read("LEAD_REPLIED", data, location_id=each).dedupe_key for each in (LOCATION, LOCATION[::-1])}

    assert len(keys) == 2
    assert read("LEAD_REPLIED", data, location_id=None).dedupe_key == "42:LEAD_REPLIED:1609175"


def test_numbers_as_texts_and_texts_as_numbers_are_understood() -> None:
    data: dict[str, Any] = copy.deepcopy({"reply": REPLY, "lead": LEAD})
    data["reply"] |= {"id": "1609175", "automated_reply": "1", "interested": 0}
    data["lead"] |= {"id": "4711", "company": 24, "first_name": None, "custom_variables": None}

    event = read("LEAD_REPLIED", data, workspace="42")

    assert event.workspace_id == 42
    assert event.dedupe_key == f"{LOCATION}:42:LEAD_REPLIED:1609175"
    assert event.person is not None
    assert (event.person.emailbison_lead_id, event.person.company_name) == (4711, "24")
    assert event.message is not None
    assert (event.message.is_automated, event.message.is_interested) == (True, False)


def test_a_reply_without_plain_text_is_read_from_its_html() -> None:
    html = "<html><head><title>x</title></head><body><p>Yes,<br>call me</p><!-- <b>no</b> --></body></html>"
    message = read("LEAD_REPLIED", {"reply": {**REPLY, "text_body": None, "html_body": html}, "lead": LEAD}).message

    assert message is not None
    assert [line for line in message.body.splitlines() if line] == ["Yes,", "call me"]


@pytest.mark.parametrize("body", [b"{}", b'{"event": "LEAD_REPLIED"}', b'{"data": {}}', b"[1]", b"no"])
def test_a_body_that_names_no_event_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        read_event(Provider.EMAILBISON, body, location_id=LOCATION)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"sender_email": {"id": 3}, "campaign": {"id": 8}}, SentBy(3, 8)),
        ({"sender_email": {"id": "3"}, "campaign": {"id": "8"}}, SentBy(3, 8)),
        ({"sender_email": {"id": 3}}, SentBy(3, None)),
        ({"reply": {**REPLY, "sender_email_id": 3, "campaign_id": 8}}, SentBy(3, 8)),
        ({"sender_email": {"id": -3}, "campaign": {"id": 8}}, None),
        ({"sender_email": "sam@example.net", "campaign": None}, None),
        ({"campaign": {"id": 8}}, None),
    ],
)
def test_an_event_tells_by_which_account_the_person_is_written_to(
    data: dict[str, Any], expected: SentBy | None
) -> None:
    assert read("LEAD_REPLIED", {"reply": REPLY, "lead": LEAD, **OF_CAMPAIGN, **data}).sent_by == expected
