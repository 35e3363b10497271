"""The doctor: what stands between an operator and a backfill, found out by asking. Changes nothing in GHL.

First this side (settings, keys, database), then each location through the ordinary client and throttle. What a
location's search is found to take is kept for the plan of its next work list.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Engine, text

from ghl_pipeline.database.migrate import current_revision
from ghl_pipeline.errors import ConfigurationError, PipelineError
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import (
    DailyQuotaReached,
    GhlError,
    LocationAccessDenied,
    ScopeMissing,
    TokenRejected,
)
from ghl_pipeline.ghl.payloads import SearchPage
from ghl_pipeline.ghl.survey import GROUP_SIZES, first_page, survey
from ghl_pipeline.locations.clients import LocationAccess, location_access
from ghl_pipeline.locations.learning import record_survey
from ghl_pipeline.operations.doctor_record import record_examination
from ghl_pipeline.operations.doctor_rules import (
    judge_clock,
    judge_limits,
    judge_location,
    judge_previous_token,
    judge_settings,
    judge_survey,
)
from ghl_pipeline.operations.findings import Check, Finding, Level, as_database_error, finding_of
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings

log = logging.getLogger(__name__)

# Locations examined at the same time: each waits on its own limit, all share the engine's 20 connections.
CONCURRENCY = 20

OpenClient = Callable[[LocationAccess], AbstractAsyncContextManager[LocationClient]]

# What is missing without a scope. The contacts' is the one that hydration cannot do without.
_WITHOUT = {
    "contacts.readonly": "no contact can be looked up",
    "locations.readonly": "duplicates setting, time zone and country cannot be compared",
    "users.readonly": "the location's staff cannot be read; hydration works without",
}


def examine_this_side(settings: Settings, engine: Engine) -> list[Finding]:
    """Settings, token keys and database, the latter migrated.

    Raises:
        DatabaseUnavailable: no connection.
    """
    findings = [judge_settings(settings)]
    try:
        TokenCipher.from_settings(settings)
        findings.append(Finding(Check.TOKEN_KEYS, Level.OK, "usable"))
    except ConfigurationError as error:
        findings.append(finding_of(Check.TOKEN_KEYS, error))
    revision = current_revision(engine)
    with engine.connect() as connection:
        version, now = connection.execute(text("SELECT current_setting('server_version'), clock_timestamp()")).one()
    behind = (now - datetime.now(UTC)).total_seconds()
    kind = "embedded" if settings.uses_embedded_database else "your own"
    findings.append(Finding(Check.DATABASE, Level.OK, f"PostgreSQL {version} ({kind}), tables at revision {revision}"))
    findings.append(judge_clock(behind, theirs="the database"))
    return findings


async def examine_locations(
    location_ids: Sequence[str],
    *,
    settings: Settings,
    engine: Engine,
    cipher: TokenCipher,
    open_client: OpenClient,
    concurrency: int = CONCURRENCY,
) -> list[Finding]:
    """Findings of every location, in the order given. What breaks in one is a finding of that one."""
    slots = asyncio.Semaphore(concurrency)

    async def one(location_id: str) -> list[Finding]:
        async with slots:
            try:
                access = await asyncio.to_thread(_access, engine, cipher, location_id)
            except PipelineError as error:
                return [finding_of(Check.TOKEN, error)]
            async with open_client(access) as client:
                return await _examine(client, access, settings, engine)

    async def guarded(location_id: str) -> list[Finding]:
        try:
            found = await one(location_id)
        except Exception as error:
            said = as_database_error(engine, error)
            if not isinstance(said, PipelineError):
                log.exception("location %s: a bug in the doctor; the other locations go on", location_id)
            found = [finding_of(Check.DATABASE if isinstance(said, PipelineError) else Check.SEARCH, said)]
        if not any(finding.check is Check.DATABASE for finding in found):
            await asyncio.to_thread(record_examination, engine, location_id, found)
        return [replace(finding, location=location_id) for finding in found]

    results = await asyncio.gather(*map(guarded, dict.fromkeys(location_ids)))
    return [finding for findings in results for finding in findings]


def _access(engine: Engine, cipher: TokenCipher, location_id: str) -> LocationAccess:
    with engine.connect() as connection:
        return location_access(connection, cipher, location_id)


async def _examine(client: LocationClient, access: LocationAccess, settings: Settings, engine: Engine) -> list[Finding]:
    page = await _first_page(client)
    if isinstance(page, Finding):
        return [page, *_limits_and_clock(client, settings)]
    findings, missing = [], []
    if page is None:
        missing.append("contacts.readonly")
    else:
        findings += await _survey(client, page, engine)
    try:
        record = await client.location()
        findings += judge_location(record, access.time_zone, access.default_region, datetime.now(UTC))
    except ScopeMissing:
        missing.append("locations.readonly")
    except GhlError as error:
        findings.append(finding_of(Check.SCOPES, error, level=Level.WARNING))
    try:
        await client.users()
    except ScopeMissing:
        missing.append("users.readonly")
    except GhlError as error:
        findings.append(finding_of(Check.SCOPES, error, level=Level.WARNING))
    told = _told(page, missing)
    if client.uses_previous_token:
        told[0] = judge_previous_token(access.previous_until)
    return [*told, *_limits_and_clock(client, settings), *findings]


async def _first_page(client: LocationClient) -> SearchPage | Finding | None:
    """The first contacts; None when the scope for them is missing; a finding when nothing further can be asked."""
    try:
        return await first_page(client)
    except ScopeMissing:
        return None
    except TokenRejected as error:
        return finding_of(Check.TOKEN, error)
    except LocationAccessDenied as error:
        return finding_of(Check.ACCESS, error)
    except DailyQuotaReached as error:
        return finding_of(Check.DAILY_LIMIT, error)
    except GhlError as error:
        return finding_of(Check.SEARCH, error)


async def _survey(client: LocationClient, page: SearchPage, engine: Engine) -> list[Finding]:
    try:
        found_out = await survey(client, page, sizes=GROUP_SIZES, stop_at_first_right=False)
    except GhlError as error:
        return [finding_of(Check.GROUPS, error, level=Level.WARNING)]
    await asyncio.to_thread(record_survey, engine, client.location_id, found_out)
    return judge_survey(found_out)


def _told(page: SearchPage | None, missing: Sequence[str]) -> list[Finding]:
    """What the calls say of token, access, search and scopes."""
    told = [Finding(Check.TOKEN, Level.OK, "stored, readable, and taken by GHL")]
    if page is not None:
        contacts = "an unknown number of" if page.total is None else f"{page.total:,}"
        told.append(Finding(Check.ACCESS, Level.OK, "the token opens this location"))
        told.append(Finding(Check.SEARCH, Level.OK, f"answers; {contacts} contacts"))
    if not missing:
        told.append(Finding(Check.SCOPES, Level.OK, f"{', '.join(_WITHOUT)} are there"))
    whose = "; if it has them all, the token is an agency's: make one in the sub-account" if len(missing) > 2 else ""
    for scope in missing:
        level = Level.PROBLEM if scope == "contacts.readonly" else Level.WARNING
        advice = f"Add it to the private integration in the sub-account, which keeps its token{whose}"
        told.append(Finding(Check.SCOPES, level, f"{scope} is missing: {_WITHOUT[scope]}", advice))
    return told


def _limits_and_clock(client: LocationClient, settings: Settings) -> list[Finding]:
    if client.heard is None:
        return []
    return [*judge_limits(client.heard, settings), judge_clock(client.heard.clock_behind_seconds)]
