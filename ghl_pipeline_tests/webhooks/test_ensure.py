"""What ensure does for one lead: links what is there, creates what is missing, writes no more than it may."""

import itertools
import logging
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine

from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.ghl.errors import (
    DailyQuotaReached,
    GhlServerError,
    PhoneRejected,
    RateLimited,
    RequestRejected,
    ScopeMissing,
    TokenRejected,
)
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.hydration.write_back import Written
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.ensuring.ensure import CreationUnsettled, build_ensurer
from ghl_pipeline.webhooks.ensuring.ensure_records import EnsureRecords
from ghl_pipeline.webhooks.outcomes import EventOutcome
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import COMPLETE, Agency, Killed, Place, before_statement
from ghl_pipeline_tests.webhooks.ensuring import (
    BAD_CALLING_CODE,
    CREATE,
    UPDATE,
    contacts,
    creation,
    ensure,
    the_only_contact,
    writes,
)

ADA = "ada@example.com"
PHONE_NOTE = "UPDATE contact_creations SET phone_refused"


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox) -> Agency:
    return Agency(engine, sandbox)


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


# --- GHL has none: it is created


async def test_a_lead_without_phone_and_without_contact_gets_one(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA, first_name="Ada")
    ensured = await ensure(agency, place, lead_id)
    contact = the_only_contact(place)
    assert (ensured.outcome, ensured.phone_refused) == (EventOutcome.CONTACT_CREATED, False)
    assert (contact.email, contact.first_name, contact.last_name, contact.phone) == (ADA, "Ada", None, None)
    assert agency.row(lead_id)["ghl_contact_id"] == contact.id
    assert (creation(agency)["state"], creation(agency)["contact_id"]) == ("created", contact.id)
    assert [(row["lead_id"], row["outcome"]) for row in agency.table("lead_lookups")] == [
        (lead_id, "linked_and_hydrated")
    ]
    # A search, the duplicate lookup and the create.
    assert ensured.requests == agency.requests(place) == 3


async def test_a_created_contact_gets_all_standard_fields_of_the_lead_and_nothing_else(
    agency: Agency, place: Place
) -> None:
    lead_id = agency.lead(place, **{**COMPLETE, "email": " Ada@Example.com ", "phone": "(305) 555-0123"})
    await ensure(agency, place, lead_id)
    contact = the_only_contact(place)
    fields = (contact.email, contact.phone, contact.first_name, contact.last_name, contact.company_name)
    assert fields == ("Ada@Example.com", "+13055550123", "Ada", "Byron", "Engines")
    assert (contact.tags, contact.custom_fields, contact.source) == ((), (), None)
    assert agency.row(lead_id)["phone"] == "(305) 555-0123"


@pytest.mark.parametrize("email", [None, " ", "no address", "ada@localhost", "a@example.com, b@example.com", "@x.org"])
async def test_no_contact_is_made_without_an_address_that_can_be_one(
    agency: Agency, place: Place, email: str | None
) -> None:
    lead_id = agency.lead(place, email=email, phone="+13055550123", first_name="Ada")
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.NOT_FOUND
    assert writes(agency, place) == (0, 0)
    assert agency.count("contact_creations") == 0


async def test_a_lead_that_opted_out_is_linked_but_never_created_and_gives_nothing(
    agency: Agency, place: Place
) -> None:
    contact = place.ghl.add(email=ADA, phone="+13055550123", first_name="Augusta")
    known = agency.lead(place, email=ADA, first_name="Ada", opted_out_at="2026-01-01T00:00:00Z")
    unknown = agency.lead(place, email="bob@example.com", opted_out_at="2026-01-01T00:00:00Z")
    assert (await ensure(agency, place, known)).outcome is EventOutcome.LEAD_UPDATED
    assert (await ensure(agency, place, unknown)).outcome is EventOutcome.NOT_FOUND
    assert agency.row(known)["ghl_contact_id"] == contact.id
    assert writes(agency, place) == (0, 0)


