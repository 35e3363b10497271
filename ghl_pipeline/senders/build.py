"""Puts the capability together from the settings."""

from sqlalchemy import Engine

from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.senders.senders import Senders
from ghl_pipeline.settings import Settings


def build_senders(settings: Settings, engine: Engine) -> Senders:
    """The listing and repairing of accounts as the settings describe it. Opens no connection.

    Raises:
        ConfigurationError: the token keys cannot be used.
    """
    return Senders(engine, TokenCipher.from_settings(settings), timeout_seconds=settings.emailbison_timeout_seconds)
