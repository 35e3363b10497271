"""`ghl-pipeline db`: the tables, and the embedded server."""

import shutil
from typing import Annotated

import typer

from ghl_pipeline.cli.output import out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.database.connection import create_engine, database_urls, describe, ensure_databases
from ghl_pipeline.database.embedded import EmbeddedPostgres
from ghl_pipeline.database.migrate import current_revision
from ghl_pipeline.database.migrate import upgrade as migrate
from ghl_pipeline.definitions import open_housekeeping
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.settings import load_settings

WRITTEN_BESIDE_THE_DATABASE = ("token.key", "demo.json", "compute_logs", "artifacts", "storage")

app = typer.Typer(help="Set up the database; stop or remove the embedded one.", no_args_is_help=True)


@app.command()
def upgrade(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Create or upgrade the pipeline's tables, and the databases if they are missing."""
    settings = load_settings()
    urls = database_urls(settings)
    ensure_databases(urls)
    engine = create_engine(urls.app)
    try:
        before = current_revision(engine)
        migrate(engine)
        after = current_revision(engine)
    finally:
        engine.dispose()
    if json:
        print_json({"database_url": describe(urls.app), "from": before, "to": after})
    else:
        change = f"upgraded from {before or 'nothing'} to {after}" if before != after else f"up to date at {after}"
        out.print(f"{describe(urls.app)}: {change}")


@app.command()
def stop() -> None:
    """Stop the embedded server, also one that a killed process left behind. Its data stays."""
    settings = load_settings()
    EmbeddedPostgres(settings.home, os_user=settings.postgres_os_user).stop()
    out.print("The embedded database is stopped.")


@app.command()
def remove(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop the embedded server and delete its data, the token key and the logs."""
    settings = load_settings()
    server = EmbeddedPostgres(settings.home, os_user=settings.postgres_os_user)
    # A home that was mistyped may be a folder in which another program has its `postgres` or `storage`.
    if not server.is_ours():
        out.print(f"There is no embedded database in {settings.home}. Nothing was deleted.", soft_wrap=True)
        return
    if not yes and not _confirmed(f"Delete all data of the embedded database in {settings.home}?"):
        raise InvalidInput("Nothing was deleted. To delete without being asked: ghl-pipeline db remove --yes")
    server.stop()
    # Only what this project made; the server's folder, by which the home is known as ours, goes last.
    for name in WRITTEN_BESIDE_THE_DATABASE:
        path = settings.home / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    server.remove()
    out.print(f"Removed the embedded database of {settings.home}.")


@app.command()
def purge(
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; without it they are only counted.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Count what is kept no longer, or delete it with --yes: old attempts, alerts, bodies, history of runs.

    How long each is kept: KEEP_ATTEMPTS_DAYS, KEEP_HISTORY_DAYS, KEEP_DAILY_HISTORY_DAYS, KEEP_RUN_EVENTS_DAYS,
    WEBHOOK_KEEP_BODIES_DAYS. The schedule daily_housekeeping does the same.
    """
    settings = load_settings()
    with database(settings) as engine, open_housekeeping(settings, engine) as housekeeping:
        counts = housekeeping.run(dry_run=not yes)
        told = {chore.name: chore.what for chore in housekeeping.chores}
    if json:
        print_json({"deleted": yes, "rows": counts})
        return
    rows = [(counts[name], what) for name, what in told.items()]
    print_table("Deleted" if yes else "Would be deleted", ["Rows", "What"], rows)
    if not yes:
        out.print("Nothing was deleted. To delete it: ghl-pipeline db purge --yes")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # the input ended: nobody is there to ask
        return False
