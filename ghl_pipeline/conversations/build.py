"""Puts the capability together from the settings: engine, token cipher, one throttled client per location."""

from datetime import timedelta

from sqlalchemy import Engine

from ghl_pipeline.conversations.conversations import Conversations
from ghl_pipeline.conversations.message_store import TellLeads
from ghl_pipeline.conversations.sms_import import ImportRules
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings


def build_conversations(settings: Settings, engine: Engine, tell: TellLeads) -> Conversations:
    """The import of messages as the settings describe it. Opens no connection.

    Args:
        settings: token keys, limits, how far back imports reach.
        engine: the dashboard database.
        tell: gives leads the status that their imported messages ask for; the handling of events has that rule.

    Raises:
        ConfigurationError: the token keys cannot be used.
    """
    return Conversations(
        engine=engine,
        cipher=TokenCipher.from_settings(settings),
        open_client=client_opener(settings, engine),
        tell=tell,
        open_interactive=client_opener(settings, engine, interactive=True),
        rules=ImportRules(timedelta(days=settings.sms_first_days), timedelta(seconds=settings.sms_overlap_seconds)),
    )
