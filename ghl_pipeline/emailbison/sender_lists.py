"""Lists of sender accounts, whole or not at all: who is missing from one is taken for gone.

The pages of these lists are numbered and 15 rows long whatever is asked for. A list that ends early looks like one
that is complete, unless its pages are held against the total that they name; whether they name one is told.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from ghl_pipeline.emailbison.errors import EmailBisonRefused, EmailBisonUnavailable
from ghl_pipeline.emailbison.payloads import JsonObject, Page

_LARGEST_BIGINT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SenderEmail:
    """An account that a workspace sends by. Its `repr` shows neither address nor name.

    Attributes:
        id: EmailBison's number of it.
        email, name: as EmailBison has them.
        status: EmailBison's word for it; None when it says none.
        daily_limit: e-mails a day; None when it says none.
    """

    id: int
    email: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    status: str | None = None
    daily_limit: int | None = None


@dataclass(frozen=True, slots=True)
class SenderList:
    """A list of accounts, read to its end.

    Attributes:
        accounts: each once, in the order in which they came.
        is_counted: whether its pages said how many accounts there are, so that the list is proved to be whole. Lists
            that are paged by a cursor never do, and one that breaks off looks as if it ended.
    """

    accounts: tuple[SenderEmail, ...]
    is_counted: bool


def read_sender(row: JsonObject) -> SenderEmail | None:
    """Reads a row of a list of accounts, or an event's `sender_email`; None when it names no account."""
    number = _whole(row.get("id"), _LARGEST_BIGINT)
    if not number:
        return None
    return SenderEmail(
        number,
        _text(row.get("email")) or _text(row.get("email_address")),
        _text(row.get("name")),
        _text(row.get("status")),
        _whole(row.get("daily_limit"), 2**31 - 1),
    )


async def whole_list(pages: AsyncIterator[Page], workspace_id: int, route: str) -> SenderList:
    """The accounts of all pages.

    Args:
        pages: of the list, from its beginning.
        workspace_id: for the texts of errors.
        route: likewise.

    Raises:
        EmailBisonUnavailable: a next page is on another server, a row names no account, or the pages do not hold as
            many as they say, as when accounts are added or taken away meanwhile.
        EmailBisonRefused: the pages go in a circle.
        EmailBisonError: whatever reading a page raises.
    """
    found: dict[int, SenderEmail] = {}
    totals: set[int] = set()
    async for page in pages:
        known = len(found)
        for row in page.rows:
            sender = read_sender(row)
            if sender is None:
                raise EmailBisonUnavailable(workspace_id, route, what="sent an account without an id")
            found[sender.id] = sender
        if page.rows and len(found) == known:
            raise EmailBisonRefused(workspace_id, route, what="sent the same accounts again as another page")
        if page.leads_elsewhere:
            raise EmailBisonUnavailable(workspace_id, route, what="has its next page on another server")
        if page.total is not None:
            totals.add(page.total)
    if totals - {len(found)}:
        raise EmailBisonUnavailable(
            workspace_id, route, what="sent a list that is not as long as it says, or changed while it was read"
        )
    return SenderList(tuple(found.values()), bool(totals))


def _whole(value: object, largest: int) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 19:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= largest else None


def _text(value: object) -> str | None:
    return (value.strip() or None) if isinstance(value, str) else None
