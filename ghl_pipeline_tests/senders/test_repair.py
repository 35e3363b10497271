"""All leads of a client repaired ahead of time: each gets an account that can send, if there is any."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, text

from ghl_pipeline.senders.repair import repair_client
from ghl_pipeline.senders.roster import Reason, read_roster
from ghl_pipeline_tests.senders.conftest import Agency, Client, loads

NOW = datetime.now(UTC)


def test_each_lead_is_healed_by_what_is_wrong_with_its_account(client: Client, engine: Engine) -> None:
    client.account(1)
    client.account(2, can_send=False)
    client.account(3, gone_at=NOW)
    client.account(4, refused_at=NOW + timedelta(hours=1))
    leads = [client.lead(sender) for sender in (None, None, 1, 2, 3, 4, 99)]

    repaired = repair_client(engine, client.id)

    assert repaired.healed == {Reason.MISSING: 2, Reason.CANNOT_SEND: 1, Reason.UNKNOWN: 2, Reason.REFUSED: 1}
    assert repaired.left_without == 0
    assert {client.sender_of(lead) for lead in leads} == {1}
    assert client.healings() == [
        (leads[0], "missing", None, 1), (leads[1], "missing", None, 1), (leads[3], "cannot_send", 2, 1),
        (leads[4], "unknown", 3, 1), (leads[5], "refused", 4, 1), (leads[6], "unknown", 99, 1),
    ]  # fmt: skip


def test_repairing_again_changes_nothing(client: Client, engine: Engine) -> None:
    client.account(1)
    client.lead(None)
    repair_client(engine, client.id)
    before = client.rows("leads"), client.healings()

    assert repair_client(engine, client.id).healed == {}
    assert (client.rows("leads"), client.healings()) == before


def test_where_nothing_can_send_leads_are_counted_and_keep_what_they_have(client: Client, engine: Engine) -> None:
    client.account(2, can_send=False)
    lead, _ = client.lead(2), client.lead(None)

    repaired = repair_client(engine, client.id)

    assert (repaired.healed, repaired.left_without) == ({}, 2)
    assert client.sender_of(lead) == 2
    assert client.healings() == [], "each hour would add one for each lead"


def test_leads_are_spread_evenly_over_pages_and_those_that_have_an_account_count(
    client: Client, engine: Engine
) -> None:
    for account in (1, 2, 3):
        client.account(account)
    for _ in range(8):
        client.lead(1)
    for _ in range(19):
        client.lead(None)

    repair_client(engine, client.id, page=5)

    assert loads(client) == [9, 9, 9]


def test_a_page_is_one_statement_that_writes(client: Client, engine: Engine) -> None:
    client.account(1)
    with engine.begin() as connection:
        rows = text("INSERT INTO leads (client_id) SELECT :client FROM generate_series(1, 2500)")
        connection.execute(rows, {"client": client.id})
    written: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *of: written.append(of[2]) if "UPDATE leads" in of[2] else 0)

    assert repair_client(engine, client.id).healed == {Reason.MISSING: 2500}
    assert len(written) == 3


def test_heal_and_repair_at_the_same_time_give_each_lead_one_account(client: Client, engine: Engine) -> None:

    for account in (1, 2):
        client.account(account)
    leads = [client.lead(None) for _ in range(60)]
    repairing = threading.Thread(target=repair_client, args=(engine, client.id), kwargs={"page": 7})
    repairing.start()
    for lead in reversed(leads):
        client.heal(lead)
    repairing.join(timeout=30)

    assert sorted(lead for lead, *_ in client.healings()) == leads
    assert loads(client) == [30, 30]


_account = st.fixed_dictionaries(
    {
        "can_send": st.booleans(),
        "gone_at": st.sampled_from([None, None, NOW]),
        "refused_at": st.sampled_from([None, None, NOW - timedelta(hours=2), NOW + timedelta(hours=2)]),
    }
)
_accounts = st.dictionaries(st.integers(1, 6), _account, max_size=5)
_leads = st.lists(st.tuples(st.none() | st.integers(1, 8), st.none() | st.integers(1, 3)), max_size=12)
_campaigns = st.dictionaries(st.integers(1, 3), st.sets(st.integers(1, 6), min_size=1, max_size=3), max_size=3)


@pytest.fixture
def pairs(agency: Agency) -> tuple[Client, Client]:
    """Two clients whose accounts have the same numbers."""
    return agency.add_client(), agency.add_client()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(_accounts, _accounts), st.tuples(_leads, _leads), st.tuples(_campaigns, _campaigns), st.integers(1, 5))
def test_after_a_repair_every_lead_has_an_account_that_can_send_if_its_client_has_any(
    engine: Engine,
    pairs: tuple[Client, Client],
    accounts: tuple[dict[int, dict[str, object]], ...],
    leads: tuple[list[tuple[int | None, int | None]], ...],
    campaigns: tuple[dict[int, set[int]], ...],
    page: int,
) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE leads, sender_accounts, campaign_senders, sender_healings CASCADE"))
    for client, its_accounts, its_leads, its_campaigns in zip(pairs, accounts, leads, campaigns, strict=True):
        for number, values in its_accounts.items():
            client.account(number, **values)
        for sender_id, campaign_id in its_leads:
            client.lead(sender_id, campaign_id)
        for campaign_id, members in its_campaigns.items():
            client.campaign(campaign_id, *members)
    other = pairs[1].rows("leads")

    repaired = repair_client(engine, pairs[0].id, page=page)

    assert pairs[1].rows("leads") == other
    assert pairs[1].healings() == []
    with engine.connect() as connection:
        roster = read_roster(connection, pairs[0].id)
    without = [row for row in pairs[0].rows("leads") if roster.amiss(row["emailbison_sender_id"]) is not None]
    assert len(without) == repaired.left_without
    assert not without or not roster.has_sendable
    for (before, campaign_id), row in zip(leads[0], pairs[0].rows("leads"), strict=True):
        now = row["emailbison_sender_id"]
        if now != before:
            assert roster.amiss(before) is not None, "one that could send was taken away"
            able = {each for each in campaigns[0].get(campaign_id or 0, ()) if roster.amiss(each) is None}
            assert not able or now in able
    assert sum(repaired.healed.values()) == len(pairs[0].healings())
