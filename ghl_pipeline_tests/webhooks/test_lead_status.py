"""The rule for a lead's status: a table of cases, and that the order of events does not matter."""

from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.database.messages import NewMessage
from ghl_pipeline.ghl.opt_outs import opts_out
from ghl_pipeline.webhooks.events import EventKind
from ghl_pipeline.webhooks.handling.lead_status import (
    has_opted_out,
    message_opts_out,
    status_after,
    status_of_both,
    statuses_of,
)

PROTECTED = frozenset({"booked", "won"})
REPLIED, INTERESTED = EventKind.LEAD_REPLIED, EventKind.LEAD_INTERESTED
BOUNCED, UNSUBSCRIBED = EventKind.LEAD_BOUNCED, EventKind.LEAD_UNSUBSCRIBED


def after(current: str | None, kind: EventKind, *, opted_out: bool = False, is_automated: bool = False) -> str | None:
    return status_after(current, kind, opted_out=opted_out, protected=PROTECTED, is_automated=is_automated)


@pytest.mark.parametrize(
    ("current", "kind", "status"),
    [
        ("new", REPLIED, "replied"),
        (None, REPLIED, "replied"),
        (" Unassigned ", EventKind.MESSAGE_RECEIVED, "replied"),
        ("", EventKind.MESSAGE_OF_KNOWN_LEAD, "replied"),
        ("contacted", REPLIED, None),
        ("contacted", BOUNCED, "bounced"),
        ("replied", BOUNCED, "bounced"),
        ("replied", INTERESTED, "interested"),
        ("bounced", INTERESTED, "interested"),
        ("bounced", REPLIED, None),
        ("interested", BOUNCED, None),
        ("interested", REPLIED, None),
        ("Interested", INTERESTED, None),
        ("interested", UNSUBSCRIBED, "unsubscribed"),
        ("unsubscribed", INTERESTED, None),
        ("Unsubscribed", REPLIED, None),
        ("booked", INTERESTED, None),
        ("Booked ", BOUNCED, None),
        ("booked", UNSUBSCRIBED, "unsubscribed"),
        ("do_not_contact", UNSUBSCRIBED, "unsubscribed"),
        (" Do_Not_Contact", INTERESTED, None),
        ("do_not_contact", BOUNCED, None),
        ("new", EventKind.MESSAGE_SENT, None),
        ("new", EventKind.CONTACT_CHANGED, None),
        ("new", EventKind.OTHER, None),
    ],
)
def test_the_status_after_an_event(current: str | None, kind: EventKind, status: str | None) -> None:
    assert after(current, kind) == status


def test_an_automatic_reply_is_no_reply_but_may_be_marked_interested() -> None:
    assert after("new", REPLIED, is_automated=True) is None
    assert after("new", INTERESTED, is_automated=True) == "interested"


@pytest.mark.parametrize("kind", EventKind)
def test_who_opted_out_is_unsubscribed_whatever_happens(kind: EventKind) -> None:
    assert after("interested", kind, opted_out=True) == "unsubscribed"
    assert after("booked", kind, opted_out=True) == "unsubscribed"
    assert after("unsubscribed", kind, opted_out=True) is None


EVENTS = st.tuples(st.sampled_from(EventKind), st.booleans(), st.booleans())
STATUSES = st.sampled_from([None, "", "new", "unassigned", "contacted", "replied", "bounced", "interested", "booked",
    "unsubscribed", "something else"])  # fmt: skip


@given(
    STATUSES,
    st.lists(EVENTS, max_size=4),
    st.frozensets(st.sampled_from(["", "new", "booked", "replied", "bounced", "interested", "unsubscribed"])),
)
def test_the_end_does_not_depend_on_the_order_of_events(
    start: str | None, events: list[tuple[EventKind, bool, bool]], protected: frozenset[str]
) -> None:
    ends = set()
    for order in permutations(events):
        status = start
        for kind, is_automated, opted_out in order:
            status = (
                status_after(status, kind, opted_out=opted_out, protected=protected, is_automated=is_automated)
                or status
            )
        ends.add(status)

    assert len(ends) == 1


