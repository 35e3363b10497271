"""Many clients at once: one that fails stops no other, and nothing that is said holds an address, a name or a token."""

import logging

import pytest
from sqlalchemy import text

from ghl_pipeline.sandbox.mailboxes import refusal_of
from ghl_pipeline_tests.senders.conftest import Agency


async def test_clients_that_fail_are_named_and_stop_no_other(agency: Agency) -> None:
    clients = [agency.add_client(mailboxes=20) for _ in range(6)]
    leads = [client.lead(None) for client in clients]
    for client in clients[::2]:
        agency.sandbox.faults(client.workspace.faults_key, failing_pages=(2,), error_status=503)

    result = await agency.sync(*clients)

    assert [failure.location_id for failure in result.failures] == [client.location_id for client in clients[::2]]
    assert {failure.error_class for failure in result.failures} == {"EmailBisonUnavailable"}
    assert list(result.reports) == [client.location_id for client in clients[1::2]]
    given = [client.sender_of(lead) for client, lead in zip(clients, leads, strict=True)]
    assert given == [None, 1] * 3


async def test_a_campaign_that_cannot_be_asked_fails_the_location_after_its_leads_are_repaired(
    agency: Agency,
) -> None:
    client = agency.add_client(mailboxes=3)
    client.workspace.mailboxes.add_campaign(5, "Autumn", (1, 2, 3))
    for _ in range(20):
        client.workspace.mailboxes.add()
    client.workspace.mailboxes.add_campaign(6, "Winter")
    lead = client.lead(None, 6)
    route = "EMAILBISON GET /api/campaigns/{id}/sender-emails"
    agency.sandbox.faults(client.workspace.faults_key, error_rate=1.0, routes=(route,))

    result = await agency.sync(client)

    assert [failure.error_class for failure in result.failures] == ["EmailBisonUnavailable"]
    assert len(client.accounts()) == 23
    assert client.sender_of(lead) == 1


async def test_two_clients_accounts_with_the_same_numbers_never_mix(agency: Agency) -> None:
    one, other = agency.add_client(), agency.add_client()
    for number in (1, 2):
        one.workspace.mailboxes.change(number, status="Disconnected")
    other.workspace.mailboxes.change(3, status="Disconnected")
    leads = [(client, client.lead(3)) for client in (one, other)]

    await agency.sync(one, other)

    assert [client.sender_of(lead) for client, lead in leads] == [3, 1]
    assert one.healings() == []


async def test_a_refused_reply_goes_out_by_the_account_that_healing_gives(agency: Agency) -> None:
    """What the dashboard does, to the end: send, be refused, heal, send again."""
    client = agency.add_client()
    await agency.report(client)
    lead = client.lead(2)
    client.workspace.mailboxes.change(2, selectable=False)
    client.workspace.mailboxes.change(1, selectable=False)

    sender = client.sender_of(lead)
    refusals = 0
    while isinstance(refusal_of(client.workspace.mailboxes, {"sender_email_id": sender}), tuple):
        refusals += 1
        sender = client.heal(lead, sender).sender_id

    assert (sender, refusals) == (3, 2)


async def test_nothing_that_is_said_holds_an_address_a_name_or_a_token(
    agency: Agency, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    well, broken, denied = (agency.add_client() for _ in range(3))
    canaries = ("zyxwinda", "brindlemoth", *(client.workspace.token.split("|")[1] for client in (well, broken, denied)))
    for client in (well, broken, denied):
        client.workspace.mailboxes.change(1, email="zyxwinda@example.com", name="Brindlemoth")
        client.lead(None, email="zyxwinda.lead@example.com", first_name="Brindlemoth")
    agency.sandbox.faults(broken.workspace.faults_key, garbage_rate=1.0)
    agency.sandbox.faults(denied.workspace.faults_key, token_revoked=True)

    result = await agency.sync(well, broken, denied)

    with agency.engine.connect() as connection:
        record = connection.execute(text("SELECT string_agg(attempt::text, '') FROM location_attempts AS attempt"))
        said = f"{result} {record.scalar_one()} {caplog.text} {agency.senders()!r}".lower()
    told = [report.told() for report in result.reports.values()]
    assert len(result.failures) == 2
    assert [word for word in canaries if word.lower() in f"{said} {told}"] == []
