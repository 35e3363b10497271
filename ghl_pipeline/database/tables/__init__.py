"""The pipeline's tables as SQLAlchemy Core objects.

The migrations in `migrations/` make them; a test proves that both agree. Whatever only SQL can say (triggers, partial
indexes) is in the migrations and named here. Times are `timestamptz`, set by the database.
"""

from ghl_pipeline.database.tables.base import metadata
from ghl_pipeline.database.tables.clients import clients, leads, viewer_clients
from ghl_pipeline.database.tables.crm import crm_clients, crm_lookups, vendors
from ghl_pipeline.database.tables.events import (
    contact_creations,
    emailbison_workspaces,
    message_imports,
    messages,
    webhook_events,
    webhook_secrets,
)
from ghl_pipeline.database.tables.figures import daily_figures, location_figures
from ghl_pipeline.database.tables.hydration import (
    lead_lookups,
    pulled_contacts,
    resolved_contacts,
    work_items,
    work_lists,
)
from ghl_pipeline.database.tables.locations import (
    location_attempts,
    location_learning,
    location_leases,
    location_standings,
    location_throttle,
    rerun_rounds,
)
from ghl_pipeline.database.tables.operations import alert_deliveries, alert_memory, alerts, location_totals
from ghl_pipeline.database.tables.replies import (
    availability_slots,
    booking_calendars,
    campaign_senders,
    draft_clients,
    reply_drafts,
    sender_accounts,
    sender_healings,
)

__all__ = [
    "alert_deliveries",
    "alert_memory",
    "alerts",
    "availability_slots",
    "booking_calendars",
    "campaign_senders",
    "clients",
    "contact_creations",
    "crm_clients",
    "crm_lookups",
    "daily_figures",
    "draft_clients",
    "emailbison_workspaces",
    "lead_lookups",
    "leads",
    "location_attempts",
    "location_figures",
    "location_learning",
    "location_leases",
    "location_standings",
    "location_throttle",
    "location_totals",
    "message_imports",
    "messages",
    "metadata",
    "pulled_contacts",
    "reply_drafts",
    "rerun_rounds",
    "resolved_contacts",
    "sender_accounts",
    "sender_healings",
    "vendors",
    "viewer_clients",
    "webhook_events",
    "webhook_secrets",
    "work_items",
    "work_lists",
]
