"""The operator's page, every 15 minutes; housekeeping, every day."""

import dagster as dg

from ghl_pipeline.operations.jobs import keep_house, report_operations


def operations_report_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""
    return dg.ScheduleDefinition(
        name="operations_report",
        job=report_operations,
        # Beside the quarters of the hour, at which imports of messages begin.
        cron_schedule="5,20,35,50 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="The operator's page and the checks of all streams, every 15 minutes. It asks nothing of GHL.",
    )


def housekeeping_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""
    return dg.ScheduleDefinition(
        name="daily_housekeeping",
        job=keep_house,
        # Between the nights of hydration and an American morning; a day that was missed is made up for by the next.
        cron_schedule="28 6 * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="Every day at 06:28 UTC: drops what is kept no longer (KEEP_ATTEMPTS_DAYS, KEEP_HISTORY_DAYS and "
        "the other settings that begin so, WEBHOOK_KEEP_BODIES_DAYS). What would go: ghl-pipeline db purge",
    )
