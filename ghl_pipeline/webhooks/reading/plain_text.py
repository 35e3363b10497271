"""The words of an e-mail that came as HTML only."""

import html
import re

_TAG = re.compile(r"(<[A-Za-z/!?][^<>]*>)")
_BREAKS = re.compile(r"</?(br|p|div|tr|li|h[1-6]|blockquote)\b", re.IGNORECASE)
_HIDDEN = re.compile(r"<(script|style|head|title)\b", re.IGNORECASE)
# No e-mail that a person wrote is longer; a body may have 5 MB.
_LONGEST = 500_000


def plain_text(markup: str) -> str:
    """The text of an HTML e-mail: a line for each block, without styles, scripts, tags and runs of space."""
    words: list[str] = []
    hidden: str | None = None
    for part in _TAG.split(_without_comments(markup[:_LONGEST])):
        if hidden is not None:
            hidden = None if part.lower().startswith(f"</{hidden}") else hidden
        elif not _TAG.fullmatch(part):
            words.append(re.sub(r"\s+", " ", part))
        elif found := _HIDDEN.match(part):
            hidden = found[1].lower()
        elif _BREAKS.match(part):
            words.append("\n")
    lines = (" ".join(line.split()) for line in html.unescape("".join(words)).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _without_comments(markup: str) -> str:
    before, *comments = markup.split("<!--")
    return before + "".join(comment.partition("-->")[2] for comment in comments)
