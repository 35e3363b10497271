"""Which requests the UI takes: pure rules over what a request says of itself. `guard.py` applies them.

Dagster's webserver takes a mutation by GET, by any `Host` and from any page (1.13.27), and its log-in is sold apart. A
page that somebody opens in the same browser could start or delete runs with it. What is allowed here is therefore a
list, and everything else is refused. The rules are told as a table of attacks in `ghl_pipeline_tests/ui/test_rules.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from ghl_pipeline.ui.addresses import Address, read_address, read_origin

HEALTH_PATH: Final = "/healthz"
GRAPHQL_PATH: Final = "/graphql"
READING: Final = ("GET", "HEAD")


class Place(StrEnum):
    """What is behind a path."""

    PAGE = "page"
    """One of the UI's own; the webserver answers any unknown path with it."""
    STATIC = "static"
    GRAPHQL = "graphql"
    FILE = "file"
    """What a run printed, or its events, for download."""
    CLOSED = "closed"
    """Not used here: events that somebody reports by POST, without any token, and files named by the asker."""


_PLACES: Final[tuple[tuple[str, Place], ...]] = (
    ("/_next/", Place.STATIC),
    ("/vendor/", Place.STATIC),
    ("/logs/", Place.FILE),
    ("/download_debug/", Place.FILE),
    ("/report_asset_materialization", Place.CLOSED),
    ("/report_asset_check", Place.CLOSED),
    ("/report_asset_observation", Place.CLOSED),
    ("/notebook", Place.CLOSED),
    ("/dagit/notebook", Place.CLOSED),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of itself. The path is decoded, as the webserver sees it; header names are lower-case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, Sequence[str]]
    websocket: bool = False

    def header(self, name: str) -> str | None:
        """The header's value; None where it is missing, or there more than once and so believed in no case."""
        values = self.headers.get(name, ())
        return values[0] if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not passed on: an HTTP status, and a text for the person who sees it."""

    status: int
    text: str


def place_of(path: str) -> Place:
    """What is behind a decoded path."""
    if path == GRAPHQL_PATH:
        return Place.GRAPHQL
    return next((place for start, place in _PLACES if path.startswith(start)), Place.PAGE)


def refusal(asked: Asked, served: frozenset[Address]) -> Refusal | None:
    """Why the UI does not take this request; None when it does.

    Args:
        asked: the request.
        served: names under which the UI may be asked.
    """
    return (
        _odd_path(asked)
        or _foreign_name(asked, served)
        or _from_elsewhere(asked)
        or (_not_for_websockets(asked) if asked.websocket else _not_for_http(asked))
    )


def _odd_path(asked: Asked) -> Refusal | None:
    odd = any(ord(letter) < 32 or letter == "\\" for letter in asked.path) or ".." in asked.path.split("/")
    if odd or not asked.path.startswith("/"):
        return Refusal(400, "This path cannot be asked for.")
    return None


def _foreign_name(asked: Asked, served: frozenset[Address]) -> Refusal | None:
    host = asked.header("host")
    if host is None:
        return Refusal(400, "The request needs one Host header.")
    if read_address(host) not in served:
        return Refusal(
            421,
            "The UI is not served under this name. If it should be: ghl-pipeline ui --allow-host NAME:PORT, or "
            "UI_ALLOWED_HOSTS.",
        )
    return None


def _from_elsewhere(asked: Asked) -> Refusal | None:
    """What a page of another origin may do: lead somebody to a page of the UI, nothing else.

    Browsers send `Origin` with every websocket, every POST and every CORS request, and `Sec-Fetch-Site` with everything
    that goes to loopback or HTTPS. A page cannot change either. Programs send neither and are no risk of this kind.
    """
    elsewhere = Refusal(403, "The UI takes this from its own pages only.")
    origins = asked.headers.get("origin", ())
    if asked.websocket and not origins:
        return elsewhere
    host = read_address(asked.header("host") or "")
    if any(read_origin(origin) != host for origin in origins):
        return elsewhere
    sites = set(asked.headers.get("sec-fetch-site", ()))
    if sites <= {"same-origin", "none"}:
        return None
    leads_to_page = (
        not asked.websocket
        and asked.method in READING
        and place_of(asked.path) is Place.PAGE
        and asked.header("sec-fetch-mode") == "navigate"
        and asked.header("sec-fetch-dest") == "document"
    )
    return None if leads_to_page else elsewhere


def _not_for_websockets(asked: Asked) -> Refusal | None:
    """Only GraphQL; of that only subscriptions can be asked, since the webserver executes nothing else there."""
    return None if asked.path == GRAPHQL_PATH else Refusal(404, "There is no websocket here.")


def _not_for_http(asked: Asked) -> Refusal | None:
    reading = asked.method in READING
    match place_of(asked.path):
        case Place.CLOSED:
            return Refusal(403, "This is closed: nothing here needs it.")
        case Place.GRAPHQL:
            return _not_for_graphql(asked)
        case Place.PAGE | Place.STATIC | Place.FILE:
            return None if reading else Refusal(405, "Here only GET and HEAD are taken.")
        case place:
            assert_never(place)


def _not_for_graphql(asked: Asked) -> Refusal | None:
    if asked.method in READING:
        # Without a question it is the page to type one into. With one, the webserver would execute it, mutations too.
        return Refusal(405, "Questions are taken by POST only.") if asked.query else None
    if asked.method != "POST":
        return Refusal(405, "Questions are taken by POST only.")
    # Exactly: the webserver looks for the words anywhere, and "text/plain; application/json" is a type that pages of
    # others may send without being asked whether they may.
    kind = (asked.header("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return Refusal(415, "Questions are taken as application/json only.")
    return None
