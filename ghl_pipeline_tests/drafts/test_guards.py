"""The two guards that look at words: no draft leads elsewhere, and none answers somebody who wants no more messages."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.drafts.checking import unusable
from ghl_pipeline.drafts.opting_out import opts_out_in_words
from ghl_pipeline.drafts.outcomes import Channel, DraftFailure
from ghl_pipeline.drafts.prompting import Offer

LINK = "https://book.example.com/widget/booking/abc"
OFFER = Offer("Acme", tone="Warm. Our desk is 305-555-0123.", booking_link=LINK)


def is_refused(text: str, offer: Offer = OFFER) -> bool:
    return unusable(text, Channel.EMAIL, offer) is DraftFailure.UNWANTED_LINK


# --- links


@pytest.mark.parametrize(
    "host",
    [
        "\u0430pple.com",  # a Cyrillic a
        "b\u00fccher.com",
        "evil_x.com",
        "evil\u3002com",
        "evil-shop.store",
        "evil.pro",
        "evil.fr",
        "bit.do",
        "EVIL.Pro",
        "evil\ufe0f.com",
        "evil\u180e.com",
        "evil.c\u2062om",
        "evil\u0338.com",
        "evil.xn--p1ai",
        "\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444",
        "\u4f8b\u3002\u4e2d\u56fd",
        "evil.com-today",
        "evil.store/path",
        "evil.co.jp",
        "93.184.216.34",
        "evil .com",
        "evil. com",
        "00 44 7911 123456",
        "0044 7911 123456",
    ],
)
def test_a_way_elsewhere_is_refused_however_it_is_spelled(host: str) -> None:
    assert is_refused(f"Look at {host} today")
    assert is_refused(f"Look:{host}.")


@pytest.mark.parametrize(
    "text",
    [
        "We can come tomorrow.Would that suit you?",
        "We open at 9 a.m. and close at 5 p.m., e.g. on Monday; i.e. in the U.S. only.",
        "Well\u2026maybe. So...yes!",
        "It is 1,200 sq.ft. for $3.50 a foot, 9.30am, 2.5mi away, on 3.3.2026.",
        "\u660e\u65e5\u4f3a\u3044\u307e\u3059\u3002\u3088\u308d\u3057\u304f\u3002",
        f"Hier: {LINK}. Bis bald!",
        "Call 305-555-0123.",
    ],
)
def test_ordinary_sentences_are_offered(text: str) -> None:
    assert not is_refused(text)


def test_the_name_and_the_tone_of_a_client_may_look_like_a_link() -> None:
    offer = Offer("Roofs.example Ltd", tone="We are acme.example.")
    assert not is_refused("Roofs.example is here, at acme.example", offer)
    assert is_refused("See acme.example/evil", offer)


LABELS = st.text(string.ascii_lowercase + string.digits + "\u00fc\u0430\u4f8b", min_size=1, max_size=12)
ENDINGS = st.text(string.ascii_lowercase + "\u00fc\u0444\u4f8b", min_size=2, max_size=12)
UNSEEN = st.sampled_from("\u00ad\u200b\u200d\u2060\u180e\ufe0f\ufeff\U000e0020\u034f\u3164")


@given(st.lists(LABELS, min_size=1, max_size=3), ENDINGS)
def test_whatever_looks_like_a_host_is_refused(labels: list[str], ending: str) -> None:
    assert is_refused(f"See {'.'.join([*labels, ending])} now") or ".".join([*labels, ending]) == "sq.ft"


@given(UNSEEN, st.integers(0, 8))
def test_a_letter_that_nobody_sees_hides_no_link(letter: str, place: int) -> None:
    assert is_refused(f"See {'evil.com'[:place]}{letter}{'evil.com'[place:]} now")


WORDS = st.text(string.ascii_letters, min_size=1, max_size=9)


@given(st.lists(st.tuples(WORDS, st.sampled_from([" ", ", ", "? ", "! ", "; ", "\n", "..."])), max_size=30))
def test_words_with_ordinary_marks_between_them_are_never_refused(words: list[tuple[str, str]]) -> None:
    assert not is_refused("So: " + "".join(word + mark for word, mark in words))


# --- who wants no more


@pytest.mark.parametrize(
    "body",
    [
        "stop texting me",
        "unsubscribe me",
        "Please UNSUBSCRIBE",
        "do not contact me again",
        "Don\u2019t text me anymore!!",
        "leave me alone",
        "Stop\n\nSent from my iPhone",
        "pls stop",
        "Stop. I told you before.",
        "take me off the list",
        "Please take me off the list and never write again",
        "Remove me from your database",
        "remove my number",
        "No more texts please",
        "quit messaging this number",
        "I want to opt out",
        "never call me again",
        "No me escriba m\u00e1s",
    ],
)
def test_who_wants_no_more_messages_says_so_in_many_ways(body: str) -> None:
    assert opts_out_in_words(body)


@pytest.mark.parametrize(
    "body",
    [
        "Please stop by at noon",
        "Is there a bus stop near you?",
        "I can't text now, call me",
        "Don't call me before 9",
        "Take me off the schedule for Tuesday",
        "Please text me",
        "Never mind, Tuesday works",
        "Do not worry, send it",
        "When does it end?",
        "Yes please!\n\nOn Tue, 3 Mar 2026, Acme wrote:\n> To stop these, unsubscribe here",
        "Yes please!\n-----Original Message-----\nunsubscribe me",
    ],
)
def test_who_wants_something_else_is_still_answered(body: str) -> None:
    assert not opts_out_in_words(body)


@given(st.text())
def test_any_message_can_be_judged(body: str) -> None:
    opts_out_in_words(body)
