"""What was said of somebody before they were a lead is not lost: it is handled again once they are one."""

from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.ghl.errors import TransientGhlError
from ghl_pipeline.webhooks.handling.early_events import bring_back
from ghl_pipeline.webhooks.inbox.dead_letters import list_events
from ghl_pipeline.webhooks.person_keys import person_keys
from ghl_pipeline_tests.hydration.conftest import Agency, Killed, Place, before_statement, kill
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.ensuring import contacts, writes
from ghl_pipeline_tests.webhooks.handling_tools import START, Inbox, bison, contact_changed, contact_deleted, sms

EMAIL = "ada@example.com"
STRANGERS = 50_000
CLIENTS = 400


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


@pytest.fixture
def inbox(agency: Agency) -> Inbox:
    return Inbox(agency)


async def handled_to_the_end(inbox: Inbox, place: Place, *bodies: dict[str, object]) -> None:
    """Also what waits a second for something earlier."""
    await inbox.handled(place, *bodies)
    inbox.make_due()
    await inbox.handle(place)


@pytest.mark.parametrize("opt_out", [bison("LEAD_UNSUBSCRIBED", reply_id=None), bison("LEAD_UNSUBSCRIBED", lead_id=99)])
async def test_who_opted_out_before_being_a_lead_is_never_created(
    agency: Agency, place: Place, inbox: Inbox, opt_out: dict[str, object]
) -> None:
    """Known by the EmailBison id, or by the address alone."""
    (early,) = await inbox.handled(place, opt_out)
    assert (early["outcome"], agency.count("leads")) == ("no_lead", 0)
    await handled_to_the_end(inbox, place, bison("LEAD_INTERESTED"))
    (lead,) = agency.rows()
    assert (lead["status"], lead["opted_out_at"] is not None) == ("unsubscribed", True)
    assert writes(agency, place) == (0, 0)
    assert inbox.outcomes() == ["lead_updated", "not_found"]
    assert {row["lead_id"] for row in inbox.events()} == {lead["id"]}


