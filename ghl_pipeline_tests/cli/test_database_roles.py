"""`db roles` and the logins, as a person runs them."""

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Connection, Engine, text

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import AddClient, Cli
from ghl_pipeline_tests.fixtures.names import own_name


@pytest.fixture
def login(administration: Connection) -> Iterator[str]:
    """A name for a login; dropped at the end."""
    name = f"test_{own_name()}"
    yield name
    administration.execute(text(f"DROP ROLE IF EXISTS {name}"))


def test_the_rights_are_printed_and_given(cli: Cli, project: Settings, engine: Engine) -> None:
    printed = cli("db", "roles")
    assert printed.code == 0, printed.err
    assert printed.out.count("\\connect") >= 2
    assert "ENABLE ROW LEVEL SECURITY;" in printed.out
    with engine.connect() as connection:
        secured = "SELECT relrowsecurity FROM pg_class WHERE relname = 'leads'"
        assert connection.execute(text(secured)).scalar() is False
    given = cli("db", "roles", "--apply")
    assert given.code == 0, given.err
    with engine.connect() as connection:
        assert connection.execute(text(secured)).scalar() is True
    document = cli("db", "roles", "--json").document()
    assert document["applied"] is False
    assert len(document["statements"]) > 100


def test_a_viewer_is_made_listed_and_removed(
    cli: Cli, project: Settings, add_client: AddClient, login: str, database_url: URL
) -> None:
    mine, other = add_client("Acme"), add_client("Bolt")
    mine.add_lead(email="ada@example.com")
    other.add_lead(email="bob@example.com")
    assert cli("db", "roles", "--apply").code == 0
    made = cli("db", "add-viewer", login, "--client", "Acme")
    assert made.code == 0, made.err
    password = made.out.splitlines()[-1]
    assert re.fullmatch(r"[\w-]{32}", password)
    viewer = create_engine(database_url.set(username=login, password=password))
    with viewer.connect() as connection:
        assert connection.execute(text("SELECT email FROM leads")).scalars().all() == ["ada@example.com"]
    more = cli("db", "add-viewer", login, "--client", other.location.id, "--keep-password", "--json").document()
    assert more == {
        "name": login, "role": "viewer", "password": None, "locations": [mine.location.id, other.location.id],
    }  # fmt: skip
    with viewer.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM leads")).scalar() == 2
    viewer.dispose()
    assert login in cli("db", "viewers").out
    assert {"name": login, "locations": [mine.location.id, other.location.id]} in cli(
        "db", "viewers", "--json"
    ).document()["viewers"]
    assert cli("db", "remove-viewer", login).code == 0
    gone = cli("db", "remove-viewer", login)
    assert gone.code == 2
    assert "no viewer's login" in gone.err


def test_logins_for_receiver_and_worker_take_a_password_from_a_pipe(
    cli: Cli, project: Settings, login: str, database_url: URL
) -> None:
    assert cli("db", "roles", "--apply").code == 0
    password = "a password of twelve or more"
    made = cli("db", "add-login", login, "--role", "receiver", "--password-stdin", stdin=f"{password}\n")
    assert made.code == 0, made.err
    assert password not in made.out + made.err
    receiver = create_engine(database_url.set(username=login, password=password))
    with receiver.connect() as connection:
        assert connection.execute(text("SELECT count(id) FROM clients")).scalar() == 0
    receiver.dispose()
    refused = cli("db", "add-login", login, "--role", "worker")
    assert refused.code == 2
    assert "it is no ghl_pipeline_worker" in refused.err
    empty = cli("db", "add-login", login, "--role", "receiver", "--password-stdin")
    assert empty.code == 2


def test_a_client_that_does_not_exist_makes_no_login(cli: Cli, project: Settings, login: str, engine: Engine) -> None:
    assert cli("db", "roles", "--apply").code == 0
    assert cli("db", "add-viewer", login, "--client", "Nobody").code == 2
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM pg_roles WHERE rolname = :name"), {"name": login})
        assert found.scalar() == 0
