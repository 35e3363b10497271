"""`ghl-pipeline clients set-calendar`: where a client's free times come from."""

from typing import Annotated

import typer

from ghl_pipeline.availability.client_calendars import ClientCalendar, set_calendar
from ghl_pipeline.availability.links import LinkKind
from ghl_pipeline.availability.outcomes import in_words
from ghl_pipeline.cli.clients import Json, Which, read_token
from ghl_pipeline.cli.output import err, out, print_json
from ghl_pipeline.cli.session import database
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import load_settings


def set_calendar_command(
    which: Which,
    link: Annotated[
        str | None, typer.Option(help="The page on which the client's leads book; empty: none any more.")
    ] = None,
    calendar: Annotated[
        str | None,
        typer.Option(help="Id of the GHL calendar to use where the link leads nowhere; empty: none any more."),
    ] = None,
    calendly_token: Annotated[
        bool,
        typer.Option(
            "--calendly-token",
            help="Store a Calendly token, too; it is asked for, or read from stdin when that is no terminal.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Store where a client's free times come from. What is not given stays as it is; the link is not shown again."""
    settings = load_settings()
    token = read_token("Calendly personal access token") if calendly_token else None
    with database(settings) as engine, engine.begin() as connection:
        cipher = TokenCipher.from_settings(settings)
        stored = set_calendar(connection, cipher, which, link=link, calendar_id=calendar, calendly_token=token)
    if json:
        print_json(_document(stored))
        return
    if not stored.is_configured:
        out.print(f"Client {stored.client_id} has no calendar now.")
        return
    problem = _problem(stored)
    if problem:
        err.print(f"Note: {problem}.", soft_wrap=True, markup=False)
    out.print(
        f"Stored the calendar of client {stored.client_id}. Next: ghl-pipeline availability --location "
        f"{stored.location_id}"
    )


def _problem(stored: ClientCalendar) -> str:
    """What will keep the link from being used, as far as it can be said without asking anybody."""
    if stored.link is None:
        return ""
    if stored.link.kind is LinkKind.CALENDLY and stored.calendly_token_encrypted is None:
        return "a Calendly link needs a token: give this command --calendly-token"
    return in_words(stored.link.reason)


def _document(stored: ClientCalendar) -> dict[str, object]:
    return {
        "client": stored.client_id,
        "location": stored.location_id,
        "link": None if stored.link is None else stored.link.kind,
        "reason": None if stored.link is None else stored.link.reason,
        "auto_booking_calendar": stored.auto_booking_calendar_id,
        "has_calendly_token": stored.calendly_token_encrypted is not None,
        "state": stored.state,
    }
