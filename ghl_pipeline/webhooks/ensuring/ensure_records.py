"""What `ensure` reads and writes in the database for one client: the lead, its link, and the note of a creation.

Each method is one transaction of its own, so that what GHL is told next is on record whatever happens to the process.
"""

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Engine

from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.matching import normal_address
from ghl_pipeline.hydration.merge import ContactFields
from ghl_pipeline.hydration.outcomes import Outcome
from ghl_pipeline.hydration.resolve import LeadKey, Resolution
from ghl_pipeline.hydration.sync import Unite
from ghl_pipeline.hydration.write_back import Written, write_back
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.webhooks.ensuring.creations import (
    Creation,
    CreationState,
    begin_again,
    begin_creation,
    end_creation,
    find_creations,
    note_phone_refused,
)
from ghl_pipeline.webhooks.ensuring.own_fields import OwnLead, read_own_lead


class EnsureRecords:
    """The records of one client. Another client's leads cannot be read or written with them."""

    def __init__(self, engine: Engine, access: LocationAccess, unite: Unite) -> None:
        self._engine = engine
        self._unite = unite
        self._client_id = access.client_id
        self._default_region = access.default_region
        self._location_id = access.location_id

    def whose(self, lead: OwnLead) -> str:
        """The lead as a log may name it."""
        return f"location {self._location_id}, lead {lead.id}"

    async def lead(self, lead_id: int) -> OwnLead:
        """The lead as it is now. Raises UnknownClient."""
        return await in_thread(self._lead, lead_id)

    def _lead(self, lead_id: int) -> OwnLead:
        with self._engine.connect() as connection:
            return read_own_lead(connection, self._client_id, lead_id)

    async def unite(self, contact: Contact) -> Mapping[int, int]:
        """Makes one lead of the two that the contact shows to be one person; returns which is part of which now."""
        return await in_thread(self._unite, self._client_id, [(contact.id, contact.email)])

    async def link(self, lead: OwnLead, contact: Contact) -> Written:
        """Links the lead to the contact and fills what it lacks, by the rules of a backfill."""
        fields = ContactFields(
            contact.id, contact.email, contact.phone, contact.first_name, contact.last_name, contact.company_name
        )
        return await in_thread(self._write, lead, Outcome.UNCHANGED, fields)

    async def looked_up_without_contact(self, lead: OwnLead, *, is_ambiguous: bool) -> Written:
        """Remembers that the lead was looked up and is not linked."""
        if is_ambiguous:
            outcome = Outcome.AMBIGUOUS
        elif is_contact_id(lead.contact_id):
            outcome = Outcome.CONTACT_DELETED
        else:
            outcome = Outcome.NOT_FOUND if is_blank(lead.contact_id) else Outcome.INVALID_CONTACT_ID
        return await in_thread(self._write, lead, outcome, None)

    def _write(self, lead: OwnLead, outcome: Outcome, contact: ContactFields | None) -> Written:
        # Whoever finds another contact than the linked one has asked for that one and was told that it is gone.
        is_dead = not is_blank(lead.contact_id) and (contact is None or contact.contact_id != lead.contact_id)
        key = LeadKey(lead.id, lead.id, lead.contact_id, lead.email)
        resolution = Resolution(key, outcome, contact, normal_address(lead.email), is_dead)
        (written,) = write_back(self._engine, self._client_id, self._default_region, [resolution])
        return written

    async def creations_of(self, lead: OwnLead) -> list[Creation]:
        """What is noted of the lead's address, and of the lead under others."""
        return await in_thread(self._creations_of, lead)

    def _creations_of(self, lead: OwnLead) -> list[Creation]:
        with self._engine.connect() as connection:
            return find_creations(connection, self._client_id, lead)

    async def begin(self, lead: OwnLead) -> Creation | None:
        """Notes that a contact is about to be created; None when nobody may create one now."""
        return await in_thread(self._begin, lead)

    def _begin(self, lead: OwnLead) -> Creation | None:
        with self._engine.begin() as connection:
            return begin_creation(connection, self._client_id, lead)

    async def begin_again(self, lead: OwnLead, creation: Creation) -> Creation | None:
        """Notes that GHL is about to be told once more; None when nobody may create a contact any more."""
        return await in_thread(self._begin_again, lead, creation.id)

    def _begin_again(self, lead: OwnLead, creation_id: int) -> Creation | None:
        with self._engine.begin() as connection:
            return begin_again(connection, self._client_id, lead, creation_id)

    async def phone_refused(self, creation: Creation) -> Creation:
        """Notes that GHL did not take the phone; returns the note as it is now."""
        await in_thread(self._phone_refused, creation.id)
        return replace(creation, phone_refused=True)

    def _phone_refused(self, creation_id: int) -> None:
        with self._engine.begin() as connection:
            note_phone_refused(connection, creation_id)

    async def made(self, creation: Creation, contact_id: str) -> Creation:
        """Notes that the contact was created; returns the note as it is now."""
        return await self._end(creation, CreationState.CREATED, contact_id)

    async def found(self, creation: Creation, contact_id: str) -> Creation:
        """Notes that GHL had the contact already; returns the note as it is now."""
        return await self._end(creation, CreationState.FOUND, contact_id)

    async def refused(self, creation: Creation, error: GhlError) -> Creation:
        """Notes that nothing was created, for certain; returns the note as it is now."""
        return await self._end(creation, CreationState.REFUSED, None, type(error).__name__)

    async def _end(
        self, creation: Creation, state: CreationState, contact_id: str | None, error_class: str | None = None
    ) -> Creation:
        await in_thread(self._write_end, creation.id, state, contact_id, error_class)
        return replace(creation, state=state, contact_id=contact_id, is_unsettled=False)

    def _write_end(
        self, creation_id: int, state: CreationState, contact_id: str | None, error_class: str | None
    ) -> None:
        with self._engine.begin() as connection:
            end_creation(connection, creation_id, state, contact_id=contact_id, error_class=error_class)
