"""`ghl-pipeline backfill`: what it does, what it prints, what it leaves, and how it ends when something is wrong."""

import signal
import subprocess
import time
from dataclasses import dataclass

import pytest
from dagster import DagsterInstance
from sqlalchemy import Engine, text

from ghl_pipeline.database.leases import LocationLeases
from ghl_pipeline.hydration.options import DEFAULT_CONCURRENCY
from ghl_pipeline.sandbox.agency import SampleAgency
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import PROGRAM, AddClient, Cli
from ghl_pipeline_tests.fixtures.project import add_sample_agency, lead_rows
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

NO_ONE_LISTENS = "http://127.0.0.1:1"


@pytest.fixture
def agency(engine: Engine, project: Settings, sandbox: Sandbox) -> SampleAgency:
    """Three locations with 40 leads each."""
    return add_sample_agency(engine, project, sandbox, locations=3, leads=40)


@dataclass
class Requests:
    """How many requests the sandbox got, by location, since the last time it was asked."""

    sandbox: Sandbox
    agency: SampleAgency

    def take(self) -> list[int]:
        counts = [int(self.sandbox.stats(location.id)["requests"]) for location in self.agency.locations]
        self.sandbox.world.reset_statistics()
        return counts


@pytest.fixture
def requests(sandbox: Sandbox, agency: SampleAgency) -> Requests:
    return Requests(sandbox, agency)


# --- what it does


def test_a_backfill_repairs_every_lead_that_can_be_and_tells_it_in_one_document(
    cli: Cli, agency: SampleAgency, sandbox: Sandbox
) -> None:
    ended = cli("backfill", "--json")
    assert (ended.code, ended.err) == (0, "")
    told = ended.document()
    assert (told["failed"], told["dry_run"]) == ([], False)
    for location, report in zip(agency.locations, told["locations"], strict=True):
        assert (report["location"], report["eligible"]) == (location.id, location.eligible)
        assert {name: n for name, n in report["outcomes"].items() if n} == location.outcomes
        assert {name: n for name, n in report["fields"].items() if n and name != "contact_link"} == location.fills
        assert report["requests"] == sandbox.stats(location.id)["requests"]
        assert sandbox.stats(location.id)["creates"] == 0
    totals = told["totals"]
    assert totals["eligible"] == sum(totals["outcomes"].values()) == sum(loc.eligible for loc in agency.locations)
    assert totals["requests"] == sum(report["requests"] for report in told["locations"])


def test_for_people_it_prints_a_row_for_each_location_and_the_sums(cli: Cli, agency: SampleAgency) -> None:
    ended = cli("backfill")
    assert (ended.code, ended.err) == (0, "")
    for location in agency.locations:
        assert location.id in ended.out
    assert "not found" in ended.out
    assert "GHL was asked" in ended.out


def test_it_leaves_the_history_that_the_ui_shows(cli: Cli, agency: SampleAgency, instance: DagsterInstance) -> None:
    run_id = cli("backfill", "--json").document()["run_id"]
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.is_success
    assert run.tags["ghl_pipeline/started_by"] == "command line"
    # What the settings say of every run is not repeated, so that the run can be launched again under other settings.
    config = {"busy_wait_seconds": 0.0, "dry_run": False, "fresh": False, "concurrency": DEFAULT_CONCURRENCY}
    assert run.run_config["ops"] == {"lead_hydration": {"config": config}}
    assert set(instance.get_dynamic_partitions("location")) == {location.id for location in agency.locations}


def test_locations_and_clients_are_chosen_by_id_name_and_number_each_once(
    cli: Cli, agency: SampleAgency, requests: Requests
) -> None:
    first, _, third = agency.locations
    ended = cli("backfill", "--location", third.id, "--client", first.name.upper(), "--location", third.id, "--json")
    assert ended.code == 0
    assert {report["location"] for report in ended.document()["locations"]} == {first.id, third.id}
    asked = requests.take()
    assert (asked[0] > 0, asked[1], asked[2] > 0) == (True, 0, True)


