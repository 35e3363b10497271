"""What is remembered of a fetch, and of which rows it is true."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from ghl_pipeline.crm.fetched import Fetched, FetchMode
from ghl_pipeline.crm.identifiers import Identifiers, Side, load_identifiers
from ghl_pipeline.crm.memory import load_remembered, remember
from ghl_pipeline.ghl.errors import CallFacts, GhlServerError
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline_tests.crm.fetching import Market
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ADA = Contact("AdaContact0000000001")


@pytest.fixture
def market(engine: Engine, sandbox: Sandbox) -> Market:
    return Market(engine, sandbox)


def load(market: Market) -> Identifiers:
    with market.engine.connect() as connection:
        return load_identifiers(connection, market.place.client_id)


def keep(market: Market, identifiers: Identifiers, fetched: Fetched) -> None:
    with market.engine.begin() as connection:
        remember(connection, market.place.client_id, identifiers, fetched)


def outcomes(market: Market) -> dict[int, str | None]:
    return {row.id: row.outcome for row in load(market).leads}


def test_identifiers_are_read_as_they_are_compared(market: Market) -> None:
    (vendor,) = market.vendors([{"ghl_contact_id": " ", "email": " Ada@Example.com "}])
    (lead,) = market.leads([{"ghl_contact_id": " x1 ", "email": "", "ghl_opportunity_id": "o1", "status": "won"}])
    known = market.known()
    row = known[Side.VENDOR, vendor]
    assert (row.contact_id, row.email, row.opportunity_id, row.status) == (None, "ada@example.com", None, "pending")
    row = known[Side.LEAD, lead]
    assert (row.contact_id, row.email, row.opportunity_id, row.status) == ("x1", None, "o1", "won")
    assert (row.looked_up, row.outcome) == (None, None)
    assert "example" not in repr(known)


def test_other_clients_rows_are_nobodys_business(engine: Engine, sandbox: Sandbox, market: Market) -> None:
    market.leads([{"email": "ada@example.com"}])
    with engine.connect() as connection:
        assert load_identifiers(connection, market.place.client_id + 1) == Identifiers()


def test_a_row_that_was_linked_or_made_meanwhile_counts_as_found(market: Market) -> None:
    (linked,) = market.leads([{"email": "ada@example.com"}])
    identifiers = load(market)
    market.sql("UPDATE leads SET ghl_contact_id = :id", id=ADA.id)
    (made,) = market.vendors([{"ghl_contact_id": ADA.id, "email": "ada@example.com"}])
    keep(market, identifiers, Fetched(FetchMode.FULL, NOW, {ADA.id: ADA}, found=frozenset({(Side.LEAD, linked)})))
    known = market.known()
    assert known[Side.LEAD, linked].outcome == known[Side.VENDOR, made].outcome == "found"
    assert known[Side.LEAD, linked].looked_up == NOW


def test_what_a_changed_row_was_looked_up_by_is_not_remembered_of_it(market: Market) -> None:
    same, changed = market.leads([{"email": "ada@example.com"}, {"email": "bea@example.com"}])
    identifiers = load(market)
    market.sql("UPDATE leads SET email = 'other@example.com' WHERE id = :id", id=changed)
    market.sql("UPDATE leads SET email = 'ADA@example.com' WHERE id = :id", id=same)
    lost = frozenset({(Side.LEAD, same), (Side.LEAD, changed)})
    keep(market, identifiers, Fetched(FetchMode.FULL, NOW, not_found=lost))
    assert outcomes(market) == {same: "not_found", changed: None}


def test_failed_and_deleted_rows_are_forgotten(market: Market) -> None:
    failed, deleted = market.leads([{"email": "ada@example.com"}, {"email": "bea@example.com"}])
    identifiers = load(market)
    both = frozenset({(Side.LEAD, failed), (Side.LEAD, deleted)})
    keep(market, identifiers, Fetched(FetchMode.FULL, NOW, not_found=both))
    market.sql("DELETE FROM leads WHERE id = :id", id=deleted)
    error = GhlServerError(CallFacts(market.place.id, "GET", "/contacts/{contactId}"))
    keep(market, load(market), Fetched(FetchMode.FULL, NOW, failed={(Side.LEAD, failed): error}))
    with market.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM crm_lookups").scalar() == 0


@pytest.mark.parametrize("mode", [FetchMode.FULL, FetchMode.CHANGES, FetchMode.NOTHING])
@pytest.mark.parametrize("complete", [True, False])
def test_only_a_complete_pass_moves_on_and_only_a_full_one_is_one(
    market: Market, mode: FetchMode, complete: bool
) -> None:
    keep(market, load(market), Fetched(mode, NOW, complete=complete))
    with market.engine.connect() as connection:
        remembered = load_remembered(connection, market.place.client_id)
    moved = complete and mode is not FetchMode.NOTHING
    assert remembered.changes_seen_until == (NOW if moved else None)
    assert remembered.full_pass_at == (NOW if moved and mode is FetchMode.FULL else None)


def test_a_contact_that_is_gone_stays_so_until_ghl_is_asked_again(market: Market) -> None:
    (lead,) = market.leads([{"ghl_contact_id": "0" * 20}])
    lost = frozenset({(Side.LEAD, lead)})
    keep(market, load(market), Fetched(FetchMode.FULL, NOW, gone=frozenset({"0" * 20}), not_found=lost))
    keep(market, load(market), Fetched(FetchMode.FULL, NOW, not_found=lost, scanned=True))
    assert outcomes(market) == {lead: "gone"}


def test_remembering_the_same_twice_changes_nothing_else(market: Market) -> None:
    gone, alive = market.leads([{"ghl_contact_id": "0" * 20}, {"ghl_contact_id": ADA.id}])
    fetched = Fetched(
        FetchMode.FULL, NOW, {ADA.id: ADA}, gone=frozenset({"0" * 20}), not_found=frozenset({(Side.LEAD, gone)})
    )
    for _ in range(2):
        keep(market, load(market), fetched)
        assert outcomes(market) == {gone: "gone", alive: "found"}
