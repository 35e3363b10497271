"""A location's eligible leads resolved and written page by page, without list, history or resume point.

For Sync All, which a person waits for, and for previews, which must leave no trace.
"""

import time
from dataclasses import replace

from sqlalchemy import Engine

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.hydration.claims import Claims
from ghl_pipeline.hydration.knowledge import LocationKnowledge
from ghl_pipeline.hydration.list_pages import eligible_page
from ghl_pipeline.hydration.location_report import LocationReport, Spent
from ghl_pipeline.hydration.location_work import LookupsFailed
from ghl_pipeline.hydration.lookup import ContactLookup
from ghl_pipeline.hydration.outcomes import Counts, LeadField, Outcome
from ghl_pipeline.hydration.resolve import LeadKey, resolve_page
from ghl_pipeline.hydration.write_back import Written, write_back
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.locations.learning import save_group_size
from ghl_pipeline.orchestration.blocking import in_thread


async def straight_through(
    *,
    engine: Engine,
    access: LocationAccess,
    client: LocationClient,
    knowledge: LocationKnowledge,
    page_size: int,
    max_leads: int | None,
    dry_run: bool,
) -> LocationReport:
    """Looks up every eligible lead of the location and writes what is found.

    Args:
        engine: the dashboard database.
        access: the location.
        client: its client.
        knowledge: what is known of it; what is learned is kept for the next run.
        page_size: leads looked up and written at a time.
        max_leads: at most so many; None for all.
        dry_run: decide everything, write nothing at all.

    Raises:
        LookupsFailed: some lookups failed; everything else is written.
        GhlError: the location refuses, or GHL is down; the pages before are written.
    """
    known = replace(knowledge.group_size)
    lookup = ContactLookup(client, knowledge.group_size, knowledge)
    started = time.monotonic()
    counts, claims = Counts(), Claims()
    failed: list[int] = []
    errors: list[GhlError] = []
    after = 0

    def next_page() -> list[LeadKey]:
        room = page_size if max_leads is None else min(page_size, max_leads - counts.leads)
        if room <= 0:
            return []
        with engine.connect() as connection:
            return eligible_page(connection, access.client_id, after, room)

    try:
        while keys := await in_thread(next_page):
            after = keys[-1].lead_id
            page = await resolve_page(keys, lookup)
            written = await in_thread(
                write_back,
                engine,
                access.client_id,
                access.default_region,
                page.resolutions,
                claims=claims if dry_run else None,
            )
            counts += _count(written)
            failed += [lead.lead_id for lead in written if lead.outcome is Outcome.FAILED]
            errors += page.errors
    finally:
        learned = knowledge.group_size
        if learned != known and not dry_run:
            await in_thread(save_group_size, engine, access.location_id, learned.size, learned.ceiling)
    if failed and not dry_run:
        raise LookupsFailed(access.location_id, failed, counts.leads, errors)
    spent = Spent(client.usage.calls, time.monotonic() - started, client.usage.waited_seconds)
    return LocationReport.of(access.location_id, counts, spent, dry_run=dry_run)


def _count(written: list[Written]) -> Counts:
    return Counts(
        {outcome: sum(lead.outcome is outcome for lead in written) for outcome in Outcome},
        {field: sum(field in lead.filled for lead in written) for field in LeadField},
    )
