"""Which accounts can send by their status, and which one a lead gets next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.senders.roster import Account, Reason, Roster
from ghl_pipeline.senders.statuses import ABLE, UNABLE, is_known, who_can_send


@pytest.mark.parametrize(
    ("status", "can_send"),
    [
        ("Connected", True),
        ("connected", True),
        (" CONNECTED ", True),
        ("Disconnected", False),
        ("Not connected", False),
        ("not_connected", False),
        ("Failed", False),
        ("Quarantined", False),
        ("", False),
        (None, False),
    ],
)
def test_beside_a_connected_account_only_connected_ones_can_send(status: str | None, can_send: bool) -> None:
    assert who_can_send({1: "Connected", 2: status})[2] is can_send


@pytest.mark.parametrize("status", ["Quarantined", "Verbunden", "", None])
def test_where_nothing_is_known_to_be_able_an_unknown_word_is_believed_to_be(status: str | None) -> None:
    assert who_can_send({1: "Disconnected", 2: status}) == {1: False, 2: True}


@given(st.dictionaries(st.integers(1, 50), st.sampled_from(sorted(ABLE | UNABLE)) | st.text(max_size=12) | st.none()))
def test_a_known_word_always_means_the_same(statuses: dict[int, str | None]) -> None:
    able = who_can_send(statuses)
    assert able.keys() == statuses.keys()
    for id_, status in statuses.items():
        if is_known(status):
            assert able[id_] is (status in ABLE or (status or "").strip().lower() in ABLE)


@pytest.mark.parametrize(
    ("sender_id", "reason"),
    [(None, Reason.MISSING), (9, Reason.UNKNOWN), (1, None), (2, Reason.CANNOT_SEND), (3, Reason.UNKNOWN),
     (4, Reason.REFUSED)],
)  # fmt: skip
def test_what_is_wrong_with_an_account_is_told_apart(sender_id: int | None, reason: Reason | None) -> None:
    accounts = [Account(1), Account(2, can_send=False), Account(3, is_gone=True), Account(4, is_refused=True)]
    assert Roster({each.sender_id: each for each in accounts}).amiss(sender_id) is reason


def test_a_campaigns_own_accounts_come_before_the_clients() -> None:
    roster = Roster(
        {1: Account(1), 2: Account(2), 3: Account(3, can_send=False)}, {7: frozenset({2}), 8: frozenset({3})}
    )

    assert [roster.give(7, None) for _ in range(3)] == [2, 2, 2]
    assert roster.give(8, None) == 1, "none of the campaign's can send"
    assert roster.give(99, None) == 1, "a campaign that was never asked"


_accounts = st.lists(
    st.builds(
        Account,
        sender_id=st.integers(1, 20),
        can_send=st.booleans(),
        is_gone=st.booleans(),
        is_refused=st.booleans(),
    ),
    max_size=8,
)


@given(
    _accounts,
    st.dictionaries(st.integers(1, 3), st.frozensets(st.integers(1, 20), max_size=4)),
    st.lists(st.none() | st.integers(1, 4), max_size=40),
)
def test_what_is_given_can_send_and_is_spread_evenly(
    accounts: list[Account], campaigns: dict[int, frozenset[int]], leads: list[int | None]
) -> None:
    roster = Roster({each.sender_id: each for each in accounts}, campaigns)
    sendable = {each.sender_id for each in roster.accounts.values() if each.is_sendable}
    for campaign_id in leads:
        candidates = sendable & campaigns.get(campaign_id or 0, frozenset()) or sendable
        fewest = min((roster.leads.get(each, 0) for each in candidates), default=0)
        given_id = roster.give(campaign_id, None)
        assert (given_id is None) == (not sendable)
        if given_id is not None:
            assert given_id in candidates
            assert roster.leads[given_id] == fewest + 1


@given(_accounts, st.integers(0, 60))
def test_leads_of_no_campaign_are_spread_to_within_one(accounts: list[Account], leads: int) -> None:
    roster = Roster({each.sender_id: each for each in accounts})
    for _ in range(leads):
        roster.give(None, None)
    sendable = [each.sender_id for each in roster.accounts.values() if each.is_sendable]
    counts = [roster.leads.get(each, 0) for each in sendable]
    assert not counts or max(counts) - min(counts) <= 1
