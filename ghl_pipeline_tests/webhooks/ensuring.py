"""The ensurer put together for tests, and what they look at afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ghl_pipeline.ghl.contact_writer import ContactWriter, open_writer
from ghl_pipeline.ghl.throttle import Limits, LocationThrottle
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.webhooks.ensuring.ensure import ContactEnsurer, Ensured
from ghl_pipeline.webhooks.handling.one_person import OnePerson
from ghl_pipeline_tests.hydration.conftest import QUICK, TIMEOUT_SECONDS, Agency, Place

PROTECTED = frozenset({"booked", "won"})
CREATE, UPDATE = "POST /contacts/", "PUT /contacts/{id}"
BAD_CALLING_CODE = "Invalid country calling code"


def ensurer(agency: Agency, *, timeout_seconds: float = TIMEOUT_SECONDS) -> ContactEnsurer:
    """The real one; only retries pause for milliseconds and limits are wide."""

    @asynccontextmanager
    async def opened(access: LocationAccess) -> AsyncIterator[ContactWriter]:
        async with open_writer(
            base_url=agency.sandbox.url,
            location_id=access.location_id,
            token=access.token,
            throttle=LocationThrottle(agency.engine, access.location_id, Limits(10_000, 10.0, 200_000)),
            policy=QUICK,
            timeout_seconds=timeout_seconds,
        ) as writer:
            yield writer

    unite = OnePerson(agency.engine, PROTECTED).unite
    return ContactEnsurer(agency.engine, agency.hydration(), opened, unite)


async def ensure(agency: Agency, place: Place, lead_id: int) -> Ensured:
    """Ensures a lead's contact once."""
    return await ensurer(agency).ensure(place.id, lead_id)


def writes(agency: Agency, place: Place) -> tuple[int, int]:
    """Contacts created and changed over the API."""
    counts = agency.sandbox.stats(place.id)
    return counts["creates"], counts["updates"]


def contacts(place: Place) -> list[Contact]:
    """All contacts of the location."""
    return list(place.ghl.contacts.by_id.values())


def the_only_contact(place: Place) -> Contact:
    """The contact of a location that has exactly one."""
    (contact,) = contacts(place)
    return contact


def creation(agency: Agency) -> dict[str, Any]:
    """The only row of `contact_creations`."""
    (row,) = agency.table("contact_creations")
    return row
