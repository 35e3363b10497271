"""`keys` and `clients rotate-token` as a person runs them, step by step as the runbook says."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, text

from ghl_pipeline.cli.demo_profile import SampleSize, demo_profile, make_sample
from ghl_pipeline.database.connection import drop_databases
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import AddClient, Cli
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


def set_keys(monkeypatch: pytest.MonkeyPatch, *keys: str) -> None:
    monkeypatch.setenv("GHL_PIPELINE_TOKEN_KEYS", ",".join(keys))


def test_keys_are_rotated_in_the_documented_order(
    cli: Cli, project: Settings, add_client: AddClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.token_keys is not None
    old, new = project.token_keys.get_secret_value(), Fernet.generate_key().decode()
    client = add_client("Acme")
    # Only the new key: the token cannot be read, and is said so.
    set_keys(monkeypatch, new)
    early = cli("keys", "rotate", "--json")
    assert early.code == 1
    assert early.document()["unreadable"] == 1
    assert "cannot be read with any key" in early.words()
    # 1. the new key first, everywhere
    set_keys(monkeypatch, new, old)
    counted = cli("keys", "check", "--json")
    assert counted.code == 0
    assert counted.document()["older_key"] == 1
    assert "keys rotate" in counted.err
    # 2. rotate
    moved = cli("keys", "rotate", "--json")
    assert moved.code == 0
    assert (moved.document()["moved"], moved.document()["older_key"]) == (1, 0)
    assert "take them out of GHL_PIPELINE_TOKEN_KEYS" in moved.err
    # 3. the old key is taken away
    set_keys(monkeypatch, new)
    assert cli("keys", "check").code == 0
    assert cli("doctor", "--location", client.location.id).code == 0
    for secret in (old, new, client.location.token):
        assert secret not in moved.out + moved.err + counted.out


def test_the_demos_tokens_are_under_the_same_keys_and_move_with_them(
    cli: Cli, project: Settings, add_client: AddClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved for one of the two alone, the other's tokens would be lost with the old key."""
    assert project.token_keys is not None
    old, new = project.token_keys.get_secret_value(), Fernet.generate_key().decode()
    add_client("Acme")
    profile = demo_profile(project)
    make_sample(profile, SampleSize(locations=1, leads=10, seed=7))
    try:
        set_keys(monkeypatch, new, old)
        assert cli("keys", "rotate").code == 0
        set_keys(monkeypatch, new)
        counted = cli("keys", "check", "--json")
        assert counted.code == 0
        by_column = {each["column"]: each["by_key"] for each in counted.document()["values"]}
        assert by_column["clients.ghl_token_encrypted"] == by_column["demo: clients.ghl_token_encrypted"] == {"1": 1}
        refused = cli("--demo", "keys", "rotate")
        assert refused.code == 2
        assert "works on both" in refused.words()
    finally:
        drop_databases(profile.urls)


def test_the_table_shows_counts_by_key(cli: Cli, add_client: AddClient) -> None:
    add_client("Acme")
    shown = cli("keys", "check")
    assert "clients.ghl_token_encrypted 1 0" in shown.words()


def test_keys_from_the_environment_are_no_file_of_this_program(cli: Cli, project: Settings) -> None:
    made = cli("keys", "new")
    assert made.code == 0
    Fernet(made.out.strip())
    assert "in front of GHL_PIPELINE_TOKEN_KEYS" in made.err
    assert not (Path(project.home) / "token.key").exists()
    refused = cli("keys", "retire")
    assert refused.code == 3
    assert "GHL_PIPELINE_TOKEN_KEYS" in refused.err


def test_the_key_file_is_renewed_without_a_pause(
    cli: Cli, project: Settings, add_client: AddClient, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    """The embedded database's file, on the test's database: what is asked of the settings is whether it is embedded."""
    monkeypatch.setattr(Settings, "uses_embedded_database", property(lambda _: True))
    monkeypatch.setattr("ghl_pipeline.cli.session.ensure_databases", lambda _: None)
    monkeypatch.delenv("GHL_PIPELINE_TOKEN_KEYS")
    client = add_client("Acme")
    path = Path(project.home) / "token.key"
    first = path.read_bytes()
    assert cli("keys", "retire").words().strip().endswith("has only one key.")
    added = cli("keys", "new")
    assert added.code == 0, added.err
    assert "2 keys" in added.out
    assert path.read_bytes().split()[1] == first
    refused = cli("keys", "retire")
    assert refused.code == 2
    assert "1 stored tokens are under an older key" in refused.err
    assert cli("keys", "rotate").code == 0
    assert cli("keys", "retire").code == 0
    assert first not in path.read_bytes()
    assert cli("doctor", "--location", client.location.id).code == 0


def test_a_token_is_rotated_by_command(
    cli: Cli, add_client: AddClient, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    client = add_client("Acme")
    refused = cli("clients", "rotate-token", "Acme", stdin="pit-mistyped")
    assert refused.code == 2
    assert "nothing was stored" in refused.err
    new = sandbox.world.rotate_token(client.location.id)
    done = cli("clients", "rotate-token", "Acme", stdin=new)
    assert done.code == 0, done.err
    assert "stays in reserve until" in done.out
    listed = cli("clients", "list", "--json").document()["clients"][0]
    assert listed["previous_token_until"] is not None
    assert "stored, old one until" in cli("clients", "list").words()
    again = cli("clients", "set-token", "Acme", "--json", stdin=new)
    assert again.document()["previous_token_until"] is None
    for shown in (refused, done, again):
        assert "pit-mistyped" not in shown.out + shown.err
        assert new not in shown.out + shown.err
    assert new not in caplog.text


def test_a_rotation_while_ghl_is_down_says_what_can_be_done(
    cli: Cli, add_client: AddClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    monkeypatch.setenv("GHL_MAX_ATTEMPTS", "1")
    client = add_client("Acme")
    sandbox.faults(client.location.id, error_rate=1.0)
    new = sandbox.world.rotate_token(client.location.id)
    failed = cli("clients", "rotate-token", "Acme", stdin=new)
    assert failed.code == 1
    assert "Nothing was stored. To store the token untried, add --no-check" in failed.err
    unchecked = cli("clients", "rotate-token", "Acme", "--no-check", "--json", stdin=new)
    assert unchecked.code == 0
    assert unchecked.document()["checked"] is False
    with engine.connect() as connection:
        assert connection.execute(text("SELECT previous_token_encrypted IS NOT NULL FROM clients")).scalar() is True
