"""The demo's own databases and sandbox, apart from anything real.

A demo and the UI that shows it share two databases (`<name>_demo` and Dagster's beside it) and a sandbox made from the
same seed. What was made is noted in a file, so that `dev` can serve the sandbox that fits the data.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
from pydantic import SecretStr
from sqlalchemy import URL

from ghl_pipeline.availability.client_calendars import set_calendar
from ghl_pipeline.cli.sample_data import load_sample_agency
from ghl_pipeline.crm.client_settings import set_crm
from ghl_pipeline.database.connection import (
    DatabaseUrls,
    create_engine,
    database_urls,
    drop_databases,
    ensure_databases,
)
from ghl_pipeline.database.migrate import upgrade
from ghl_pipeline.drafts.client_settings import set_drafts
from ghl_pipeline.locations.clients import find_client
from ghl_pipeline.locations.emailbison import set_workspace
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline.sandbox.process import SandboxProcess
from ghl_pipeline.settings import Settings, load_settings
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.receiving.senders import create_secret

# Beside the leads of the sample agency, in one of its locations.
MARKETPLACE = {"vendors": 60, "leads": 40, "seed": 7}
BOOKING_PAGE = "https://book.example.com/widget/bookings/"
TONE = "Friendly and short. Offer a call."


# Where nobody listens, until a sandbox does: no text of the demo goes to a provider that the real settings name.
NOWHERE = "http://127.0.0.1:9"


class DemoSandbox(msgspec.Struct, frozen=True):
    """A sandbox as the settings need it: its address, and its keys of what writes drafts."""

    url: str
    openai_key: str
    anthropic_key: str


class SampleSize(msgspec.Struct, frozen=True):
    """Which sample agency: locations, leads in each, and the seed of its people."""

    locations: int
    leads: int
    seed: int


@dataclass(frozen=True, slots=True)
class DemoProfile:
    """Settings that point at the demo's databases; everything else as the person set it."""

    settings: Settings
    urls: DatabaseUrls

    @property
    def note(self) -> Path:
        """The file that says which sample agency the databases hold."""
        return self.settings.home / "demo.json"

    def size(self) -> SampleSize | None:
        """The sample agency that was made; None when there is none."""
        try:
            return msgspec.json.decode(self.note.read_bytes(), type=SampleSize)
        except (OSError, msgspec.DecodeError):
            return None

    @property
    def address(self) -> Path:
        """The file that says where the sandbox is that `dev` last started."""
        return self.settings.home / "demo_sandbox"

    def with_sandbox(self, sandbox: DemoSandbox) -> Settings:
        """The profile's settings with the sandbox in place of GHL, of Calendly, and of what writes drafts."""
        return self.settings.model_copy(
            update={
                "api_url": sandbox.url,
                "calendly_api_url": f"{sandbox.url}/_calendly",
                "openai_base_url": f"{sandbox.url}/_llm/openai/v1",
                "openai_api_key": SecretStr(sandbox.openai_key),
                "anthropic_base_url": f"{sandbox.url}/_llm/anthropic",
                "anthropic_api_key": SecretStr(sandbox.anthropic_key),
            }
        )


def demo_profile(settings: Settings) -> DemoProfile:
    """The demo beside whatever the settings name: the same server, databases of its own.

    Raises:
        ConfigurationError, DatabaseUnavailable: the server cannot be used.
    """
    real = database_urls(settings)
    app = real.app.set(database=f"{real.app.database}_demo")
    # Always spelled out: a variable that is only left out would be read from the environment or `.env` by the next
    # process, and that one names the real history.
    changes: dict[str, object] = {
        "dagster_database_url": _secret(app.set(database=f"{app.database}_dagster")),
        **dict.fromkeys(("calendly_api_url", "openai_base_url", "anthropic_base_url"), NOWHERE),
    }
    changes |= {"database_name": app.database} if settings.uses_embedded_database else {"database_url": _secret(app)}
    demo = settings.model_copy(update=changes)
    return DemoProfile(demo, database_urls(demo))


def _secret(url: URL) -> SecretStr:
    return SecretStr(url.render_as_string(hide_password=False))


def make_sample(profile: DemoProfile, size: SampleSize) -> None:
    """Makes the demo's databases anew and fills them with the sample agency.

    Raises:
        DatabaseUnavailable: the databases cannot be made.
    """
    profile.note.unlink(missing_ok=True)
    drop_databases(profile.urls)
    ensure_databases(profile.urls)
    engine = create_engine(profile.urls.app)
    try:
        upgrade(engine)
        agency = sample_agency(locations=size.locations, leads=size.leads, seed=size.seed)
        with engine.begin() as connection:
            load_sample_agency(connection, TokenCipher.from_settings(profile.settings), agency)
    finally:
        engine.dispose()
    # With a database of somebody's own nothing has made the home folder yet.
    profile.settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    profile.note.write_bytes(msgspec.json.encode(size))


def use_demo() -> None:
    """Lets everything that this process does, and starts, happen in the demo.

    Raises:
        ConfigurationError, DatabaseUnavailable: the settings, or the server, cannot be used.
    """
    profile = demo_profile(load_settings())
    settings = profile.settings
    with contextlib.suppress(OSError, msgspec.DecodeError):
        settings = profile.with_sandbox(msgspec.json.decode(profile.address.read_bytes(), type=DemoSandbox))
    os.environ.update(settings.as_environment())


def known_sandbox(sandbox: SandboxProcess) -> DemoSandbox:
    """What the settings need of a sandbox that runs. Raises SandboxFailed when it does not answer."""
    providers = sandbox.ask("/_sandbox/llm")
    return DemoSandbox(sandbox.url, providers["openai"]["key"], providers["anthropic"]["key"])


def introduce(profile: DemoProfile, sandbox: SandboxProcess) -> tuple[str, SecretStr]:
    """Tells the demo's clients their EmailBison workspaces and calendars, which are those of this sandbox.

    Their leads' messages are answered with drafts. One of them has a marketplace, whose vendors and leads are kept in
    step.

    Returns:
        The location id of that one, and a new secret with which its EmailBison may send events.

    Raises:
        SandboxFailed: the sandbox does not answer.
    """
    profile.address.write_bytes(msgspec.json.encode(known_sandbox(sandbox)))
    workspaces = sandbox.ask("/_sandbox/workspaces")["workspaces"]
    calendars = sandbox.ask("/_sandbox/calendars")["locations"]
    cipher = TokenCipher.from_settings(profile.settings)
    engine = create_engine(profile.urls.app)
    try:
        upgrade(engine)  # the demo may have been made by an older version
        with engine.begin() as connection:
            for workspace in workspaces:
                set_workspace(
                    connection,
                    cipher,
                    workspace["location"],
                    base_url=workspace["url"],
                    workspace_id=workspace["id"],
                    token=SecretStr(workspace["token"]),
                )
                link = BOOKING_PAGE + calendars[workspace["location"]][0]["widget_slug"]
                set_calendar(connection, cipher, workspace["location"], link=link)
                set_drafts(connection, workspace["location"], tone=TONE)
            location_id = str(workspaces[0]["location"])
            client = find_client(connection, location_id)
            sandbox.ask("/_sandbox/marketplace", {"location": location_id, **MARKETPLACE})
            set_crm(connection, location_id, enabled=True)
            secret = create_secret(connection, client.id, Provider.EMAILBISON, revoke_others=True)
    finally:
        engine.dispose()
    return location_id, secret