@pytest.mark.parametrize("status", ["unsubscribed", " Do_Not_Contact "])
async def test_a_status_of_the_dashboard_that_forbids_writing_counts_as_an_opt_out(
    agency: Agency, place: Place, status: str
) -> None:
    contact = place.ghl.add(email=ADA, first_name="Augusta")
    known = agency.lead(place, email=ADA, first_name="Ada", status=status)
    unknown = agency.lead(place, email="bob@example.com", status=status)
    outcomes = [(await ensure(agency, place, lead_id)).outcome for lead_id in (known, unknown)]
    assert outcomes == [EventOutcome.LEAD_UPDATED, EventOutcome.NOT_FOUND]
    assert agency.row(known)["ghl_contact_id"] == contact.id
    assert writes(agency, place) == (0, 0)


@pytest.mark.parametrize("moment", ["INSERT INTO contact_creations", PHONE_NOTE])
async def test_an_opt_out_while_nobody_is_found_stops_the_create(agency: Agency, place: Place, moment: str) -> None:
    agency.sandbox.faults(refused_phone=BAD_CALLING_CODE)
    lead_id = agency.lead(place, **COMPLETE)

    def opt_out() -> None:
        agency.edit(lead_id, status="unsubscribed", opted_out_at="2026-05-04T12:00:00Z")

    with before_statement(agency.engine, lambda sql, _: sql.startswith(moment), opt_out):
        ensured = await ensure(agency, place, lead_id)
    assert ensured.outcome is EventOutcome.NOT_FOUND
    assert writes(agency, place) == (0, 0)
    if moment == PHONE_NOTE:
        assert (creation(agency)["state"], agency.requests(place, CREATE)) == ("refused", 1)
    else:
        assert (agency.count("contact_creations"), agency.requests(place, CREATE)) == (0, 0)


async def test_an_opt_out_while_the_lead_is_linked_gives_the_contact_nothing(agency: Agency, place: Place) -> None:
    place.ghl.add(email=ADA)
    lead_id = agency.lead(place, **COMPLETE)
    reads = itertools.count(1)

    def opt_out() -> None:
        assert agency.row(lead_id)["ghl_contact_id"] is not None
        agency.edit(lead_id, status="do_not_contact")

    # Once to know whose turn it is, once when it is, and once more before anything is given.
    with before_statement(agency.engine, lambda sql, _: "AS opted_out" in sql and next(reads) == 3, opt_out):
        ensured = await ensure(agency, place, lead_id)
    assert ensured.outcome is EventOutcome.LEAD_UPDATED
    assert writes(agency, place) == (0, 0)


