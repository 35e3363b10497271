"""What a booking link is: which provider's page, and what in it names the calendar. Pure; asks nobody.

GHL's pages are on any host, because agencies put their own name on them: `/widget/booking/<id>` and
`/widget/bookings/<slug>`; a few tools put an id into the second form, too. Calendly's are on calendly.com:
`/<user or team>/<event type>`. Neither is documented as a format; both are seen everywhere.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, unquote, urlsplit

from ghl_pipeline.availability.outcomes import Reason
from ghl_pipeline.ghl.ids import is_calendar_id

LONGEST_LINK = 2_000

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_WIDGETS = ("booking", "bookings")
# Pages of several calendars at once.
_GROUP_WIDGETS = ("group", "groups")
_CALENDLY = "calendly.com"
# "/d/" is a link for one booking, "/s/" a share of one; "/app/" and "/event_types/" are the owner's own pages.
_SINGLE_USE = ("d", "s")
_OWN_PAGES = ("app", "event_types", "users", "organization", "login", "signup")


class LinkKind(StrEnum):
    """What a booking link names."""

    GHL_ID = "ghl_id"
    GHL_SLUG = "ghl_slug"
    CALENDLY = "calendly"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class BookingLink:
    """A link that was understood. Its `repr` shows no link.

    Attributes:
        kind: what `names` are.
        names: GHL: the calendar's id, or slugs that it may have, the likeliest first; Calendly: the scheduling URL as
            `normal_url` writes it. Empty when unsupported.
        reason: why it is unsupported.
    """

    kind: LinkKind
    names: tuple[str, ...] = field(default=(), repr=False)
    reason: Reason | None = None


def read_link(text: str) -> BookingLink:
    """Tells what kind of link it is. Never raises."""
    parts = _parts(text)
    if parts is None:
        return BookingLink(LinkKind.UNSUPPORTED, reason=Reason.NOT_A_LINK)
    host, path = _host(parts), _path(parts)
    if host == _CALENDLY or host.endswith(f".{_CALENDLY}"):
        return _calendly(path)
    return _ghl(path)


def normal_url(text: str) -> str:
    """A scheduling URL for comparison: https, lower case, no query, fragment or slash at its end. Never raises.

    Of Calendly's, at most user and event type: dates that a visitor picked stand behind them.
    """
    parts = _parts(text)
    if parts is None:
        return text.strip().casefold()
    host, path = _host(parts), _path(parts)
    if host == _CALENDLY:
        path = path[:2]
    return "/".join([f"https://{host}", *path]).casefold()


def _parts(text: str) -> SplitResult | None:
    link = text.strip()
    if not link or len(link) > LONGEST_LINK or not link.isprintable() or " " in link:
        return None
    if link.startswith("//"):
        link = f"https:{link}"
    elif "://" not in link.split("?", 1)[0].split("#", 1)[0]:
        # "example.com/widget/..." as people type it; "mailto:..." and "javascript:..." are no pages.
        if _SCHEME.match(link) and not re.match(r"[^/:]+:\d+(/|$)", link):
            return None
        link = f"https://{link}"
    try:
        parts = urlsplit(link)
        is_page = parts.scheme.lower() in ("http", "https") and "." in (parts.hostname or "")
    except ValueError:
        return None
    return parts if is_page else None


def _host(parts: SplitResult) -> str:
    return (parts.hostname or "").rstrip(".").removeprefix("www.")


def _path(parts: SplitResult) -> list[str]:
    return [part for each in parts.path.split("/") if (part := unquote(each).strip())]


def _ghl(path: list[str]) -> BookingLink:
    words = [part.lower() for part in path]
    for at, word in enumerate(words[:-1]):
        if word != "widget":
            continue
        rest = path[at + 2 :]
        if words[at + 1] in _GROUP_WIDGETS:
            return BookingLink(LinkKind.UNSUPPORTED, reason=Reason.GHL_GROUP)
        if words[at + 1] in _WIDGETS and rest:
            if is_calendar_id(rest[0]):
                return BookingLink(LinkKind.GHL_ID, (rest[0],))
            if is_calendar_id(rest[-1]):
                return BookingLink(LinkKind.GHL_ID, (rest[-1],))
            return BookingLink(LinkKind.GHL_SLUG, tuple(dict.fromkeys(("/".join(rest), rest[-1]))))
    return BookingLink(LinkKind.UNSUPPORTED, reason=Reason.UNKNOWN_PAGE)


def _calendly(path: list[str]) -> BookingLink:
    if not path:
        return BookingLink(LinkKind.UNSUPPORTED, reason=Reason.UNKNOWN_PAGE)
    first = path[0].lower()
    if first in _SINGLE_USE:
        return BookingLink(LinkKind.UNSUPPORTED, reason=Reason.CALENDLY_SINGLE_USE)
    if first in _OWN_PAGES:
        return BookingLink(LinkKind.UNSUPPORTED, reason=Reason.UNKNOWN_PAGE)
    if len(path) == 1:
        return BookingLink(LinkKind.UNSUPPORTED, reason=Reason.CALENDLY_PROFILE)
    return BookingLink(LinkKind.CALENDLY, ("/".join([f"https://{_CALENDLY}", *path[:2]]).casefold(),))
