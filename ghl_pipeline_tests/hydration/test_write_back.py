"""What reaches `leads`, and what somebody else's writing in the meantime does to it: nothing is lost, nobody errs."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import IntegrityError

from ghl_pipeline.database.leads import NewLead, upsert_lead
from ghl_pipeline.hydration.claims import Claims
from ghl_pipeline.hydration.list_pages import store_resolutions
from ghl_pipeline.hydration.merge import ContactFields
from ghl_pipeline.hydration.outcomes import LeadField, Outcome, Reason
from ghl_pipeline.hydration.resolve import LeadKey, Resolution
from ghl_pipeline.hydration.work_list import Scope, open_list
from ghl_pipeline.hydration.write_back import Written, record_failures, write_back, write_back_page
from ghl_pipeline_tests.hydration.conftest import Agency, Place

CONTACT = ContactFields("contact0000000000001", "ada@example.com", "+1 305-555-0123", "Ada", "Byron", "Engines")
BLOCKED = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


def found(
    lead_id: int,
    contact: ContactFields = CONTACT,
    *,
    link: str | None = None,
    email: str | None = "ada@example.com",
    link_is_dead: bool = False,
) -> Resolution:
    """The contact was found for the lead, which had this link and address when it was looked up."""
    return Resolution(LeadKey(lead_id, lead_id, link, email), Outcome.UNCHANGED, contact, email, link_is_dead)


def written(agency: Agency, place: Place, *page: Resolution, dry_run: bool = False) -> list[Written]:
    return write_back(agency.engine, place.client_id, "US", page, claims=Claims() if dry_run else None)


def outcomes(result: list[Written]) -> list[Outcome]:
    return [lead.outcome for lead in result]


# --- the plain case


def test_a_found_contact_fills_and_links_its_lead(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com", first_name="Lady Ada")
    before = agency.row(lead_id)
    (lead,) = written(agency, place, found(lead_id))
    assert lead.outcome is Outcome.LINKED_AND_HYDRATED
    assert lead.filled == (
        LeadField.CONTACT_LINK | LeadField.PHONE | LeadField.LAST_NAME | LeadField.COMPANY_NAME
    )  # fmt: skip
    row = agency.row(lead_id)
    expected = {
        "ghl_contact_id": CONTACT.contact_id, "phone": "+13055550123", "last_name": "Byron", "company_name": "Engines",
        "enrichment_status": "enriched", "enrichment_source": "ghl",
        "enriched_at": row["enriched_at"], "updated_at": row["updated_at"],
    }  # fmt: skip
    assert row == {**before, **expected}
    assert row["enriched_at"] > before["updated_at"]
    assert row["updated_at"] > before["updated_at"]


def test_writing_it_again_changes_nothing_and_does_not_touch_the_row(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    written(agency, place, found(lead_id))
    before = agency.row(lead_id)
    again = written(agency, place, found(lead_id, link=CONTACT.contact_id))
    assert again == [Written(lead_id, Outcome.UNCHANGED)]
    assert agency.row(lead_id) == before


def test_only_changed_rows_move_their_time(agency: Agency, place: Place) -> None:
    changing = agency.lead(place, email="ada@example.com")
    full = agency.lead(
        place, email="bob@example.com", phone="1", first_name="B", last_name="B", company_name="B",
        ghl_contact_id="contact0000000000002",
    )  # fmt: skip
    times = {lead_id: agency.row(lead_id)["updated_at"] for lead_id in (changing, full)}
    theirs = ContactFields("contact0000000000002", "bob@example.com", "+13055550199", "Bob")
    result = written(
        agency, place, found(changing), found(full, theirs, link="contact0000000000002", email="bob@example.com")
    )
    assert outcomes(result) == [Outcome.LINKED_AND_HYDRATED, Outcome.UNCHANGED]
    assert agency.row(changing)["updated_at"] > times[changing]
    assert agency.row(full)["updated_at"] == times[full]


def test_a_lead_marked_not_needed_gets_its_phone_but_keeps_its_mark(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com", enrichment_status="not_needed")
    written(agency, place, found(lead_id))
    row = agency.row(lead_id)
    assert row["phone"] == "+13055550123"
    assert (row["enrichment_status"], row["enrichment_source"], row["enriched_at"]) == ("not_needed", None, None)


def test_a_dead_link_is_replaced_by_the_contact_that_was_found(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com", ghl_contact_id="test_contact_7")
    (lead,) = written(agency, place, found(lead_id, link="test_contact_7", link_is_dead=True))
    assert lead.outcome is Outcome.LINKED_AND_HYDRATED
    assert agency.row(lead_id)["ghl_contact_id"] == CONTACT.contact_id


def test_that_the_old_contact_was_deleted_is_forgotten_with_the_link(agency: Agency, place: Place) -> None:
    relinked = agency.lead(place, email="ada@example.com", ghl_contact_id="deletedContact000001")
    filled = agency.lead(place, email="bob@example.com", ghl_contact_id="deletedContact000002")
    with agency.engine.begin() as connection:
        connection.execute(text("UPDATE leads SET contact_deleted_at = now()"))
    other = ContactFields("deletedContact000002", first_name="Bob")
    written(
        agency, place, found(relinked, link="deletedContact000001", link_is_dead=True),
        found(filled, other, link="deletedContact000002", email="bob@example.com"),
    )  # fmt: skip
    assert agency.row(relinked)["contact_deleted_at"] is None
    assert agency.row(filled)["first_name"] == "Bob"
    assert agency.row(filled)["contact_deleted_at"] is not None


@pytest.mark.parametrize(
    "name", ['Robert "Bobby"', "O'Neil; DROP TABLE leads;--", "{a,b}", "NULL", "back\\slash", "\u202e美咲"]
)
def test_odd_names_arrive_as_they_are(agency: Agency, place: Place, name: str) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    written(agency, place, found(lead_id, ContactFields(CONTACT.contact_id, first_name=name)))
    assert agency.row(lead_id)["first_name"] == name


# --- what a person did between lookup and write wins


@pytest.mark.parametrize(
    ("edit", "outcome"),
    [
        pytest.param({"phone": "+442079460958"}, Outcome.LINKED_AND_HYDRATED, id="a phone typed meanwhile"),
        pytest.param({"first_name": "Augusta"}, Outcome.LINKED_AND_HYDRATED, id="a name typed meanwhile"),
        pytest.param({"email": " ADA@example.com "}, Outcome.LINKED_AND_HYDRATED, id="the same address, rewritten"),
        pytest.param({"email": "ada.b@example.com"}, Outcome.UNCHANGED, id="a corrected address"),
        pytest.param({"email": None}, Outcome.UNCHANGED, id="an address taken away"),
        pytest.param({"ghl_contact_id": "another0000000000001"}, Outcome.UNCHANGED, id="a link made meanwhile"),
    ],
)
def test_a_persons_edit_wins_over_a_late_hydration(
    agency: Agency, place: Place, edit: dict[str, object], outcome: Outcome
) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    agency.edit(lead_id, **edit)
    before = agency.row(lead_id)
    (lead,) = written(agency, place, found(lead_id))
    after = agency.row(lead_id)
    assert lead.outcome is outcome
    assert {name: after[name] for name in edit} == edit
    if outcome is Outcome.UNCHANGED:
        assert after == before


def test_a_link_removed_meanwhile_is_not_put_back(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, ghl_contact_id=CONTACT.contact_id)
    agency.edit(lead_id, ghl_contact_id=None)
    (lead,) = written(agency, place, found(lead_id, link=CONTACT.contact_id, email=None))
    assert lead == Written(lead_id, Outcome.UNCHANGED, settled=False)
    assert agency.row(lead_id)["ghl_contact_id"] is None


def test_an_address_typed_meanwhile_stays_and_the_linked_contact_fills_the_rest(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, ghl_contact_id=CONTACT.contact_id)
    agency.edit(lead_id, email="typed@example.com")
    (lead,) = written(agency, place, found(lead_id, link=CONTACT.contact_id, email=None))
    assert lead.outcome is Outcome.HYDRATED
    assert agency.row(lead_id)["email"] == "typed@example.com"
    assert agency.row(lead_id)["phone"] == "+13055550123"


def test_a_lead_deleted_meanwhile_is_no_error(agency: Agency, place: Place) -> None:
    gone, stays = agency.lead(place, email="ada@example.com"), agency.lead(place, email="bob@example.com")
    with agency.engine.begin() as connection:
        connection.execute(text("DELETE FROM leads WHERE id = :id"), {"id": gone})
    other = ContactFields("contact0000000000002", "bob@example.com")
    result = written(agency, place, found(gone), found(stays, other, email="bob@example.com"))
    assert outcomes(result) == [Outcome.UNCHANGED, Outcome.LINKED_AND_HYDRATED]
    assert [row["lead_id"] for row in agency.table("lead_lookups")] == [stays]


# --- one contact and one address belong to one lead of a client


def test_an_address_that_another_lead_has_is_not_filled(agency: Agency, place: Place) -> None:
    agency.lead(place, email="ADA@example.com")
    lead_id = agency.lead(place, ghl_contact_id=CONTACT.contact_id)
    (lead,) = written(agency, place, found(lead_id, link=CONTACT.contact_id, email=None))
    assert lead.outcome is Outcome.HYDRATED
    assert LeadField.EMAIL not in lead.filled
    assert agency.row(lead_id)["email"] is None
    assert agency.row(lead_id)["first_name"] == "Ada"


def test_addresses_are_compared_in_the_databases_idea_of_lower_case(agency: Agency, place: Place) -> None:
    agency.lead(place, email="ÅSA@example.com")
    lead_id = agency.lead(place, ghl_contact_id=CONTACT.contact_id)
    contact = ContactFields(CONTACT.contact_id, " ÅSA@example.com", None, "Åsa")
    (lead,) = written(agency, place, found(lead_id, contact, link=CONTACT.contact_id, email=None))
    # Not for good: the address may be free one day without any change at GHL.
    assert lead == Written(lead_id, Outcome.HYDRATED, LeadField.FIRST_NAME, holds=False)


def test_a_contact_that_another_lead_holds_is_ambiguous(agency: Agency, place: Place) -> None:
    holder = agency.lead(place, ghl_contact_id=CONTACT.contact_id, email="work@example.com")
    lead_id = agency.lead(place, email="ada@example.com")
    before = [agency.row(holder), agency.row(lead_id)]
    assert outcomes(written(agency, place, found(lead_id))) == [Outcome.AMBIGUOUS]
    assert [agency.row(holder), agency.row(lead_id)] == before


def test_of_two_leads_for_one_contact_in_a_page_the_first_gets_it(agency: Agency, place: Place) -> None:
    first, second = agency.lead(place, email="ada@example.com"), agency.lead(place, email="ada@example.org")
    result = written(agency, place, found(first), found(second, email="ada@example.org"))
    assert outcomes(result) == [Outcome.LINKED_AND_HYDRATED, Outcome.AMBIGUOUS]
    assert agency.row(second)["ghl_contact_id"] is None


def test_of_two_leads_for_one_contact_the_one_that_is_linked_keeps_it(agency: Agency, place: Place) -> None:
    unlinked = agency.lead(place, email="ada@example.com")
    linked = agency.lead(place, ghl_contact_id=CONTACT.contact_id, email="ada@example.org")
    result = written(agency, place, found(unlinked), found(linked, link=CONTACT.contact_id, email="ada@example.org"))
    assert outcomes(result) == [Outcome.AMBIGUOUS, Outcome.HYDRATED]


def test_of_two_leads_for_one_address_in_a_page_the_first_gets_it(agency: Agency, place: Place) -> None:
    links = ("contact0000000000001", "contact0000000000002")
    first, second = (agency.lead(place, ghl_contact_id=link) for link in links)
    result = written(
        agency, place,
        found(first, ContactFields(links[0], "ada@example.com"), link=links[0], email=None),
        found(second, ContactFields(links[1], "ADA@example.com", first_name="Ada"), link=links[1], email=None),
    )  # fmt: skip
    assert [lead.filled for lead in result] == [LeadField.EMAIL, LeadField.FIRST_NAME]
    assert agency.row(second)["email"] is None


def test_two_clients_with_the_same_people_never_touch_each_other(agency: Agency, place: Place) -> None:
    other = agency.place("Other")
    mine = agency.lead(place, email="ada@example.com")
    theirs = agency.lead(other, email="ada@example.com")
    taken = agency.lead(other, ghl_contact_id=CONTACT.contact_id)
    before = [agency.row(theirs), agency.row(taken)]
    # Even a resolution that names another client's lead writes nothing into it.
    strangers = written(agency, place, found(theirs), found(taken, link=CONTACT.contact_id, email=None))
    assert strangers == [Written(lead_id, Outcome.UNCHANGED, settled=False) for lead_id in (theirs, taken)]
    assert outcomes(written(agency, place, found(mine))) == [Outcome.LINKED_AND_HYDRATED]
    assert [agency.row(theirs), agency.row(taken)] == before
    assert [row["lead_id"] for row in agency.table("lead_lookups")] == [mine]


# --- races with another writer


@contextmanager
def meanwhile(engine: Engine, moment: str, statement_start: str, act: Callable[[], object]) -> Iterator[None]:
    """Runs `act` once, when a statement of the engine is about to run, or has run ("before" or "after")."""
    left = [act]

    def hook(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if left and statement.strip().startswith(statement_start):
            left.pop()()

    name = f"{moment}_cursor_execute"
    event.listen(engine, name, hook)
    try:
        yield
        assert not left, "the moment never came"
    finally:
        event.remove(engine, name, hook)


def until_blocked(engine: Engine) -> None:
    """Waits until another session waits for a lock."""
    deadline = time.monotonic() + 5
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(BLOCKED).scalar():
            assert time.monotonic() < deadline, "nobody waits for a lock"
            time.sleep(0.005)


@pytest.mark.parametrize(
    ("columns", "outcome", "filled"),
    [
        pytest.param({"ghl_contact_id": CONTACT.contact_id}, Outcome.AMBIGUOUS, LeadField(0), id="takes the contact"),
        pytest.param(
            {"email": "Ada@example.com"}, Outcome.LINKED_AND_HYDRATED,
            LeadField.CONTACT_LINK | LeadField.PHONE | LeadField.FIRST_NAME | LeadField.LAST_NAME
            | LeadField.COMPANY_NAME,
            id="takes the address",
        ),
    ],
)  # fmt: skip
def test_a_writer_who_comes_between_our_look_and_our_write_is_respected(
    agency: Agency, place: Place, columns: dict[str, object], outcome: Outcome, filled: LeadField
) -> None:
    junk = "test_contact_1"
    lead_id = agency.lead(place, ghl_contact_id=junk)
    with meanwhile(agency.engine, "before", "UPDATE leads AS lead", lambda: agency.lead(place, **columns)):
        result = written(agency, place, found(lead_id, link=junk, email=None, link_is_dead=True))
    assert result == [Written(lead_id, outcome, filled, holds=False)]


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "gives up"])
def test_a_writer_in_flight_is_waited_for(agency: Agency, place: Place, commits: bool) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    with ThreadPoolExecutor(1) as pool, agency.engine.connect() as other:
        other.execute(
            text("INSERT INTO leads (client_id, ghl_contact_id) VALUES (:client_id, :contact_id)"),
            {"client_id": place.client_id, "contact_id": CONTACT.contact_id},
        )
        ours = pool.submit(written, agency, place, found(lead_id))
        until_blocked(agency.engine)
        (other.commit if commits else other.rollback)()
        result = ours.result(timeout=10)
    assert outcomes(result) == [Outcome.AMBIGUOUS if commits else Outcome.LINKED_AND_HYDRATED]
    assert (agency.row(lead_id)["ghl_contact_id"] is None) is commits


def test_a_lead_that_comes_in_while_we_write_finds_our_row(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    incoming: list[Any] = []

    def upsert() -> None:
        with agency.engine.begin() as connection:
            new = NewLead(contact_id=CONTACT.contact_id, first_name="Webhook")
            incoming.append(upsert_lead(connection, place.client_id, new))

    thread = threading.Thread(target=upsert)

    def start() -> None:
        thread.start()
        until_blocked(agency.engine)

    with meanwhile(agency.engine, "after", "UPDATE leads AS lead", start):
        result = written(agency, place, found(lead_id))
    thread.join(timeout=10)
    assert outcomes(result) == [Outcome.LINKED_AND_HYDRATED]
    assert [(stored.lead_id, stored.created) for stored in incoming] == [(lead_id, False)]
    assert agency.count("leads") == 1


def test_an_edit_in_flight_is_waited_for_and_wins(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    with ThreadPoolExecutor(1) as pool, agency.engine.connect() as other:
        other.execute(text("UPDATE leads SET phone = '+442079460958' WHERE id = :id"), {"id": lead_id})
        ours = pool.submit(written, agency, place, found(lead_id))
        until_blocked(agency.engine)
        other.commit()
        (lead,) = ours.result(timeout=10)
    assert LeadField.PHONE not in lead.filled
    assert agency.row(lead_id)["phone"] == "+442079460958"


def test_a_deadlock_with_somebody_else_is_tried_again(agency: Agency, place: Place) -> None:
    first, second = agency.lead(place, email="ada@example.com"), agency.lead(place, email="bob@example.com")

    def notices_deadlocks_at_once(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL deadlock_timeout = '20ms'")

    bob = ContactFields("contact0000000000002", "bob@example.com", "+13055550100")
    edit = text("UPDATE leads SET company_name = 'Typed' WHERE id = :id")
    with ThreadPoolExecutor(1) as pool, agency.engine.connect() as other:
        other.execute(text("SET LOCAL deadlock_timeout = '30s'"))  # so that we are the ones who are sent away
        other.execute(edit, {"id": second})
        event.listen(agency.engine, "begin", notices_deadlocks_at_once)
        try:
            ours = pool.submit(written, agency, place, found(first), found(second, bob, email="bob@example.com"))
            until_blocked(agency.engine)
            other.execute(edit, {"id": first})
            other.commit()
            result = ours.result(timeout=10)
        finally:
            event.remove(agency.engine, "begin", notices_deadlocks_at_once)
    assert outcomes(result) == [Outcome.LINKED_AND_HYDRATED, Outcome.LINKED_AND_HYDRATED]
    assert [agency.row(lead_id)["company_name"] for lead_id in (first, second)] == ["Typed", "Typed"]
    assert agency.row(second)["phone"] == "+13055550100"


def test_two_write_backs_of_the_same_leads_end_without_error(agency: Agency, place: Place) -> None:
    ids = agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(60)])
    page = [
        found(lead_id, ContactFields(f"contact{lead_id:013d}", None, None, "Some"), email=f"p{n}@example.com")
        for n, lead_id in enumerate(ids)
    ]
    with ThreadPoolExecutor(4) as pool:
        orders = [page, page[::-1], page[30:] + page[:30], page]
        results = list(pool.map(lambda order: outcomes(written(agency, place, *order)), orders))
    assert sorted(result.count(Outcome.LINKED_AND_HYDRATED) for result in results) == [0, 0, 0, 60]
    assert all(row["first_name"] == "Some" for row in agency.rows())


def test_an_error_that_is_no_race_is_not_swallowed(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    with agency.engine.begin() as connection:
        connection.execute(text("ALTER TABLE leads ADD CONSTRAINT no_ada CHECK (first_name <> 'Ada')"))
    with pytest.raises(IntegrityError):
        written(agency, place, found(lead_id))
    assert agency.row(lead_id)["ghl_contact_id"] is None


# --- sets, previews, lists


def test_a_page_of_five_thousand_is_one_statement(agency: Agency, place: Place) -> None:
    ids = agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(5000)])
    page = [
        found(lead_id, ContactFields(f"contact{lead_id:013d}", None, None, "Some"), email=f"p{n}@example.com")
        for n, lead_id in enumerate(ids)
    ]
    statements: list[str] = []

    def note(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement.split(maxsplit=1)[0])

    event.listen(agency.engine, "before_cursor_execute", note)
    try:
        result = written(agency, place, *page)
    finally:
        event.remove(agency.engine, "before_cursor_execute", note)
    assert set(outcomes(result)) == {Outcome.LINKED_AND_HYDRATED}
    assert sorted(statements) == ["INSERT", "SELECT", "SELECT", "UPDATE"]
    assert all(row["first_name"] == "Some" for row in agency.rows())


def test_a_dry_run_decides_everything_and_writes_nothing(agency: Agency, place: Place) -> None:
    first, second = agency.lead(place, email="ada@example.com"), agency.lead(place, email="ada@example.org")
    missing = agency.lead(place, email="nobody@example.com")
    page = [
        found(first),
        found(second, email="ada@example.org"),
        Resolution(LeadKey(3, missing, None, "nobody@example.com"), Outcome.NOT_FOUND, None, "nobody@example.com"),
    ]
    before = {name: agency.table(name) for name in ("leads", "lead_lookups", "work_lists")}
    preview = written(agency, place, *page, dry_run=True)
    assert {name: agency.table(name) for name in before} == before
    assert written(agency, place, *page) == preview


def test_a_lookup_that_failed_does_not_count_as_looked_up(agency: Agency, place: Place) -> None:
    failed, missing = agency.lead(place, email="ada@example.com"), agency.lead(place, email="bob@example.com")
    page = [
        Resolution(LeadKey(1, failed, None, "ada@example.com"), Outcome.FAILED, None, "ada@example.com"),
        Resolution(LeadKey(2, missing, None, "bob@example.com"), Outcome.NOT_FOUND, None, "bob@example.com"),
    ]
    assert outcomes(written(agency, place, *page)) == [Outcome.FAILED, Outcome.NOT_FOUND]
    assert [(row["lead_id"], row["outcome"]) for row in agency.table("lead_lookups")] == [(missing, "not_found")]


def asked_and_missing(agency: Agency) -> dict[int, tuple[object, Reason]]:
    """By lead: what its lookup stands for, and what the lead still lacked after it."""
    return {row["lead_id"]: (row["asked"], Reason(row["missing"])) for row in agency.table("lead_lookups")}


def test_a_lookup_is_remembered_for_what_the_lead_was_asked_by_and_what_it_still_lacks(
    agency: Agency, place: Place
) -> None:
    filled = agency.lead(place, email=" ADA@example.com ")
    missing = agency.lead(place, email="bob@example.com", phone="1", first_name="B", last_name="B")
    contact = ContactFields(CONTACT.contact_id, "ada@example.com", None, "Ada", "Byron")
    nobody = Resolution(LeadKey(2, missing, None, "bob@example.com"), Outcome.NOT_FOUND, None, "bob@example.com")
    written(agency, place, found(filled, contact), nobody)
    once = asked_and_missing(agency)
    assert {lead_id: lacks for lead_id, (_, lacks) in once.items()} == {
        filled: Reason.NO_PHONE | Reason.NO_COMPANY_NAME,
        missing: Reason.NO_CONTACT_LINK | Reason.NO_COMPANY_NAME,
    }
    # The link that was just written counts: the lead is as it is now. Spaces and letter case make no other question.
    agency.edit(filled, email="ada@example.com")
    written(agency, place, found(filled, contact, link=CONTACT.contact_id), nobody)
    assert asked_and_missing(agency) == once
    # Another address is another question, and so is no link.
    agency.edit(missing, email="robert@example.com")
    agency.edit(filled, ghl_contact_id=None)
    robert = Resolution(LeadKey(2, missing, None, "robert@example.com"), Outcome.NOT_FOUND, None, "robert@example.com")
    unlinked = Resolution(LeadKey(1, filled, None, "ada@example.com"), Outcome.NOT_FOUND, None, "ada@example.com")
    written(agency, place, robert, unlinked)
    again = asked_and_missing(agency)
    assert {again[lead_id][0] for lead_id in (filled, missing)}.isdisjoint(asked for asked, _ in once.values())
    assert again[filled][1] == Reason.NO_CONTACT_LINK | Reason.NO_PHONE | Reason.NO_COMPANY_NAME


def test_a_lists_pages_are_taken_off_as_they_are_written_and_failures_stay(agency: Agency, place: Place) -> None:
    ids = agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(5)])
    with agency.engine.begin() as connection:
        work_list = open_list(connection, place.client_id, Scope.ALL)
        page = [
            Resolution(LeadKey(n + 1, lead_id, None, f"p{n}@example.com"), Outcome.NOT_FOUND, None, f"p{n}@example.com")
            for n, lead_id in enumerate(ids)
        ]
        page[1] = Resolution(page[1].key, Outcome.FAILED)
        contact = ContactFields(CONTACT.contact_id, first_name="Ada")
        page[3] = Resolution(page[3].key, Outcome.UNCHANGED, contact, "p3@example.com")
        store_resolutions(connection, work_list, page, 5)
    sizes = [write_back_page(agency.engine, work_list, "US", 3) for _ in range(3)]
    assert sizes == [3, 1, 0]
    with agency.engine.begin() as connection:
        assert len(record_failures(connection, work_list)) == 1
    assert [row["position"] for row in agency.table("resolved_contacts")] == [2]
    items = sorted(agency.table("work_items"), key=lambda row: row["position"])
    assert [row["outcome"] for row in items] == [
        "not_found", "failed", "not_found", "linked_and_hydrated", "not_found",
    ]  # fmt: skip
    assert agency.table("work_lists")[0]["written"] == 4
    assert {row["lead_id"] for row in agency.table("lead_lookups")} == set(ids) - {ids[1]}
