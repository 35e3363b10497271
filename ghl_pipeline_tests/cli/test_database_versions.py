"""`db version` and `db downgrade`: where the tables are, and back with everything that older versions know."""

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, inspect, text

from ghl_pipeline.database.migrate import current_revision, head_revision, upgrade
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import AddClient, Cli


def test_the_version_says_where_the_tables_are_and_what_is_needed(cli: Cli, project: Settings) -> None:
    told = cli("db", "version")
    assert told.code == 0
    assert f"The tables are at revision {head_revision()}; this version needs {head_revision()}." in told.out
    document = cli("db", "version", "--json").document()
    assert document["revision"] == document["needed"] == head_revision()
    assert project.database_url is not None
    url = cli("db", "version", "--url").out.strip()
    assert url.startswith("postgresql://")
    assert (password(project.database_url) or "none") not in told.out + url


def password(url: SecretStr) -> str | None:
    from sqlalchemy import make_url  # noqa: PLC0415

    return make_url(url.get_secret_value()).password


def test_tables_of_an_older_revision_are_told_with_what_to_do(cli: Cli, project: Settings, engine: Engine) -> None:
    assert cli("db", "downgrade", "0005", "--yes").code == 0
    told = cli("db", "version")
    assert told.code == 4
    assert "ghl-pipeline db upgrade" in told.err
    assert cli("status").code == 4
    assert cli("db", "upgrade").code == 0
    assert cli("db", "version").code == 0


@pytest.mark.parametrize("revision", ["0005", "0006", "0007"])
def test_the_way_back_and_forth_keeps_every_row_that_the_older_tables_know(
    revision: str, cli: Cli, add_client: AddClient, engine: Engine
) -> None:
    agency = add_client("Acme", contacts=[])
    lead = agency.add_lead(email="ada@example.com", status="replied")
    assert cli("backfill").code == 0
    before = rows(engine)
    assert len(before["leads"]) == 1
    back = cli("db", "downgrade", revision, "--json")
    assert back.code == 2, "nobody was there to be asked"
    assert current_revision(engine) == head_revision()
    back = cli("db", "downgrade", revision, "--yes", "--json")
    assert back.document() | {"database_url": ""} == {"database_url": "", "from": head_revision(), "to": revision}
    assert {name: rows(engine)[name] for name in before} == before
    upgrade(engine)
    assert {name: rows(engine)[name] for name in before} == before
    assert agency.lead(lead)["status"] == "replied"
    assert cli("backfill").code == 0


def rows(engine: Engine) -> dict[str, list[str]]:
    """Everything in the tables that are as they were at revision 0005, a line a row."""
    same = ("leads", "messages", "webhook_events", "vendors", "lead_lookups", "location_attempts", "message_imports")
    with engine.connect() as connection:
        found = {
            table: [
                str(row) for row in connection.execute(text(f"SELECT {table} FROM {table} ORDER BY 1")).scalars().all()
            ]
            for table in same
        }
        names = "id, name, location_id, ghl_token_encrypted, active, settings, created_at, updated_at"
        found["clients"] = [str(row) for row in connection.execute(text(f"SELECT {names} FROM clients ORDER BY 1"))]
    return found


def test_the_way_back_is_refused_where_it_leads_nowhere(cli: Cli, project: Settings, engine: Engine) -> None:
    tables = set(inspect(engine).get_table_names())
    for nowhere in ("9999", "head", "-1"):
        refused = cli("db", "downgrade", "--yes", "--", nowhere)
        assert refused.code == 2
        assert "There is no revision" in refused.words()
    with engine.begin() as connection:
        connection.execute(text("UPDATE ghl_pipeline_alembic_version SET version_num = '9999'"))
    newer = cli("db", "downgrade", "0005", "--yes")
    assert newer.code == 4
    assert "newer version" in newer.words()
    assert set(inspect(engine).get_table_names()) == tables
