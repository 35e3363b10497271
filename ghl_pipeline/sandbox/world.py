"""The state behind the sandbox: locations with their contacts, users, limits, counts, and the faults that are set.

Tests in the same process reach it directly; everybody else over HTTP (`server.py`, `control.py`). All access, from
requests and from tests, is under one lock, because the server may run in a thread of the test process.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.calendars import Calendars
from ghl_pipeline.sandbox.calendly_users import CalendlyUsers
from ghl_pipeline.sandbox.contacts import Contact, ContactTable, email_key
from ghl_pipeline.sandbox.conversations import Direction, Message, MessageLog
from ghl_pipeline.sandbox.custom_fields import CustomFields
from ghl_pipeline.sandbox.emailbison_payloads import BisonLead
from ghl_pipeline.sandbox.faults import FaultBoard, Faults
from ghl_pipeline.sandbox.limits import Limits, RateLimiter
from ghl_pipeline.sandbox.llm_providers import LlmProviders
from ghl_pipeline.sandbox.opportunities import Opportunities
from ghl_pipeline.sandbox.people import Person, ghl_id, person, private_token, seeded
from ghl_pipeline.sandbox.records import record
from ghl_pipeline.sandbox.statistics import LocationStatistics
from ghl_pipeline.sandbox.users import User
from ghl_pipeline.sandbox.webhook_keys import WebhookKeys
from ghl_pipeline.sandbox.workspaces import Workspace, Workspaces

Clock = Callable[[], float]
ChangeListener = Callable[["Location", Contact | None, Contact | None], None]
"""Is told the contact before a change, None if it is new, and after it, None if it is deleted."""
_STRANGERS_FROM: Final = 900_000
"""Numbers of people that no sample location reaches, so that a stranger's e-mail is nobody else's."""


def steady_clock() -> Clock:
    """Epoch seconds that never go backwards, whatever happens to the machine's clock."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class Location:
    """A sub-account: its contacts as stored, and as the search index has them, which may lag behind."""

    def __init__(
        self,
        location_id: str,
        name: str,
        token: str,
        *,
        clock: Clock,
        faults: FaultBoard,
        lock: threading.RLock,
        limits: Limits,
        rng: random.Random,
        time_zone: str = "America/New_York",
        allow_duplicates: bool = False,
        when_changed: ChangeListener = lambda *_: None,
    ) -> None:
        self.id = location_id
        self.name = name
        self.token = token
        self.company_id = "SandboxCompany000001"
        self.time_zone = ZoneInfo(time_zone)
        self.allow_duplicates = allow_duplicates
        self.users: list[User] = []
        self.contacts = ContactTable()
        self.messages = MessageLog(location_id, clock)
        self.custom_fields = CustomFields(location_id, lock)
        self.opportunities = Opportunities(location_id, self._now, lock)
        self.calendars = Calendars(location_id, time_zone, self._now, lock)
        self._when_changed = when_changed
        self.limiter = RateLimiter(limits)
        self.statistics = LocationStatistics(limits.interval_seconds)
        self._clock = clock
        self._faults = faults
        self._lock = lock
        self._rng = rng
        self._indexed = self.contacts
        self._not_indexed: deque[tuple[float, str, Contact | None]] = deque()

    def __repr__(self) -> str:
        return f"Location({self.id}, {len(self.contacts)} contacts)"

    @property
    def faults(self) -> Faults:
        """The faults that are set for this location."""
        return self._faults.of(self.id).faults

    @property
    def indexed_contacts(self) -> ContactTable:
        """The contacts as searches see them: without the writes of the last `index_lag_seconds`."""
        lag = self.faults.index_lag_seconds
        while self._not_indexed and self._not_indexed[0][0] + lag <= self._clock():
            _, contact_id, contact = self._not_indexed.popleft()
            if contact is None:
                self._indexed.drop(contact_id)
            else:
                self._indexed.put(contact)
        if not self._not_indexed:
            self._indexed = self.contacts
        return self._indexed

    @property
    def searched_contacts(self) -> ContactTable:
        """The indexed contacts, without those that are hidden from searches."""
        hidden = self.faults.hidden_from_search
        return self.indexed_contacts.without(hidden) if hidden else self.indexed_contacts

    def load(self, contacts: Iterable[Contact]) -> None:
        """Adds many new contacts at once, as if they had always been there."""
        with self._lock:
            self.contacts.load(contacts)

    def add(self, **fields: object) -> Contact:
        """Adds a contact with the given fields of `Contact`; id and times are made when not given.

        Raises:
            InvalidInput: a field that a contact does not have, or a value of the wrong type.
        """
        with self._lock:
            now = self._now()
            made = {"id": ghl_id(self._rng), "date_added": now, "date_updated": now}
            return self._save(_contact({**made, **fields}))

    def change(self, contact_id: str, **fields: object) -> Contact:
        """Changes fields of a contact and moves its `date_updated`; without fields it is a touch.

        Raises:
            InvalidInput: no such contact, or fields as in `add`.
        """
        with self._lock:
            contact = self.contacts.by_id.get(contact_id)
            if contact is None:
                raise InvalidInput(f"Location {self.id} has no contact {contact_id} to change.")
            return self._save(_contact({**msgspec.structs.asdict(contact), "date_updated": self._now(), **fields}))

    def remove(self, contact_id: str) -> bool:
        """Deletes a contact; False when there was none."""
        with self._lock:
            if contact_id not in self.contacts.by_id:
                return False
            self._write(contact_id, None)
            return True

    def add_user(self, **fields: object) -> User:
        """Adds somebody who works in the location, with the given fields of `User`; what is not given is made.

        Raises:
            InvalidInput: a field that a user does not have, or a value of the wrong type.
        """
        with self._lock:
            number = len(self.users) + 1
            made = {"id": ghl_id(self._rng), "first_name": "Staff", "last_name": f"Member {number}"}
            made |= {"email": f"staff.{number}@example.com", "phone": f"+12125550{190 + number % 8}"}
            user = record(User, {**made, **fields}, "a user")
            self.users.append(user)
            return user

    def add_message(
        self,
        contact_id: str,
        body: str,
        direction: Direction = "inbound",
        *,
        at: int | None = None,
        **fields: object,
    ) -> Message:
        """Adds a message of a contact, which need not exist any more, with further fields of `Message`.

        Args:
            contact_id: whose conversation it is in.
            body: its text.
            direction: `inbound` from the contact, `outbound` to it.
            at: when, in epoch milliseconds; now when not given.
            fields: such as `id`, `status`, `message_type`; made when not given.

        Raises:
            InvalidInput: a field that a message does not have, or a value of the wrong type.
        """
        with self._lock:
            moment = self._now() if at is None else at
            made: dict[str, object] = {
                "id": ghl_id(self._rng),
                "contact_id": contact_id,
                "conversation_id": self.messages.conversation_of(contact_id),
                "date_added": moment,
                "date_updated": moment,
                "direction": direction,
                "body": body,
            }
            message = record(Message, made | fields, "a message")
            self.messages.put(message)
            return message

    def duplicate_of(
        self, *, email: str | None, phone: str | None, as_indexed: bool = False
    ) -> tuple[Contact, str] | None:
        """The contact with this e-mail (also as an additional one) or else this phone, and which of the two matched."""
        contacts = self.searched_contacts if as_indexed else self.contacts
        if email and (found := contacts.with_email(email_key(email), additional=True)):
            return found[0], "email"
        if phone and (found := contacts.with_phone(phone)):
            return found[0], "phone"
        return None

    def reset_statistics(self) -> None:
        """Starts counting anew; the rate limit's window goes on."""
        self.statistics = LocationStatistics(self.limiter.limits.interval_seconds)

    def _now(self) -> int:
        return int((self._clock() + self.faults.clock_shift_seconds) * 1000)

    def _save(self, contact: Contact) -> Contact:
        self._write(contact.id, contact)
        return contact

    def _write(self, contact_id: str, contact: Contact | None) -> None:
        before = self.contacts.by_id.get(contact_id)
        indexed = self.indexed_contacts
        if self.faults.index_lag_seconds > 0 or self._not_indexed:
            if indexed is self.contacts:
                self._indexed = self.contacts.copy()
            self._not_indexed.append((self._clock(), contact_id, contact))
        if contact is None:
            self.contacts.drop(contact_id)
        else:
            self.contacts.put(contact)
        self._when_changed(self, before, contact)


