"""The hourly look for what webhooks lost, at many locations."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from sqlalchemy import Connection, Engine, text

from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.many_locations import LocationsResult, work_on_locations
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.reconciling.one_workspace import ReconcileReport, reconcile_location

RECONCILE = "reconcile"


class Reconciling:
    """The capability with its collaborators."""

    def __init__(self, settings: Settings, engine: Engine, cipher: TokenCipher) -> None:
        self._settings = settings
        self._engine = engine
        self._cipher = cipher

    def __repr__(self) -> str:
        return "Reconciling()"

    async def run(
        self,
        location_ids: Sequence[str],
        *,
        run_id: str | None = None,
        told: Callable[[str, ReconcileReport], None] | None = None,
    ) -> LocationsResult[ReconcileReport]:
        """Stores the events that EmailBison has and the inbox lacks; `told` of each location that could be asked."""

        async def work(location_id: str) -> ReconcileReport:
            report = await reconcile_location(self._settings, self._engine, self._cipher, location_id)
            if told is not None and report.skipped is None:
                await in_thread(told, location_id, report)
            return report

        return await work_on_locations(
            self._engine, location_ids, work, capability=RECONCILE, run_id=run_id, counts=reconcile_counts
        )


def reconcile_counts(report: ReconcileReport) -> dict[str, int]:
    """The counts of a report by name."""
    return {f"events_{name}": value for name, value in asdict(report).items() if isinstance(value, int)}


def reconcile_told(report: ReconcileReport) -> Report:
    """As the history of `reconciled_events` keeps it."""
    times = {"looked_from": report.start, "looked_until": report.until}
    skipped = {} if report.skipped is None else {"skipped": report.skipped}
    at_times = {name: at.isoformat() for name, at in times.items() if at is not None}
    return Report(values={**reconcile_counts(report), **at_times, **skipped})


def locations_to_reconcile(connection: Connection) -> list[str]:
    """Locations of active clients whose EmailBison workspace can be asked, in the order of the clients."""
    query = text("""
        SELECT client.location_id FROM clients AS client
        JOIN emailbison_workspaces AS workspace ON workspace.client_id = client.id
        WHERE client.active AND workspace.token_encrypted IS NOT NULL ORDER BY client.id
    """)
    return list(connection.execute(query).scalars())
