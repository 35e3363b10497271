"""The SMS of a location, or of one lead, from GHL's export into `messages`.

An import goes on some way before the end of the last one, oldest message first, and stores page by page. What a webhook
brought is recognised; what a webhook lost is here afterwards, and with it the lead that it would have made.
"""

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Engine

from ghl_pipeline.conversations.catching_up import (
    MOST_LEADS_ONE_BY_ONE,
    LeadBehind,
    Looked,
    catch_up,
    import_of_contact,
    leads_behind,
    look,
)
from ghl_pipeline.conversations.export_walk import ExportWalk
from ghl_pipeline.conversations.import_report import Counts, ImportReport, MessageOutcome, named_counts, written
from ghl_pipeline.conversations.message_store import (
    ImportMark,
    TellLeads,
    begin_import,
    end_import,
    find_lead,
    store_page,
)
from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.message_payloads import MessageExport
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.orchestration.blocking import in_thread


@dataclass(frozen=True, slots=True)
class ImportRules:
    """How far back an import reaches: `first` the first one, `overlap` before the end of the last one afterwards.

    The overlap is for messages of the same instant, for an export that lags behind and for clocks that differ.
    """

    first: timedelta = timedelta(days=30)
    overlap: timedelta = timedelta(minutes=10)


async def import_messages(
    engine: Engine,
    access: LocationAccess,
    client: LocationClient,
    rules: ImportRules,
    tell: TellLeads,
    *,
    from_start: bool = False,
    linked_since: datetime | None = None,
    last_look: Looked | None = None,
) -> ImportReport:
    """Imports the location's SMS since the last import. Two imports of one location must not run at the same time.

    Args:
        engine: the dashboard database.
        access: the location and its client.
        client: the location's, throttled.
        rules: how far back it reaches.
        tell: what messages that nobody knew say of their leads, in the transaction that stores them.
        from_start: as far back as a first import, whatever was imported before.
        linked_since: when the last whole import began; leads written since then are caught up. None: none are.
        last_look: of that import: which of these leads it saw. None: none.

    Raises:
        ExportStuck: GHL gave no further page; what came before is stored.
        GhlError: any branch; what came before is stored, and the next import goes on from there.
    """
    began = time.monotonic()
    calls, waited = client.usage.calls, client.usage.waited_seconds
    mark = await in_thread(begin_import, engine, access.client_id)
    # Before any lead is read: whoever is linked from here on is left to the next import.
    looked = await in_thread(look, engine)
    begins_at, behind = await in_thread(
        _plan, engine, mark, rules, from_start=from_start, linked_since=linked_since, last_look=last_look
    )
    walk = ExportWalk(client, MessageExport(start=begins_at), now=mark.now)
    counts, pages = Counts(), 0
    async with aclosing(walk.pages()) as answers:
        async for page in answers:
            pages += 1
            counts.outcomes[MessageOutcome.UNREADABLE] += page.unreadable
            stored = await in_thread(
                store_page, engine, mark, page.messages, tell, not_before=begins_at, until=walk.covered
            )
            counts.add(stored)
    # Before the leads behind, so that trouble with those costs no second walk.
    until, junk = await in_thread(end_import, engine, mark, walk.latest_past)
    earlier = MessageExport(start=mark.now - rules.first, end=begins_at)
    caught_up = await catch_up(engine, access.client_id, client, behind, tell=tell, export=earlier)
    counts.add(caught_up.counts)
    return ImportReport(
        location=access.location_id,
        outcomes=named_counts(counts.outcomes),
        leads_created=counts.leads_created,
        leads_caught_up=len(behind) - caught_up.refused,
        leads_refused=caught_up.refused,
        leads_with_junk_contact_id=junk,
        pages=pages + caught_up.pages,
        requests=client.usage.calls - calls,
        restarts=walk.restarts,
        imported_from=written(begins_at) or "",
        imported_until=written(until),
        looked=replace(looked, missed=_to_ask_again(caught_up.missed, last_look)).as_record(),
        seconds=round(time.monotonic() - began, 3),
        seconds_waited_on_limit=round(client.usage.waited_seconds - waited, 3),
    )


def _to_ask_again(missed: Sequence[int], last: Looked | None) -> tuple[int, ...]:
    """Once: a contact at which GHL breaks every time must not cost every import a minute of tries."""
    return tuple(lead_id for lead_id in missed if last is None or lead_id not in last.missed)


def _plan(
    engine: Engine,
    mark: ImportMark,
    rules: ImportRules,
    *,
    from_start: bool,
    linked_since: datetime | None,
    last_look: Looked | None,
) -> tuple[datetime, list[LeadBehind]]:
    """Where the import begins, and the leads that are caught up one by one."""
    begins_at, earliest = mark.begins_at(rules.first, rules.overlap), mark.now - rules.first
    if from_start:
        return min(begins_at, earliest), []
    if linked_since is None or begins_at <= earliest:
        return begins_at, []
    # Rows carry the time at which their transaction began, which may be one under way when the last import looked.
    behind = leads_behind(engine, mark.client_id, linked_since - rules.overlap, last_look)
    return (begins_at, behind) if len(behind) <= MOST_LEADS_ONE_BY_ONE else (earliest, [])


async def import_of_lead(
    engine: Engine, access: LocationAccess, client: LocationClient, lead_id: int, tell: TellLeads
) -> int:
    """Imports all SMS of one lead, from the first one on; asks nothing for a lead that has no contact.

    Returns:
        How many were not here before.

    Raises:
        UnknownClient: the client has no such lead.
        ExportStuck, GhlError: what came before is stored.
    """
    lead = await in_thread(find_lead, engine, lead_id)
    if lead.client_id != access.client_id:
        raise UnknownClient(f"UnknownClient: client {access.client_id} has no lead {lead_id}. Check the id.")
    if lead.contact_id is None:
        return 0
    behind = LeadBehind(lead_id, lead.contact_id)
    counts, _ = await import_of_contact(engine, access.client_id, client, behind, tell)
    return counts.outcomes[MessageOutcome.IMPORTED]
