"""The `ghl-pipeline` command: its subcommands, and what happens with their errors.

Exit codes: 0 done; 1 done in part (some locations or leads failed, each is named), or the doctor found a problem; 2 the
command's words or input cannot be used; 3 a setting is missing or wrong; 4 the database cannot be used; 5 somebody else
holds all locations asked for; 70 a bug; 130 stopped by Ctrl-C, with the resume point kept.
"""

import logging
import sys
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from ghl_pipeline.cli import (
    alerts,
    availability,
    backfill,
    client_calendar,
    client_crm,
    client_drafts,
    client_emailbison,
    client_tokens,
    client_webhooks,
    clients,
    crm_sync,
    database_roles,
    database_versions,
    demo,
    dev,
    doctor,
    drafts,
    events,
    events_reconcile,
    hydrate_now,
    keys,
    messages,
    metrics,
    sandbox,
    senders,
    status,
    ui,
)
from ghl_pipeline.cli import database as database_commands
from ghl_pipeline.cli import webhooks as webhook_commands
from ghl_pipeline.cli import worker as worker_commands
from ghl_pipeline.cli.demo_profile import use_demo
from ghl_pipeline.cli.output import err, print_problems, tolerate_any_terminal
from ghl_pipeline.database.connection import failure_reason
from ghl_pipeline.errors import DatabaseUnavailable, InvalidInput, PipelineError
from ghl_pipeline.privacy import redaction

log = logging.getLogger(__name__)

BUG = 70
# Commands that make or serve the demo themselves.
MAKES_DEMO = ("demo", "dev", "sandbox")
# What they work on is under the same keys as the demo's, so they look after both.
KEEPS_BOTH = ("keys",)

app = typer.Typer(
    name="ghl-pipeline",
    help="Repairs the leads of an agency's clients from their GoHighLevel contacts, and keeps them repaired.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("dev")(dev.dev)
app.command("backfill")(backfill.backfill)
app.command("sync-lead")(hydrate_now.sync_lead_command)
app.command("sync-all")(hydrate_now.sync_all_command)
app.command("import-messages")(messages.import_messages)
app.command("crm-sync")(crm_sync.crm_sync)
app.command("availability")(availability.availability)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("metrics")(metrics.metrics)
app.command("ui")(ui.ui)
app.command("webhooks")(webhook_commands.webhooks)
app.command("worker")(worker_commands.worker)
app.command("sandbox")(sandbox.sandbox)
clients.app.command("set-token")(client_tokens.set_token)
clients.app.command("rotate-token")(client_tokens.rotate_token)
clients.app.command("webhook-url")(client_webhooks.webhook_url)
clients.app.command("set-emailbison")(client_emailbison.set_emailbison)
clients.app.command("set-crm")(client_crm.set_crm_command)
clients.app.command("set-drafts")(client_drafts.set_drafts_command)
clients.app.command("set-calendar")(client_calendar.set_calendar_command)
app.add_typer(clients.app, name="clients")
events.app.command("reconcile")(events_reconcile.reconcile)
app.add_typer(events.app, name="events")
app.add_typer(drafts.app, name="drafts")
app.add_typer(senders.app, name="senders")
app.add_typer(alerts.app, name="alerts")
database_commands.app.command("version")(database_versions.version)
database_commands.app.command("downgrade")(database_versions.downgrade)
database_commands.app.command("roles")(database_roles.roles)
database_commands.app.command("add-login")(database_roles.add_login_command)
database_commands.app.command("add-viewer")(database_roles.add_viewer)
database_commands.app.command("viewers")(database_roles.list_viewers)
database_commands.app.command("remove-viewer")(database_roles.remove_viewer_command)
app.add_typer(database_commands.app, name="db")
app.add_typer(keys.app, name="keys")


@app.callback()
def options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what happens underneath, on stderr.")] = False,
    on_demo: Annotated[
        bool, typer.Option("--demo", help="Work on the demo that `dev` serves, instead of on your clients.")
    ] = False,
) -> None:
    """Options of every command."""
    if on_demo:
        if context.invoked_subcommand in MAKES_DEMO:
            raise InvalidInput(
                f"--demo goes with commands that work on clients; {context.invoked_subcommand} needs none."
            )
        if context.invoked_subcommand in KEEPS_BOTH:
            raise InvalidInput(
                f"The clients' tokens and the demo's are under the same keys, so `{context.invoked_subcommand}` works "
                "on both. Leave out --demo."
            )
        use_demo()
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    if not verbose:
        # Dagster sets the level of its own loggers; its event lines are for the UI.
        for name in ("dagster", "dagster.redacted_errors"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def main() -> None:
    """Entry point. Turns every expected error into one line on stderr and its exit code."""
    redaction.install()
    tolerate_any_terminal()
    try:
        app()
    except PipelineError as error:
        print_problems([redaction.safe_error_text(error)])
        sys.exit(error.exit_code)
    except OperationalError as error:  # in the middle of the work: at its beginning it would be a PipelineError
        reason = failure_reason(error)
        print_problems([f"The database failed: {reason}. What was done is kept; run the same command to go on."])
        sys.exit(DatabaseUnavailable.exit_code)
    except Exception as error:  # its text may quote a person's value: only type and stack go out
        log.critical("a bug in ghl-pipeline", exc_info=error)
        err.print("This is a bug. Please report the lines above; they hold no value of a person.")
        sys.exit(BUG)


if __name__ == "__main__":
    main()
