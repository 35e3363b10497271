"""Puts the handling of events together from the settings, and the import of messages with the rule that both share."""

from sqlalchemy import Engine

from ghl_pipeline.conversations.build import build_conversations
from ghl_pipeline.conversations.conversations import Conversations
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.ensuring.ensure import build_ensurer
from ghl_pipeline.webhooks.handling.event_work import EventWork
from ghl_pipeline.webhooks.handling.handle_events import EventHandling, HandlingRules
from ghl_pipeline.webhooks.handling.imported_messages import news_of_imports
from ghl_pipeline.webhooks.handling.lead_status import statuses_of
from ghl_pipeline.webhooks.reconciling.many_workspaces import Reconciling


def build_event_handling(settings: Settings, engine: Engine) -> EventHandling:
    """Handling as the settings describe it, with the one object that may create a contact. Opens no connection.

    Raises:
        ConfigurationError: the token keys cannot be used.
    """
    hydration = build_hydration(settings, engine)
    ensurer = build_ensurer(settings, engine, hydration)
    work = EventWork(engine, hydration, ensurer, statuses_of(settings.protected_statuses))
    return EventHandling(engine, work, HandlingRules(max_attempts=settings.webhook_max_attempts))


def build_message_import(settings: Settings, engine: Engine) -> Conversations:
    """The import of messages, by which leads get the status that an event would have given them. Opens no connection.

    Raises:
        ConfigurationError: the token keys cannot be used.
    """
    return build_conversations(settings, engine, news_of_imports(statuses_of(settings.protected_statuses)))


def build_reconciling(settings: Settings, engine: Engine) -> Reconciling:
    """The look for lost events as the settings describe it. Opens no connection.

    Raises:
        ConfigurationError: the token keys cannot be used.
    """
    return Reconciling(settings, engine, TokenCipher.from_settings(settings))
