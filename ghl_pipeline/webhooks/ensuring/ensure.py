"""Ensure: an interested lead is linked to its contact, and gets one when GHL has none.

The one place of the project that can create a contact, and it does so at most once per client and address, whoever asks
how often and whichever process is killed when: one at a time under a lock, each create noted before GHL is told, and
looked for when its answer was lost (docs/decisions/0024-ensure.md).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sqlalchemy import Engine

from ghl_pipeline.errors import PipelineError
from ghl_pipeline.ghl.contact_writer import ContactWriter, open_writer
from ghl_pipeline.ghl.errors import (
    DuplicateContact,
    PermanentGhlError,
    PhoneRejected,
    RateLimited,
    TransientGhlError,
)
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.lookup import ContactLookup
from ghl_pipeline.hydration.matching import Ambiguous
from ghl_pipeline.hydration.outcomes import Outcome
from ghl_pipeline.hydration.sync import Unite
from ghl_pipeline.hydration.write_back import Written
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.locations.opening import call_options
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.ensuring.creations import Creation, CreationState
from ghl_pipeline.webhooks.ensuring.ensure_records import EnsureRecords
from ghl_pipeline.webhooks.ensuring.finding import ContactFinder, has_address
from ghl_pipeline.webhooks.ensuring.giving import NOTHING_REFUSED, Given, give
from ghl_pipeline.webhooks.ensuring.own_fields import OwnLead, fields_of_new
from ghl_pipeline.webhooks.ensuring.turns import Turns, TurnTaken
from ghl_pipeline.webhooks.handling.lead_status import statuses_of
from ghl_pipeline.webhooks.handling.one_person import OnePerson
from ghl_pipeline.webhooks.outcomes import EventOutcome

log = logging.getLogger(__name__)

OpenWriter = Callable[[LocationAccess], AbstractAsyncContextManager[ContactWriter]]

# A create that is not answered by then, waits on the limit included, counts as lost. `creations.UNSETTLED_SECONDS` has
# room for this and for a minute of search lag.
CREATE_SECONDS = 60.0
# Another event of the same person is worked on meanwhile, which takes a few calls.
TURN_SECONDS = 60.0
# Each pass more means that somebody changed the lead's link or address while it was looked up.
MOST_PASSES = 3
TRY_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ensured:
    """What became of a lead.

    `phone_refused`: GHL did not take its phone, the lead keeps it. `requests`: sent. `united`: the leads that turned
    out to be the same person and have become part of another one, each with that one. `values_refused`: GHL did not
    take other values of its own either.
    """

    outcome: EventOutcome
    phone_refused: bool
    requests: int
    united: Mapping[int, int] = field(default_factory=dict)
    values_refused: bool = False


class CreationUnsettled(PipelineError):
    """Whether the lead has a contact cannot be said before `retry_at` (UTC), so it is neither linked nor created."""

    def __init__(self, location_id: str, lead_id: int, why: str, retry_at: datetime) -> None:
        self.retry_at = retry_at.astimezone(UTC)
        super().__init__(
            f"CreationUnsettled: location {location_id}, lead {lead_id}: {why}. It is to be tried again after "
            f"{self.retry_at:%H:%M:%S} UTC; until then nothing has to be done"
        )


class ContactEnsurer:
    """The capability with its collaborators. Safe to use from one event loop at a time."""

    def __init__(self, engine: Engine, hydration: Hydration, open_writer: OpenWriter, unite: Unite) -> None:
        self._engine = engine
        self._hydration = hydration
        self._open_writer = open_writer
        self._unite = unite
        self._turns = Turns(engine)

    def __repr__(self) -> str:
        return "ContactEnsurer()"

    async def ensure(self, location_id: str, lead_id: int) -> Ensured:
        """Links a lead to its contact, hydrates it and gives the contact the lead's own values; creates a missing one.

        A contact is created only for a lead with an e-mail address that did not opt out, and only when neither a search
        nor the duplicate lookup knows the address. However often and by however many processes it is called: once.

        Returns:
            `CONTACT_CREATED`; `LEAD_UPDATED` or `UNCHANGED` when the contact was there; `AMBIGUOUS` when several claim
            the address, or somebody else the lead's phone; `NOT_FOUND` when there is none and none may be created.

        Raises:
            UnknownClient, ClientInactive, TokenMissing: the lead or its client cannot be worked on.
            CreationUnsettled: to be called again after its `retry_at`.
            GhlError: a call failed. Whatever GHL did before it is on record, so that the next call goes on from there.
        """
        opened = self._hydration.open_location(location_id, interactive=True)
        async with opened as (access, client, knowledge), self._open_writer(access) as writer:
            finder = ContactFinder(client, ContactLookup(client, knowledge.group_size, knowledge))
            records = EnsureRecords(self._engine, access, self._unite)
            work = _Work(access, records, finder, writer)
            for _ in range(MOST_PASSES):
                seen = await records.lead(work.united.get(lead_id, lead_id))
                try:
                    async with self._turns.of(_turn_of(access, seen), patience_seconds=TURN_SECONDS):
                        ended = await work.once(seen)
                except TurnTaken:
                    why = "another event of the same person is being worked on"
                    raise CreationUnsettled(location_id, lead_id, why, _in_a_minute()) from None
                if ended is not None:
                    requests = client.usage.calls + writer.usage.calls
                    given = ended.given
                    return Ensured(ended.outcome, given.phone_refused, requests, work.united, given.values_refused)
        raise CreationUnsettled(location_id, lead_id, "it kept changing while it was looked up", _in_a_minute())


def build_ensurer(settings: Settings, engine: Engine, hydration: Hydration) -> ContactEnsurer:
    """The ensurer as the settings describe it, with the slots that are kept for what a person waits for.

    Opens no connection.
    """
    return ContactEnsurer(
        engine,
        hydration,
        lambda access: open_writer(**call_options(settings, engine, access, interactive=True)),
        OnePerson(engine, statuses_of(settings.protected_statuses)).unite,
    )


def _turn_of(access: LocationAccess, lead: OwnLead) -> str:
    # A hash, because statements with their parameters may be shown by the server's own tools.
    person = sha256((lead.address or f"lead {lead.id}").encode()).hexdigest()
    return f"contact of client {access.client_id}, {person}"


def _in_a_minute() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=TRY_AGAIN_SECONDS)


@dataclass(frozen=True, slots=True)
class _Ended:
    outcome: EventOutcome
    given: Given = NOTHING_REFUSED


class _Work:
    """One call of `ensure`. Methods that return None instead of an end say that the lead changed meanwhile.

    `united`: the leads that became part of another one on the way.
    """

    def __init__(
        self, access: LocationAccess, records: EnsureRecords, finder: ContactFinder, writer: ContactWriter
    ) -> None:
        self._location_id = access.location_id
        self._default_region = access.default_region
        self._records = records
        self._finder = finder
        self._writer = writer
        self.united: dict[int, int] = {}

    async def once(self, seen: OwnLead) -> _Ended | None:
        """Ensures the contact of a lead whose turn it is. Raises as `ContactEnsurer.ensure`."""
        lead = await self._records.lead(seen.id)
        if lead.address != seen.address:
            return None  # the turn that was waited for is another person's
        notes = await self._records.creations_of(lead)
        known, creation = await self._finder.of_lead(lead, notes)
        if known is not None:
            return await self._known(lead, known, creation)
        if not lead.may_be_created:
            return await self._without_contact(lead, EventOutcome.NOT_FOUND)
        for note in notes:
            if note.is_unsettled:
                raise self._unsettled(lead, note)
        return await self._create(lead)

    # --- GHL has the contact

    async def _known(self, lead: OwnLead, known: Contact | Ambiguous, creation: Creation | None) -> _Ended | None:
        """Links and hydrates the lead, then gives the contact the lead's own values."""
        if isinstance(known, Ambiguous):
            return await self._without_contact(lead, EventOutcome.AMBIGUOUS)
        given = NOTHING_REFUSED
        if creation is not None and creation.state is CreationState.STARTED:
            given = Given(creation.phone_refused)
            # Nobody was there when the creation was noted, so this is what it made, unless it came much later.
            ends = self._records.made if creation.may_have_made(known.date_added) else self._records.found
            creation = await ends(creation, known.id)
        is_new = known.id != lead.contact_id and creation is not None and creation.made(known.id)
        lead, written = await self._link(lead, known)
        if not written.settled:
            return None
        if written.outcome is Outcome.AMBIGUOUS:
            return _Ended(EventOutcome.AMBIGUOUS, given)
        given = await give(self._writer.update, self._records, lead, known, self._default_region, given=given)
        if is_new:
            return _Ended(EventOutcome.CONTACT_CREATED, given)
        is_updated = written.filled or self.united
        return _Ended(EventOutcome.LEAD_UPDATED if is_updated else EventOutcome.UNCHANGED, given)

    async def _link(self, lead: OwnLead, contact: Contact) -> tuple[OwnLead, Written]:
        """Links and hydrates the lead, after another one that has the contact became part of it, or it of another.

        Returns:
            The lead as it was before the contact gave it anything, and what that was.
        """
        if united := await self._records.unite(contact):
            self.united.update(united)
            lead = await self._records.lead(united.get(lead.id, lead.id))
        return lead, await self._records.link(lead, contact)

    # --- GHL has none

    async def _create(self, lead: OwnLead) -> _Ended | None:
        """Creates the contact; noted before, and what came of it after."""
        creation = await self._records.begin(lead)
        if creation is None:
            return await self._not_begun(lead)
        fields = fields_of_new(lead, self._default_region)
        if creation.phone_refused:
            fields = replace(fields, phone=None)
        while True:
            try:
                async with asyncio.timeout(CREATE_SECONDS):
                    contact = await self._writer.create(fields)
            except DuplicateContact as error:
                return await self._duplicate(lead, creation, error)
            except PhoneRejected as error:
                log.warning("%s: GHL does not take its phone, which stays ours", self._records.whose(lead))
                creation = await self._records.phone_refused(creation)
                refusal, fields = error, replace(fields, phone=None)
            except (RateLimited, PermanentGhlError) as error:
                await self._records.refused(creation, error)
                raise
            except (TransientGhlError, TimeoutError):
                # It may have been created, at once or in a moment.
                known = await self._seen(creation)
                if known is None:
                    raise self._unsettled(lead, creation) from None
                return await self._known(lead, known, creation)
            else:
                return await self._created(lead, creation, contact)
            # Refused and created all the same was seen once, so another look comes before the next try.
            if known := await self._seen(creation):
                return await self._known(lead, known, creation)
            begun_again = await self._records.begin_again(lead, creation)
            if begun_again is None:
                await self._records.refused(creation, refusal)
                return await self._not_begun(lead)
            creation = begun_again

    async def _seen(self, creation: Creation) -> Contact | Ambiguous | None:
        return await self._finder.by_address(creation.address)

    async def _not_begun(self, seen: OwnLead) -> _Ended | None:
        """It opted out or was corrected while it was looked up, or another process is at it."""
        lead = await self._records.lead(seen.id)
        if lead.opted_out:
            return await self._without_contact(lead, EventOutcome.NOT_FOUND)
        if lead.email != seen.email:
            return None
        why = "its contact is being created by another process"
        raise CreationUnsettled(self._location_id, lead.id, why, _in_a_minute())

    async def _created(self, lead: OwnLead, creation: Creation, contact: Contact) -> _Ended | None:
        await self._records.made(creation, contact.id)
        log.info("%s: contact %s was created", self._records.whose(lead), contact.id)
        _, written = await self._link(lead, contact)
        return _Ended(EventOutcome.CONTACT_CREATED, Given(creation.phone_refused)) if written.settled else None

    async def _duplicate(self, lead: OwnLead, creation: Creation, error: DuplicateContact) -> _Ended | None:
        """GHL knows somebody with the e-mail, whom nobody saw a moment ago, or somebody with the phone."""
        contact = await self._finder.by_id(error.contact_id)
        if contact is not None and has_address(contact, lead.address):
            found = await self._records.found(creation, contact.id)
            return await self._known(lead, contact, found)
        await self._records.refused(creation, error)
        log.warning("%s: not created, because contact %s has its phone", self._records.whose(lead), error.contact_id)
        return await self._without_contact(lead, EventOutcome.AMBIGUOUS)

    def _unsettled(self, lead: OwnLead, creation: Creation) -> CreationUnsettled:
        why = "the answer to the creation of its contact was lost, and a search may not show the contact yet"
        return CreationUnsettled(self._location_id, lead.id, why, creation.settled_at)

    async def _without_contact(self, lead: OwnLead, outcome: EventOutcome) -> _Ended | None:
        is_ambiguous = outcome is EventOutcome.AMBIGUOUS
        written = await self._records.looked_up_without_contact(lead, is_ambiguous=is_ambiguous)
        return _Ended(outcome) if written.settled else None
