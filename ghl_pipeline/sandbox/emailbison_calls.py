"""A request to EmailBison's API and the forms of its answers: numbered pages and refusals as Laravel has them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ghl_pipeline.sandbox.faults import Faults
from ghl_pipeline.sandbox.responses import Answer, JsonObject
from ghl_pipeline.sandbox.workspaces import Workspace

PAGE: Final = 15
"""Rows of a page, whatever `per_page` asks for."""
LAST_PAGE: Final = 500
"""Of numbered pages, as measured by others; who wants more must use cursors."""
FOREIGN: Final = "https://elsewhere.example.net"
T = TypeVar("T")


@dataclass(frozen=True)
class BisonCall:
    """A request with a valid token. `url` is that of the route, without a query."""

    workspace: Workspace
    url: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    now: float
    faults: Faults
    content: bytes = b""


@dataclass(frozen=True)
class BisonRoute:
    """A method and path template of EmailBison's and what answers it."""

    path: str
    answer: Callable[[BisonCall], Answer]
    method: str = "GET"

    @property
    def name(self) -> str:
        """How statistics and faults name the route."""
        return f"EMAILBISON {self.method} {self.path}"


def numbered(call: BisonCall, rows: Sequence[T], shown: Callable[[T], JsonObject]) -> Answer:
    """The page of a list that the query asks for, or what the faults make of it."""
    asked = call.query.get("page", "1")
    page = int(asked) if asked.isdecimal() and int(asked) > 0 else 1
    if page > LAST_PAGE:
        return unprocessable({"page": [f"The page field must not be greater than {LAST_PAGE}."]})
    if page in call.faults.failing_pages:
        return Answer({"message": "Server Error"}, call.faults.error_status)
    last = max(1, math.ceil(len(rows) / PAGE))
    chosen = rows[(page - 1) * PAGE : page * PAGE]
    base = call.url if not call.faults.foreign_next_link else FOREIGN + call.url[call.url.index("/api/") :]

    def link(number: int, url: str = call.url) -> str | None:
        return f"{url}?page={number}" if 1 <= number <= last else None

    following = 1 if call.faults.pages_loop and page > 1 else page + 1
    return Answer(
        {
            "data": [shown(row) for row in chosen],
            "links": {"first": link(1), "last": link(last), "prev": link(page - 1), "next": link(following, base)},
            "meta": {
                "current_page": page,
                "from": (page - 1) * PAGE + 1 if chosen else None,
                "last_page": last,
                "path": call.url,
                "per_page": PAGE,
                "to": (page - 1) * PAGE + len(chosen) if chosen else None,
                "total": len(rows),
            },
        }
    )


def by_id(call: BisonCall, rows: Mapping[int, T]) -> T | None:
    """The row whose id is in the path."""
    text = call.path["id"]
    return rows.get(int(text)) if text.isascii() and text.isdecimal() else None


def not_found() -> Answer:
    """404."""
    return Answer({"message": "Record not found"}, 404)


def unprocessable(errors: Mapping[str, Sequence[str]]) -> Answer:
    """422 with what is wrong with each field."""
    messages = [message for each in errors.values() for message in each]
    more = f" (and {len(messages) - 1} more error)" if len(messages) > 1 else ""
    return Answer({"message": messages[0] + more, "errors": errors}, 422)
