"""Vendors and leads of many locations kept in step in one process; a location that fails never stops the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from ghl_pipeline.crm.location_sync import CrmRules, LocationSync, SyncOptions
from ghl_pipeline.crm.missing import TooManyMissing
from ghl_pipeline.crm.report import CrmPartlyFailed, CrmReport, WouldStop
from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.locations.clients import LocationAccess, location_access
from ghl_pipeline.locations.opening import OpenClient
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.many_locations import work_on_locations
from ghl_pipeline.orchestration.reports import History, NoHistory
from ghl_pipeline.privacy.tokens import TokenCipher

CAPABILITY = "crm"
CRM_CONTACTS, CRM_VENDORS, CRM_LEADS = "crm_contacts", "crm_vendors", "crm_leads"
ASSETS = (CRM_CONTACTS, CRM_VENDORS, CRM_LEADS)
# A location's contacts are in memory while it is worked on: 15,000 took 80 MB, so that eight such take 640 MB.
DEFAULT_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class CrmResult:
    """What became of each location.

    `reports` has one of every location where something could be done, also of those in `failures` where only some rows
    could not be looked up, or where a dry run saw that too many are missing. `busy`: another run is at work there.
    `skipped`: done before in this attempt.
    """

    reports: tuple[CrmReport, ...]
    failures: tuple[FailedLocation, ...]
    busy: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class Crm:
    """The capability with its collaborators. Safe to use from one event loop at a time."""

    def __init__(
        self, *, engine: Engine, cipher: TokenCipher, open_client: OpenClient, rules: CrmRules | None = None
    ) -> None:
        self._engine = engine
        self._cipher = cipher
        self._open_client = open_client
        self._rules = rules or CrmRules()

    def __repr__(self) -> str:
        return "Crm()"

    @property
    def most_missing(self) -> float:
        """The share of a side, 0 to 1, above which nobody is marked missing before a person was asked."""
        return self._rules.most_missing

    async def sync(
        self,
        location_ids: Sequence[str],
        history: History | None = None,
        *,
        full: bool = False,
        dry_run: bool = False,
        accept_missing: bool = False,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> CrmResult:
        """Brings locations in step; each is told to the history at the moment it is done.

        A location that this attempt has already done (a rerun of a killed run) is skipped. One of which some rows could
        not be looked up is a failure, and its partition stays as it was.

        Args:
            location_ids: which; repeated ones count once.
            history: of the three assets; None outside a run.
            full: everybody is looked up, even if changes would do.
            dry_run: everything is asked and counted, and nothing is written.
            accept_missing: contacts are believed to be gone, however many they are.
            concurrency: locations worked on at the same time.

        Raises:
            asyncio.CancelledError: the run was stopped; what was written is whole rows, and the next run goes on.
        """
        told = history or NoHistory()
        skipped = await in_thread(_done_before, told, location_ids)
        options = SyncOptions(full, dry_run, accept_missing)
        partial: list[CrmReport] = []

        async def one(location_id: str) -> CrmReport:
            access = await in_thread(self._access, location_id)
            async with self._open_client(access) as client:
                try:
                    report = await LocationSync(self._engine, access, client, self._rules, options).run()
                except (CrmPartlyFailed, WouldStop) as error:
                    partial.append(error.report)
                    raise
            await in_thread(_tell, told, report)
            return report

        result = await work_on_locations(
            self._engine,
            [location_id for location_id in location_ids if location_id not in skipped],
            one,
            capability=CAPABILITY,
            run_id=told.run_id,
            counts=CrmReport.as_record,
            concurrency=concurrency,
            counts_of_failure=_record_of,
            trial=dry_run,
        )
        busy = tuple(f.location_id for f in result.failures if f.error_class == LocationBusy.__name__)
        return CrmResult(
            (*result.reports.values(), *partial),
            tuple(failure for failure in result.failures if failure.location_id not in busy),
            busy,
            tuple(skipped),
        )

    def _access(self, location_id: str) -> LocationAccess:
        with self._engine.connect() as connection:
            return location_access(connection, self._cipher, location_id)


def _record_of(error: Exception) -> Mapping[str, object]:
    """What the asset checks have to know of a run that failed: what it saw, or which side it stopped for."""
    if isinstance(error, CrmPartlyFailed | WouldStop):
        return error.report.as_record()
    return {"too_many": [side.value for side in error.sides]} if isinstance(error, TooManyMissing) else {}


def _tell(history: History, report: CrmReport) -> None:
    for asset, told in zip(ASSETS, report.as_reports(), strict=True):
        history.done(asset, report.location, told)


def _done_before(history: History, location_ids: Sequence[str]) -> list[str]:
    """Those of which the last asset was told in this attempt, not only that they were left out."""
    done = []
    for location_id in dict.fromkeys(location_ids):
        last = history.last_done(CRM_LEADS, location_id)
        if last is not None and last.get("attempt") == history.attempt and "skipped" not in last:
            done.append(location_id)
    return done
