"""Puts the capability together from the settings: engine, token cipher, one throttled client per location."""

from datetime import timedelta

from sqlalchemy import Engine

from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.planning import PlanRules
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings


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
