"""A new person whose first events name different keys ends as one lead, and nobody else's lead is ever lost."""

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

from ghl_pipeline.conversations.message_store import begin_import, store_page
from ghl_pipeline.database.messages import NewMessage, store_messages
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.ghl.message_payloads import Message
from ghl_pipeline.hydration.options import Options
from ghl_pipeline.hydration.sync import sync_all, sync_lead
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.handling.imported_messages import news_of_imports
from ghl_pipeline.webhooks.handling.one_person import OnePerson
from ghl_pipeline.webhooks.inbox.deliveries import Delivery, Stored
from ghl_pipeline.webhooks.inbox.store_events import store_deliveries, store_events
from ghl_pipeline.webhooks.outcomes import EventOutcome
from ghl_pipeline.webhooks.reading.read_event import read_event
from ghl_pipeline_tests.hydration.conftest import Agency, Killed, Place, before_statement
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.ensuring import PROTECTED, ensure, writes
from ghl_pipeline_tests.webhooks.handling_tools import Inbox, bison, contact_changed, moment, sms

Sent = tuple[dict[str, object], Provider | None]
EMAIL = "ada@example.com"


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


@pytest.fixture
def inbox(agency: Agency) -> Inbox:
    return Inbox(agency)


@pytest.fixture
def ada(place: Place) -> Contact:
    return add_ada(place)


def add_ada(place: Place) -> Contact:
    return place.ghl.add(
        email="Ada@Example.com", phone="(305) 555-0123", first_name="Ada", last_name="Byron", company_name="Engines"
    )


def two_leads(agency: Agency, place: Place, inbox: Inbox, contact: Contact) -> tuple[int, int]:
    """The lead that an SMS made and the one that a reply made, before anybody asked GHL."""
    inbox.deliver(place, sms(place, contact.id), bison("LEAD_REPLIED"))
    by_contact, by_email = (row["id"] for row in agency.rows())
    return by_contact, by_email


def unite(agency: Agency, place: Place, contact: Contact) -> dict[int, int]:
    shown = [(contact.id, contact.email)]
    return dict(OnePerson(agency.engine, PROTECTED).unite(place.client_id, shown))


def everything(agency: Agency) -> list[list[dict[str, Any]]]:
    tables = ("leads", "messages", "webhook_events", "lead_lookups", "contact_creations")
    return [sorted(agency.table(name), key=repr) for name in tables]


# --- one lead, whatever comes first


def ten_events(place: Place, contact: Contact) -> list[Sent]:
    workflow: dict[str, object] = {
        "contact_id": contact.id,
        "customData": {"message": "By workflow", "timestamp": moment(5)},
    }
    return [
        *((sms(place, contact.id, f"Message {n}"), None) for n in range(3)),
        (workflow, Provider.GHL_WORKFLOW),
        (contact_changed(place, contact, type="ContactCreate"), None),
        (contact_changed(place, contact, minutes=1), None),
        (bison("LEAD_REPLIED", reply_id=900), None),
        (bison("LEAD_INTERESTED", reply_id=900, interested=True), None),
        (bison("LEAD_REPLIED", reply_id=901), None),
        (bison("UNTRACKED_REPLY_RECEIVED", reply_id=902), None),
    ]


@pytest.mark.parametrize("seed", range(30))
async def test_ten_events_of_a_new_person_in_any_order_end_in_one_lead(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact, seed: int
) -> None:
    chance = random.Random(seed)
    agency.prefer_lookups(place)
    events = ten_events(place, ada)
    chance.shuffle(events)
    often = chance.choice((0.0, 0.2, 0.5, 0.8))
    for body, provider in events:
        inbox.deliver(place, body, provider=provider)
        if chance.random() < often:
            await inbox.handle(place)
    await inbox.handle(place)
    inbox.make_due()  # an interested lead waits a second for what came before it was one
    await inbox.handle(place)

    (lead,) = agency.rows()
    assert (lead["ghl_contact_id"], lead["email"].lower(), lead["emailbison_lead_id"]) == (ada.id, EMAIL, 70)
    assert (lead["phone"], lead["first_name"], lead["last_name"]) == ("+13055550123", "Ada", "Byron")
    assert lead["status"] == "interested"
    assert writes(agency, place)[0] == 0, "no contact was created"
    messages = agency.table("messages")
    assert len(messages) == 7, "also what was written outside a campaign by somebody who was no lead yet"
    assert len({(row["provider"], row["external_id"], row["body"]) for row in messages}) == 7
    assert {row["lead_id"] for row in messages} == {lead["id"]}
    for row in inbox.events():
        assert row["state"] == "done"
        assert row["lead_id"] == (None if row["outcome"] == "no_lead" else lead["id"])