async def test_a_lead_whose_contact_was_deleted_gets_a_new_one(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    await ensure(agency, place, lead_id)
    place.ghl.remove(the_only_contact(place).id)
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert agency.row(lead_id)["ghl_contact_id"] == the_only_contact(place).id
    assert writes(agency, place) == (2, 0)


async def test_two_clients_with_one_address_have_a_contact_each(agency: Agency, place: Place) -> None:
    other = agency.place("Bolt")
    ours, theirs = agency.lead(place, email=ADA, first_name="Ada"), agency.lead(other, email=ADA)
    await ensure(agency, place, ours)
    await ensure(agency, other, theirs)
    assert agency.row(ours)["ghl_contact_id"] == the_only_contact(place).id
    assert agency.row(theirs)["ghl_contact_id"] == the_only_contact(other).id
    assert the_only_contact(other).first_name is None


async def test_a_lead_of_another_client_is_unknown(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(agency.place("Bolt"), email=ADA)
    with pytest.raises(UnknownClient, match=f"lead {lead_id}"):
        await ensure(agency, place, lead_id)
    assert writes(agency, place) == (0, 0)


# --- GHL has it: it is linked, and given only what it may be given


async def test_a_found_contact_is_linked_hydrated_and_given_the_leads_own_names(agency: Agency, place: Place) -> None:
    contact = place.ghl.add(
        email=ADA,
        phone="+13055550100",
        first_name="A.",
        last_name="Byron",
        tags=("vip",),
        custom_fields=(("field1", "kept"),),
        city="London",
    )
    lead_id = agency.lead(place, email=ADA, phone="+13055550123", first_name="Ada", company_name="Engines")
    ensured = await ensure(agency, place, lead_id)
    after = the_only_contact(place)
    assert ensured.outcome is EventOutcome.LEAD_UPDATED
    # Her own first name and company; never the phone that GHL has, tags or anything else.
    expected = msgspec.structs.replace(contact, first_name="Ada", company_name="Engines")
    assert msgspec.structs.replace(after, date_updated=contact.date_updated) == expected
    row = agency.row(lead_id)
    assert (row["ghl_contact_id"], row["phone"], row["first_name"], row["last_name"]) == (
        contact.id, "+13055550123", "Ada", "Byron",
    )  # fmt: skip
    assert writes(agency, place) == (0, 1)


async def test_what_hydration_filled_is_not_sent_back(agency: Agency, place: Place) -> None:
    place.ghl.add(email=ADA, phone="(305) 555-0123", first_name=" Ada ", last_name="Byron", company_name="Engines")
    lead_id = agency.lead(place, email=ADA, last_name="Byron")
    first, second = await ensure(agency, place, lead_id), await ensure(agency, place, lead_id)
    assert (first.outcome, second.outcome) == (EventOutcome.LEAD_UPDATED, EventOutcome.UNCHANGED)
    assert writes(agency, place) == (0, 0)
    assert (first.requests, second.requests) == (2, 1)


async def test_what_ghl_said_once_does_not_undo_what_it_says_now(agency: Agency, place: Place) -> None:
    contact = place.ghl.add(email=ADA, first_name="Jon", last_name="Snow")
    lead_id = agency.lead(place, email=ADA)
    await ensure(agency, place, lead_id)
    assert agency.row(lead_id)["first_name"] == "Jon"
    place.ghl.change(contact.id, first_name="John", last_name=None)
    agency.edit(lead_id, company_name="Engines")
    await ensure(agency, place, lead_id)
    after = the_only_contact(place)
    assert (after.first_name, after.last_name, after.company_name) == ("John", "Snow", "Engines")
    assert writes(agency, place) == (0, 1)


@pytest.mark.parametrize(
    ("own", "sent"), [("+13055550123", "+13055550123"), ("(305) 555-0123", "+13055550123"), ("5550123", None)]
)
async def test_a_phone_is_given_only_where_ghl_has_none_and_only_as_e164(
    agency: Agency, place: Place, own: str, sent: str | None
) -> None:
    place.ghl.add(email=ADA)
    await ensure(agency, place, agency.lead(place, email=ADA, phone=own))
    assert the_only_contact(place).phone == sent
    assert writes(agency, place) == (0, 0 if sent is None else 1)


async def test_a_contact_found_by_an_additional_address_keeps_its_own(agency: Agency, place: Place) -> None:
    place.ghl.add(email="office@example.com", additional_emails=(ADA,))
    lead_id = agency.lead(place, email=ADA, first_name="Ada")
    await ensure(agency, place, lead_id)
    after = the_only_contact(place)
    assert (after.email, after.additional_emails, after.first_name) == ("office@example.com", (ADA,), "Ada")
    assert agency.row(lead_id)["ghl_contact_id"] == after.id


async def test_a_linked_contact_without_any_address_is_given_the_leads(agency: Agency, place: Place) -> None:
    contact = place.ghl.add(phone="+13055550123", first_name="Ada")
    lead_id = agency.lead(place, email=ADA, ghl_contact_id=contact.id)
    await ensure(agency, place, lead_id)
    assert the_only_contact(place).email == ADA
    assert agency.row(lead_id)["phone"] == "+13055550123"


async def test_a_dead_link_falls_to_the_address(agency: Agency, place: Place) -> None:
    contact = place.ghl.add(email=ADA)
    for number, dead in enumerate(("GoneGoneGoneGoneGone", "test_contact_1")):
        lead_id = agency.lead(place, email=ADA, ghl_contact_id=dead)
        assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.LEAD_UPDATED
        assert agency.row(lead_id)["ghl_contact_id"] == contact.id, number
        agency.sql("DELETE FROM leads WHERE id = :id", id=lead_id)
    assert writes(agency, place) == (0, 0)


async def test_a_contact_that_a_search_still_shows_though_it_is_deleted_is_not_linked(
    agency: Agency, place: Place
) -> None:
    gone = place.ghl.add(email=ADA)
    agency.sandbox.faults(index_lag_seconds=60)
    place.ghl.remove(gone.id)
    lead_id = agency.lead(place, email=ADA)
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert agency.row(lead_id)["ghl_contact_id"] == the_only_contact(place).id != gone.id


async def test_nobody_chooses_between_two_contacts(agency: Agency, place: Place) -> None:
    for _ in range(2):
        place.ghl.add(email=ADA, date_updated=1_750_000_000_000)
    lead_id = agency.lead(place, email=ADA, first_name="Ada")
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.AMBIGUOUS
    assert agency.row(lead_id)["ghl_contact_id"] is None
    assert writes(agency, place) == (0, 0)


async def test_a_contact_that_another_lead_has_is_left_to_it(agency: Agency, place: Place) -> None:
    contact = place.ghl.add(email="office@example.com", additional_emails=(ADA,))
    agency.lead(place, email="office@example.com", ghl_contact_id=contact.id)
    lead_id = agency.lead(place, email=ADA, first_name="Ada")
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.AMBIGUOUS
    assert agency.row(lead_id)["ghl_contact_id"] is None
    assert writes(agency, place) == (0, 0)


async def test_an_edit_during_the_lookup_is_seen_by_another_look(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="typo@example.com")
    contact = place.ghl.add(email=ADA)
    with before_statement(
        agency.engine, lambda sql, _: "FROM contact_creations" in sql, lambda: agency.edit(lead_id, email=ADA)
    ):  # fmt: skip
        place.ghl.add(email="typo@example.com")
        ensured = await ensure(agency, place, lead_id)
    assert ensured.outcome is EventOutcome.LEAD_UPDATED
    assert agency.row(lead_id)["ghl_contact_id"] == contact.id
    assert writes(agency, place) == (0, 0)


async def test_an_address_corrected_while_its_contact_is_created_gets_no_second_one(
    agency: Agency, place: Place
) -> None:
    lead_id = agency.lead(place, email="adda@example.com", first_name="Ada")
    is_end = "UPDATE contact_creations"
    correct = before_statement(
        agency.engine, lambda sql, _: sql.startswith(is_end), lambda: agency.edit(lead_id, email=ADA)
    )
    with correct:
        ensured = await ensure(agency, place, lead_id)
    assert ensured.outcome is EventOutcome.CONTACT_CREATED
    assert agency.row(lead_id)["ghl_contact_id"] == the_only_contact(place).id
    assert writes(agency, place)[0] == 1


async def test_an_address_corrected_after_a_lost_answer_finds_what_was_created(agency: Agency, place: Place) -> None:
    lag: dict[str, Any] = {"index_lag_seconds": 60, "duplicate_lookup_lags": True}
    agency.sandbox.faults(routes=(CREATE,), times=1, drop_rate=1.0, **lag)
    lead_id = agency.lead(place, email="adda@example.com")
    with pytest.raises(CreationUnsettled):
        await ensure(agency, place, lead_id)
    agency.edit(lead_id, email=ADA)
    with pytest.raises(CreationUnsettled):
        await ensure(agency, place, lead_id)
    agency.sandbox.faults()  # a minute later
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert agency.row(lead_id)["ghl_contact_id"] == the_only_contact(place).id
    assert agency.requests(place, CREATE) == 1


async def test_an_address_corrected_at_ghl_before_the_link_gets_no_second_contact(
    agency: Agency, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: object) -> Written:
        raise Killed

    lead_id = agency.lead(place, email="adda@example.com")
    with monkeypatch.context() as killing:
        killing.setattr(EnsureRecords, "link", die)
        with pytest.raises(Killed):
            await ensure(agency, place, lead_id)
    contact = the_only_contact(place)
    place.ghl.change(contact.id, email=ADA)
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert agency.row(lead_id)["ghl_contact_id"] == the_only_contact(place).id == contact.id


async def test_a_contact_that_somebody_made_later_is_found_and_not_created(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    other_id = agency.lead(place, email="typo@example.com")
    agency.sandbox.faults(routes=(CREATE,), error_rate=1.0)
    for lead in (lead_id, other_id):
        with pytest.raises(CreationUnsettled):
            await ensure(agency, place, lead)
    agency.sandbox.faults()
    agency.sql("UPDATE contact_creations SET started_at = started_at - make_interval(days => 1)")
    contact, stranger = place.ghl.add(email=ADA), place.ghl.add(email="typo@example.com")
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.LEAD_UPDATED
    assert agency.row(lead_id)["ghl_contact_id"] == contact.id
    # Another one's, who has the address that was a typing mistake of the lead's.
    agency.edit(other_id, email="bob@example.com")
    assert (await ensure(agency, place, other_id)).outcome is EventOutcome.CONTACT_CREATED
    assert agency.row(other_id)["ghl_contact_id"] not in {contact.id, stranger.id}
    assert {row["state"] for row in agency.table("contact_creations") if row["address"] == ADA} == {"found"}


async def test_an_address_with_a_character_that_nobody_sees_is_the_same_address(agency: Agency, place: Place) -> None:
    contact = place.ghl.add(email=ADA)
    known = agency.lead(place, email=f"{ADA}\u200b")
    unknown = agency.lead(place, email="bob\u00ad@example.com")
    await ensure(agency, place, known)
    assert agency.row(known)["ghl_contact_id"] == contact.id
    assert (await ensure(agency, place, unknown)).outcome is EventOutcome.CONTACT_CREATED
    assert [contact.email for contact in contacts(place)] == [ADA, "bob@example.com"]


# --- duplicates


async def test_a_stranger_with_the_leads_phone_is_not_linked(
    agency: Agency, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = place.ghl.add(email="stranger@example.com", phone="+13055550123")
    lead_id = agency.lead(place, **COMPLETE)
    with caplog.at_level(logging.WARNING):
        assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.AMBIGUOUS
    assert agency.row(lead_id)["ghl_contact_id"] is None
    assert (creation(agency)["state"], creation(agency)["error_class"]) == ("refused", "DuplicateContact")
    assert contacts(place) == [stranger]
    assert f"lead {lead_id}" in caplog.text
    assert "555" not in caplog.text.replace(str(lead_id), "")


async def test_a_contact_that_only_the_create_knows_of_is_linked(agency: Agency, place: Place) -> None:
    agency.sandbox.faults(index_lag_seconds=60, duplicate_lookup_lags=True)
    contact = place.ghl.add(email=ADA, phone="+13055550100")
    lead_id = agency.lead(place, email=ADA, first_name="Ada")
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.LEAD_UPDATED
    assert agency.row(lead_id)["ghl_contact_id"] == contact.id
    assert (creation(agency)["state"], creation(agency)["contact_id"]) == ("found", contact.id)
    assert writes(agency, place) == (0, 1)


async def test_a_phone_that_belongs_to_another_contact_does_not_keep_the_names_away(
    agency: Agency, place: Place
) -> None:
    stranger = place.ghl.add(email="stranger@example.com", phone="+13055550123")
    contact = place.ghl.add(email=ADA)
    lead_id = agency.lead(place, **COMPLETE)
    ensured = await ensure(agency, place, lead_id)
    after = place.ghl.contacts.by_id[contact.id]
    assert (ensured.outcome, ensured.phone_refused) == (EventOutcome.LEAD_UPDATED, False)
    assert (after.phone, after.first_name) == (None, "Ada")
    assert place.ghl.contacts.by_id[stranger.id] == stranger
    assert agency.row(lead_id)["ghl_contact_id"] == contact.id


# --- phones that GHL does not take


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("text", [BAD_CALLING_CODE, "phone must be a valid phone number", "NOT_A_NUMBER"])
async def test_a_contact_whose_phone_is_refused_is_created_without_it(
    agency: Agency, place: Place, text: str, status: int
) -> None:
    agency.sandbox.faults(refused_phone=text, refused_phone_status=status)
    lead_id = agency.lead(place, **COMPLETE)
    ensured = await ensure(agency, place, lead_id)
    assert (ensured.outcome, ensured.phone_refused) == (EventOutcome.CONTACT_CREATED, True)
    assert (the_only_contact(place).phone, the_only_contact(place).first_name) == (None, "Ada")
    assert agency.row(lead_id)["phone"] == "+13055550123"
    assert creation(agency)["phone_refused"] is True
    assert agency.requests(place, CREATE) == 2


async def test_a_refused_create_that_was_done_all_the_same_makes_no_second_contact(
    agency: Agency, place: Place
) -> None:
    for allowed in (True, False):
        place.ghl.allow_duplicates = allowed
        agency.sandbox.faults(refused_phone=BAD_CALLING_CODE, creates_what_it_refuses=True)
        lead_id = agency.lead(place, **{**COMPLETE, "email": f"{allowed}@example.com"})
        ensured = await ensure(agency, place, lead_id)
        assert (ensured.outcome, ensured.phone_refused) == (EventOutcome.CONTACT_CREATED, True)
        assert agency.row(lead_id)["ghl_contact_id"] in place.ghl.contacts.by_id
    assert writes(agency, place) == (2, 0)
    assert len(contacts(place)) == 2


async def test_a_found_contact_is_given_the_rest_when_its_phone_is_refused(agency: Agency, place: Place) -> None:
    place.ghl.add(email=ADA)
    agency.sandbox.faults(refused_phone=BAD_CALLING_CODE)
    lead_id = agency.lead(place, **COMPLETE)
    ensured = await ensure(agency, place, lead_id)
    assert (ensured.outcome, ensured.phone_refused) == (EventOutcome.LEAD_UPDATED, True)
    assert (the_only_contact(place).phone, the_only_contact(place).company_name) == (None, "Engines")
    assert agency.row(lead_id)["phone"] == "+13055550123"
    assert agency.requests(place, UPDATE) == 2


# --- other values that GHL does not take


@pytest.mark.parametrize(
    ("refused", "given", "requests"),
    [
        (("companyName",), {"first_name": "Ada", "last_name": "Byron", "phone": "+13055550123"}, 2),
        (("companyName", "email"), {"first_name": "Ada", "last_name": "Byron", "phone": None}, 3),
        (("firstName",), {"first_name": None, "last_name": None, "phone": None}, 3),
    ],
)
async def test_a_lead_is_linked_though_ghl_does_not_take_all_of_its_values(
    agency: Agency,
    place: Place,
    caplog: pytest.LogCaptureFixture,
    refused: tuple[str, ...],
    given: dict[str, object],
    requests: int,
) -> None:
    agency.sandbox.faults(refused_properties=refused)
    lead_id = agency.lead(place, **COMPLETE, ghl_contact_id=place.ghl.add().id)
    with caplog.at_level(logging.WARNING):
        ensured = await ensure(agency, place, lead_id)
    after = the_only_contact(place)
    assert {name: getattr(after, name) for name in given} == given
    assert after.company_name is None
    assert ensured.values_refused
    assert agency.row(lead_id)["company_name"] == "Engines"
    assert agency.requests(place, UPDATE) == requests
    assert f"lead {lead_id}" in caplog.text
    assert [value for value in COMPLETE.values() if str(value) in caplog.text] == []


async def test_an_update_that_fails_for_another_reason_is_not_taken_for_a_refusal(agency: Agency, place: Place) -> None:
    place.ghl.add(email=ADA)
    lead_id = agency.lead(place, **COMPLETE)
    agency.sandbox.faults(routes=(UPDATE,), error_rate=1.0)
    with pytest.raises(GhlServerError):
        await ensure(agency, place, lead_id)
    agency.sandbox.faults()
    assert not (await ensure(agency, place, lead_id)).values_refused
    assert writes(agency, place) == (0, 1)


# --- what fails


async def test_nothing_is_created_when_the_lookup_fails(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    for route in ("POST /contacts/search", "GET /contacts/search/duplicate"):
        agency.sandbox.faults(routes=(route,), error_rate=1.0)
        with pytest.raises(GhlServerError):
            await ensure(agency, place, lead_id)
    assert agency.requests(place, CREATE) == 0
    assert agency.count("contact_creations") == 0


async def test_a_definite_refusal_is_on_record_and_a_later_event_creates(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    agency.sandbox.faults(missing_scopes=("contacts.write",))
    with pytest.raises(ScopeMissing, match=r"contacts\.write"):
        await ensure(agency, place, lead_id)
    assert (creation(agency)["state"], creation(agency)["error_class"]) == ("refused", "ScopeMissing")
    agency.sandbox.faults()
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert (creation(agency)["state"], creation(agency)["error_class"]) == ("created", None)


async def test_a_create_refused_for_its_rate_is_certain_to_have_done_nothing(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)

    def storm() -> None:
        agency.sandbox.faults(storm_requests=20)

    is_intent = "INSERT INTO contact_creations"
    with before_statement(agency.engine, lambda sql, _: sql.startswith(is_intent), storm), pytest.raises(RateLimited):
        await ensure(agency, place, lead_id)
    assert creation(agency)["state"] == "refused"
    agency.sandbox.faults()
    assert (await ensure(agency, place, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    assert writes(agency, place) == (1, 0)


async def test_a_revoked_token_creates_nothing(agency: Agency, place: Place) -> None:
    agency.sandbox.faults(token_revoked=True)
    with pytest.raises(TokenRejected):
        await ensure(agency, place, agency.lead(place, email=ADA))
    assert agency.count("contact_creations") == 0


async def test_a_used_up_day_is_a_refusal_with_its_reset(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    used_up = "UPDATE location_throttle SET used_today = 10000000, slots = '{}', interactive_slots = '{}', leased = 0"
    is_intent = "INSERT INTO contact_creations"
    use_up = before_statement(agency.engine, lambda sql, _: sql.startswith(is_intent), lambda: agency.sql(used_up))
    with use_up, pytest.raises(DailyQuotaReached):
        await ensure(agency, place, lead_id)
    assert creation(agency)["state"] == "refused"
    assert writes(agency, place) == (0, 0)


async def test_an_address_that_ghl_does_not_take_is_refused_and_names_nobody(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email=ADA)
    agency.edit(lead_id, phone="+13055550123")
    agency.sandbox.faults(refused_phone="ada@example.com is not an email", refused_phone_status=422)
    with pytest.raises(RequestRejected) as caught:
        await ensure(agency, place, lead_id)
    assert not isinstance(caught.value, PhoneRejected)
    assert "ada@" not in str(caught.value)
    assert (creation(agency)["state"], agency.requests(place, CREATE)) == ("refused", 1)


async def test_the_ensurer_of_the_settings_uses_the_slots_kept_for_people(
    project: Settings, engine: Engine, sandbox: Sandbox
) -> None:
    agency = Agency(engine, sandbox, TokenCipher.from_settings(project))
    place = agency.place()
    lead_id = agency.lead(place, email=ADA)
    ensurer = build_ensurer(project, engine, build_hydration(project, engine))
    assert (await ensurer.ensure(place.id, lead_id)).outcome is EventOutcome.CONTACT_CREATED
    (row,) = agency.table("location_throttle")
    assert len(row["interactive_slots"]) > 0
    assert repr(ensurer) == "ContactEnsurer()"
