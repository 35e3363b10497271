"""Leads that change between an interrupted run and the one that goes on: nothing is lost, and a person's word holds."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ghl_pipeline.hydration.plan import Way
from ghl_pipeline.locations.clients import deactivate_client, reactivate_client
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import Agency, Place, page_number

TYPED = "+13055550100"


class Killed(BaseException):
    """The process ends here, as by kill -9: nothing that catches errors may catch it."""


def kill() -> None:
    raise Killed


def in_the_middle_of_the_pull(_asset: str, report: Report) -> None:
    if report.values.get("contacts_pulled") == 500:
        kill()


@dataclass(frozen=True)
class Interrupted:
    """A location whose run was killed: its leads in the order of work, and the contacts of their addresses."""

    agency: Agency
    place: Place
    way: Way
    leads: list[int]
    people: list[Contact]
    history: RememberedHistory
    page: int

    async def go_on(self) -> dict[str, int]:
        """The outcomes of the run that takes it up again."""
        self.history.before_progress = None
        result = await self.agency.backfill(self.place, history=self.history, page_size=self.page)
        assert result.failures == ()
        (plan,) = (row["plan"] for row in self.agency.table("work_lists"))
        assert plan["way"] == self.way
        assert self.agency.count("resolved_contacts") == self.agency.count("pulled_contacts") == 0
        return dict(result.reports[0].outcomes)


@pytest.fixture(
    params=["between two pages of look-ups", "between two pages of a scan", "in the middle of the pull of a scan"]
)
async def interrupted(request: pytest.FixtureRequest, agency: Agency) -> Interrupted:
    """Half of the leads at least are not looked up yet; the second page is stored and not written."""
    way = Way.LOOKUP if "look-ups" in request.param else Way.SCAN
    leads, contacts, page = (40, 60, 10) if way is Way.LOOKUP else (700, 1100, 200)
    people = crowd(contacts, "meanwhile")
    place = agency.place(contacts=people)
    ids = agency.leads(place, [{"email": contact.email} for contact in people[:leads]])
    if way is Way.LOOKUP:
        agency.prefer_lookups(place, group_size=10)
    moment: Callable[[str, Report], None] = page_number(2, kill)
    if "pull" in request.param:
        moment = in_the_middle_of_the_pull
    history = RememberedHistory(before_progress=moment)
    with pytest.raises((Killed, BaseExceptionGroup)):
        await agency.backfill(place, history=history, page_size=page)
    assert sum(row["ghl_contact_id"] is not None for row in agency.rows()) < leads // 2
    return Interrupted(agency, place, way, ids, people, history, page)


async def test_a_lead_that_was_added_is_looked_up(interrupted: Interrupted) -> None:
    agency, contact = interrupted.agency, interrupted.people[-1]
    added = agency.lead(interrupted.place, email=contact.email)
    outcomes = await interrupted.go_on()
    assert agency.row(added)["ghl_contact_id"] == contact.id
    assert outcomes["linked_and_hydrated"] == len(interrupted.leads) + 1


@pytest.mark.parametrize("position", [1.2, -1], ids=["looked up already", "not looked up yet"])
async def test_a_lead_that_was_deleted_holds_nobody_up(interrupted: Interrupted, position: float) -> None:
    agency = interrupted.agency
    deleted = lead_at(interrupted, position)
    with agency.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM leads WHERE id = %(id)s", {"id": deleted})
    outcomes = await interrupted.go_on()
    assert (outcomes["linked_and_hydrated"], sum(outcomes.values())) == (
        len(interrupted.leads) - 1,
        len(interrupted.leads),
    )
    assert all(row["ghl_contact_id"] for row in agency.rows())


@pytest.mark.parametrize("position", [1.2, -1], ids=["looked up already", "not looked up yet"])
async def test_a_corrected_address_is_the_one_that_counts(interrupted: Interrupted, position: float) -> None:
    agency, contact = interrupted.agency, interrupted.people[-1]
    corrected = lead_at(interrupted, position)
    agency.edit(corrected, email=contact.email)
    await interrupted.go_on()
    # What was found for the old address is not written; the lead is then the next run's.
    assert agency.row(corrected)["ghl_contact_id"] in {None, contact.id}
    interrupted.history.attempt = "the next run"
    await agency.backfill(interrupted.place, history=interrupted.history)
    assert agency.row(corrected)["ghl_contact_id"] == contact.id
    assert agency.row(corrected)["phone"] == contact.phone
    assert all(row["ghl_contact_id"] for row in agency.rows())


@pytest.mark.parametrize("position", [1.2, -1], ids=["looked up already", "not looked up yet"])
async def test_a_link_that_a_person_made_stays_and_is_what_the_lead_is_filled_from(
    interrupted: Interrupted, position: float
) -> None:
    agency, contact = interrupted.agency, interrupted.people[-1]
    linked = lead_at(interrupted, position)
    agency.edit(linked, ghl_contact_id=contact.id)
    await interrupted.go_on()
    assert agency.row(linked)["ghl_contact_id"] == contact.id
    interrupted.history.attempt = "the next run"
    await agency.backfill(interrupted.place, history=interrupted.history)
    row = agency.row(linked)
    assert (row["ghl_contact_id"], row["phone"]) == (contact.id, contact.phone)


@pytest.mark.parametrize("position", [1.2, -1], ids=["looked up already", "not looked up yet"])
async def test_what_a_person_typed_stays_and_the_rest_is_filled(interrupted: Interrupted, position: float) -> None:
    agency = interrupted.agency
    typed = lead_at(interrupted, position)
    agency.edit(typed, phone=TYPED, first_name="Typed")
    outcomes = await interrupted.go_on()
    row = agency.row(typed)
    (contact,) = (contact for contact in interrupted.people if contact.email == row["email"])
    assert (row["phone"], row["first_name"]) == (TYPED, "Typed")
    assert (row["ghl_contact_id"], row["company_name"]) == (contact.id, contact.company_name)
    assert outcomes["linked_and_hydrated"] == len(interrupted.leads)


async def test_a_client_that_was_deactivated_is_left_alone_until_it_is_active_again(interrupted: Interrupted) -> None:
    agency, place = interrupted.agency, interrupted.place
    with agency.engine.begin() as connection:
        deactivate_client(connection, place.id)
    before, asked = agency.rows(), agency.requests(place)
    interrupted.history.before_progress = None
    (failure,) = (await agency.backfill(place, history=interrupted.history)).failures
    assert failure.permanent
    assert place.id in failure.text
    assert (agency.rows(), agency.requests(place)) == (before, asked)
    # What was found for it does not wait for ever.
    assert agency.count("resolved_contacts") == agency.count("pulled_contacts") == 0
    with agency.engine.begin() as connection:
        reactivate_client(connection, place.id)
    result = await agency.backfill(place, history=interrupted.history, page_size=interrupted.page)
    assert result.failures == ()
    assert all(row["ghl_contact_id"] for row in agency.rows())


def lead_at(interrupted: Interrupted, position: float) -> int:
    """A lead by its place: -1 is the last one, 1.2 one of the second page."""
    at = int(position * interrupted.page) if position > 0 else int(position)
    return interrupted.leads[at]
