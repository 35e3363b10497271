"""No secret lies anywhere in plain text: not in a table of either database, not in a file, not in a process's words."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine, create_engine, text

from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import AddClient, Cli
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

_SECRET_NAME = re.compile(r"token|password|secret|key|database_url|broker_url|slack")
# Public keys, and words about tokens.
_NO_SECRETS = {"webhook_ed25519_keys", "webhook_rsa_keys", "draft_token_budget_multiplier", "metrics_without_token"}


def rows_of(engine: Engine) -> Iterator[tuple[str, str]]:
    """Every row of every table, as text, with the table's name."""
    with engine.connect() as connection:
        tables = connection.execute(
            text(
                "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
        ).scalars()
        for table in tables.all():
            for row in connection.execute(text(f"SELECT CAST(whole AS text) FROM {table} AS whole")).scalars():
                yield table, row


def test_after_work_and_rotations_no_secret_is_readable(
    cli: Cli,
    project: Settings,
    add_client: AddClient,
    sandbox: Sandbox,
    engine: Engine,
    dagster_url: URL,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    client = add_client("Acme")
    client.location.add(email="ada@example.com", first_name="Ada")
    client.add_lead(email="ada@example.com")
    new = sandbox.world.rotate_token(client.location.id)
    workspace = sandbox.world.add_workspace(client.location.id)
    shown = [
        cli("clients", "rotate-token", "Acme", stdin=new),
        cli("clients", "set-emailbison", "Acme", "--url", f"{sandbox.url}/_emailbison", "--workspace", workspace.id,
            stdin=workspace.token),
        cli("-v", "backfill", "--location", client.location.id),
        cli("keys", "rotate"),
        cli("doctor"),
    ]  # fmt: skip
    assert shown[0].code == 0, shown[0].err
    assert shown[2].code == 0, shown[2].err
    assert project.token_keys is not None
    secrets = [
        client.location.token,
        new,
        workspace.token,
        project.token_keys.get_secret_value(),
        str(engine.url.password),
    ]
    history = create_engine(dagster_url.set(drivername="postgresql+psycopg"))
    found = [
        (where, number)
        for place in (engine, history)
        for where, row in rows_of(place)
        for number, secret in enumerate(secrets)
        if secret in row
    ]
    history.dispose()
    assert found == []
    files = [path for path in Path(project.home).rglob("*") if path.is_file()]
    written = [path.name for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]
    assert written == []
    said = caplog.text + "".join(each.out + each.err for each in shown)
    assert [number for number, secret in enumerate(secrets) if secret in said] == []


def test_every_setting_that_opens_something_is_secret_in_reprs_and_documents() -> None:
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    named = {name for name in Settings.model_fields if _SECRET_NAME.search(name)} - _NO_SECRETS
    assert named <= secrets
    value = "https://user:opensesame@hooks.example.com/T000"
    settings = Settings().model_copy(update=dict.fromkeys(secrets, SecretStr(value)))
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert "opensesame" not in shown
