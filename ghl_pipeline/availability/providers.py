"""The APIs that one client's calendar may be at, each opened when it is first needed and closed at the end."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType

from pydantic import SecretStr
from sqlalchemy import Engine

from ghl_pipeline.availability.client_calendars import ClientCalendar
from ghl_pipeline.calendly.client import CalendlyClient
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.locations.clients import LocationAccess, location_access
from ghl_pipeline.locations.opening import OpenClient
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.privacy.tokens import TokenCipher

# Of a location's id and its client's Calendly token.
OpenCalendly = Callable[[str, SecretStr], AbstractAsyncContextManager[CalendlyClient]]


class Providers:
    """What may be asked for one client. A Calendly calendar needs no GHL token, and the other way round."""

    def __init__(
        self,
        engine: Engine,
        cipher: TokenCipher,
        calendar: ClientCalendar,
        open_ghl: OpenClient,
        open_calendly: OpenCalendly,
    ) -> None:
        self._engine = engine
        self._cipher = cipher
        self._calendar = calendar
        self._open_ghl = open_ghl
        self._open_calendly = open_calendly
        self._opened = AsyncExitStack()
        self._ghl: LocationClient | None = None
        self._calendly: CalendlyClient | None = None

    def __repr__(self) -> str:
        return f"Providers({self._calendar.location_id})"

    async def __aenter__(self) -> "Providers":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Without the error: none of the clients swallows one, and each closes either way.
        await self._opened.aclose()

    @property
    def requests(self) -> int:
        """Requests sent so far, to any of them; each attempt is one."""
        return (self._ghl.usage.calls if self._ghl else 0) + (self._calendly.calls if self._calendly else 0)

    async def ghl(self) -> LocationClient:
        """The client's GHL location.

        Raises:
            TokenMissing, TokenUnreadable: there is no token to open it with.
        """
        if self._ghl is None:
            access = await in_thread(self._access)
            self._ghl = await self._opened.enter_async_context(self._open_ghl(access))
        return self._ghl

    async def calendly(self) -> CalendlyClient | None:
        """The client's Calendly account; None without a token.

        Raises:
            TokenUnreadable: the token was encrypted with another key.
        """
        encrypted = self._calendar.calendly_token_encrypted
        if self._calendly is None and encrypted is not None:
            token = self._cipher.decrypt(encrypted)
            opened = self._open_calendly(self._calendar.location_id, token)
            self._calendly = await self._opened.enter_async_context(opened)
        return self._calendly

    def _access(self) -> LocationAccess:
        with self._engine.connect() as connection:
            return location_access(connection, self._cipher, self._calendar.location_id)
