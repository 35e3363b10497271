"""Puts the capability together from the settings."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import Engine

from ghl_pipeline.drafts.asking import Provider
from ghl_pipeline.drafts.drafts import Drafts
from ghl_pipeline.drafts.location_drafts import DraftRules
from ghl_pipeline.drafts.outcomes import Channel
from ghl_pipeline.drafts.prices import read_prices
from ghl_pipeline.settings import Settings


def build_drafts(settings: Settings, engine: Engine) -> Drafts:
    """Drafts as the settings describe them. Opens no connection.

    Raises:
        ConfigurationError: the prices cannot be read.
    """

    @asynccontextmanager
    async def opened() -> AsyncIterator[Sequence[Provider]]:
        if fingerprint(settings) is None:
            yield ()
            return
        # Here, and not at the top: importing the SDKs takes 3 to 5 s of processor time, which every command and every
        # load of the definitions would pay.
        from ghl_pipeline.drafts.pydantic_models import open_providers  # noqa: PLC0415

        async with open_providers(settings) as providers:
            yield providers

    rules = DraftRules(
        deadlines={
            Channel.SMS: settings.draft_sms_deadline_seconds,
            Channel.EMAIL: settings.draft_email_deadline_seconds,
        },
        multiplier=settings.draft_token_budget_multiplier,
        concurrency=settings.draft_concurrency,
        max_age=timedelta(days=settings.draft_max_age_days),
        prices=read_prices(settings.draft_prices),
    )
    return Drafts(engine=engine, open_providers=opened, setup=fingerprint(settings), rules=rules)


def fingerprint(settings: Settings) -> str | None:
    """What tells one set-up of keys, models and addresses from another, and gives none of them away; None: no key."""
    parts: list[str] = []
    for key, *rest in (
        (settings.openai_api_key, settings.openai_base_url, settings.openai_model),
        (settings.anthropic_api_key, settings.anthropic_base_url, settings.anthropic_model),
    ):
        parts += [] if key is None else [key.get_secret_value(), *rest]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16] if parts else None