class World:
    """All locations. `clock` gives epoch seconds and never goes backwards."""

    def __init__(self, *, seed: int = 0, clock: Clock | None = None) -> None:
        self.clock = clock or steady_clock()
        self.lock = threading.RLock()
        self.faults = FaultBoard(self.clock)
        self.locations: dict[str, Location] = {}
        self.workspaces = Workspaces(seed, self.clock)
        self.calendly = CalendlyUsers(seed, self.clock)
        self.llm = LlmProviders(seed, self.clock)
        self.webhook_keys = WebhookKeys(seed)
        self.unidentified: dict[str, int] = {}
        self._seed = seed
        self.listener: ChangeListener | None = None
        self._strangers = 0
        self._by_token: dict[str, Location] = {}

    def add_location(
        self,
        location_id: str | None = None,
        *,
        name: str | None = None,
        token: str | None = None,
        contacts: Iterable[Contact] = (),
        limits: Limits | None = None,
        time_zone: str = "America/New_York",
        allow_duplicates: bool = False,
    ) -> Location:
        """Adds a location; what is not given is made from the seed."""
        with self.lock:
            rng = seeded("location", self._seed, len(self.locations))
            location = Location(
                location_id or ghl_id(rng),
                name or f"Sample Location {len(self.locations) + 1}",
                token or private_token(rng),
                clock=self.clock,
                faults=self.faults,
                lock=self.lock,
                limits=limits or Limits(),
                rng=rng,
                time_zone=time_zone,
                allow_duplicates=allow_duplicates,
                when_changed=self._changed,
            )
            location.load(contacts)
            email = f"owner.{len(self.locations)}@example.com"
            location.add_user(first_name="Sample", last_name="Owner", email=email, phone="+12125550199")
            self.locations[location.id] = location
            self._by_token[location.token] = location
            return location

    def location_of(self, token: str) -> Location | None:
        """The location that a token opens."""
        return self._by_token.get(token)

    def rotate_token(self, location_id: str) -> str:
        """A new token for the location, as its private integration makes one; the others go on to be taken."""
        with self.lock:
            location = self.known_location(location_id)
            token = private_token(seeded("rotated token", self._seed, len(self._by_token)))
            self._by_token[token] = location
            return token

    def take_token(self, location_id: str, token: str) -> None:
        """From now on the token opens the location: one that becomes active later than it was made."""
        with self.lock:
            self._by_token[token] = self.known_location(location_id)

    def revoke_token(self, token: str) -> None:
        """The token opens nothing any more."""
        with self.lock:
            self._by_token.pop(token, None)

    def stranger(self) -> Person:
        """Somebody new, whom no location has yet."""
        self._strangers += 1
        return person(seeded("stranger", self._seed, self._strangers), _STRANGERS_FROM + self._strangers)

    def known_location(self, location_id: object) -> Location:
        """The location with this id.

        Raises:
            InvalidInput: there is none.
        """
        location = self.locations.get(location_id) if isinstance(location_id, str) else None
        if location is None:
            raise InvalidInput("The sandbox has no such location. Its locations are listed at /_sandbox/stats.")
        return location

    def add_workspace(
        self,
        location_id: str,
        *,
        workspace_id: int | None = None,
        name: str | None = None,
        token: str | None = None,
        leads: Iterable[BisonLead] = (),
    ) -> Workspace:
        """Adds the EmailBison workspace of a location's client; what is not given is made from the seed.

        Raises:
            InvalidInput: there is no such location.
        """
        with self.lock:
            location = self.known_location(location_id)
            return self.workspaces.add(location.id, workspace_id=workspace_id, name=name, token=token, leads=leads)

    def _changed(self, location: Location, before: Contact | None, after: Contact | None) -> None:
        if self.listener is not None:
            self.listener(location, before, after)

    def reset_statistics(self) -> None:
        """Starts counting anew everywhere."""
        with self.lock:
            self.unidentified.clear()
            for location in self.locations.values():
                location.reset_statistics()
            for workspace in self.workspaces.by_id.values():
                workspace.reset_statistics()
            for user in self.calendly:
                user.reset_statistics()
            for provider in self.llm:
                provider.reset_counts()


def _contact(fields: dict[str, object]) -> Contact:
    contact = record(Contact, fields, "a contact")
    return msgspec.structs.replace(contact, tags=tuple(tag.lower() for tag in contact.tags))
