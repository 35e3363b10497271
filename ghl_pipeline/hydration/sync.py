"""Hydration on request: one lead at once, or every client's leads (Sync All). The same rules, no list, no history.

Both say whether leads were updated, whatever else happened or did not happen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine, text

from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.hydration.hydration import Hydration, RunResult
from ghl_pipeline.hydration.lookup import ContactLookup
from ghl_pipeline.hydration.options import Options
from ghl_pipeline.hydration.outcomes import Outcome, flag_names
from ghl_pipeline.hydration.resolve import LeadKey, resolve_page
from ghl_pipeline.hydration.write_back import write_back
from ghl_pipeline.orchestration.reports import NoHistory


@dataclass(frozen=True, slots=True)
class LeadSync:
    """What became of one lead. `lead_updated` is true when anything was written into it."""

    lead_id: int
    location_id: str
    outcome: Outcome
    lead_updated: bool
    fields: tuple[str, ...]
    requests: int


async def sync_lead(hydration: Hydration, lead_id: int) -> LeadSync:
    """Resolves and hydrates one lead now. Needs no lease: the rows' own locks keep it apart from a running backfill.

    Raises:
        UnknownClient: there is no such lead, or its client is not usable (inactive, no token).
        GhlError: its lookup failed; nothing was written.
    """
    location_id, key = _find_lead(hydration.engine, lead_id)
    async with hydration.open_location(location_id, interactive=True) as (access, client, knowledge):
        lookup = ContactLookup(client, knowledge.group_size, knowledge, confirm_misses=True)
        page = await resolve_page([key], lookup)
    if page.errors:
        raise page.errors[0]
    (written,) = write_back(hydration.engine, access.client_id, access.default_region, page.resolutions)
    return LeadSync(
        lead_id, location_id, written.outcome, bool(written.filled), flag_names(written.filled), client.usage.calls
    )


async def sync_all(hydration: Hydration, location_ids: Sequence[str], options: Options) -> RunResult:
    """Hydrates all eligible leads of locations straight away, without list, resume point or history."""
    return await hydration.run(location_ids, NoHistory(), replace(options, direct=True))


def _find_lead(engine: Engine, lead_id: int) -> tuple[str, LeadKey]:
    query = text("""
        SELECT client.location_id, lead.ghl_contact_id, lead.email
        FROM leads AS lead JOIN clients AS client ON client.id = lead.client_id
        WHERE lead.id = :lead_id
    """)
    with engine.connect() as connection:
        row = connection.execute(query, {"lead_id": lead_id}).one_or_none()
    if row is None:
        raise UnknownClient(f"UnknownClient: there is no lead {lead_id}. Check the id in the dashboard's leads table.")
    return row.location_id, LeadKey(lead_id, lead_id, row.ghl_contact_id, row.email, needs_names=True)
