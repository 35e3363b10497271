"""What a model wrote, looked at before anybody is offered it. Pure.

A lead's message may ask the model for anything. What would do harm in an operator's hands is a way to somewhere else: a
link, an e-mail address, a phone number. A draft may hold those that the client itself gave (the booking link, or what
stands in its tone), and no other. What the rules below cannot see ("evil dot com"), the operator can.
"""

import re
import unicodedata
from typing import Final

import phonenumbers

from ghl_pipeline.database.storable import storable_text
from ghl_pipeline.drafts.outcomes import Channel, DraftFailure
from ghl_pipeline.drafts.prompting import Offer

# Four parts of a text message; and what is an article, not a reply.
LONGEST: Final = {Channel.SMS: 640, Channel.EMAIL: 6_000}

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_ADDRESS = re.compile(r"[^\s<>\"'(),;:]{1,200}@[^\s@<>\"'(),;:]{1,200}\.[^\s@<>\"'(),;:]{1,200}")
# Two-letter endings are countries, and also what follows a full stop that lacks its space ("now.It"), so only those
# that people use for links, or any with a path behind it.
_LINK = re.compile(
    r"""
    [a-z][a-z0-9+.-]{1,20}://\S+            # with a scheme, whichever
    | \bwww\.\S+
    | \b(?:[a-z0-9-]+\.)+[a-z]{2,24}/\S*    # a host with a path
    | \b(?:[a-z0-9-]+\.)+(?:com|net|org|info|biz|io|co|ai|app|dev|me|ly|gl|gg|link|site|online|shop|xyz|top|club|
        live|page|click|us|uk|ca|eu|de|ru|cn|in|au|tv|to|cc)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_AROUND = ".,;:!?\"'()[]<>*_"


def unusable(text: str, channel: Channel, offer: Offer) -> DraftFailure | None:
    """Why a text cannot be offered; None when it can."""
    if not text.strip():
        return DraftFailure.EMPTY
    if len(text) > LONGEST[channel]:
        return DraftFailure.TOO_LONG
    return DraftFailure.UNWANTED_LINK if _leads_elsewhere(text, offer) else None


def tidy(text: str) -> str:
    """The text as it is stored: no surrounding space, nothing that PostgreSQL cannot hold."""
    return storable_text(text).strip()


def _leads_elsewhere(text: str, offer: Offer) -> bool:
    said, own = _plain(text), _plain(f"{offer.tone or ''}\n{offer.booking_link or ''}")
    for pattern in (_ADDRESS, _LINK):
        allowed = {_target(found) for found in pattern.findall(own)}
        if any(_target(found) not in allowed for found in pattern.findall(said)):
            return True
        # An address has a host in it, which would be taken for a link.
        said = pattern.sub(" ", said)
    return not _numbers(said, offer.region) <= _numbers(own, offer.region)


def _plain(text: str) -> str:
    """Without letters that only look like others or are not seen at all."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def _target(found: str) -> str:
    """Where a link leads, for comparing: case of the host, a slash at the end and what surrounds it left out."""
    bare = found.strip(_AROUND).rstrip("/")
    head, slash, path = bare.partition("://")
    host, middle, rest = (path if slash else head).partition("/")
    return f"{host.lower()}{middle}{rest}"


def _numbers(text: str, region: str) -> set[str]:
    """Valid phone numbers in the text. Prices, dates and times are none."""
    found = phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.VALID)
    return {phonenumbers.format_number(match.number, phonenumbers.PhoneNumberFormat.E164) for match in found}