async def test_the_lead_of_the_address_stays_and_takes_all_that_the_other_one_has(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    _, by_email = two_leads(agency, place, inbox, ada)
    await inbox.handle(place)
    (lead,) = agency.rows()
    assert (lead["id"], lead["ghl_contact_id"], lead["status"]) == (by_email, ada.id, "replied")
    assert (lead["company_name"], lead["enrichment_status"]) == ("Engines", "enriched")
    assert inbox.outcomes() == ["lead_updated", "lead_updated"]
    assert {row["lead_id"] for row in [*inbox.events(), *agency.table("messages")]} == {by_email}
    (lookup,) = agency.table("lead_lookups")
    assert (lookup["lead_id"], lookup["outcome"]) == (by_email, "hydrated")


async def test_the_drafts_and_the_account_of_both_leads_are_the_one_leads(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    for lead_id in (by_contact, by_email):
        agency.sql(
            """INSERT INTO reply_drafts (client_id, lead_id, message_id, channel, state, body)
               SELECT client_id, lead_id, id, 'sms', 'pending', 'Hello.' FROM messages WHERE lead_id = :lead""",
            lead=lead_id,
        )
    agency.sql("UPDATE leads SET zip_code = '33101', emailbison_sender_id = 7 WHERE id = :lead", lead=by_contact)
    agency.sql(
        "INSERT INTO sender_healings (client_id, lead_id, reason, sender_id) VALUES (:client, :lead, 'missing', 7)",
        client=place.client_id, lead=by_contact,
    )  # fmt: skip
    assert unite(agency, place, ada) == {by_contact: by_email}
    (lead,) = agency.rows()
    assert (lead["id"], lead["zip_code"], lead["emailbison_sender_id"]) == (by_email, "33101", 7)
    drafts = agency.table("reply_drafts")
    assert {row["lead_id"] for row in [*drafts, *agency.table("sender_healings")]} == {by_email}
    assert {row["message_id"] for row in drafts} == {row["id"] for row in agency.table("messages")}


async def test_the_event_of_a_contact_that_got_an_address_unites_without_a_request(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(phone="(305) 555-0123", first_name="Ada", last_name="Byron")
    inbox.deliver(place, sms(place, contact.id))
    await inbox.handle(place)
    by_email = agency.lead(place, email=EMAIL, first_name="Augusta", company_name="Engines", status="contacted")
    await sync_lead(agency.hydration(), by_email)
    asked = agency.requests(place)
    (event_row,) = await inbox.handled(place, contact_changed(place, contact, email="ADA@example.com "))
    (lead,) = agency.rows()
    assert (lead["ghl_contact_id"], lead["phone"], lead["first_name"]) == (contact.id, "+13055550123", "Augusta")
    assert (lead["enrichment_status"], lead["status"]) == ("enriched", "contacted")
    assert (event_row["outcome"], event_row["lead_id"]) == ("lead_updated", lead["id"])
    assert agency.requests(place) == asked
    assert agency.count("lead_lookups") == 0, "nobody has looked the lead up as it is now"


async def test_events_that_were_decided_before_are_the_one_leads_too(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    sent = sms(place, ada.id, "Hello Ada", direction="outbound")
    inbox.deliver(place, sms(place, ada.id), sent, bison("LEAD_REPLIED"))
    await inbox.handle(place)
    (lead,) = agency.rows()
    assert sorted(inbox.outcomes()) == ["lead_updated", "lead_updated", "message_stored"]
    assert {row["lead_id"] for row in inbox.events()} == {lead["id"]}


async def test_all_events_of_a_batch_in_which_one_unites_are_the_one_leads(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(phone="(305) 555-0123", first_name="Ada", last_name="Byron")
    await inbox.handled(place, sms(place, contact.id))
    by_email = agency.lead(place, email=EMAIL)
    told = contact_changed(place, contact, email=EMAIL, companyName="Engines")
    sent = sms(place, contact.id, "Hello Ada", direction="outbound")
    events = await inbox.handled(place, sms(place, contact.id, "One more"), sent, told)
    assert [event["outcome"] for event in events] == ["lead_updated", "message_stored", "lead_updated"]
    assert {event["lead_id"] for event in events} == {by_email}
    assert agency.row(by_email)["company_name"] == "Engines"


async def test_who_is_interested_and_united_in_one_batch_counts_as_updated(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    two_leads(agency, place, inbox, ada)
    interested = bison("LEAD_INTERESTED")
    inbox.deliver(place, interested)
    await inbox.handle(place)
    assert set(inbox.outcomes()) == {"lead_updated"}
    assert writes(agency, place)[0] == 0


async def test_what_a_workflow_says_unites_nobody_until_ghl_says_it_too(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email="somebody.else@example.com", phone="(305) 555-0123")
    inbox.deliver(place, sms(place, contact.id))
    agency.lead(place, email=EMAIL)
    body: dict[str, object] = {"contact_id": contact.id, "email": EMAIL}
    await inbox.handled(place, body, provider=Provider.GHL_WORKFLOW)
    assert [row["email"] for row in agency.rows()] == ["somebody.else@example.com", EMAIL]


async def test_an_old_event_of_a_contact_unites_nobody(agency: Agency, place: Place, inbox: Inbox) -> None:
    contact = place.ghl.add(phone="(305) 555-0123", first_name="Ada", last_name="Byron")
    inbox.deliver(place, sms(place, contact.id), contact_changed(place, contact, minutes=5))
    await inbox.handle(place)
    agency.lead(place, email=EMAIL)
    await inbox.handled(place, contact_changed(place, contact, minutes=1, email=EMAIL))
    assert agency.count("leads") == 2


@pytest.mark.parametrize("asked_for", ["by_email", "by_contact"])
async def test_ensuring_an_interested_lead_unites_it_with_the_one_that_has_its_contact(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact, asked_for: str
) -> None:
    leads = dict(zip(("by_contact", "by_email"), two_leads(agency, place, inbox, ada), strict=True))
    ensured = await ensure(agency, place, leads[asked_for])
    (lead,) = agency.rows()
    assert (lead["id"], lead["ghl_contact_id"], lead["phone"]) == (leads["by_email"], ada.id, "+13055550123")
    assert ensured.outcome is EventOutcome.LEAD_UPDATED
    assert ensured.united == {leads["by_contact"]: leads["by_email"]}
    assert writes(agency, place) == (0, 0)


async def test_an_interested_lead_whose_contact_has_another_lead_counts_as_updated(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(phone="(305) 555-0123", first_name="Ada")
    outbound = sms(place, contact.id, direction="outbound")
    await inbox.handled(place, sms(place, contact.id))
    place.ghl.contacts.put(msgspec.structs.replace(contact, email=EMAIL))
    sent, interested = await inbox.handled(place, outbound, bison("LEAD_INTERESTED"))
    (lead,) = agency.rows()
    assert (sent["outcome"], sent["lead_id"]) == ("message_stored", lead["id"])
    assert (interested["outcome"], interested["lead_id"]) == ("lead_updated", lead["id"])
    assert writes(agency, place)[0] == 0


async def test_a_message_that_both_leads_have_is_one_afterwards(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    by_workflow: dict[str, object] = {"email": EMAIL, "customData": {"message": "Yes please", "timestamp": moment(0.5)}}
    inbox.deliver(place, sms(place, ada.id, "Yes please"), sms(place, ada.id, "And more"))
    inbox.deliver(place, by_workflow, provider=Provider.GHL_WORKFLOW)
    assert (agency.count("leads"), agency.count("messages")) == (2, 3)
    await inbox.handle(place)
    messages = agency.table("messages")
    assert sorted(row["body"] for row in messages) == ["And more", "Yes please"]
    assert all(row["external_id"] for row in messages)
    assert {row["lead_id"] for row in messages} == {agency.rows()[0]["id"]}


@pytest.mark.parametrize(
    ("of_double", "of_kept", "stays"),
    [
        ("pending", None, "double"),
        ("pending", "failed", "double"),
        ("approved", "pending", "double"),
        ("pending", "pending", "kept"),
        ("failed", "pending", "kept"),
        ("pending", "approved", "kept"),
        ("approved", "approved", "kept"),
    ],
)
async def test_of_two_drafts_for_one_message_the_better_one_stays(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact, of_double: str, of_kept: str | None, stays: str
) -> None:
    by_workflow: dict[str, object] = {"email": EMAIL, "customData": {"message": "Yes please", "timestamp": moment(0.5)}}
    inbox.deliver(place, sms(place, ada.id, "Yes please"))
    inbox.deliver(place, by_workflow, provider=Provider.GHL_WORKFLOW)
    for kind, state in (("double", of_double), ("kept", of_kept)):
        agency.sql(
            f"""INSERT INTO reply_drafts (client_id, lead_id, message_id, channel, state, body, failure)
                SELECT client_id, lead_id, id, 'sms', :state, :kind, CASE WHEN :state = 'failed' THEN 'timeout' END
                FROM messages WHERE CAST(:state AS text) IS NOT NULL
                  AND external_id IS {"NOT NULL" if kind == "kept" else "NULL"}""",
            state=state, kind=kind,
        )  # fmt: skip
    await inbox.handle(place)
    (message,) = agency.table("messages")
    (draft,) = agency.table("reply_drafts")
    assert (draft["body"], draft["message_id"]) == (stays, message["id"])


# --- what keeps two leads two


async def test_a_lead_that_the_dashboard_made_is_never_deleted(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    mine = agency.lead(place, ghl_contact_id=ada.id)
    inbox.deliver(place, sms(place, ada.id), bison("LEAD_REPLIED"), contact_changed(place, ada))
    await inbox.handle(place)
    first, second = agency.rows()
    assert (first["id"], first["email"], second["email"]) == (mine, None, EMAIL)
    assert second["ghl_contact_id"] is None
    assert {row["lead_id"]: row["outcome"] for row in agency.table("lead_lookups")}[second["id"]] == "ambiguous"


@pytest.mark.parametrize(
    ("which", "columns"),
    [
        ("by_contact", {"email": "ada.private@example.com"}),
        ("by_contact", {"emailbison_lead_id": 71}),
        ("by_contact", {"ghl_contact_id": "another"}),
        ("by_contact", {"created_at": datetime(2026, 1, 1, tzinfo=UTC)}),
        ("by_email", {"ghl_contact_id": "B" * 20}),
        ("by_email", {"ghl_contact_id": "junk"}),
        ("by_email", {"email": "bob@example.com"}),
        ("by_email", {"email": None}),
    ],
)
def test_leads_that_are_not_for_certain_one_new_person_stay_two(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact, which: str, columns: dict[str, object]
) -> None:
    leads = dict(zip(("by_contact", "by_email"), two_leads(agency, place, inbox, ada), strict=True))
    agency.edit(leads[which], **columns)
    before = everything(agency)
    assert unite(agency, place, ada) == {}
    assert everything(agency) == before


def test_a_link_and_an_address_of_blanks_are_none(agency: Agency, place: Place, inbox: Inbox, ada: Contact) -> None:
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    agency.edit(by_contact, email=" \t")
    agency.edit(by_email, ghl_contact_id=" ", email=" ADA@example.com", phone="\n")
    assert unite(agency, place, ada) == {by_contact: by_email}
    assert unite(agency, place, ada) == {}


async def test_the_same_person_of_another_client_is_nobody_here(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    other = agency.place("Other")
    two_leads(agency, place, inbox, ada)
    inbox.deliver(other, sms(other, ada.id))
    inbox.deliver(other, bison("LEAD_REPLIED"))
    theirs = [row for row in agency.rows() if row["client_id"] == other.client_id]
    await inbox.handle(place)
    rows = agency.rows()
    assert [row for row in rows if row["client_id"] == other.client_id] == theirs
    assert len(rows) == 3
    assert len({row["client_id"] for row in agency.table("messages") if row["lead_id"] == theirs[0]["id"]}) == 1


def test_each_ones_key_at_another_client_unites_nobody(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    other = agency.place("Other")
    inbox.deliver(place, sms(place, ada.id))
    agency.lead(other, email=EMAIL)
    assert unite(agency, place, ada) == {}
    assert unite(agency, other, ada) == {}
    assert agency.count("leads") == 2


async def test_no_backfill_and_no_single_sync_deletes_a_lead(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    leads = two_leads(agency, place, inbox, ada)
    await agency.backfill(place)
    await sync_all(agency.hydration(), [place.id], Options())
    for lead_id in leads:
        await sync_lead(agency.hydration(), lead_id)
    assert [row["id"] for row in agency.rows()] == list(leads)


# --- the rows of others


@pytest.mark.parametrize("on_delete", ["NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "NO ACTION DEFERRABLE"])
async def test_a_lead_with_notes_of_the_dashboard_is_not_deleted(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact, on_delete: str
) -> None:
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    agency.sql("CREATE SCHEMA dashboard")
    agency.sql(f'CREATE TABLE dashboard."Note" ("of Lead" bigint REFERENCES leads ON DELETE {on_delete}, body text)')
    agency.sql('INSERT INTO dashboard."Note" VALUES (:id, :body)', id=by_contact, body="Call her")
    await inbox.handle(place)
    assert [(row["id"], row["email"]) for row in agency.rows()] == [(by_contact, None), (by_email, EMAIL)]
    assert {row["lead_id"]: row["outcome"] for row in agency.table("lead_lookups")}[by_email] == "ambiguous"
    agency.sql('UPDATE dashboard."Note" SET "of Lead" = :id', id=by_email)
    assert unite(agency, place, ada) == {by_contact: by_email}


def test_a_message_with_drafts_of_the_dashboard_is_not_deleted(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    by_workflow: dict[str, object] = {"email": EMAIL, "customData": {"message": "Yes please", "timestamp": moment()}}
    inbox.deliver(place, sms(place, ada.id, "Yes please"))
    inbox.deliver(place, by_workflow, provider=Provider.GHL_WORKFLOW)
    agency.sql("CREATE TABLE drafts (message_id bigint REFERENCES messages ON DELETE CASCADE)")
    agency.sql("INSERT INTO drafts SELECT id FROM messages WHERE external_id IS NULL")
    before = everything(agency)
    assert unite(agency, place, ada) == {}
    assert everything(agency) == before


def test_a_trigger_that_forbids_to_delete_leads_is_obeyed(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    two_leads(agency, place, inbox, ada)
    agency.sql("""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'leads are kept'; END $$
    """)
    agency.sql("CREATE TRIGGER keep BEFORE DELETE ON leads FOR EACH ROW EXECUTE FUNCTION keep()")
    before = everything(agency)
    assert unite(agency, place, ada) == {}
    assert everything(agency) == before


# --- what they said


@pytest.mark.parametrize("stop_first", [True, False])
async def test_who_opted_out_by_sms_stays_so_although_interested_by_mail(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact, stop_first: bool
) -> None:
    events = [sms(place, ada.id, "STOP"), bison("LEAD_INTERESTED")]
    inbox.deliver(place, *(events if stop_first else reversed(events)))
    await inbox.handle(place)
    (lead,) = agency.rows()
    assert (lead["status"], lead["opted_out_at"] is not None) == ("unsubscribed", True)
    assert writes(agency, place) == (0, 0)


def test_the_earlier_opt_out_counts_and_what_was_said_of_the_contact_stays(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    early, late = (datetime(2026, 5, day, tzinfo=UTC) for day in (1, 2))
    agency.edit(by_contact, opted_out_at=late, contact_deleted_at=late, status="unsubscribed")
    agency.edit(by_email, opted_out_at=early, status="booked")
    unite(agency, place, ada)
    (lead,) = agency.rows()
    assert (lead["opted_out_at"], lead["contact_deleted_at"], lead["status"]) == (early, late, "unsubscribed")


@pytest.mark.parametrize(
    ("kept", "gone", "status"),
    [
        ({"enrichment_status": None}, {}, "enriched"),
        ({"enrichment_status": "pending"}, {}, "enriched"),
        ({"enrichment_status": "pending", "phone": "+13055550199"}, {}, "pending"),
        ({"enrichment_status": "not_needed"}, {}, "not_needed"),
        ({"enrichment_status": "pending"}, {"phone": None}, "pending"),
        ({}, {"enrichment_status": None, "enriched_at": None}, None),
    ],
)
def test_whose_word_on_enrichment_counts(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact, kept: dict[str, object], gone: dict[str, object],
    status: str | None,
) -> None:  # fmt: skip
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    enriched = {"enrichment_status": "enriched", "enrichment_source": "ghl", "enriched_at": datetime.now(UTC)}
    agency.edit(by_contact, **{"phone": "+13055550123", **enriched, **gone})
    agency.edit(by_email, **{"phone": None, **kept})
    unite(agency, place, ada)
    assert agency.row(by_email)["enrichment_status"] == status


def test_the_note_of_a_creation_moves_too(agency: Agency, place: Place, inbox: Inbox, ada: Contact) -> None:
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    agency.sql(
        "INSERT INTO contact_creations (client_id, lead_id, address) VALUES (:client, :lead, 'old@example.com')",
        client=place.client_id, lead=by_contact,
    )  # fmt: skip
    unite(agency, place, ada)
    assert [row["lead_id"] for row in agency.table("contact_creations")] == [by_email]


# --- at the same moment, and half-way


def delivery(place: Place, body: dict[str, object]) -> Delivery:
    raw = msgspec.json.encode(body)
    return Delivery(read_event(Provider.GHL, raw, location_id=place.id), raw, place.client_id, place.id)


def waits_for_a_lock(agency: Agency) -> bool:
    with agency.engine.connect() as connection:
        # Of this database: others of the server have tests of their own.
        query = text("""
            SELECT EXISTS (SELECT FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock')
        """)
        return bool(connection.execute(query).scalar_one())


def until(true: Callable[[], bool]) -> None:
    ended = threading.Event()
    for _ in range(500):
        if true():
            return
        ended.wait(0.01)
    pytest.fail("it never came to that")


def test_a_message_that_is_being_stored_is_waited_for(agency: Agency, place: Place, inbox: Inbox, ada: Contact) -> None:
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    with ThreadPoolExecutor(1) as threads:
        with agency.engine.begin() as receiver:
            (stored,) = store_events(receiver, [delivery(place, sms(place, ada.id, "One more"))])
            assert stored.lead_id == by_contact
            uniting = threads.submit(unite, agency, place, ada)
            until(lambda: waits_for_a_lock(agency))
        assert uniting.result() == {by_contact: by_email}
    assert {row["lead_id"] for row in [*agency.table("messages"), *inbox.events()]} == {by_email}
    assert agency.count("messages") == 3


def test_a_lead_to_which_a_receiver_just_gives_a_message_is_waited_for(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    with ThreadPoolExecutor(1) as threads:
        uniting: list[Any] = []
        was_quicker: list[bool] = []

        def unites() -> None:
            uniting.append(threads.submit(unite, agency, place, ada))
            until(lambda: uniting[0].done() or waits_for_a_lock(agency))
            was_quicker.append(uniting[0].done())

        with before_statement(agency.engine, lambda sql, _: sql.startswith("INSERT INTO messages"), unites):
            inbox.deliver(place, sms(place, ada.id, "One more"))
        assert uniting[0].result() == {by_contact: by_email}
        assert was_quicker == [False], "the receiver's transaction failed, and with it its whole batch"
    assert {row["state"] for row in inbox.events()} == {"pending"}
    assert {row["lead_id"] for row in [*agency.table("messages"), *inbox.events()]} == {by_email}
    assert agency.count("messages") == 3


def test_who_takes_no_lock_of_ours_is_told_that_the_lead_is_no_more(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    by_contact, _ = two_leads(agency, place, inbox, ada)
    by_the_dashboard = """
        INSERT INTO messages (client_id, lead_id, provider, channel, direction, source, sent_at)
        VALUES (:client, :lead, 'ghl', 'sms', 'outbound', 'import', now())
    """
    with ThreadPoolExecutor(1) as threads:
        came: list[Any] = []

        def comes() -> None:
            came.append(threads.submit(agency.sql, by_the_dashboard, client=place.client_id, lead=by_contact))
            until(lambda: came[0].done() or waits_for_a_lock(agency))

        with before_statement(agency.engine, lambda sql, _: sql.startswith("DELETE FROM leads"), comes):
            unite(agency, place, ada)
        with pytest.raises(IntegrityError):
            came[0].result()


def test_a_message_that_comes_meanwhile_is_the_one_leads(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    _, by_email = two_leads(agency, place, inbox, ada)
    with ThreadPoolExecutor(1) as threads:
        came: list[Any] = []

        def comes() -> None:
            more = [delivery(place, sms(place, ada.id, "One more"))]
            came.append(threads.submit(store_deliveries, agency.engine, more))
            until(lambda: waits_for_a_lock(agency))

        with before_statement(agency.engine, lambda sql, _: sql.startswith("DELETE FROM leads"), comes):
            unite(agency, place, ada)
        (stored,) = came[0].result()
    assert isinstance(stored, Stored)
    assert stored.lead_id == by_email
    assert (agency.count("leads"), agency.count("messages")) == (1, 3)


def test_a_message_for_the_lead_that_is_no_more_is_refused_and_nothing_is_lost_with_it(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    message = NewMessage(provider="ghl", channel="sms", direction="inbound", external_id="late", body="Late")

    def store() -> object:
        with agency.engine.begin() as connection:
            rows = [(place.client_id, by_contact, message), (place.client_id, by_email, message)]
            return store_messages(connection, rows)

    with ThreadPoolExecutor(1) as threads:
        came: list[Any] = []

        def comes() -> None:
            came.append(threads.submit(store))
            until(lambda: waits_for_a_lock(agency))

        with before_statement(agency.engine, lambda sql, _: sql.startswith("DELETE FROM leads"), comes):
            unite(agency, place, ada)
        refused, stored = came[0].result()
    assert isinstance(refused, InvalidInput)
    assert stored.created
    assert {row["lead_id"] for row in agency.table("messages")} == {by_email}


def test_an_import_that_is_under_way_and_uniting_do_not_wait_for_each_other(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    by_contact, by_email = two_leads(agency, place, inbox, ada)
    mark = begin_import(agency.engine, place.client_id)
    late = Message("late", ada.id, "inbound", datetime(2026, 5, 4, 13, tzinfo=UTC), channel="sms", body="Late")
    with ThreadPoolExecutor(1) as threads:
        uniting: list[Any] = []

        def unites() -> None:
            uniting.append(threads.submit(unite, agency, place, ada))
            until(uniting[0].done)

        is_lock = "SELECT pg_advisory_xact_lock"
        with before_statement(agency.engine, lambda sql, _: sql.startswith(is_lock), unites):
            begins_at = datetime(2026, 5, 1, tzinfo=UTC)
            store_page(agency.engine, mark, [late], news_of_imports(frozenset()), not_before=begins_at, until=None)
        assert uniting[0].result() == {by_contact: by_email}
    assert {row["lead_id"] for row in agency.table("messages")} == {by_email}
    assert agency.count("messages") == 3


async def test_a_storm_of_messages_while_leads_are_united_ends_in_one_lead_each(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    agency.prefer_lookups(place)
    people = [
        place.ghl.add(email=f"p{n}@example.com", phone="(305) 555-0123", first_name="P", last_name="Q")
        for n in range(12)
    ]
    bodies = [body for c in people for body in (sms(place, c.id, "One"), sms(place, c.id, "Two"))]
    replies = [bison("LEAD_REPLIED", lead_id=100 + n, email=c.email, reply_id=900 + n) for n, c in enumerate(people)]
    chance = random.Random(7)
    everybody = bodies + replies
    chance.shuffle(everybody)

    def storm(mine: list[dict[str, object]]) -> None:
        for body in mine:
            inbox.deliver(place, body)

    storms = [asyncio.create_task(asyncio.to_thread(storm, everybody[n::4])) for n in range(4)]
    while not all(task.done() for task in storms):
        await inbox.handle(place)
    await asyncio.gather(*storms)
    await inbox.handle(place)
    await asyncio.sleep(0)
    inbox.make_due()
    await inbox.handle(place)
    rows = agency.rows()
    assert sorted(row["email"] for row in rows) == sorted(contact.email or "" for contact in people)
    assert all(row["ghl_contact_id"] and row["emailbison_lead_id"] for row in rows)
    assert agency.count("messages") == 36
    assert all(row["state"] == "done" for row in inbox.events())


def killed_at(agency: Agency, number: int, work: Callable[[], object]) -> bool:
    """Whether work was killed, before the statement of this number; else it has fewer."""
    seen: list[object] = []

    def hook(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)
        if len(seen) == number:
            raise Killed

    event.listen(agency.engine, "before_cursor_execute", hook)
    try:
        work()
    except Killed:
        return True
    finally:
        event.remove(agency.engine, "before_cursor_execute", hook)
    return False


def test_killed_before_any_of_its_statements_it_has_changed_nothing(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact
) -> None:
    by_workflow: dict[str, object] = {"email": EMAIL, "customData": {"message": "Yes please", "timestamp": moment()}}
    inbox.deliver(place, by_workflow, provider=Provider.GHL_WORKFLOW)
    two_leads(agency, place, inbox, ada)
    before = everything(agency)
    number = 1
    while killed_at(agency, number, lambda: unite(agency, place, ada)):
        assert everything(agency) == before
        number += 1
    assert number > 10, "every statement was tried"
    assert (agency.count("leads"), agency.count("messages")) == (1, 2)


WRITE_BACK = "UPDATE leads AS lead SET\n        ghl_contact_id"
VERDICTS = "UPDATE webhook_events AS event\n        SET state = 'done'"


@pytest.mark.parametrize("at", [WRITE_BACK, VERDICTS])
async def test_killed_after_uniting_the_events_are_the_one_leads_and_are_handled_again(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact, at: str
) -> None:
    _, by_email = two_leads(agency, place, inbox, ada)

    def kill() -> None:
        raise Killed

    with before_statement(agency.engine, lambda sql, _: sql.startswith(at), kill), pytest.raises(Killed):
        await inbox.handle(place)
    assert [row["id"] for row in agency.rows()] == [by_email]
    assert {row["state"] for row in inbox.events()} == {"pending"}
    inbox.let_claims_run_out()
    await inbox.handle(place)
    assert agency.row(by_email)["first_name"] == "Ada"
    assert {(row["state"], row["lead_id"]) for row in inbox.events()} == {("done", by_email)}


async def test_a_page_that_is_written_back_at_the_same_time_neither_deadlocks_nor_fails(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    people = [place.ghl.add(email=f"p{n}@example.com", phone="(305) 555-0123", first_name="P") for n in range(30)]
    for n, contact in enumerate(people):
        replied = bison("LEAD_REPLIED", lead_id=100 + n, email=contact.email, reply_id=900 + n)
        # Either lead may be the older one.
        inbox.deliver(place, *((sms(place, contact.id), replied) if n % 2 else (replied, sms(place, contact.id))))
    handling = asyncio.create_task(inbox.handle(place))
    await agency.backfill(place)
    await handling
    inbox.make_due()
    await inbox.handle(place)
    assert all(row["state"] == "done" for row in inbox.events())
    assert len(agency.rows()) == 30
    assert all(row["ghl_contact_id"] and row["emailbison_lead_id"] for row in agency.rows())


@pytest.mark.parametrize("plan_for", ["force_custom_plan", "force_generic_plan"])
def test_a_look_for_two_leads_of_one_person_reads_only_theirs(agency: Agency, place: Place, plan_for: str) -> None:
    agency.sql(
        """
        INSERT INTO leads (client_id, ghl_contact_id, email)
        SELECT :client_id, CASE WHEN n % 2 = 0 THEN 'Contact' || lpad(n::text, 13, '0') END,
            CASE WHEN n % 2 = 1 THEN 'p' || n || '@example.com' END
        FROM generate_series(1, 40000) AS n
        """,
        client_id=place.client_id,
    )
    with agency.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE leads"))
    statements: list[tuple[str, Any]] = []

    def note(_connection: Connection, _cursor: object, statement: str, values: Any, *_: object) -> None:
        statements.append((statement, values))

    event.listen(agency.engine, "before_cursor_execute", note)
    shown = [(f"Contact{2 * n:013}", f"p{2 * n + 1}@example.com") for n in range(200)]
    assert OnePerson(agency.engine, PROTECTED).unite(place.client_id, shown) == {}
    event.remove(agency.engine, "before_cursor_execute", note)
    ((statement, values),) = statements
    for number, name in enumerate(values, 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    with agency.engine.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL plan_cache_mode = {plan_for}")
        connection.exec_driver_sql(f"PREPARE probe AS {statement}")
        literals = ", ".join("'" + str(value).replace("'", "''") + "'" for value in values.values())
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN EXECUTE probe ({literals})").scalars())
    assert "uq_leads_client_contact" in plan, plan
    assert "uq_leads_client_email" in plan, plan
    assert "Seq Scan on leads" not in plan, plan


def test_it_shows_nothing_of_a_person(
    agency: Agency, place: Place, inbox: Inbox, ada: Contact, caplog: pytest.LogCaptureFixture
) -> None:
    two_leads(agency, place, inbox, ada)
    caplog.set_level("DEBUG")
    unite(agency, place, ada)
    assert "part of it now" in caplog.text
    assert EMAIL not in caplog.text.lower()
