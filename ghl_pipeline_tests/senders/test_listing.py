"""What EmailBison lists is stored whole or not at all, of the right workspace, and only what is gone is gone."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from ghl_pipeline.emailbison.errors import (
    EmailBisonAccessDenied,
    EmailBisonError,
    EmailBisonWrongWorkspace,
)
from ghl_pipeline.emailbison.sender_lists import SenderEmail, SenderList
from ghl_pipeline.locations.emailbison import workspace_access
from ghl_pipeline.senders.listing import store_accounts, store_campaign
from ghl_pipeline.senders.roster import Reason
from ghl_pipeline.senders.senders import NO_TOKEN, NO_WORKSPACE
from ghl_pipeline_tests.senders.conftest import Agency, Client

ONE = SenderList((SenderEmail(1, status="Connected"),), is_counted=True)


async def test_all_pages_of_accounts_are_stored_with_what_they_can_do(agency: Agency) -> None:
    client = agency.add_client(mailboxes=47)
    client.workspace.mailboxes.change(7, status="Disconnected", daily_limit=40)
    client.workspace.mailboxes.change(8, status="Quarantined")

    report = await agency.report(client)

    assert (report.accounts, report.able, report.unknown_statuses, report.gone) == (47, 45, 1, 0)
    stored = client.accounts()
    assert sorted(stored) == list(range(1, 48))
    assert [id_ for id_, account in stored.items() if not account["can_send"]] == [7, 8]
    assert (stored[7]["status"], stored[7]["daily_limit"]) == ("Disconnected", 40)
    assert stored[9]["email"] == client.workspace.mailboxes.senders[8].email


async def test_an_account_that_the_list_lacks_is_gone_and_comes_back(agency: Agency, client: Client) -> None:
    await agency.report(client)
    removed = client.workspace.mailboxes.with_id(2)
    client.workspace.mailboxes.remove(2)

    assert (await agency.report(client)).gone == 1
    gone_at = client.accounts()[2]["gone_at"]
    assert (await agency.report(client)).gone == 1
    assert gone_at is not None
    assert client.accounts()[2]["gone_at"] == gone_at, "it keeps the time at which it was first missed"

    assert removed is not None
    client.workspace.mailboxes.senders.append(removed)
    assert (await agency.report(client)).gone == 0
    assert client.accounts()[2]["gone_at"] is None


@pytest.mark.parametrize(
    "faults",
    [
        {"failing_pages": (2,), "error_status": 503},
        {"failing_pages": (1,), "error_status": 500},
        {"pages_loop": True},
        {"garbage_rate": 1.0},
        {"drop_rate": 1.0},
    ],
)
async def test_a_list_that_is_not_whole_changes_nothing(agency: Agency, faults: dict[str, object]) -> None:
    client = agency.add_client(mailboxes=40)
    lead = client.lead(40)
    await agency.report(client)
    before = client.accounts()
    for number in range(20, 41):
        client.workspace.mailboxes.change(number, status="Disconnected")
    agency.sandbox.faults(client.workspace.faults_key, **faults)

    with pytest.raises(EmailBisonError):
        await agency.report(client)

    assert client.accounts() == before
    assert client.sender_of(lead) == 40


async def test_a_link_to_another_host_is_not_followed_and_the_pages_are_read_all_the_same(agency: Agency) -> None:
    client = agency.add_client(mailboxes=40)
    agency.sandbox.faults(client.workspace.faults_key, foreign_next_link=True)

    assert (await agency.report(client)).accounts == 40


async def test_accounts_of_another_workspace_are_not_taken_for_the_clients(agency: Agency) -> None:
    client, other = agency.add_client(), agency.add_client()
    agency.use(client, client.workspace.id, other.workspace.token)

    with pytest.raises(EmailBisonWrongWorkspace, match="set-emailbison"):
        await agency.report(client)
    assert client.accounts() == {}


async def test_a_withdrawn_token_is_an_error(agency: Agency, client: Client) -> None:
    agency.sandbox.faults(client.workspace.faults_key, token_revoked=True)

    with pytest.raises(EmailBisonAccessDenied):
        await agency.report(client)


async def test_a_client_that_cannot_be_asked_is_skipped(agency: Agency) -> None:
    tokenless = agency.add_client(with_token=False)
    none_at_all = agency.add_client()
    with agency.engine.begin() as connection:
        connection.execute(text("DELETE FROM emailbison_workspaces WHERE client_id = :id"), {"id": none_at_all.id})

    assert (await agency.report(tokenless)).skipped == NO_TOKEN
    assert (await agency.report(none_at_all)).skipped == NO_WORKSPACE


async def test_a_listing_after_a_refusal_that_sees_the_account_able_lets_it_be_given_again(
    agency: Agency, client: Client
) -> None:
    await agency.report(client)
    lead = client.lead(1)
    client.heal(lead, 1)
    assert client.heal(client.lead(1)).reason is Reason.REFUSED
    await agency.report(client)
    client.workspace.mailboxes.change(2, status="Disconnected")
    client.workspace.mailboxes.change(3, status="Disconnected")

    report = await agency.report(client)

    assert report.able == 1
    assert client.sender_of(lead) == 1


async def test_a_listing_that_began_before_a_refusal_does_not_undo_it(agency: Agency, client: Client) -> None:
    await agency.report(client)
    client.heal(client.lead(1), 1)
    with agency.engine.begin() as connection:
        access = workspace_access(connection, agency.cipher, client.location_id)
        assert access is not None
        store_accounts(
            connection,
            access,
            ONE,
            datetime.now(UTC) - timedelta(hours=1),
        )

    assert client.heal(client.lead(1)).reason is Reason.REFUSED


async def test_what_is_listed_of_a_workspace_that_is_not_the_clients_any_more_is_dropped(
    agency: Agency, client: Client
) -> None:
    with agency.engine.begin() as connection:
        access = workspace_access(connection, agency.cipher, client.location_id)
    assert access is not None
    agency.use(client, 99_999, "another|token")

    with agency.engine.begin() as connection:
        listed = store_accounts(connection, access, ONE, datetime.now(UTC))
        store_campaign(connection, access, 5, [SenderEmail(1)])

    assert listed is None
    assert client.accounts() == {}
    assert client.rows("campaign_senders") == []


async def test_texts_that_the_database_cannot_hold_are_stored_without_what_it_cannot(
    agency: Agency, client: Client
) -> None:
    with agency.engine.begin() as connection:
        access = workspace_access(connection, agency.cipher, client.location_id)
        assert access is not None
        odd = SenderEmail(2**63 - 1, "a\x00b@example.com", "\ud800", "Connected\x00", 2**31 - 1)
        store_accounts(connection, access, SenderList((odd,), is_counted=True), datetime.now(UTC))

    stored = client.accounts()[2**63 - 1]
    assert (stored["email"], stored["name"], stored["status"]) == ("ab@example.com", None, "Connected")


# --- campaigns


async def test_leads_get_an_account_of_their_campaign(agency: Agency) -> None:
    client = agency.add_client(mailboxes=40)
    client.workspace.mailboxes.add_campaign(5, "Autumn", tuple(range(20, 40)))
    client.workspace.mailboxes.add_campaign(6, "Winter", ())
    in_autumn, in_winter, unknown, in_none = (client.lead(None, number) for number in (5, 6, 77, None))

    report = await agency.report(client)

    assert (report.campaigns, report.campaigns_unknown) == (3, 1)
    assert len([row for row in client.rows("campaign_senders") if row["sender_id"]]) == 20
    assert client.sender_of(in_autumn) == 20
    assert {client.sender_of(lead) for lead in (in_winter, unknown, in_none)} == {1, 2, 3}
    assert (report.healed, report.left_without) == ({Reason.MISSING: 4}, 0)


async def test_a_campaign_is_asked_again_when_a_lead_of_it_needs_another_account(
    agency: Agency, client: Client
) -> None:
    client.workspace.mailboxes.add_campaign(5, "Autumn", (1,))
    lead = client.lead(None, 5)
    await agency.report(client)
    assert (await agency.report(client)).campaigns == 0
    client.workspace.mailboxes.add_campaign(5, "Autumn", (3,))
    client.workspace.mailboxes.change(1, status="Disconnected")

    report = await agency.report(client)

    assert report.campaigns == 1
    assert client.sender_of(lead) == 3
    assert [row["sender_id"] for row in client.rows("campaign_senders")] == [3]


async def test_that_a_campaign_is_unknown_or_has_none_is_remembered(agency: Agency, client: Client) -> None:
    client.workspace.mailboxes.add_campaign(6, "Winter", ())
    for campaign in (6, 77):
        client.lead(None, campaign)
    first = await agency.report(client)
    assert (first.campaigns, first.campaigns_unknown) == (2, 1)

    again = await agency.report(client)

    assert (again.campaigns, again.requests) == (0, 2)
    client.workspace.mailboxes.add_campaign(6, "Winter", (3,))
    lead = client.lead(None, 6)
    assert (await agency.report(client)).campaigns == 1
    assert client.sender_of(lead) == 3
    assert {row["sender_id"] for row in client.rows("campaign_senders") if row["campaign_id"] == 6} == {3}


async def test_no_campaign_is_asked_while_there_is_nothing_to_give(agency: Agency, client: Client) -> None:
    client.lead(1, 77)
    for number in (1, 2, 3):
        client.workspace.mailboxes.change(number, status="Disconnected")

    assert (await agency.report(client)).campaigns == 0

    client.workspace.mailboxes.change(2, status="Connected")
    assert (await agency.report(client)).campaigns == 1
