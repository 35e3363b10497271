"""How a location of the GHL API is opened: with its own token, pool and share of the limits, as the settings say."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from sqlalchemy import Engine

from ghl_pipeline.ghl.calls import CallOptions
from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.throttle import Limits, LocationThrottle
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.settings import Settings

OpenClient = Callable[[LocationAccess], AbstractAsyncContextManager[LocationClient]]

# The window that GHL documents; its headers correct it.
GHL_WINDOW_SECONDS = 10.0


def call_options(
    settings: Settings, engine: Engine, access: LocationAccess, *, interactive: bool = False
) -> CallOptions:
    """What every client of the location is opened with.

    `interactive` is for work that a person waits for: it may use the slots that no backfill takes.
    """
    limits = Limits(
        settings.requests_per_10s,
        GHL_WINDOW_SECONDS,
        settings.requests_per_day,
        interactive=settings.interactive_requests_per_10s,
    )
    policy = RetryPolicy(
        max_attempts=settings.max_attempts,
        max_429=settings.max_429_retries,
        deadline_seconds=settings.call_deadline_seconds,
    )
    return CallOptions(
        base_url=settings.api_url,
        location_id=access.location_id,
        token=access.token,
        throttle=LocationThrottle(engine, access.location_id, limits, interactive=interactive),
        policy=policy,
        timeout_seconds=settings.timeout_seconds,
        previous_token=access.previous_token,
        previous_until=access.previous_until,
    )


def client_opener(settings: Settings, engine: Engine, *, interactive: bool = False) -> OpenClient:
    """How a client that searches and reads is opened; `interactive` as for `call_options`."""
    return lambda access: open_client(**call_options(settings, engine, access, interactive=interactive))
