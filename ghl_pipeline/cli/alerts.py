"""`ghl-pipeline alerts`: what was told of failures, and whether each channel takes it."""

from dataclasses import asdict
from typing import Annotated

import typer

from ghl_pipeline.cli.output import out, print_json, print_problems, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.operations.alerting.alerting import build_alerting
from ghl_pipeline.operations.alerting.outbox import DeliveryState, list_alerts
from ghl_pipeline.settings import load_settings

app = typer.Typer(help="What was told of failures, and whether each channel takes it.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@app.command("list")
def list_command(
    most: Annotated[int, typer.Option("--most", min=1, max=10_000, help="How many, the newest first.")] = 20,
    json: Json = False,
) -> None:
    """List alerts, the newest first, and how each stands with each channel."""
    with database(load_settings()) as engine, engine.connect() as connection:
        stored = list_alerts(connection, most)
    if json:
        print_json({"alerts": [{**asdict(each.alert), "deliveries": each.deliveries} for each in stored]})
        return
    if not stored:
        out.print("There was no alert yet.")
        return
    columns = ["alert", "made at (UTC)", "what", "suppressed", "channels"]
    rows = [
        [
            str(each.alert.id),
            f"{each.alert.made_at:%Y-%m-%d %H:%M}",
            each.alert.title(),
            each.alert.suppressed,
            ", ".join(_told(channel, state) for channel, state in sorted(each.deliveries.items())),
        ]
        for each in stored
    ]
    print_table("Alerts", columns, rows)


@app.command("test")
def try_channels(json: Json = False) -> None:
    """Send a test to every configured channel and say how each answered; ends with 1 when one did not take it."""
    settings = load_settings()
    with database(settings) as engine:
        answers = build_alerting(settings, engine).test()
    if json:
        print_json(
            {"channels": {name: None if refusal is None else refusal.reason for name, refusal in answers.items()}}
        )
    else:
        for name, refusal in answers.items():
            if refusal is None:
                out.print(f"{name}: taken", markup=False)
    print_problems(f"{name}: not taken: {refusal.reason}" for name, refusal in answers.items() if refusal is not None)
    if any(answers.values()):
        raise typer.Exit(1)


def _told(channel: str, state: DeliveryState) -> str:
    words = f"{channel}: {state.state.replace('_', ' ')}"
    return f"{words} ({state.reason}, {state.attempts} attempts)" if state.reason else words
