"""Asset checks of the CRM: too many missing, contacts that are nothing, coverages that cannot be read.

They are evaluated by the op after each run, over all locations that are kept in step, so that they also speak after a
run that failed and a run of one location does not hide another's. Their tables name locations by id.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.crm.identifiers import Side
from ghl_pipeline.crm.shares import (
    RECENT_DAYS,
    LocationShare,
    missing_shares,
    unclassified_contacts,
    unread_coverages,
)

MANY_MISSING = 0.05
MANY_UNREAD = 0.05
# A location may well hold people who are neither; where most are, vendors and leads are marked in another way there.
MANY_UNCLASSIFIED = 0.5
# Shares of fewer are chance.
FEWEST = 20
MOST_LISTED = 50

VENDORS_MISSING = dg.AssetCheckSpec(
    "vendors_missing",
    asset="crm_vendors",
    description=f"Vendors marked missing in the last {RECENT_DAYS} days, of those with a contact, by location: a "
    f"warning from {MANY_MISSING:.0%}, an error above CRM_MOST_MISSING, or where a run stopped because of that.",
)
LEADS_MISSING = dg.AssetCheckSpec(
    "leads_missing",
    asset="crm_leads",
    description=f"Leads marked missing in the last {RECENT_DAYS} days, of those with a contact, by location: a "
    f"warning from {MANY_MISSING:.0%}, an error above CRM_MOST_MISSING, or where a run stopped because of that.",
)
CONTACTS_UNCLASSIFIED = dg.AssetCheckSpec(
    "contacts_unclassified",
    asset="crm_contacts",
    description="Contacts that no vendor or lead is known by and that have no sign of either, of those that the last "
    f"full pass saw, by location: a warning from {MANY_UNCLASSIFIED:.0%}.",
)
COVERAGE_UNREADABLE = dg.AssetCheckSpec(
    "coverage_unreadable",
    asset="crm_vendors",
    description="Vendors whose service-zip-codes field could not be understood as a whole, of those that filled it "
    f"in, by location: a warning from {MANY_UNREAD:.0%}.",
)
CHECKS = (VENDORS_MISSING, LEADS_MISSING, CONTACTS_UNCLASSIFIED, COVERAGE_UNREADABLE)


@dataclass(frozen=True, slots=True)
class Limits:
    """From which share on a location is listed, and above which the check is an error and no warning."""

    warn_from: float
    error_above: float = 1.0
    fewest: int = FEWEST


def evaluate(engine: Engine, *, most_missing: float) -> Iterator[dg.AssetCheckResult]:
    """The result of every check, as the database stands now.

    Args:
        engine: the dashboard database.
        most_missing: the share (0 to 1) above which a run marks nobody.
    """
    with engine.connect() as connection:
        vendors = missing_shares(connection, Side.VENDOR)
        leads = missing_shares(connection, Side.LEAD)
        unclassified = unclassified_contacts(connection)
        unread = unread_coverages(connection)
    missing = Limits(MANY_MISSING, most_missing, fewest=1)
    yield judged(VENDORS_MISSING, vendors, missing, "of vendors are missing in GHL", _MISSING)
    yield judged(LEADS_MISSING, leads, missing, "of leads are missing in GHL", _MISSING)
    yield judged(
        CONTACTS_UNCLASSIFIED,
        unclassified,
        Limits(MANY_UNCLASSIFIED),
        "of contacts are neither vendor nor lead",
        "See whether the location's vendors have the tags and sources that docs/runbook.md names, and whether its "
        "leads are in the table leads.",
    )
    yield judged(
        COVERAGE_UNREADABLE,
        unread,
        Limits(MANY_UNREAD, fewest=1),
        "of coverages could not be understood",
        "Correct the field in GHL; what was not understood is in vendors.coverage_unread. If it is another field: "
        "ghl-pipeline clients set-crm LOCATION --field service_zip_codes=contact.zips",
    )


_MISSING = (
    "If that is right, a run that stopped goes on with: ghl-pipeline crm-sync --location LOCATION --accept-missing "
    "--full. If not, restore the contacts in GHL; the rows come back with them."
)


def judged(
    spec: dg.AssetCheckSpec, shares: Sequence[LocationShare], limits: Limits, what: str, advice: str
) -> dg.AssetCheckResult:
    """The result of one check over the shares of all locations: passed when none is beyond the limits."""
    amiss = sorted(
        (each for each in shares if _is_amiss(each, limits)), key=lambda each: (each.stopped, each.share), reverse=True
    )
    is_error = any(each.stopped or each.share > limits.error_above for each in amiss)
    description = f"{len(shares)} locations are well." if not amiss else _description(amiss, what, advice)
    return dg.AssetCheckResult(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=not amiss,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={
            "locations": len(shares),
            "locations_amiss": len(amiss),
            "largest_share": max((each.share for each in shares), default=0.0),
            **({"worst": dg.MetadataValue.table(_records(amiss[:MOST_LISTED]))} if amiss else {}),
        },
    )


def _is_amiss(each: LocationShare, limits: Limits) -> bool:
    return each.stopped or (each.whole >= limits.fewest and each.part > 0 and each.share >= limits.warn_from)


def _description(amiss: Sequence[LocationShare], what: str, advice: str) -> str:
    worst = amiss[0]
    told = (
        "a run stopped before it marked anybody, because too many would be"
        if worst.stopped
        else f"{worst.share:.0%} ({worst.part:,} of {worst.whole:,}) {what}"
    )
    return f"{len(amiss)} locations are amiss, first {worst.location_id}: {told}. {advice}"


def _records(shares: Iterable[LocationShare]) -> list[dg.TableRecord]:
    return [
        dg.TableRecord(
            {
                "location": each.location_id,
                "share": round(each.share, 4),
                "amiss": each.part,
                "of": each.whole,
                "stopped": each.stopped,
            }
        )
        for each in shares
    ]