@given(STATUSES, st.lists(st.tuples(EVENTS, st.booleans()), max_size=4))
def test_events_of_one_person_at_two_leads_end_as_if_they_were_one(
    start: str | None, events: list[tuple[tuple[EventKind, bool, bool], bool]]
) -> None:
    """`start` is the dashboard's own status, of the lead that stays; an event made the other one."""

    def end(status: str | None, mine: list[tuple[EventKind, bool, bool]]) -> str | None:
        for kind, is_automated, opted_out in mine:
            status = after(status, kind, opted_out=opted_out, is_automated=is_automated) or status
        return status

    kept = end(start, [event for event, is_others in events if not is_others])
    given_up = end("new", [event for event, is_others in events if is_others])
    opted_out = any(event[2] for event, _ in events)
    both = status_of_both(kept, given_up, opted_out=opted_out, protected=PROTECTED) or kept

    assert both == end(start, [event for event, _ in events])


@pytest.mark.parametrize(
    ("kept", "given_up", "status"),
    [
        ("new", "contacted", "contacted"),
        ("contacted", "called", None),
        ("replied", "contacted", None),
        ("interested", "Booked", "Booked"),
        ("contacted", "booked", "booked"),
        ("booked", "won", None),
        ("unsubscribed", "booked", None),
        ("booked", "unsubscribed", "unsubscribed"),
        ("booked", "interested", None),
        ("do_not_contact", "interested", None),
        ("interested", "do_not_contact", "do_not_contact"),
        (None, None, None),
    ],
)
def test_the_status_of_two_leads_that_are_one_person(
    kept: str | None, given_up: str | None, status: str | None
) -> None:
    assert status_of_both(kept, given_up, opted_out=False, protected=PROTECTED) == status


def test_a_setting_lists_statuses() -> None:
    assert statuses_of(" Booked, won ,,DO_NOT_CONTACT") == frozenset({"booked", "won", "do_not_contact"})


@given(STATUSES, EVENTS)
def test_the_same_event_again_changes_nothing(start: str | None, event: tuple[EventKind, bool, bool]) -> None:
    kind, is_automated, opted_out = event
    once = after(start, kind, opted_out=opted_out, is_automated=is_automated) or start

    assert after(once, kind, opted_out=opted_out, is_automated=is_automated) is None


@pytest.mark.parametrize(
    "body", ["STOP", "stop", " Stop. ", "*STOP*", "“stop”", "StopAll", "STOP ALL", "unsubscribe!", "Cancel", "END",
        "quit\n", "Revoke", "opt-out", "Opt Out", "STOP 🛑"]
)  # fmt: skip
def test_a_carriers_keyword_alone_is_an_opt_out(body: str) -> None:
    assert opts_out(body)


@pytest.mark.parametrize(
    "body", ["", "Please stop by at noon", "stop it!", "don't stop", "weekend", "stopp", "yes", "end of day works",
        "Can we cancel Friday?", "!!!", "STOP" + " " * 5000 + "x"]
)  # fmt: skip
def test_a_keyword_among_other_words_is_none(body: str) -> None:
    assert not opts_out(body)


@pytest.mark.parametrize(
    ("direction", "channel", "is_one"),
    [
        ("inbound", "sms", True),
        ("inbound", "rcs", True),
        ("inbound", " SMS ", True),
        ("outbound", "sms", False),
        ("inbound", "email", False),
        ("inbound", "whatsapp", False),
    ],
)
def test_a_keyword_counts_by_the_channels_of_the_carriers(direction: str, channel: str, is_one: bool) -> None:
    message = NewMessage(provider="ghl", channel=channel, direction=direction, body="STOP")
    assert message_opts_out(message) is is_one


@pytest.mark.parametrize(
    ("status", "when", "opted_out"),
    [
        ("new", None, False),
        (None, None, False),
        ("new", datetime(2026, 5, 4, tzinfo=UTC), True),
        ("Unsubscribed ", None, True),
        ("do_not_contact", None, True),
    ],
)
def test_who_must_not_be_written_to(status: str | None, when: datetime | None, opted_out: bool) -> None:
    assert has_opted_out(status, when) is opted_out