def test_an_unknown_location_or_client_stops_everything_before_it_begins(
    cli: Cli, agency: SampleAgency, requests: Requests
) -> None:
    for unknown in (("--location", "NoSuchLocation000001"), ("--client", "Nobody")):
        refused = cli("backfill", "--location", agency.locations[0].id, *unknown)
        assert (refused.code, refused.out) == (2, "")
        assert unknown[1] in refused.err
        assert "ghl-pipeline clients list" in refused.err
    assert requests.take() == [0, 0, 0]


def test_a_dry_run_counts_what_a_run_would_do_and_writes_nothing(
    cli: Cli, agency: SampleAgency, engine: Engine
) -> None:
    before = lead_rows(engine)
    dry = cli("backfill", "--dry-run", "--json").document()
    assert lead_rows(engine) == before
    assert dry["dry_run"] is True
    assert "dry run" in cli("backfill", "--dry-run").out
    real = cli("backfill", "--json").document()
    for measure in ("eligible", "outcomes", "fields"):
        assert dry["totals"][measure] == real["totals"][measure]


def test_max_leads_bounds_each_location_and_the_rest_is_left_for_the_next(
    cli: Cli, agency: SampleAgency, engine: Engine
) -> None:
    some = cli("backfill", "--max-leads", 5, "--json").document()
    assert [report["eligible"] for report in some["locations"]] == [5, 5, 5]
    cli("backfill")
    after_both = lead_rows(engine)
    assert cli("backfill", "--json").document()["totals"]["outcomes"]["hydrated"] == 0
    assert lead_rows(engine) == after_both


