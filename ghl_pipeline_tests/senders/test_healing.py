"""One lead's account, healed: what is wrong, what is given, and that a refusal counts once whoever reports it."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.senders.healing import Healing, HealingOutcome
from ghl_pipeline.senders.roster import Reason
from ghl_pipeline_tests.senders.conftest import Agency, Client

LONG_AGO = datetime.now(UTC) - timedelta(hours=1)
GONE, REFUSED, UNABLE, UNHEARD_OF, ABLE, SPARE = 11, 12, 13, 14, 15, 16


@pytest.fixture
def listed(client: Client) -> Client:
    """A client with an account of each kind; the spare one has no lead yet."""
    client.account(GONE, gone_at=LONG_AGO)
    client.account(REFUSED, refused_at=datetime.now(UTC) + timedelta(hours=1))
    client.account(UNABLE, can_send=False, status="Disconnected")
    client.account(ABLE)
    client.account(SPARE)
    client.lead(ABLE)
    return client


@pytest.mark.parametrize(
    ("has", "refused", "reason"),
    [
        (None, None, Reason.MISSING),
        (UNHEARD_OF, None, Reason.UNKNOWN),
        (GONE, None, Reason.UNKNOWN),
        (UNABLE, None, Reason.CANNOT_SEND),
        (REFUSED, None, Reason.REFUSED),
        (ABLE, ABLE, Reason.REFUSED),
        (UNHEARD_OF, UNHEARD_OF, Reason.REFUSED),
        (None, ABLE, Reason.MISSING),
        (UNABLE, ABLE, Reason.CANNOT_SEND),
    ],
)
def test_a_lead_that_cannot_be_written_to_gets_another_account(
    listed: Client, has: int | None, refused: int | None, reason: Reason
) -> None:
    lead = listed.lead(has)

    healing = listed.heal(lead, refused)

    assert healing == Healing(lead, HealingOutcome.HEALED, SPARE, reason, has)
    assert listed.sender_of(lead) == SPARE
    assert listed.healings() == [(lead, reason, has, SPARE)]


@pytest.mark.parametrize("refused", [None, SPARE, UNHEARD_OF])
def test_a_lead_whose_own_account_can_send_keeps_it(listed: Client, refused: int | None) -> None:
    lead = listed.lead(ABLE)

    assert listed.heal(lead, refused) == Healing(lead, HealingOutcome.WELL, ABLE)
    assert listed.healings() == []


def test_a_refusal_of_an_account_that_the_lead_does_not_have_is_noted_of_the_account(listed: Client) -> None:
    lead, other = listed.lead(ABLE), listed.lead(None)

    listed.heal(lead, SPARE)

    assert listed.accounts()[SPARE]["refused_at"] is not None
    assert listed.heal(other).sender_id == ABLE


def test_the_campaigns_own_account_is_given_even_if_others_have_fewer_leads(listed: Client) -> None:
    listed.campaign(5, ABLE, UNABLE)
    lead = listed.lead(UNABLE, 5)

    assert listed.heal(lead).sender_id == ABLE


def test_a_client_without_anything_that_can_send_is_told_so_and_put_on_record_once(client: Client) -> None:
    client.account(UNABLE, can_send=False)
    lead = client.lead(UNABLE)

    healings = [client.heal(lead) for _ in range(3)]

    assert healings == [Healing(lead, HealingOutcome.NONE_TO_GIVE, None, Reason.CANNOT_SEND, UNABLE)] * 3
    assert client.sender_of(lead) == UNABLE, "nothing is taken away"
    assert client.healings() == [(lead, "cannot_send", UNABLE, None)]


def test_the_only_account_when_refused_is_not_given_again_before_a_listing_sees_it_able(
    agency: Agency, client: Client
) -> None:
    client.account(ABLE)
    lead, other = client.lead(ABLE), client.lead(None)

    assert client.heal(lead, ABLE).outcome is HealingOutcome.NONE_TO_GIVE
    assert client.heal(other).outcome is HealingOutcome.NONE_TO_GIVE
    client.change_account(ABLE, seen_at=LONG_AGO)
    assert client.heal(other).outcome is HealingOutcome.NONE_TO_GIVE, "a listing from before says nothing"

    client.change_account(ABLE, seen_at=datetime.now(UTC) + timedelta(seconds=1))
    assert client.heal(other).sender_id == ABLE
    assert client.heal(lead) == Healing(lead, HealingOutcome.WELL, ABLE)


def test_the_same_refusal_told_again_changes_nothing(listed: Client) -> None:
    lead = listed.lead(ABLE)
    first = listed.heal(lead, ABLE)
    listed.change_account(ABLE, refused_at=LONG_AGO)  # as if a listing had seen it able since then

    again = listed.heal(lead, ABLE)

    assert first.outcome is HealingOutcome.HEALED
    assert again == Healing(lead, HealingOutcome.WELL, first.sender_id)
    assert listed.accounts()[ABLE]["refused_at"] == LONG_AGO
    assert len(listed.healings()) == 1


def test_a_new_refusal_of_the_account_that_was_given_is_healed_again(listed: Client) -> None:
    lead = listed.lead(ABLE)
    listed.account(17)

    given = [listed.heal(lead, refused).sender_id for refused in (ABLE, SPARE)]

    assert given == [SPARE, 17]
    assert [reason for _, reason, _, _ in listed.healings()] == ["refused", "refused"]


def test_leads_healed_one_after_the_other_are_spread_evenly(client: Client) -> None:
    for account in (1, 2, 3):
        client.account(account)
    leads = [client.lead(None) for _ in range(9)]

    given = [client.heal(lead).sender_id for lead in leads]

    assert given == [1, 2, 3] * 3


def test_another_clients_accounts_are_never_given(agency: Agency, client: Client) -> None:
    other = agency.add_client()
    other.account(ABLE)
    other.campaign(5, ABLE)
    lead = client.lead(ABLE, 5)

    assert client.heal(lead) == Healing(lead, HealingOutcome.NONE_TO_GIVE, None, Reason.UNKNOWN, ABLE)
    client.heal(lead, ABLE)
    assert other.accounts()[ABLE]["refused_at"] is None


def test_an_unknown_lead_is_an_error(client: Client) -> None:
    with pytest.raises(UnknownClient, match="no lead with id 4711"):
        client.heal(4711, ABLE)


# --- at the same time


def at_once(*calls: Callable[[], Healing]) -> list[Healing]:
    """Starts the calls together, each in a thread and a session of its own."""
    barrier = threading.Barrier(len(calls))
    results: dict[int, Healing] = {}

    def one(number: int, call: Callable[[], Healing]) -> None:
        barrier.wait()
        results[number] = call()

    threads = [threading.Thread(target=one, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return [results[number] for number in range(len(calls))]


def test_two_who_report_the_same_refusal_heal_it_once(listed: Client) -> None:
    for _ in range(10):
        lead = listed.lead(ABLE)
        listed.change_account(ABLE, refused_at=None)
        before = len(listed.healings())

        healings = at_once(*[lambda lead=lead: listed.heal(lead, ABLE)] * 4)

        assert sorted(each.outcome for each in healings) == ["healed", "well", "well", "well"]
        assert {each.sender_id for each in healings} == {listed.sender_of(lead)}
        assert len(listed.healings()) == before + 1


def test_two_who_report_different_refusals_leave_the_lead_an_account_that_nobody_refused(client: Client) -> None:
    for account in (1, 2, 3):
        client.account(account)
    for _ in range(10):
        lead = client.lead(1)
        for account in (1, 2, 3):
            client.change_account(account, refused_at=None)

        at_once(lambda lead=lead: client.heal(lead, 1), lambda lead=lead: client.heal(lead, 2))  # type: ignore[misc]

        assert client.sender_of(lead) == 3
        refused = {id_ for id_, account in client.accounts().items() if account["refused_at"] is not None}
        assert refused == {1, 2}


def test_many_leads_healed_at_once_are_spread_evenly(client: Client, engine: Engine) -> None:
    for account in (1, 2, 3, 4):
        client.account(account)
    leads = [client.lead(None) for _ in range(8)]

    healings = at_once(*[lambda lead=lead: client.heal(lead) for lead in leads])

    assert sorted(each.sender_id or 0 for each in healings) == [1, 1, 2, 2, 3, 3, 4, 4]
