"""Clients through the command line: adding, importing, deactivating; tokens that are never shown."""

import contextlib
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import PROGRAM, AddClient, Cli

ONE, TWO = "LocationNumberOne001", "LocationNumberTwo002"
TOKEN = "pit-5ecre7e5-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def _project(project: Settings) -> None:
    """Every test here has the databases."""


@pytest.fixture
def stored_token(project: Settings, engine: Engine) -> Callable[[str], str | None]:
    """A location's token as work on it gets it; None when there is none."""

    def read(location_id: str) -> str | None:
        query = text("SELECT ghl_token_encrypted FROM clients WHERE location_id = :id")
        with engine.connect() as connection:
            encrypted = connection.execute(query, {"id": location_id}).scalar_one()
        return TokenCipher.from_settings(project).decrypt(encrypted).get_secret_value() if encrypted else None

    return read


def names(cli: Cli) -> list[str]:
    return [client["name"] for client in cli("clients", "list", "--json").document()["clients"]]


def test_a_client_is_added_with_the_token_from_stdin_which_is_shown_nowhere(
    cli: Cli, stored_token: Callable[[str], str | None]
) -> None:
    added = cli(
        "clients", "add", "--name", " Acme ", "--location", ONE, "--region", "gb", "--time-zone", "Europe/London",
        stdin=f"{TOKEN}\n",
    )  # fmt: skip
    assert added.code == 0
    assert "ghl-pipeline backfill --dry-run" in added.out
    listed = cli("clients", "list", "--json")
    (client,) = listed.document()["clients"]
    assert (client["name"], client["location"], client["default_region"]) == ("Acme", ONE, "GB")
    assert (client["time_zone"], client["active"], client["has_token"]) == ("Europe/London", True, True)
    assert stored_token(ONE) == TOKEN
    for shown in (added, listed, cli("clients", "list")):
        assert TOKEN not in shown.out + shown.err


def test_a_token_is_not_an_option_so_that_it_is_in_no_process_list(cli: Cli) -> None:
    for command in ("add", "set-token"):
        assert "--token" not in cli("clients", command, "--help").out
    refused = cli("clients", "add", "--name", "Acme", "--location", ONE, "--token", TOKEN)
    assert refused.code == 2
    assert TOKEN not in refused.out + refused.err