def test_the_limit_of_a_run_is_obeyed_and_stored(
    cli: Cli, add_client: AddClient, sandbox: Sandbox, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = add_client(time_scale=0.1)  # 100 requests in any second
    for number in range(10):
        client.add_lead(email=f"nobody-{number}@example.com")
    # One request after the other: the first answer's headers tell the window, which is 10 s before that.
    monkeypatch.setenv("HYDRATION_PAGE_SIZE", "1")
    assert cli("backfill", "--requests-per-10s", 50).code == 0
    counted = sandbox.stats(client.location.id)
    assert counted["requests"] >= 10
    # Of a window of one second the guard is 15 ms, which a busy machine exceeds; without a limit it would be 10.
    assert counted["highest_in_window"] <= 6
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT asked_max_requests, asked_interval_seconds FROM location_throttle"))
        assert tuple(stored.one()) == (50, 10.0)


# --- resuming


@pytest.mark.parametrize(("words", "asked_again"), [((), False), (("--fresh",), True)])
def test_after_ctrl_c_a_backfill_goes_on_by_default_and_starts_over_when_told(
    words: tuple[str, ...], asked_again: bool, cli: Cli, add_client: AddClient, sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    leads, page = 40, 4
    client = add_client()
    for number in range(leads):
        client.add_lead(email=f"nobody-{number}@example.com")
    monkeypatch.setenv("HYDRATION_PAGE_SIZE", str(page))
    sandbox.faults(client.location.id, latency_seconds=0.2)

    def lookups() -> dict[str, int]:
        counts: dict[str, int] = sandbox.stats(client.location.id)["lookups"]["email"]
        return counts

    with subprocess.Popen([str(PROGRAM), "backfill"], stderr=subprocess.PIPE, text=True) as first:
        give_up_at = time.monotonic() + 30
        while lookups()["distinct"] < 3 * page:
            assert time.monotonic() < give_up_at
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "run the same command again to go on from there" in err
    assert lookups()["distinct"] < leads
    sandbox.faults()
    before = lookups()["repeated"]
    ended = cli("backfill", *words, "--json")
    assert ended.document()["totals"]["outcomes"]["not_found"] == leads
    assert (lookups()["repeated"] - before > page) is asked_again


# --- locations that fail


def test_a_location_that_fails_is_named_with_what_to_do_and_the_others_are_done(
    cli: Cli, agency: SampleAgency, sandbox: Sandbox
) -> None:
    broken = agency.locations[1]
    sandbox.faults(broken.id, token_revoked=True)
    ended = cli("backfill", "--json")
    assert ended.code == 1
    told = ended.document()
    (failure,) = told["failed"]
    assert (failure["location"], failure["error"], failure["permanent"]) == (broken.id, "TokenRejected", True)
    assert "ghl-pipeline clients set-token" in failure["text"]
    assert ended.err == f"{failure['text']}\n"
    repaired = {each["location"]: sum(each["fields"].values()) > 0 for each in told["locations"]}
    assert repaired.pop(broken.id, False) is False
    assert repaired == {agency.locations[0].id: True, agency.locations[2].id: True}
    sandbox.faults()
    healed = cli("backfill", "--json")
    assert (healed.code, len(healed.document()["locations"])) == (0, 3)


@pytest.mark.parametrize(
    ("faults", "error", "advice"),
    [
        ({"token_revoked": True}, "TokenRejected", "ghl-pipeline clients set-token"),
        ({"missing_scopes": ("contacts.readonly",)}, "ScopeMissing", "Add the scopes contacts.readonly"),
        ({"garbage_rate": 1.0}, "UnreadableAnswer", "not GHL's JSON"),
        ({"error_rate": 1.0, "error_status": 503}, "GhlServerError", "(503)"),
        ({"drop_rate": 1.0}, "GhlUnreachable", "Check GHL_API_URL"),
        ({"storm_seconds": 60.0}, "RateLimited", "(429)"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_each_refusal_of_ghl_has_its_line_and_loses_nothing(
    faults: dict[str, object], error: str, advice: str, cli: Cli, add_client: AddClient, sandbox: Sandbox,
    engine: Engine, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("GHL_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("GHL_MAX_429_RETRIES", "1")
    monkeypatch.setenv("GHL_CALL_DEADLINE_SECONDS", "5")
    client = add_client(time_scale=0.1)
    client.location.add(email="ada@example.com", first_name="Ada", phone="+12125550101")
    lead = client.add_lead(email="ada@example.com")
    sandbox.faults(client.location.id, **faults)
    before = lead_rows(engine)
    started = time.monotonic()
    ended = cli("backfill", "--json")
    assert time.monotonic() - started < 10
    assert ended.code == 1
    (failure,) = ended.document()["failed"]
    assert error in failure["text"]
    assert client.location.id in failure["text"]
    assert advice in failure["text"]
    assert "\n" not in failure["text"]
    assert "ada@" not in ended.out + ended.err
    assert client.location.token not in ended.out + ended.err
    assert lead_rows(engine) == before
    sandbox.faults()
    with engine.begin() as connection:
        connection.execute(text("UPDATE location_throttle SET blocked_until = 0"))
    assert cli("backfill").code == 0
    assert client.lead(lead)["first_name"] == "Ada"


def test_a_token_of_another_location_is_told_apart_from_a_wrong_one(
    cli: Cli, add_client: AddClient, sandbox: Sandbox
) -> None:
    elsewhere = sandbox.add_location()
    mixed_up = add_client("Mixed up", token=elsewhere.token)
    wrong = add_client("Wrong", token="pit-00000000-0000-4000-8000-00000000dead")
    for client in (mixed_up, wrong):
        client.add_lead(email="ada@example.com")
    ended = cli("backfill", "--json")
    assert ended.code == 1
    failed = {failure["location"]: failure for failure in ended.document()["failed"]}
    assert failed[mixed_up.location.id]["error"] == "LocationAccessDenied"
    assert "come from the same sub-account" in failed[mixed_up.location.id]["text"]
    assert failed[wrong.location.id]["error"] == "TokenRejected"
    answers = sandbox.stats(elsewhere.id)["by_route"].values()
    assert {status for statuses in answers for status in statuses} == {"403"}


def test_a_location_without_a_token_is_told_how_to_get_one(cli: Cli, add_client: AddClient) -> None:
    client = add_client("Dr. Person")
    client.set(ghl_token_encrypted=None)
    client.add_lead(email="ada@example.com")
    ended = cli("backfill", "--json")
    assert ended.code == 1
    (failure,) = ended.document()["failed"]
    assert failure["error"] == "TokenMissing"
    assert f"ghl-pipeline clients set-token {client.location.id}" in failure["text"]
    assert "Dr. Person" not in failure["text"]


def test_a_token_that_another_key_encrypted_is_told_apart(cli: Cli, add_client: AddClient) -> None:
    client = add_client()
    client.set(ghl_token_encrypted="gAAAAA-not-ours")
    client.add_lead(email="ada@example.com")
    (failure,) = cli("backfill", "--json").document()["failed"]
    assert failure["error"] == "TokenUnreadable"
    assert "GHL_PIPELINE_TOKEN_KEYS" in failure["text"]


def test_an_api_that_nobody_answers_at_is_given_up_in_bounded_time(
    cli: Cli, agency: SampleAgency, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "GHL_API_URL": NO_ONE_LISTENS,
        "GHL_MAX_ATTEMPTS": "2",
        "GHL_CALL_DEADLINE_SECONDS": "3",
    }.items():
        monkeypatch.setenv(name, value)
    before = lead_rows(engine)
    started = time.monotonic()
    ended = cli("backfill")
    assert time.monotonic() - started < 15
    assert ended.code == 1
    assert ended.err.count("Check GHL_API_URL and the network") == 3
    assert lead_rows(engine) == before


def test_a_run_that_fails_outside_its_locations_does_not_look_like_success(
    cli: Cli, agency: SampleAgency, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("ada@example.com")

    monkeypatch.setattr("ghl_pipeline.hydration.hydration.begin_attempt", fail)
    ended = cli("backfill", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "run the same command again" in ended.err
    assert "ada@" not in ended.err


# --- two at once


def test_a_location_that_somebody_else_works_on_is_left_to_them(cli: Cli, agency: SampleAgency, engine: Engine) -> None:
    held, free = agency.locations[0].id, agency.locations[1].id
    before = lead_rows(engine)
    with LocationLeases(engine) as leases:
        leases.acquire(held, "run 4711 (process 12 on worker-1)")
        alone = cli("backfill", "--location", held)
        assert alone.code == 5
        assert "being worked on by run 4711 (process 12 on worker-1) since " in alone.err
        assert lead_rows(engine) == before
        among_others = cli("backfill", "--location", held, "--location", free, "--json")
        assert among_others.code == 1
        told = among_others.document()
        assert ([f["error"] for f in told["failed"]], len(told["locations"])) == (["LocationBusy"], 1)
        assert cli("sync-all", "--location", held).code == 5
    assert cli("backfill", "--location", held).code == 0


def test_of_two_backfills_of_one_location_one_works_and_the_other_says_who(
    cli: Cli, agency: SampleAgency, sandbox: Sandbox, engine: Engine
) -> None:
    location = agency.locations[0]
    sandbox.faults(location.id, latency_seconds=0.7)
    words = [str(PROGRAM), "backfill", "--location", location.id]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        give_up_at = time.monotonic() + 30
        while not sandbox.stats(location.id)["requests"]:
            assert time.monotonic() < give_up_at
            time.sleep(0.02)
        second = cli("backfill", "--location", location.id)
        sandbox.faults()  # the first may hurry now
        out, err = first.communicate(timeout=60)
    assert second.code == 5
    assert f"(process {first.pid} on " in second.err
    assert (first.returncode, err) == (0, "")
    assert location.id in out
    again = cli("backfill", "--location", location.id, "--json").document()
    assert again["totals"]["outcomes"]["linked_and_hydrated"] == 0


# --- nothing to do


def test_without_clients_there_is_nothing_to_do_and_nothing_wrong(cli: Cli, project: Settings) -> None:
    ended = cli("backfill", "--json")
    assert ended.code == 0
    assert ended.document()["locations"] == []


def test_a_location_without_leads_costs_no_request(cli: Cli, add_client: AddClient, sandbox: Sandbox) -> None:
    client = add_client()
    client.location.add(email="ada@example.com")
    (report,) = cli("backfill", "--json").document()["locations"]
    assert (report["eligible"], report["requests"]) == (0, 0)
    assert sandbox.stats(client.location.id)["requests"] == 0


def test_in_a_location_without_contacts_no_lead_is_found(cli: Cli, add_client: AddClient) -> None:
    client = add_client()
    for number in range(3):
        client.add_lead(email=f"nobody-{number}@example.com")
    (report,) = cli("backfill", "--json").document()["locations"]
    assert (report["eligible"], report["outcomes"]["not_found"]) == (3, 3)
