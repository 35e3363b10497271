"""The unified fetch: the contacts of vendors and leads, each at most once, with few calls.

A full pass asks for everybody who is known: links in groups, e-mails in groups, then opportunities, and the location's
list only for whom nothing else has found. Where groups would cost far more than the list, the list comes first. Later
passes pull who changed. Nothing is written here; whoever writes what came also calls `memory.remember`.
"""

from collections.abc import Sequence

from ghl_pipeline.crm.changes import changes_suffice, gather_changes, searches_by_date
from ghl_pipeline.crm.fetch_rules import FetchRules, Remembered
from ghl_pipeline.crm.fetched import FetchCalls, Fetched, FetchMode
from ghl_pipeline.crm.gathering import Gathering, link_of
from ghl_pipeline.crm.identifiers import Identifiers, KnownRow, Side
from ghl_pipeline.crm.last_resorts import discover as discover_unknown
from ghl_pipeline.crm.last_resorts import find_by_opportunities
from ghl_pipeline.crm.row_lookups import RowLookups, try_dates
from ghl_pipeline.crm.whole_list import scan, scan_if_cheaper
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.ghl.location_payloads import MOST_OPPORTUNITIES
from ghl_pipeline.hydration.knowledge import LocationKnowledge

__all__ = ["FetchCalls", "FetchMode", "Fetched", "fetch"]


async def fetch(
    client: LocationClient,
    knowledge: LocationKnowledge,
    identifiers: Identifiers,
    remembered: Remembered,
    rules: FetchRules,
    *,
    discover: bool,
    full: bool = False,
) -> Fetched:
    """Fetches a location's contacts for both sides.

    Args:
        client: the location's.
        knowledge: of the location, made with `detailed=True`.
        identifiers: everybody known.
        remembered: what the passes before have come to.
        rules: what is relied on.
        discover: whether contacts are looked for that nobody here knows and that say they are vendors or new leads.
        full: everybody is looked up, even if changes would do.

    Returns:
        What came. Values that could not be asked are in `failed`.

    Raises:
        GhlError: GHL is down, or the location refuses (token, access, scope, daily quota).
    """
    if not identifiers.rows and not discover:
        return Fetched(FetchMode.NOTHING, remembered.now)
    at = Gathering(client, knowledge, identifiers, remembered, rules)
    since = remembered.changes_seen_until
    by_changes = not full and changes_suffice(remembered, rules) and await searches_by_date(at)
    if by_changes and since is not None and await gather_changes(at, since - rules.overlap):
        # Who changed may have the address of a row that has nobody: that is asked for as well, as others may have it.
        rows = [row for row in at.rows if row.looked_up is None or at.may_have_come(row)]
        await _look_up_new_rows(at, rows)
        return _result(FetchMode.CHANGES, at, rows)
    await _look_up_everybody(at, discover=discover)
    return _result(FetchMode.FULL, at, at.rows)


async def _look_up_everybody(at: Gathering, *, discover: bool) -> None:
    lookups = RowLookups(at)
    await scan_if_cheaper(at)
    await lookups.look_up(at.rows)
    if lost := [row for row in at.rows if at.wants_last_resort(row)]:
        await find_by_opportunities(at, lookups, lost, most=at.rules.list_scan_cap)
    if at.scan is None and any(at.wants_last_resort(row) for row in lost):
        await scan(at)
    if discover and not (at.scan is not None and at.scan.is_complete):
        await discover_unknown(at)
    with at.counting("survey"):
        # So that the next run can go by changes.
        await try_dates(at, list(at.contacts.values()))


async def _look_up_new_rows(at: Gathering, rows: Sequence[KnownRow]) -> None:
    """Rows that no pass has looked up by what they are now known by. The list is left to the next full pass."""
    lookups = RowLookups(at)
    await lookups.look_up(rows)
    if lost := [row for row in rows if at.wants_last_resort(row)]:
        # A new lead's opportunity is among the newest, which come first.
        await find_by_opportunities(at, lookups, lost, most=MOST_OPPORTUNITIES)


def _result(mode: FetchMode, at: Gathering, rows: Sequence[KnownRow]) -> Fetched:
    found: set[tuple[Side, int]] = set()
    not_found: set[tuple[Side, int]] = set()
    failed: dict[tuple[Side, int], GhlError] = {}
    for row in rows:
        if (error := at.error_of(row)) is not None:
            failed[row.key] = error
        elif at.is_found(row):
            found.add(row.key)
        elif link_of(row) not in at.unconfirmed and _was_looked_up(at, row):
            not_found.add(row.key)
    links = {row.contact_id for row in at.rows}
    return Fetched(
        mode=mode,
        began_at=at.remembered.now,
        contacts=at.contacts,
        contact_of_opportunity=at.contact_of_opportunity,
        gone=frozenset(at.gone & links),
        found=frozenset(found),
        not_found=frozenset(not_found),
        failed=failed,
        unconfirmed=len(at.unconfirmed),
        scanned=at.scan is not None and at.scan.error is None,
        scan_stopped_at_cap=at.scan is not None and at.scan.at_cap,
        complete=at.is_whole,
        notes=tuple(dict.fromkeys(at.notes)),
        calls=at.calls,
    )


def _was_looked_up(at: Gathering, row: KnownRow) -> bool:
    """Whether this run knows more of the row than the one that did not find it before; else that is not made newer."""
    has_a_scan = at.scan is not None and at.scan.error is None
    return has_a_scan or not at.is_recent(row) or row.outcome == "found" or link_of(row) in at.gone
