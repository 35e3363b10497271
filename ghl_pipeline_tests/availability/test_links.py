"""What a booking link is told to be, as a table, and that no text at all makes it fail."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ghl_pipeline.availability.links import BookingLink, LinkKind, normal_url, read_link
from ghl_pipeline.availability.outcomes import REASON_TEXTS, Reason

ID = "Qx7mKp2Lw9ZtRb4NcVd8"
GHL = "https://api.leadconnectorhq.com/widget"


@pytest.mark.parametrize(
    ("link", "kind", "names"),
    [
        (f"{GHL}/booking/{ID}", LinkKind.GHL_ID, (ID,)),
        (f"{GHL}/booking/{ID}/", LinkKind.GHL_ID, (ID,)),
        (f"  {GHL}/booking/{ID}?utm_source=x#top \n", LinkKind.GHL_ID, (ID,)),
        (f"https://book.example.com/widget/booking/{ID}", LinkKind.GHL_ID, (ID,)),
        (f"book.example.com/widget/booking/{ID}", LinkKind.GHL_ID, (ID,)),
        (f"book.example.com:8443/widget/booking/{ID}", LinkKind.GHL_ID, (ID,)),
        (f"//book.example.com/widget/booking/{ID}", LinkKind.GHL_ID, (ID,)),
        (f"HTTPS://Book.Example.COM/Widget/Booking/{ID}", LinkKind.GHL_ID, (ID,)),
        (f"https://book.example.com/en/widget/booking/{ID}", LinkKind.GHL_ID, (ID,)),
        # an id in the plural form
        (f"{GHL}/bookings/{ID}", LinkKind.GHL_ID, (ID,)),
        (f"{GHL}/bookings/acme/{ID}", LinkKind.GHL_ID, (ID,)),
        # slugs, also in the singular form
        (f"{GHL}/bookings/roof-inspection", LinkKind.GHL_SLUG, ("roof-inspection",)),
        (f"{GHL}/booking/roof-inspection", LinkKind.GHL_SLUG, ("roof-inspection",)),
        ("https://go.example.org/widget/bookings/Roof%20Inspection/", LinkKind.GHL_SLUG, ("Roof Inspection",)),
        (f"{GHL}/bookings/acme/roof-inspection", LinkKind.GHL_SLUG, ("acme/roof-inspection", "roof-inspection")),
        # Calendly
        ("https://calendly.com/ada/intro", LinkKind.CALENDLY, ("https://calendly.com/ada/intro",)),
        ("http://www.Calendly.com/Ada/Intro/?month=2026-12#x", LinkKind.CALENDLY, ("https://calendly.com/ada/intro",)),
        ("calendly.com/ada/intro/2026-12-01T10:00:00Z", LinkKind.CALENDLY, ("https://calendly.com/ada/intro",)),
        ("https://calendly.com/acme-team/intro", LinkKind.CALENDLY, ("https://calendly.com/acme-team/intro",)),
    ],
)
def test_a_link_that_names_a_calendar(link: str, kind: LinkKind, names: tuple[str, ...]) -> None:
    assert read_link(link) == BookingLink(kind, names)


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("", Reason.NOT_A_LINK),
        ("call us", Reason.NOT_A_LINK),
        ("mailto:ada@example.com", Reason.NOT_A_LINK),
        ("javascript:alert(1)", Reason.NOT_A_LINK),
        ("ftp://example.com/widget/booking/x", Reason.NOT_A_LINK),
        ("https://", Reason.NOT_A_LINK),
        ("https://localhost/widget/booking/x", Reason.NOT_A_LINK),
        ("https://[::1/widget/booking/x", Reason.NOT_A_LINK),
        (f"https://example.com/{'x' * 2000}", Reason.NOT_A_LINK),
        ("https://example.com", Reason.UNKNOWN_PAGE),
        ("https://example.com/book", Reason.UNKNOWN_PAGE),
        ("https://example.com/widget/booking", Reason.UNKNOWN_PAGE),
        ("https://example.com/widget/form/abc", Reason.UNKNOWN_PAGE),
        # the host decides, not what stands in the path
        ("https://notcalendly.com/ada/intro", Reason.UNKNOWN_PAGE),
        ("https://example.com/calendly.com/ada/intro", Reason.UNKNOWN_PAGE),
        ("https://calendly.com@example.com/ada/intro", Reason.UNKNOWN_PAGE),
        (f"{GHL}/group/{ID}", Reason.GHL_GROUP),
        (f"{GHL}/groups/sales", Reason.GHL_GROUP),
        ("https://calendly.com", Reason.UNKNOWN_PAGE),
        ("https://calendly.com/app/scheduled_events", Reason.UNKNOWN_PAGE),
        ("https://calendly.com/ada", Reason.CALENDLY_PROFILE),
        ("https://calendly.com/d/cnx-abc-123/intro", Reason.CALENDLY_SINGLE_USE),
        ("https://calendly.com/s/abc", Reason.CALENDLY_SINGLE_USE),
    ],
)
def test_a_link_that_names_none_says_why(link: str, reason: Reason) -> None:
    assert read_link(link) == BookingLink(LinkKind.UNSUPPORTED, reason=reason)


@given(st.text() | st.from_regex(r"(https?://)?[a-z.\[\]:%@/]{0,40}(widget/bookings?|calendly\.com)/.{0,40}"))
@example("https://example.com:99999/widget/booking/x")
@example("http://[")
@example("https://\u2100.example.com/widget/booking/x")
def test_no_text_makes_it_fail_and_every_answer_is_whole(text: str) -> None:
    link = read_link(text)
    assert (link.kind is LinkKind.UNSUPPORTED) == (link.reason is not None) == (not link.names)
    assert isinstance(normal_url(text), str)


@given(st.from_regex(r"[A-Za-z0-9-]{1,20}/[A-Za-z0-9-]{2,20}", fullmatch=True))
def test_scheduling_urls_are_compared_without_what_does_not_matter(path: str) -> None:
    plain = normal_url(f"https://calendly.com/{path}")
    for written in (
        f"http://CALENDLY.com/{path}/", f"https://calendly.com/{path}?a=b&month=2026-01", f"calendly.com/{path}#x",
    ):  # fmt: skip
        assert normal_url(written) == plain
    assert normal_url(plain) == plain


def test_no_repr_shows_a_link() -> None:
    assert "inspection" not in repr(read_link(f"{GHL}/bookings/roof-inspection"))


def test_every_reason_has_words() -> None:
    assert set(REASON_TEXTS) == set(Reason)
