"""HTML mails as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.webhooks.reading.plain_text import plain_text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("just words", "just words"),
        ("<p>Yes,</p><p>call   me</p>", "Yes,\n\ncall me"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<b>bold</b>ly &amp; <i>now</i>&nbsp;!", "boldly & now !"),
        ("<style>p { x }</style><script>if (a < b) {}</script>Hi", "Hi"),
        ("<!-- a <b>comment</b> -->Hi<!--[if mso]><p>x</p><![endif]-->", "Hi"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<div>one</div>\n\n\n<div>two</div>", "one\n\ntwo"),
        ("", ""),
    ],
)
def test_the_words_of_a_mail(markup: str, text: str) -> None:
    assert plain_text(markup) == text


@given(st.text(alphabet="<>/!-abpstyle \n&;", max_size=200))
def test_any_markup_has_a_text_without_its_tags(markup: str) -> None:
    assert "<p>" not in plain_text(markup)


def test_markup_that_is_meant_to_hurt_is_read_in_no_time() -> None:
    for piece in ("<style>", "<!--", "<", "<p", "&", "</", "<a>"):
        plain_text(piece * (5_000_000 // len(piece)))
