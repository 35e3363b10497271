"""Reading JSON that is almost JSON, and failing without quoting it. What the JSON means is in `payloads.py`."""

import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

# A pair of surrogate escapes is a character (an emoji), and after an escaped backslash there is no escape. What is left
# is half a character, which Node writes when it cuts a text within one. Both are matched in runs, however long.
_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF = rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_NO_HALF = rb"(?!" + _HALF + rb")\\u"
_SURROGATES = re.compile(
    rb"(?P<whole>(?:[^\\]++|" + _PAIR + rb"|\\[^u]|" + _NO_HALF + rb")++)|(?:(?!" + _PAIR + rb")" + _HALF + rb")++"
)
# Each costs half a microsecond, and a stranger's body of 5 MB could have 700,000. With more halves it is no JSON.
_MOST_RUNS = 20_000


def read_json(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Decodes the body; if it is no JSON, once more without half characters and bytes that are not UTF-8.

    Takes a time linear in its length, a fraction of a second for 5 MB of any content.

    Raises:
        msgspec.DecodeError: it is no JSON, or not of the decoder's shape. No other error, because that of Python's own
            decoder carries the body with it.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return decoder.decode(_without_broken_text(bytes(body)))
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None


def _without_broken_text(body: bytes) -> bytes:
    body = body.decode("utf-8", errors="ignore").encode()
    return _SURROGATES.sub(lambda found: found["whole"] or b"", body, count=_MOST_RUNS)