def test_a_token_typed_at_a_terminal_is_not_echoed(stored_token: Callable[[str], str | None]) -> None:
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "clients", "add", "--name", "Acme", "--location", ONE],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    with os.fdopen(master, "r+b", buffering=0) as screen:
        give_up_at = time.monotonic() + 30
        # What is typed before the echo is off would be flushed away.
        while termios.tcgetattr(screen)[3] & termios.ECHO:
            assert time.monotonic() < give_up_at, "the echo was never switched off"
            time.sleep(0.05)
        screen.write(f"{TOKEN}\n".encode())
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal says that the other end is closed
            while select.select([screen], [], [], 30)[0] and (more := screen.read(1024)):
                shown += more
    assert b"Private integration token" in shown
    assert b"Added client" in shown
    assert process.wait(30) == 0
    assert TOKEN.encode() not in shown
    assert stored_token(ONE) == TOKEN


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"--name": " "}, "client name"),
        ({"--name": "x" * 201}, "client name"),
        ({"--name": "a\tb"}, "client name"),
        ({"--location": "short"}, "location id"),
        ({"--location": "https://app.example.com/location/x"}, "location id"),
        ({"--region": "Texas"}, "region"),
        ({"--time-zone": "Mars/Olympus"}, "time zone"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(options: dict[str, str], said: str, cli: Cli) -> None:
    given = {"--name": "Acme", "--location": ONE} | options
    refused = cli("clients", "add", *(word for pair in given.items() for word in pair), stdin=TOKEN)
    assert refused.code == 2
    assert said in refused.err
    assert names(cli) == []


@pytest.mark.parametrize("token", ["", "  \n", "two words", "pit-\u00e4"])
def test_a_token_that_cannot_be_one_is_refused_unseen(token: str, cli: Cli) -> None:
    refused = cli("clients", "add", "--name", "Acme", "--location", ONE, stdin=token)
    assert refused.code == 2
    assert "token" in refused.err
    assert "two words" not in refused.err
    assert names(cli) == []


def test_a_name_or_location_that_another_client_has_is_refused_with_who_has_it(cli: Cli) -> None:
    assert cli("clients", "add", "--name", "Acme", "--location", ONE, stdin=TOKEN).code == 0
    same_name = cli("clients", "add", "--name", "ACME", "--location", TWO, stdin=TOKEN)
    assert same_name.code == 2
    assert f"location {ONE}" in same_name.err
    same_location = cli("clients", "add", "--name", "Beta", "--location", ONE, stdin=TOKEN)
    assert same_location.code == 2
    assert f"Location {ONE} belongs to client 1" in same_location.err
    assert names(cli) == ["Acme"]


def test_without_a_client_the_list_is_empty_and_the_status_says_what_to_do(cli: Cli) -> None:
    assert cli("clients", "list", "--json").document() == {"clients": []}
    told = cli("status")
    assert (told.code, "ghl-pipeline clients add" in told.out) == (0, True)


# --- CSV


def test_a_csv_adds_and_updates_and_says_how_many(
    cli: Cli, tmp_path: Path, stored_token: Callable[[str], str | None]
) -> None:
    file = tmp_path / "clients.csv"
    file.write_text(f"name,location_id,token\nAcme,{ONE},{TOKEN}\nBeta,{TWO},{TOKEN}\n")
    assert cli("clients", "import", file, "--json").document() == {"added": 2, "updated": 0, "unchanged": 0}
    file.write_text(f"name,location_id,token,time_zone\nAcme,{ONE},,\nBeta,{TWO},pit-new,America/Denver\n")
    assert cli("clients", "import", file, "--json").document() == {"added": 0, "updated": 1, "unchanged": 1}
    assert (stored_token(ONE), stored_token(TWO)) == (TOKEN, "pit-new")


def test_a_csv_with_bad_rows_is_refused_whole_with_every_line_and_no_value(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "clients.csv"
    file.write_text(
        "name,location_id,token,time_zone\n"
        f"Good,{ONE},{TOKEN},UTC\n"
        f",{TWO},{TOKEN},UTC\n"
        f"Bad id,loc 1,{TOKEN},UTC\n"
        "\n"
        "No token,LocationNumberThree03,,UTC\n"
        f"Bad zone,LocationNumberFour004,{TOKEN},Mars\n"
        f"Twin,{ONE},{TOKEN},UTC\n"
    )
    refused = cli("clients", "import", file)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    for problem in ("5 problem(s)", "line 3, name", "line 4, location_id", "line 7, time_zone", "line 8, location_id"):
        assert problem in refused.err
    assert "nothing was imported" in refused.err
    assert TOKEN not in refused.err
    assert names(cli) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"name,token\nAcme,x\n", "line 1, location_id: the column is missing"),
        (b"name,location_id,token\n", "no row below its header"),
        (b'name,location_id,token\n"Acme,x,y\n', "line 2: has a quote that is not closed"),
        ("name,location_id,token\n".encode("utf-16"), "UTF-16"),
        (b"name,location_id,token\nCaf\xe9,x,y\n", "line 2: is not UTF-8"),
    ],
)
def test_a_file_that_is_no_such_csv_is_refused_with_the_reason(
    content: bytes, said: str, cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "clients.csv"
    file.write_bytes(content)
    refused = cli("clients", "import", file)
    assert refused.code == 2
    assert said in refused.err


def test_a_file_that_is_not_there_is_named(cli: Cli, tmp_path: Path) -> None:
    refused = cli("clients", "import", tmp_path / "missing.csv")
    assert refused.code == 2
    assert "missing.csv" in refused.err


# --- one client


def test_a_deactivated_client_is_left_alone_until_it_is_reactivated(cli: Cli, add_client: AddClient) -> None:
    agency = add_client("Acme")
    agency.add_lead(email="someone@example.com")
    gone = cli("clients", "deactivate", "acme")
    assert gone.code == 0
    assert f"ghl-pipeline clients reactivate {agency.location.id}" in gone.out
    assert cli("backfill", "--json").document()["locations"] == []
    for asked in (("backfill", "--client", "Acme"), ("sync-all", "--location", agency.location.id)):
        refused = cli(*asked)
        assert refused.code == 2
        assert f"ghl-pipeline clients reactivate {agency.location.id}" in refused.err
    assert cli("status", "--json").document()["locations"][0]["active"] is False
    assert cli("clients", "reactivate", agency.location.id, "--json").document()["active"] is True
    assert len(cli("backfill", "--client", "Acme", "--json").document()["locations"]) == 1


def test_a_new_token_replaces_the_old_one(cli: Cli, stored_token: Callable[[str], str | None]) -> None:
    cli("clients", "add", "--name", "Acme", "--location", ONE, stdin="pit-old")
    replaced = cli("clients", "set-token", "Acme", stdin=TOKEN)
    assert replaced.code == 0
    assert TOKEN not in replaced.out + replaced.err
    assert stored_token(ONE) == TOKEN


@pytest.mark.parametrize("command", ["deactivate", "reactivate", "set-token"])
def test_an_unknown_client_is_refused_with_where_to_look(command: str, cli: Cli) -> None:
    refused = cli("clients", command, "nobody", stdin=TOKEN)
    assert refused.code == 2
    assert "ghl-pipeline clients list" in refused.err
