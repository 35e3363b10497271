"""Puts the capability together from the settings: engine, token cipher, and how each provider is opened."""

from contextlib import AbstractAsyncContextManager

from pydantic import SecretStr
from sqlalchemy import Engine

from ghl_pipeline.availability.availability import Availability, AvailabilityRules
from ghl_pipeline.availability.refresh import STEP_SHARE
from ghl_pipeline.calendly.client import CalendlyClient, open_calendly
from ghl_pipeline.calendly.retries import RetryPolicy
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings

# Of a step of the resolution: a pause that Calendly asks for and that does not fit into the step is a rate limit, and
# would be taken for a hang if the step ended first.
CALENDLY_SHARE = 0.9


def build_availability(settings: Settings, engine: Engine) -> Availability:
    """Availability as the settings describe it. Opens no connection.

    Args:
        settings: token keys, limits, the times of a client and a run.
        engine: the dashboard database.

    Raises:
        ConfigurationError: the token keys cannot be used.
    """
    rules = AvailabilityRules(
        client_seconds=settings.availability_client_seconds,
        run_seconds=settings.availability_run_seconds,
        calendly_chunk_days=settings.calendly_chunk_days,
    )
    policy = RetryPolicy(deadline_seconds=rules.budget_seconds * STEP_SHARE * CALENDLY_SHARE)

    def calendly(location_id: str, token: SecretStr) -> AbstractAsyncContextManager[CalendlyClient]:
        return open_calendly(
            base_url=settings.calendly_api_url,
            location_id=location_id,
            token=token,
            timeout_seconds=settings.calendly_timeout_seconds,
            policy=policy,
        )

    return Availability(
        engine=engine,
        cipher=TokenCipher.from_settings(settings),
        open_ghl=client_opener(settings, engine),
        open_calendly=calendly,
        rules=rules,
    )
