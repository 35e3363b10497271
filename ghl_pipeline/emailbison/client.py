"""The EmailBison API as one workspace reaches it: its events, its accounts, a reply, whatever is a list or an object.

Reading only. Nothing here knows what an event means; that is `webhooks/`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import httpx
import msgspec
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type

from ghl_pipeline.call_retries import CallClock, read_retry_after
from ghl_pipeline.emailbison.errors import (
    EmailBisonAccessDenied,
    EmailBisonError,
    EmailBisonRefused,
    EmailBisonUnavailable,
)
from ghl_pipeline.emailbison.payloads import (
    EventRow,
    JsonObject,
    Page,
    read_event_row,
    read_object,
    read_page,
    read_workspace_id,
)
from ghl_pipeline.emailbison.retries import RetryPolicy
from ghl_pipeline.emailbison.sender_lists import SenderEmail, SenderList, whole_list

T = TypeVar("T")

# At 15 rows a page, a busy workspace's ten days; beyond it something repeats itself.
MOST_PAGES = 20_000


class WorkspaceClient:
    """EmailBison as one workspace reaches it. Its token and its connections are its own; its `repr` shows neither.

    `calls` counts the requests sent; each attempt is one.
    """

    def __init__(
        self, workspace_id: int, base_url: str, http: httpx.AsyncClient, timeout_seconds: float, policy: RetryPolicy
    ) -> None:
        self.workspace_id = workspace_id
        self.calls = 0
        self._base_url = base_url
        self._http = http
        self._timeout = timeout_seconds
        self._policy = policy

    def __repr__(self) -> str:
        return f"WorkspaceClient({self.workspace_id})"

    async def events(
        self, start: datetime, end: datetime | None = None, types: Sequence[str] = ()
    ) -> AsyncIterator[list[EventRow]]:
        """The events of a time, page by page. EmailBison keeps them for ten days.

        Asked for by the day, which every reading of `start_date` takes, and cut here to the moment; the log comes
        newest first, so that it is left as soon as it is before `start`. Events without a time are always among them.

        Args:
            start: aware; events created then or later.
            end: aware; events created before then. None: all up to now.
            types: as `event.type` spells them; one walk through the log for each. None given: all, in one walk. Events
                of other types are left out even if EmailBison sends them; those that name no type are not.

        Raises:
            EmailBisonError: any branch. The pages before are then incomplete: begin again.
        """
        days = {"start_date": f"{start.astimezone(UTC):%Y-%m-%d}"}
        if end is not None:
            # The day after that of the last moment, whether the server takes a day for its first moment or its last.
            last = end.astimezone(UTC) - timedelta(microseconds=1)
            days["end_date"] = f"{last + timedelta(days=1):%Y-%m-%d}"
        for each in types or ("",):
            only = {"type": each} if each else {}
            before: datetime | None = None
            async for page in self.pages("/events", days | only):
                rows = [read_event_row(row) for row in page.rows]
                found = [
                    row
                    for row in rows
                    if _is_within(row.created_at, start, end) and (not each or row.event_type in (None, each.upper()))
                ]
                if found:
                    yield found
                if _has_passed(rows, start, before):
                    break
                before = max((row.created_at for row in rows if row.created_at), default=before)

    async def reply(self, reply_id: int) -> JsonObject:
        """A reply as EmailBison shows it now.

        Raises:
            EmailBisonRefused: there is none (404).
            EmailBisonError: any other branch.
        """
        answer = await self._get(f"/replies/{reply_id}", "/replies/{id}", {}, read_object)
        within = answer.get("data")
        return within if isinstance(within, dict) else answer

    async def sender_emails(self) -> SenderList:
        """All accounts of the workspace, each once: the whole list or an error, as far as the list itself can tell.

        Raises:
            EmailBisonError: as `whole_list`.
        """
        route = "/sender-emails"
        return await whole_list(self.pages(route, {}), self.workspace_id, route)

    async def campaign_senders(self, campaign_id: int) -> tuple[SenderEmail, ...] | None:
        """All accounts that a campaign sends by; None when there is no such campaign (404).

        Raises:
            EmailBisonError: as `whole_list`.
        """
        route = "/campaigns/{id}/sender-emails"
        try:
            pages = self.pages(route, {}, path=f"/campaigns/{campaign_id}/sender-emails")
            return (await whole_list(pages, self.workspace_id, route)).accounts
        except EmailBisonRefused as refusal:
            if refusal.status == 404:
                return None
            raise

    async def workspace_of_token(self) -> int | None:
        """The workspace that the token opens; None when EmailBison does not say it, as to some tokens.

        Raises:
            EmailBisonUnavailable: no usable answer, though it was tried again.
        """
        try:
            answer = await self._get("/users", "/users", {}, read_object)
        except (EmailBisonRefused, EmailBisonAccessDenied):
            return None
        return read_workspace_id(answer)

    async def pages(self, route: str, params: Mapping[str, str], *, path: str | None = None) -> AsyncIterator[Page]:
        """The pages of a list, by cursor where the route has one, else by number.

        Every page is asked for with all parameters, since EmailBison's own links leave some out.

        Args:
            route: below `/api`, without anything of a person in it.
            params: filters.
            path: what `route` stands for, where that has an id in it.

        Raises:
            EmailBisonRefused: a page led back to an earlier one, or there was no end.
            EmailBisonError: any other branch.
        """
        seen: set[tuple[str, str]] = set()
        position: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            asked = {"pagination_type": "cursor", **params, **position}
            page = await self._get(path or route, route, asked, lambda body: read_page(body, self._base_url))
            yield page
            if page.following is None:
                return
            position = page.following
            step = next(iter(position.items()))
            if step in seen:
                raise EmailBisonRefused(self.workspace_id, route, what="sent the same page again")
            seen.add(step)
        raise EmailBisonRefused(self.workspace_id, route, what=f"had no end after {MOST_PAGES} pages")

    async def _get(self, path: str, route: str, params: Mapping[str, str], read: Callable[[bytes], T]) -> T:
        """Asks as often as the policy allows and reads the answer; `route` is what an error may show of `path`."""
        clock = CallClock(self._policy)

        async def attempt() -> T:
            answer = await self._send(path, route, params, min(self._timeout, clock.remaining_seconds()))
            # Raised here, where no foreign exception is being handled: as its `__context__` that one would carry the
            # request, with its token, into whatever prints or stores the error.
            if isinstance(answer, EmailBisonError):
                raise answer
            if not answer.is_success:
                raise self._refusal(route, answer)
            try:
                return read(answer.content)
            except msgspec.DecodeError:
                pass
            raise EmailBisonUnavailable(
                self.workspace_id, route, status=answer.status_code, what="sent no JSON of its own"
            )

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(EmailBisonUnavailable), stop=clock.stop, wait=clock.pause, reraise=True
        )
        return await retrying(attempt)

    async def _send(
        self, path: str, route: str, params: Mapping[str, str], timeout_seconds: float
    ) -> httpx.Response | EmailBisonError:
        self.calls += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._http.get(f"{self._base_url}/api{path}", params=dict(params))
        except TimeoutError:
            return EmailBisonUnavailable(self.workspace_id, route, what="gave no answer in time")
        # ValueError: a token with a line break; InvalidURL: a base URL that is none. Neither is a HTTPError.
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            return EmailBisonUnavailable(self.workspace_id, route, what="could not be reached")

    def _refusal(self, route: str, answer: httpx.Response) -> EmailBisonError:
        status = answer.status_code
        if status in (401, 403):
            return EmailBisonAccessDenied(self.workspace_id, route, status=status)
        if status in (408, 429) or status >= 500:
            after = read_retry_after(answer.headers.get("Retry-After"))
            return EmailBisonUnavailable(self.workspace_id, route, status=status, retry_after=after)
        return EmailBisonRefused(self.workspace_id, route, status=status)


@asynccontextmanager
async def open_workspace(
    *,
    base_url: str,
    workspace_id: int,
    token: SecretStr,
    timeout_seconds: float,
    policy: RetryPolicy | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[WorkspaceClient]:
    """A client of its own for one workspace; no connection is made before the first call.

    Args:
        base_url: of the instance, without `/api`.
        workspace_id: for the texts of errors; the token alone decides what is answered.
        token: sent to the base URL only, since redirects are not followed.
        timeout_seconds: the longest wait for one answer.
        policy: how often a call is tried; None: the usual.
        transport: for tests.
    """
    # As bytes: a token that is no ASCII would make httpx raise an error with the token in it.
    headers = {b"Authorization": b"Bearer " + token.get_secret_value().encode(), b"Accept": b"application/json"}
    # The client times the call as a whole; a server that trickles never runs into httpx's timeout of each phase.
    async with httpx.AsyncClient(headers=headers, timeout=None, transport=transport) as http:  # noqa: S113
        yield WorkspaceClient(workspace_id, base_url.rstrip("/"), http, timeout_seconds, policy or RetryPolicy())


def _is_within(moment: datetime | None, start: datetime, end: datetime | None) -> bool:
    return moment is None or (moment >= start and (end is None or moment < end))


def _has_passed(rows: Sequence[EventRow], start: datetime, before: datetime | None) -> bool:
    """Whether the log, read newest first, is before `start`. Not before it is seen that it is read newest first."""
    times = [row.created_at for row in rows if row.created_at is not None]
    if not times or len(times) < len(rows) or max(times) >= start:
        return False
    return times[0] > times[-1] or (before is not None and times[0] < before)
