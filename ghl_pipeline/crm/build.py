"""Puts the capability together from the settings: engine, token cipher, one throttled client per location."""

from datetime import timedelta

from sqlalchemy import Engine

from ghl_pipeline.crm.crm import Crm
from ghl_pipeline.crm.fetch_rules import FetchRules
from ghl_pipeline.crm.location_sync import CrmRules
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings


def build_crm(settings: Settings, engine: Engine) -> Crm:
    """The CRM as the settings describe it. Opens no connection.

    Args:
        settings: token keys, limits, how contacts are fetched, which share of missing ones is believed.
        engine: the dashboard database.

    Raises:
        ConfigurationError: the token keys cannot be used.
    """
    rules = CrmRules(
        fetch=FetchRules(
            list_scan_cap=settings.list_scan_cap,
            list_scan_page=settings.list_scan_page,
            full_pass_every=timedelta(days=settings.crm_full_pass_days),
            look_up_again=timedelta(days=settings.crm_look_up_again_days),
            overlap=timedelta(seconds=settings.delta_overlap_seconds),
            confirm_gets=settings.crm_confirm_gets,
        ),
        most_missing=settings.crm_most_missing,
        protected=_statuses(settings.protected_statuses),
        group_size=settings.lookup_group_size,
    )
    return Crm(
        engine=engine,
        cipher=TokenCipher.from_settings(settings),
        open_client=client_opener(settings, engine),
        rules=rules,
    )


def _statuses(listed: str) -> frozenset[str]:
    return frozenset(status for word in listed.split(",") if (status := word.strip().lower()))