async def test_an_interested_lead_waits_a_second_for_earlier_events_and_it_counts_no_attempt(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    await inbox.handled(place, bison("EMAIL_BOUNCED", reply_id=899))
    (interested,) = await inbox.handled(place, bison("LEAD_INTERESTED"))
    assert (interested["state"], interested["attempts"], interested["error_class"]) == (
        "pending",
        0,
        "EarlierNewsFirst",
    )
    assert "ada" not in interested["error_text"]
    assert contacts(place) == []
    assert inbox.outcomes()[0] == "unchanged", "the bounce was handled meanwhile, and counts for less"
    inbox.make_due()
    await inbox.handle(place)
    assert (inbox.outcomes()[1], agency.rows()[0]["status"]) == ("contact_created", "interested")


async def test_who_is_interested_and_was_never_heard_of_does_not_wait(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    await inbox.handled(place, bison("LEAD_UNSUBSCRIBED", lead_id=71, reply_id=None, email="bob@example.com"))
    (interested,) = await inbox.handled(place, bison("LEAD_INTERESTED"))
    assert interested["outcome"] == "contact_created"
    assert inbox.outcomes()[0] == "no_lead"


async def test_a_bounce_before_the_reply_counts_for_more_than_the_reply(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    await inbox.handled(place, bison("EMAIL_BOUNCED", reply_id=899))
    await inbox.handled(place, bison("LEAD_REPLIED"))
    assert agency.rows()[0]["status"] == "bounced"


async def test_messages_from_before_somebody_was_a_lead_become_the_leads(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email=EMAIL, first_name="Ada", phone="(305) 555-0123")
    whats_app = {"messageType": "WhatsApp"}
    await inbox.handled(place, sms(place, contact.id, "Hello", direction="outbound") | whats_app)
    await inbox.handled(place, bison("UNTRACKED_REPLY_RECEIVED", reply_id=902))
    await inbox.handled(place, sms(place, contact.id, "Hi") | whats_app)
    (lead,) = agency.rows()
    assert lead["email"] == EMAIL, "by which the mail is known to be hers, and which GHL told only now"
    messages = agency.table("messages")
    assert sorted((row["channel"], row["direction"]) for row in messages) == [
        ("email", "inbound"), ("whatsapp", "inbound"), ("whatsapp", "outbound"),
    ]  # fmt: skip
    assert {row["lead_id"] for row in messages} == {lead["id"]}


async def test_an_address_that_an_event_tells_of_a_lead_brings_earlier_events_back_though_ghl_is_down(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email=EMAIL)
    lead_id = agency.lead(place, ghl_contact_id=contact.id, status="interested")
    await inbox.handled(place, bison("LEAD_UNSUBSCRIBED", reply_id=None))
    agency.sandbox.faults(error_rate=1.0)
    inbox.deliver(place, contact_changed(place, contact), bison("LEAD_REPLIED", lead_id=71, email="bob@example.com"))
    with pytest.raises(TransientGhlError):
        await inbox.handle(place)
    inbox.make_due()
    with pytest.raises(TransientGhlError):
        await inbox.handle(place)
    assert agency.row(lead_id)["status"] == "unsubscribed"


async def test_a_deletion_before_the_contacts_lead_is_noted_on_it(agency: Agency, place: Place, inbox: Inbox) -> None:
    await inbox.handled(place, contact_deleted(place, "A" * 20))
    await inbox.handled(place, sms(place, "A" * 20))
    assert agency.rows()[0]["contact_deleted_at"] == START
    assert inbox.outcomes()[0] == "lead_updated"


async def test_an_event_is_brought_back_once_and_not_by_each_later_one(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    """A contact's deletion is nobody's once the lead has another contact, and so ends as it did before."""
    await inbox.handled(place, contact_deleted(place, "A" * 20))
    inbox.deliver(place, sms(place, "A" * 20))
    (lead,) = agency.rows()
    relink = "UPDATE leads SET ghl_contact_id = :contact_id WHERE id = :id"
    with before_statement(
        agency.engine,
        lambda sql, values: "FOR NO KEY UPDATE SKIP LOCKED" in sql and "due AS" in sql and is_pending(inbox, 0),
        lambda: agency.sql(relink, contact_id="B" * 20, id=lead["id"]),
    ):
        await inbox.handle(place)
    assert inbox.outcomes()[0] == "no_lead"
    was_handled_at = inbox.events()[0]["handled_at"]
    agency.sql(relink, contact_id="A" * 20, id=lead["id"])
    for _ in range(3):
        await inbox.handled(place, sms(place, "A" * 20))
    assert inbox.events()[0]["handled_at"] == was_handled_at
    assert {row["state"] for row in inbox.events()} == {"done"}


def is_pending(inbox: Inbox, number: int) -> bool:
    return bool(inbox.events()[number]["state"] == "pending")


async def test_it_is_brought_back_again_for_the_lead_after_the_one_that_was_deleted(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    await inbox.handled(place, contact_deleted(place, "A" * 20))
    await inbox.handled(place, bison("LEAD_UNSUBSCRIBED", reply_id=None))
    await handled_to_the_end(inbox, place, bison("LEAD_REPLIED"))
    agency.sql("DELETE FROM leads")
    agency.sql("UPDATE webhook_events SET outcome = 'no_lead' WHERE event_type = 'LEAD_UNSUBSCRIBED'")
    await handled_to_the_end(inbox, place, bison("LEAD_INTERESTED", reply_id=901))
    assert agency.rows()[0]["status"] == "unsubscribed"


@pytest.mark.parametrize(
    "change", ["body = NULL", "received_at = now() - interval '31 days'", "state = 'ignored', outcome = NULL"]
)
async def test_what_is_old_or_not_kept_stays_as_it_is(agency: Agency, place: Place, inbox: Inbox, change: str) -> None:
    await inbox.handled(place, bison("LEAD_UNSUBSCRIBED", reply_id=None))
    agency.sql(f"UPDATE webhook_events SET {change}")
    before = inbox.events()[0]
    (interested,) = await inbox.handled(place, bison("LEAD_INTERESTED"))
    assert interested["outcome"] == "contact_created"
    assert inbox.events()[0] == before


async def test_another_clients_early_events_are_left_alone(agency: Agency, place: Place, inbox: Inbox) -> None:
    other = agency.place("Other")
    (theirs,) = await inbox.handled(other, bison("LEAD_UNSUBSCRIBED", reply_id=None))
    assert theirs["person_keys"]
    body = bison("LEAD_INTERESTED")
    body["event"] = {"type": "LEAD_INTERESTED", "workspace_id": 8}
    (mine,) = await inbox.handled(place, body)
    assert mine["outcome"] == "contact_created"
    assert inbox.events([theirs["id"]]) == [theirs]


async def test_an_event_of_a_stranger_keeps_hashes_and_no_address(agency: Agency, place: Place, inbox: Inbox) -> None:
    (kept, changed) = await inbox.handled(
        place,
        bison("EMAIL_BOUNCED"),
        contact_changed(place, place.ghl.add(email="bob@example.com")),
    )
    assert set(kept["person_keys"]) == set(person_keys(NewLead(email=EMAIL, emailbison_lead_id=70)))
    assert (changed["outcome"], changed["person_keys"]) == ("no_lead", []), "GHL is asked what a contact looks like"
    with agency.engine.connect() as connection:
        assert "ada" not in repr(list_events(connection))


async def test_a_kill_before_an_interested_lead_is_put_off_creates_nothing_afterwards_either(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    await inbox.handled(place, bison("LEAD_UNSUBSCRIBED", reply_id=None))
    inbox.deliver(place, bison("LEAD_INTERESTED"))
    with (
        before_statement(agency.engine, lambda sql, _: "status_applied_at = now()" in sql, kill),
        pytest.raises(Killed),
    ):
        await inbox.handle(place)
    inbox.let_claims_run_out()
    await handled_to_the_end(inbox, place)
    assert (agency.rows()[0]["status"], writes(agency, place)) == ("unsubscribed", (0, 0))


@pytest.mark.parametrize("plan_for", ["force_custom_plan", "force_generic_plan"])
def test_early_events_are_found_by_the_index_of_keys(agency: Agency, place: Place, plan_for: str) -> None:
    agency.sql(
        """
        INSERT INTO clients (name, location_id)
        SELECT 'Client ' || n, 'Location' || lpad(n::text, 12, '0') FROM generate_series(2, :clients) AS n
        """,
        clients=CLIENTS,
    )
    agency.sql(
        """
        INSERT INTO webhook_events (
            provider, dedupe_key, client_id, location_id, event_type, body, state, outcome, person_keys)
        SELECT 'emailbison', 'key' || n, client.id, client.location_id, 'EMAIL_BOUNCED', 'x', 'done', 'no_lead',
            ARRAY[md5(n::text)::uuid, md5('e' || n)::uuid]
        FROM generate_series(1, :strangers) AS n JOIN clients AS client ON client.id = :client_id + n % :clients
        """,
        client_id=place.client_id, clients=CLIENTS, strangers=STRANGERS,
    )  # fmt: skip
    with agency.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE webhook_events"))
    lead_id = agency.lead(place, email=EMAIL)
    keys = [(lead_id, key) for n in range(200) for key in person_keys(NewLead(emailbison_lead_id=n))]
    seen: list[tuple[str, Any]] = []

    def note(_connection: Connection, _cursor: object, statement: str, values: Any, *_: object) -> None:
        seen.append((statement, values))

    event.listen(agency.engine, "before_cursor_execute", note)
    with agency.engine.begin() as connection:
        assert bring_back(connection, place.client_id, keys) == set()
    event.remove(agency.engine, "before_cursor_execute", note)
    (settings, _), (statement, values) = seen
    for number, name in enumerate(values, 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    with agency.engine.connect() as connection:
        connection.exec_driver_sql(settings)
        connection.exec_driver_sql(f"SET LOCAL plan_cache_mode = {plan_for}")
        connection.exec_driver_sql(f"PREPARE probe AS {statement}")
        literals = ", ".join("'" + str(value) + "'" for value in values.values())
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN EXECUTE probe ({literals})").scalars())
    assert "ix_webhook_events_person_keys" in plan, plan
    assert "Seq Scan on webhook_events" not in plan, plan
