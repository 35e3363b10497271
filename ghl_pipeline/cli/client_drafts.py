"""`ghl-pipeline clients set-drafts`: whether replies are drafted for a client, in which tone, with which free times."""

from pathlib import Path
from typing import Annotated

import typer

from ghl_pipeline.cli.clients import Json, Which
from ghl_pipeline.cli.output import out, print_json
from ghl_pipeline.cli.session import database
from ghl_pipeline.drafts.client_settings import MOST_SLOTS, DraftClient, set_drafts
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.settings import load_settings


def set_drafts_command(
    which: Which,
    on: Annotated[
        bool | None, typer.Option("--on/--off", help="Whether drafts are written. On, unless it was off.")
    ] = None,
    tone: Annotated[
        str | None,
        typer.Option(
            help="How the client speaks, in its own words; links, addresses and numbers in it may stand in drafts. "
            'Empty ("") takes it back.'
        ),
    ] = None,
    tone_file: Annotated[Path | None, typer.Option(help="The same from a file of UTF-8 text.")] = None,
    slots: Annotated[
        int | None, typer.Option(min=0, max=MOST_SLOTS, help="Free times that a draft may name. Default: 3.")
    ] = None,
    json: Json = False,
) -> None:
    """Draft replies to a client's leads, or stop that. What is not given stays as it is."""
    if tone is not None and tone_file is not None:
        raise InvalidInput("--tone and --tone-file say the same. Give one of them.")
    words = tone if tone_file is None else _read(tone_file)
    with database(load_settings()) as engine, engine.begin() as connection:
        stored = set_drafts(connection, which, enabled=on, tone=words, slots_offered=slots)
    if json:
        print_json(_document(stored))
    elif stored.enabled:
        out.print(
            f"Replies are drafted for client {stored.client_id}, {'in its own' if stored.tone else 'in no particular'} "
            f"tone, with up to {stored.slots_offered} free times. Next: ghl-pipeline drafts write --location "
            f"{stored.location_id}",
            markup=False,
        )
    else:
        out.print(f"No replies are drafted for client {stored.client_id} from now on; drafts that there are stay.")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The file {file} cannot be read as UTF-8 text ({type(error).__name__}).") from None


def _document(stored: DraftClient) -> dict[str, object]:
    return {
        "client": stored.client_id,
        "location": stored.location_id,
        "enabled": stored.enabled,
        "tone": stored.tone,
        "slots_offered": stored.slots_offered,
    }
