"""Calendly's users, with the event types that their booking pages offer."""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.free_times import Schedule
from ghl_pipeline.sandbox.limits import Limits, RateLimiter
from ghl_pipeline.sandbox.people import seeded
from ghl_pipeline.sandbox.records import record
from ghl_pipeline.sandbox.statistics import LocationStatistics

API: Final = "https://api.calendly.com"
"""What URIs begin with, whatever host is asked."""
PAGES: Final = "https://calendly.com"
REQUESTS_PER_MINUTE: Final = 500
"""Of a paid plan; a free one has 50."""
_SCHEDULE_FIELDS: Final = frozenset(Schedule.__struct_fields__)


class EventType(msgspec.Struct, frozen=True, kw_only=True):
    """One event type. A team's is owned by the team and listed by organization alone."""

    uuid: str
    name: str
    slug: str
    scheduling_url: str
    active: bool = True
    kind: Literal["solo", "group"] = "solo"
    pooling_type: Literal["round_robin", "collective"] | None = None
    team: str | None = None
    """Slug of the team that owns it."""
    secret: bool = False
    seats: int = 1
    created_at: int = 0
    schedule: Schedule = Schedule()

    @property
    def uri(self) -> str:
        """Its identity in Calendly's answers and questions."""
        return f"{API}/event_types/{self.uuid}"


class CalendlyUser:
    """A user. The token opens nothing but the sandbox, and yet stays out of the `repr`."""

    def __init__(
        self,
        slug: str,
        token: str,
        ids: Callable[[], str],
        *,
        organization: str,
        time_zone: str,
        longest_days: int,
        requests_per_minute: int,
        is_admin: bool,
        clock: Callable[[], float],
    ) -> None:
        self.slug = slug
        self.token = token
        self.uri = f"{API}/users/{ids()}"
        self.organization = organization
        self.time_zone = time_zone
        self.longest_days = longest_days
        """The longest time that may be asked for: 31 days, 7 for clients of before July 2026."""
        self.is_admin = is_admin
        """Others may not list by organization."""
        self.event_types: dict[str, EventType] = {}
        """By uuid."""
        self.limiter = RateLimiter(Limits(requests_per_minute, 60.0, 10**9))
        self.statistics = LocationStatistics(60.0)
        self._ids = ids
        self._clock = clock

    def __repr__(self) -> str:
        return f"CalendlyUser({self.slug}, {len(self.event_types)} event types)"

    @property
    def faults_key(self) -> str:
        """Under this name the fault board has the faults of the user."""
        return f"calendly {self.slug}"

    def add_event_type(self, name: str = "Introduction", /, **fields: object) -> EventType:
        """Adds an event type with further fields of `EventType` and of `Schedule`; what is not given is made.

        Raises:
            InvalidInput: a field that an event type does not have, or a value of the wrong type.
        """
        name = str(fields.get("name", name))
        slug = str(fields.get("slug") or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
        page = f"{PAGES}/{fields.get('team') or self.slug}/{slug}"
        created = int(self._clock() * 1000)
        made = {"uuid": self._ids(), "name": name, "slug": slug, "scheduling_url": page, "created_at": created}
        return self._save(Schedule(), {**made, **fields})

    def change_event_type(self, event_type_uuid: str, **fields: object) -> EventType:
        """Changes fields of an event type or of its schedule, such as `scheduling_url` when its page moves.

        Raises:
            InvalidInput: no such event type, or fields as in `add_event_type`.
        """
        event_type = self.event_types.get(event_type_uuid)
        if event_type is None:
            raise InvalidInput("The user has no such event type.")
        return self._save(event_type.schedule, {**msgspec.structs.asdict(event_type), **fields})

    def free(self, event_type_uuid: str, start: datetime, end: datetime) -> list[datetime]:
        """The free times of an event type between two moments, both included, whatever faults are set."""
        schedule = self.event_types[event_type_uuid].schedule
        return schedule.free(ZoneInfo(self.time_zone), start.timestamp(), end.timestamp(), self._clock())

    def reset_statistics(self) -> None:
        """Starts counting anew; the rate limit's window goes on."""
        self.statistics = LocationStatistics(60.0)

    def _save(self, schedule: Schedule, fields: Mapping[str, object]) -> EventType:
        when = {name: value for name, value in fields.items() if name in _SCHEDULE_FIELDS}
        if when:
            schedule = record(Schedule, {**msgspec.structs.asdict(schedule), **when}, "a schedule")
        rest = {name: value for name, value in fields.items() if name not in _SCHEDULE_FIELDS}
        event_type = record(EventType, {**rest, "schedule": schedule}, "an event type")
        self.event_types[event_type.uuid] = event_type
        return event_type


class CalendlyUsers:
    """All users of the sandbox's Calendly."""

    def __init__(self, seed: int, clock: Callable[[], float]) -> None:
        self._rng = seeded("calendly", seed)
        self._clock = clock
        self._organization = f"{API}/organizations/{self._uuid()}"
        self._by_slug: dict[str, CalendlyUser] = {}

    def __iter__(self) -> Iterator[CalendlyUser]:
        return iter(tuple(self._by_slug.values()))

    def add(
        self,
        slug: str | None = None,
        *,
        token: str | None = None,
        organization: str | None = None,
        time_zone: str = "America/New_York",
        longest_days: int = 31,
        requests_per_minute: int = REQUESTS_PER_MINUTE,
        is_admin: bool = True,
    ) -> CalendlyUser:
        """Adds a user; what is not given is made from the seed, users without an organization share one.

        Raises:
            InvalidInput: no such time zone, or there is such a user already.
        """
        slug = slug or f"sample-host-{len(self._by_slug) + 1}"
        if slug in self._by_slug or time_zone not in available_timezones():
            raise InvalidInput("A user of Calendly has a slug of its own and an IANA time zone.")
        user = CalendlyUser(
            slug,
            token or f"eyJraWQiOiIx{self._rng.getrandbits(256):064x}",
            self._uuid,
            organization=organization or self._organization,
            time_zone=time_zone,
            longest_days=longest_days,
            requests_per_minute=requests_per_minute,
            is_admin=is_admin,
            clock=self._clock,
        )
        self._by_slug[slug] = user
        return user

    def of_token(self, token: str) -> CalendlyUser | None:
        """The user whose token it is."""
        return next((user for user in self if user.token == token), None)

    def known(self, slug: object) -> CalendlyUser:
        """The user with this slug.

        Raises:
            InvalidInput: there is none.
        """
        user = self._by_slug.get(slug) if isinstance(slug, str) else None
        if user is None:
            raise InvalidInput("The sandbox has no such user of Calendly. They are listed at /_sandbox/calendars.")
        return user

    def of_organization(self, uri: str) -> list[CalendlyUser]:
        """The users of an organization."""
        return [user for user in self if user.organization == uri]

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
