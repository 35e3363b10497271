"""Creating and changing a contact: the only two calls of the project that write anything at GHL.

Only `webhooks/ensuring/ensure.py` may import this; an import contract and a test see to it. There is no upsert, because
GHL's turns the additional e-mail that it matched into the primary one, and there are no tags, because writing them
replaces all that there are.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

import httpx
import msgspec

from ghl_pipeline.ghl.calls import CallOptions, LocationCalls, Request, Usage, open_calls
from ghl_pipeline.ghl.errors import (
    CONTACT_ROUTE,
    CONTACTS_ROUTE,
    ContactNotFound,
    PhoneRejected,
    RequestRejected,
    UnreadableAnswer,
)
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact, decode_contact
from ghl_pipeline.ghl.standard_fields import StandardFields


class ContactWriter:
    """A location, to write to. Its `repr` shows neither token nor connections."""

    def __init__(self, calls: LocationCalls) -> None:
        self._calls = calls

    def __repr__(self) -> str:
        return f"ContactWriter({self._calls.location_id})"

    @property
    def usage(self) -> Usage:
        """What it has spent so far."""
        return self._calls.usage

    async def create(self, fields: StandardFields) -> Contact:
        """Creates a contact. Sent once, and again only when GHL refused it for its rate.

        Raises:
            PhoneRejected: GHL does not take the phone that was sent. It was once seen to create the contact all the
                same.
            DuplicateContact: another contact has the e-mail or the phone; the error may hold its id.
            RateLimited, PermanentGhlError: nothing was created.
            TransientGhlError: any other; it may have been created or not.
        """
        body = msgspec.json.encode({"locationId": self._calls.location_id, **fields.as_body()})
        request = Request("POST", CONTACTS_ROUTE, CONTACTS_ROUTE, body=body, is_repeatable=False)
        return await self._written(request, fields)

    async def update(self, contact_id: str, fields: StandardFields) -> Contact:
        """Changes these fields of a contact, and no others.

        Raises:
            ContactNotFound: the id is unknown or deleted, or no id at all; that one is not sent.
            PhoneRejected, DuplicateContact: as for `create`; nothing was changed.
            GhlError: any other branch.
        """
        request = Request("PUT", CONTACT_ROUTE, f"/contacts/{contact_id}", body=msgspec.json.encode(fields.as_body()))
        if not is_contact_id(contact_id):
            raise ContactNotFound(self._calls.facts(request))
        return await self._written(request, fields)

    async def _written(self, request: Request, fields: StandardFields) -> Contact:
        try:
            contact = await self._calls.call(request, decode_contact)
        except PhoneRejected as error:
            if "phone" in fields.as_body():
                raise
            # The words for a refused phone fit other fields, too: "TOO_SHORT".
            raise RequestRejected(error.facts) from None
        # What was written becomes a lead's link, so an answer without a real id is as good as none.
        if contact is None or not is_contact_id(contact.id):
            raise UnreadableAnswer(self._calls.facts(request))
        return contact


@asynccontextmanager
async def open_writer(
    *, transport: httpx.AsyncBaseTransport | None = None, **options: Unpack[CallOptions]
) -> AsyncIterator[ContactWriter]:
    """A writer of its own for one location: its token cannot be sent for another, its pool is not shared.

    Raises nothing by itself: no connection is made before the first call.
    """
    async with open_calls(transport=transport, **options) as calls:
        yield ContactWriter(calls)
