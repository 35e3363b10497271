"""`crm-sync`: looks, asks, writes, and says what became of vendors and leads."""

import io

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.sandbox.marketplace import Marketplace, marketplace
from ghl_pipeline_tests.cli.conftest import AddClient, Agency, Cli, run_process
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

VENDORS, LEADS = 12, 16
STATS = {
    "vendors_updated", "vendors_created", "vendors_missing_in_ghl", "leads_updated", "leads_created", "leads_deleted",
    "ghl_contacts_fetched", "errors",
}  # fmt: skip


class Terminal(io.StringIO):
    """A standard input at which a person sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def client(cli: Cli, add_client: AddClient) -> Agency:
    """A client that is switched on."""
    agency = add_client(requests=10_000)
    assert cli("clients", "set-crm", "Acme", "--on").code == 0
    return agency


@pytest.fixture
def people(client: Agency) -> Marketplace:
    """The marketplace at the client's location; every lead is known by its contact."""
    made = marketplace(client.location, vendors=VENDORS, leads=LEADS, seed=3)
    for lead in made.leads:
        client.add_lead(ghl_contact_id=lead.contact.id)
    return made


@pytest.fixture
def at_a_terminal(people: Marketplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, the clients being there, the commands' standard input is a terminal."""
    monkeypatch.setattr(io, "StringIO", Terminal)


def rows(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [
            row
            for table in ("vendors", "leads", "crm_lookups", "crm_clients")
            for row in connection.execute(text(f"SELECT t::text FROM {table} AS t ORDER BY 1")).scalars()
        ]


def test_everything_is_written_at_once_when_told_so(cli: Cli, people: Marketplace, client: Agency) -> None:
    ended = cli("crm-sync", "--yes", "--json")
    assert (ended.code, ended.err) == (0, "")
    told = ended.document()
    assert (told["success"], told["written"], "error" in told) == (True, True, False)
    assert told["message"] == "1 of 1 locations are in step"
    assert told["duration"] > 0
    assert set(told["stats"]) == STATS
    assert told["stats"]["vendors_created"] == VENDORS
    assert told["stats"]["leads_updated"] == LEADS
    assert told["stats"]["ghl_contacts_fetched"] >= VENDORS + LEADS
    (location,) = told["locations"]
    assert (location["location"], location["mode"]) == (client.location.id, "full")
    assert location["requests"] == sum(location["calls"].values())


def test_a_second_time_there_is_nothing_to_do(cli: Cli, people: Marketplace, engine: Engine) -> None:
    cli("crm-sync", "--yes")
    before = rows(engine)
    again = cli("crm-sync", "--yes", "--full", "--json").document()["stats"]
    assert {name for name, count in again.items() if count} == {"ghl_contacts_fetched"}
    assert [row for row in rows(engine) if row not in before and "full" not in row] == [
        row for row in rows(engine) if row not in before
    ]


def test_a_dry_run_counts_and_writes_nothing(cli: Cli, people: Marketplace, engine: Engine) -> None:
    before = rows(engine)
    told = cli("crm-sync", "--dry-run", "--json").document()
    assert (told["success"], told["written"], told["stats"]["vendors_created"]) == (True, False, VENDORS)
    assert rows(engine) == before
    shown = cli("crm-sync", "--dry-run")
    assert (shown.code, rows(engine)) == (0, before)
    assert "What would change" in shown.out
    assert "nothing was written" in shown.out


def test_where_nobody_can_be_asked_nothing_is_asked_of_ghl_and_nothing_written(
    cli: Cli, people: Marketplace, engine: Engine, sandbox: Sandbox, client: Agency
) -> None:
    before = rows(engine)
    refused = cli("crm-sync")
    assert (refused.code, refused.out) == (2, "")
    assert "--yes" in refused.err
    assert "--dry-run" in refused.err
    as_json = cli("crm-sync", "--json")
    assert as_json.code == 2
    told = as_json.document()
    assert (told["success"], set(told["stats"])) == (False, STATS)
    assert "no terminal" in told["error"]
    assert cli("crm-sync", "--yes", "--dry-run").code == 2
    assert rows(engine) == before
    assert sandbox.stats(client.location.id)["requests"] == 0


@pytest.mark.usefixtures("at_a_terminal")
def test_a_person_is_shown_what_would_change_and_asked(cli: Cli, people: Marketplace, engine: Engine) -> None:
    before = rows(engine)
    no = cli("crm-sync", stdin="n\n")
    assert (no.code, rows(engine)) == (0, before)
    assert "What would change" in no.out
    assert f"{VENDORS + LEADS} rows would be written" in no.err
    assert "Nothing was written" in no.out
    yes = cli("crm-sync", stdin="y\n")
    assert yes.code == 0
    assert "What was changed" in yes.out
    assert rows(engine) != before
    nothing = cli("crm-sync")
    assert (nothing.code, "would be written" in nothing.err) == (0, False)
    assert "in step already" in nothing.out


@pytest.mark.usefixtures("at_a_terminal")
def test_the_question_stays_off_stdout_when_a_document_is_wanted(cli: Cli, people: Marketplace, engine: Engine) -> None:
    no = cli("crm-sync", "--json", stdin="n\n")
    assert no.document()["written"] is False
    assert "What would change" in no.err
    yes = cli("crm-sync", "--json", stdin="y\n")
    told = yes.document()
    assert (told["written"], told["stats"]["vendors_created"]) == (True, VENDORS)


@pytest.mark.usefixtures("at_a_terminal")
@pytest.mark.parametrize(("pressed", "code"), [(EOFError, 1), (KeyboardInterrupt, 130)])
def test_a_question_without_an_answer_still_ends_in_a_document(
    cli: Cli, engine: Engine, monkeypatch: pytest.MonkeyPatch, pressed: type[BaseException], code: int
) -> None:
    def no_answer(_: Terminal) -> str:
        raise pressed

    monkeypatch.setattr(Terminal, "readline", no_answer)
    before = rows(engine)
    ended = cli("crm-sync", "--json")
    told = ended.document()
    assert (ended.code, told["success"], told["written"], told["stats"]["errors"]) == (code, False, False, 1)
    assert told["error"]
    assert rows(engine) == before
    as_text = cli("crm-sync")
    assert (as_text.code, told["error"] in as_text.err) == (code, True)


def test_too_many_missing_are_marked_only_when_somebody_says_so(
    cli: Cli, people: Marketplace, client: Agency, engine: Engine
) -> None:
    cli("crm-sync", "--yes")
    for contact in people.contacts:
        client.location.remove(contact.id)
    before = rows(engine)
    stopped = cli("crm-sync", "--yes", "--full", "--json")
    assert stopped.code == 1
    told = stopped.document()
    assert (told["success"], told["stats"]["errors"], told["failed"][0]["error"]) == (False, 1, "TooManyMissing")
    assert f"crm-sync --location {client.location.id} --accept-missing" in told["error"]
    assert rows(engine) == before
    assert "TooManyMissing" in cli("status").out
    accepted = cli("crm-sync", "--location", client.location.id, "--accept-missing", "--full", "--yes", "--json")
    assert accepted.code == 0
    stats = accepted.document()["stats"]
    assert (stats["vendors_missing_in_ghl"], stats["leads_deleted"]) == (VENDORS, LEADS)
    assert "TooManyMissing" not in cli("status").out


@pytest.mark.usefixtures("at_a_terminal")
def test_that_many_would_be_marked_missing_is_in_the_question(
    cli: Cli, people: Marketplace, client: Agency, engine: Engine
) -> None:
    cli("crm-sync", "--yes")
    for contact in people.contacts:
        client.location.remove(contact.id)
    before = rows(engine)
    no = cli("crm-sync", "--full", "--accept-missing", stdin="n\n")
    assert f"({VENDORS} vendors and {LEADS} leads of them marked missing)" in no.err
    assert rows(engine) == before


def test_a_look_shows_how_many_would_be_marked_missing_where_a_run_would_stop(
    cli: Cli, people: Marketplace, client: Agency, engine: Engine
) -> None:
    cli("crm-sync", "--yes")
    for contact in people.contacts:
        client.location.remove(contact.id)
    before = rows(engine)
    ended = cli("crm-sync", "--dry-run", "--full", "--json")
    told = ended.document()
    assert (ended.code, told["success"], told["written"], told["failed"][0]["error"]) == (1, False, False, "WouldStop")
    assert {name: count for name, count in told["stats"].items() if count} == {
        "vendors_missing_in_ghl": VENDORS, "leads_deleted": LEADS, "errors": 1,
    }  # fmt: skip
    assert "would stop" in told["error"]
    assert "--accept-missing" in told["error"]
    shown = cli("crm-sync", "--dry-run", "--full")
    assert (shown.code, client.location.id in shown.out, "would stop" in shown.err) == (1, True, True)
    assert rows(engine) == before
    assert cli("crm-sync", "--dry-run", "--full", "--accept-missing").code == 0


def test_a_location_that_would_stop_is_not_in_the_question(
    cli: Cli,
    people: Marketplace,
    client: Agency,
    add_client: AddClient,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cli("crm-sync", "--yes")
    other = add_client("Other")
    monkeypatch.setattr(io, "StringIO", Terminal)
    for contact in people.contacts:
        client.location.remove(contact.id)
    before = rows(engine)
    nothing = cli("crm-sync", "--full")
    assert (nothing.code, "would be written" in nothing.err, "would stop" in nothing.err) == (1, False, True)
    cli("clients", "set-crm", "Other", "--on")
    other.location.add(email="ada@example.com", tags=("new lead",))
    yes = cli("crm-sync", "--full", stdin="y\n")
    assert (yes.code, "1 rows would be written" in yes.err, "would stop" in yes.err) == (1, True, True)
    assert set(before) <= set(rows(engine))


def test_a_location_that_fails_is_named_and_stops_no_other(
    cli: Cli, people: Marketplace, add_client: AddClient, sandbox: Sandbox
) -> None:
    other = add_client("Other")
    cli("clients", "set-crm", "Other", "--on")
    other.add_lead(email="ada@example.com")
    sandbox.faults(other.location.id, token_revoked=True)
    ended = cli("crm-sync", "--yes", "--json")
    assert ended.code == 1
    told = ended.document()
    assert (told["success"], told["stats"]["errors"], told["stats"]["vendors_created"]) == (False, 1, VENDORS)
    assert told["message"] == "1 of 2 locations are in step"
    assert [each["location"] for each in told["failed"]] == [other.location.id]
    assert "TokenRejected" in told["error"]
    assert "TokenRejected" in ended.err


def test_a_partial_result_is_no_success_and_says_what_was_done(
    cli: Cli, people: Marketplace, client: Agency, sandbox: Sandbox
) -> None:
    client.add_lead(email="nobody@example.com")
    # The list, which alone can say that nobody has this address, cannot be had.
    sandbox.faults(client.location.id, unfiltered_status=422)
    ended = cli("crm-sync", "--yes", "--json")
    told = ended.document()
    assert (ended.code, told["success"], told["written"]) == (1, False, True)
    assert (told["stats"]["errors"], told["stats"]["leads_updated"], told["stats"]["leads_deleted"]) == (1, LEADS, 0)
    assert (told["message"], told["failed"][0]["error"]) == ("0 of 1 locations are in step", "CrmPartlyFailed")
    assert told["error"] == told["failed"][0]["text"]
    shown = cli("crm-sync", "--yes", "--full")
    assert (shown.code, client.location.id in shown.out) == (1, True)
    assert "could not be looked up" in shown.err


def test_only_clients_that_are_switched_on_are_looked_at_unless_one_is_named(
    cli: Cli, people: Marketplace, add_client: AddClient, sandbox: Sandbox
) -> None:
    other = add_client("Other")
    assert len(cli("crm-sync", "--dry-run", "--json").document()["locations"]) == 1
    named = cli("crm-sync", "--dry-run", "--client", "Other")
    assert named.code == 1
    assert f"clients set-crm {other.location.id} --on" in named.err
    assert sandbox.stats(other.location.id)["requests"] == 0
    unknown = cli("crm-sync", "--dry-run", "--json", "--client", "Nobody")
    assert (unknown.code, unknown.document()["success"]) == (2, False)
    assert "clients list" in unknown.document()["error"]


def test_without_a_client_that_is_switched_on_it_says_how(cli: Cli, add_client: AddClient) -> None:
    add_client()
    ended = cli("crm-sync", "--yes")
    assert (ended.code, "clients set-crm" in ended.out) == (0, True)


def test_a_location_that_another_run_is_at_is_left_to_it(
    cli: Cli, people: Marketplace, client: Agency, engine: Engine
) -> None:
    with AdvisoryLocks(engine).hold(f"crm of location {client.location.id}") as held:
        assert held
        ended = cli("crm-sync", "--yes", "--json")
    assert ended.code == 5
    told = ended.document()
    assert (told["success"], told["busy"]) == (False, [client.location.id])


def test_where_another_run_is_at_one_of_several_it_is_done_in_part(
    cli: Cli, people: Marketplace, client: Agency, add_client: AddClient, engine: Engine
) -> None:
    add_client("Other")
    cli("clients", "set-crm", "Other", "--on")
    with AdvisoryLocks(engine).hold(f"crm of location {client.location.id}") as held:
        assert held
        ended = cli("crm-sync", "--yes", "--json")
    told = ended.document()
    assert (ended.code, told["success"], told["busy"]) == (1, False, [client.location.id])
    assert told["message"] == "1 of 2 locations are in step"
    assert "Other runs are at 1 of these locations" in told["error"]
    assert client.location.id in ended.err


def test_nobody_is_in_what_it_prints(cli: Cli, people: Marketplace, client: Agency) -> None:
    client.location.add(
        email="zyxwinda@example.com", first_name="Quorvath", phone="(305) 555-0187", tags=("new vendor",)
    )
    said = "".join(
        shown.out + shown.err
        for shown in (cli("-v", "crm-sync", "--dry-run"), cli("-v", "crm-sync", "--yes", "--json"))
    ).lower()
    assert [word for word in ("zyxwinda", "quorvath", "5550187", "555-0187") if word in said] == []


@pytest.mark.slow
def test_a_pipe_is_no_terminal(people: Marketplace) -> None:
    ended = run_process("crm-sync", "--json")
    assert (ended.code, ended.document()["success"]) == (2, False)
