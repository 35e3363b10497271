"""Puts the capability together from the settings: engine, token cipher, one throttled client per location."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from sqlalchemy import Engine

from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.throttle import Limits, LocationThrottle
from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.planning import PlanRules
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings

# The window that GHL documents; its headers correct it.
GHL_WINDOW_SECONDS = 10.0


def build_hydration(settings: Settings, engine: Engine) -> Hydration:
    """Hydration as the settings describe it. Opens no connection.

    Raises:
        ConfigurationError: the token keys cannot be used.
    """
    return Hydration(
        engine=engine,
        cipher=TokenCipher.from_settings(settings),
        open_client=client_opener(settings, engine),
        open_interactive=client_opener(settings, engine, interactive=True),
        default_group_size=settings.lookup_group_size,
        default_page_size=settings.page_size,
        rules=PlanRules(timedelta(seconds=settings.delta_overlap_seconds), timedelta(days=settings.full_lookup_days)),
    )


def client_opener(
    settings: Settings, engine: Engine, *, interactive: bool = False
) -> Callable[[LocationAccess], AbstractAsyncContextManager[LocationClient]]:
    """How a location's client is opened: with its own token, pool and share of the limits.

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

    def open_for(access: LocationAccess) -> AbstractAsyncContextManager[LocationClient]:
        return open_client(
            base_url=settings.api_url,
            location_id=access.location_id,
            token=access.token,
            throttle=LocationThrottle(engine, access.location_id, limits, interactive=interactive),
            policy=policy,
            timeout_seconds=settings.timeout_seconds,
        )

    return open_for
