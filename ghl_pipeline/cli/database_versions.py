"""`ghl-pipeline db version` and `db downgrade`: at which revision the tables are, and back to an older one."""

from importlib.metadata import version as installed_version
from typing import Annotated

import typer
from sqlalchemy import Engine, text

from ghl_pipeline.cli.output import err, out, print_json
from ghl_pipeline.database.connection import create_engine, database_urls, describe, opened
from ghl_pipeline.database.migrate import UPGRADE_COMMAND, current_revision, head_revision, undone
from ghl_pipeline.database.migrate import downgrade as migrate_back
from ghl_pipeline.errors import DatabaseUnavailable, InvalidInput
from ghl_pipeline.settings import load_settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def version(
    url: Annotated[
        bool, typer.Option("--url", help="Print only where the database is, as psql and pg_dump take it; no password.")
    ] = False,
    json: Json = False,
) -> None:
    """Say at which revision the tables are, and which one this software needs. Exits with 4 when they differ."""
    urls = database_urls(load_settings())
    if url:
        out.print(describe(urls.app), markup=False)
        return
    engine = create_engine(urls.app, pool_size=1)
    try:
        current, needed, server = current_revision(engine), head_revision(), _server_version(engine)
    finally:
        engine.dispose()
    software = installed_version("ghl-pipeline")
    if json:
        print_json(
            {
                "software": software,
                "postgresql": server,
                "database_url": describe(urls.app),
                "revision": current,
                "needed": needed,
            }
        )
    else:
        out.print(f"ghl-pipeline {software}, PostgreSQL {server}, {describe(urls.app)}", markup=False)
        out.print(f"The tables are at revision {current or 'none'}; this version needs {needed}.")
    if current != needed:
        if not json:
            err.print(_advice(current, needed), soft_wrap=True)
        raise typer.Exit(DatabaseUnavailable.exit_code)


def downgrade(
    revision: Annotated[str, typer.Argument(help="The revision to go back to, such as 0005.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Take the tables back to an older revision, for an older version of this software. Stop everything else first.

    Tables and columns that only the newer revisions know are deleted with what is in them.
    """
    urls = database_urls(load_settings())
    engine = create_engine(urls.app, pool_size=1)
    try:
        before = current_revision(engine)
        steps = undone(engine, revision)
        if steps and not yes:
            for step in steps:
                err.print(f"{step.number}: {step.about}", soft_wrap=True, markup=False)
            if not _confirmed(f"Undo these in {describe(urls.app)}, with what only they can hold?"):
                raise InvalidInput(
                    f"Nothing was changed. To go back without being asked: ghl-pipeline db downgrade {revision} --yes"
                )
        migrate_back(engine, revision)
    finally:
        engine.dispose()
    if json:
        print_json({"database_url": describe(urls.app), "from": before, "to": revision})
    elif steps:
        out.print(f"{describe(urls.app)}: taken back from {before} to {revision}", markup=False)
    else:
        out.print(f"{describe(urls.app)}: at {revision} already", markup=False)


def _server_version(engine: Engine) -> str:
    with opened(engine) as connection:
        return str(connection.execute(text("SHOW server_version")).scalar_one())


def _advice(current: str | None, needed: str) -> str:
    if current is None or current < needed:
        return f"Run: {UPGRADE_COMMAND}"
    return "The tables are of a newer version of this software. Update it, or restore a backup."


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # the input ended: nobody is there to ask
        return False
