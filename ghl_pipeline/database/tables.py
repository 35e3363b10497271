"""The pipeline's tables as SQLAlchemy Core objects.

The migrations in `migrations/` make them; a test proves that both agree. Whatever only SQL can say (triggers, partial
indexes) is in the migrations and named here. Times are `timestamptz`, set by the database.
"""

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _now_column(name: str) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


clients = Table(
    "clients",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("location_id", Text, nullable=False, unique=True, comment="GHL sub-account; the partition key"),
    Column("ghl_token_encrypted", Text, comment="Fernet; null until a token is given"),
    Column("default_region", Text, nullable=False, server_default="US", comment="ISO 3166 alpha-2, for local phones"),
    Column("time_zone", Text, nullable=False, server_default="UTC"),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("settings", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("deactivated_at", DateTime(timezone=True)),
    _now_column("created_at"),
    _now_column("updated_at"),
    CheckConstraint("default_region ~ '^[A-Z]{2}$'", name="default_region_is_alpha2"),
    CheckConstraint("btrim(name) <> ''", name="name_is_not_blank"),
    comment="An agency customer: its GHL location, its token, its settings",
)
Index("uq_clients_name", func.lower(clients.c.name), unique=True)

leads = Table(
    "leads",
    metadata,
    Column("id", BigInteger, Identity(always=False), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("ghl_contact_id", Text),
    Column("emailbison_lead_id", BigInteger),
    Column("email", Text),
    Column("phone", Text, comment="E.164 when valid, else digits"),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("company_name", Text),
    Column("status", Text, nullable=False, server_default="new"),
    Column("enrichment_status", Text, comment="not_needed, enriched, or what the dashboard sets"),
    Column("enrichment_source", Text),
    Column("enriched_at", DateTime(timezone=True)),
    Column("opted_out_at", DateTime(timezone=True), comment="when the person asked not to be written to; never undone"),
    Column("contact_deleted_at", DateTime(timezone=True), comment="when GHL said that the linked contact is deleted"),
    _now_column("created_at"),
    _now_column("updated_at"),
    comment="A person a client's campaigns write to; repaired from the GHL contact",
)
# One row per contact, EmailBison lead and address within a client; two clients may share all three. An empty text is
# no contact and no address: forms save those. Queries repeat the condition, or the index cannot be used.
Index(
    "uq_leads_client_contact",
    leads.c.client_id,
    leads.c.ghl_contact_id,
    unique=True,
    postgresql_where=text("ghl_contact_id <> ''"),
)
Index(
    "uq_leads_client_emailbison_lead",
    leads.c.client_id,
    leads.c.emailbison_lead_id,
    unique=True,
    postgresql_where=text("emailbison_lead_id IS NOT NULL"),
)
Index(
    "uq_leads_client_email",
    leads.c.client_id,
    func.lower(func.btrim(leads.c.email)),
    unique=True,
    postgresql_where=text("btrim(email) <> ''"),
)
Index("ix_leads_client_id_id", leads.c.client_id, leads.c.id)

work_lists = Table(
    "work_lists",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("scope", Text, nullable=False, comment="all, or never_looked_up"),
    Column("listed", Integer, nullable=False, server_default="0"),
    Column("looked_up", Integer, nullable=False, server_default="0"),
    Column("written", Integer, nullable=False, server_default="0"),
    _now_column("built_at"),
    Column("finished_at", DateTime(timezone=True)),
    Column(
        "position",
        Integer,
        nullable=False,
        server_default="0",
        comment="every lead up to here has its answer stored; where a resumed run goes on",
    ),
    Column("unlimited", Boolean, nullable=False, server_default=text("false")),
    Column("plan", JSONB, comment="hydration.plan.Plan; null until planned"),
    CheckConstraint("scope IN ('all', 'never_looked_up')", name="scope_is_known"),
    comment="One pass over the eligible leads of a client; at most one is open per client",
)
# A location has one list in work at a time; a killed run finds it again here.
Index(
    "uq_work_lists_open",
    work_lists.c.client_id,
    unique=True,
    postgresql_where=text("finished_at IS NULL"),
)

work_items = Table(
    "work_items",
    metadata,
    Column("work_list_id", BigInteger, ForeignKey("work_lists.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "position", Integer, primary_key=True, comment="1, 2, 3 ... in the order of work; resume points count in it"
    ),
    # No foreign key: a lead deleted while it waits must not block the delete, and is then reported as unchanged.
    Column("lead_id", BigInteger, nullable=False),
    Column("reasons", SmallInteger, nullable=False, comment="bits of hydration.outcomes.Reason"),
    Column("outcome", Text, comment="null until written back"),
    Column("filled", SmallInteger, nullable=False, server_default="0", comment="bits of hydration.outcomes.LeadField"),
    Column(
        "is_current",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="looked up before, as it is: only a contact that changed since can matter",
    ),
    Column("asked", Uuid, comment="hash of the lead's link and address when it was listed"),
    comment="The leads of a work list in the order of work",
)
Index("uq_work_items_lead", work_items.c.work_list_id, work_items.c.lead_id, unique=True)

resolved_contacts = Table(
    "resolved_contacts",
    metadata,
    Column("work_list_id", BigInteger, ForeignKey("work_lists.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("lead_id", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column(
        "asked_contact_id", Text, comment="the lead's link when it was looked up; the write-back checks it still holds"
    ),
    Column("asked_email", Text, comment="the lead's address when it was looked up, trimmed and lower-cased"),
    Column(
        "link_is_dead",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="the lead's link leads nowhere and may be replaced",
    ),
    Column("contact_id", Text),
    Column("email", Text),
    Column("phone", Text),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("company_name", Text),
    comment="What was found for each looked-up lead; emptied by the write-back",
)

pulled_contacts = Table(
    "pulled_contacts",
    metadata,
    Column("work_list_id", BigInteger, ForeignKey("work_lists.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("contact_id", Text, primary_key=True),
    Column("email", Text),
    Column("additional_emails", ARRAY(Text), nullable=False),
    Column("phone", Text),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("company_name", Text),
    Column("date_updated", DateTime(timezone=True)),
    Column("names_are_whole", Boolean, nullable=False),
    comment="Contacts that a scan or a delta brought for listed leads; emptied as the leads are resolved",
)

lead_lookups = Table(
    "lead_lookups",
    metadata,
    Column("lead_id", BigInteger, ForeignKey("leads.id", ondelete="CASCADE"), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("outcome", Text, nullable=False),
    _now_column("looked_up_at"),
    Column("asked", Uuid, comment="hash of the link and the address the answer stands for"),
    Column("missing", SmallInteger, comment="bits of hydration.outcomes.Reason, after the write-back"),
    comment="When a lead was last looked up in GHL, and with what outcome",
)
Index("ix_lead_lookups_client_id", lead_lookups.c.client_id)

location_attempts = Table(
    "location_attempts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("location_id", Text, nullable=False),
    Column("capability", Text, nullable=False, comment="hydration, crm, ..."),
    Column("run_id", Text, comment="Dagster run, null for work outside one"),
    Column("state", Text, nullable=False, server_default="running"),
    Column("error_class", Text),
    Column("error_text", Text, comment="sanitised; holds no value of a person"),
    Column("permanent", Boolean, comment="of a failure: whether a rerun alone cannot help"),
    Column("report", JSONB, nullable=False, server_default=text("'{}'::jsonb"), comment="counts only"),
    _now_column("started_at"),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("state IN ('running', 'succeeded', 'failed', 'interrupted')", name="state_is_known"),
    comment="Each try to work on a location, for checks, reruns and reports",
)
Index(
    "ix_location_attempts_latest",
    location_attempts.c.capability,
    location_attempts.c.location_id,
    location_attempts.c.id.desc(),
)

location_leases = Table(
    "location_leases",
    metadata,
    Column("location_id", Text, primary_key=True),
    Column(
        "holder",
        Text,
        nullable=False,
        comment="who works on it, for people; the advisory lock is what keeps others off",
    ),
    _now_column("acquired_at"),
    comment="Who works on a location right now",
)

location_throttle = Table(
    "location_throttle",
    metadata,
    Column("location_id", Text, primary_key=True),
    Column(
        "slots",
        ARRAY(Double),
        nullable=False,
        server_default=text("'{}'::double precision[]"),
        comment="the last slot times, epoch seconds, ascending; as many as the largest limit so far",
    ),
    Column("leased", Integer, nullable=False, server_default="0", comment="how many of them the latest lease took"),
    Column("asked_max_requests", Integer, nullable=False, comment="the lowest limit that processes ask for now"),
    Column("asked_interval_seconds", Double, nullable=False),
    Column(
        "asked_until", Double, nullable=False, server_default="0", comment="epoch seconds; then a higher one may hold"
    ),
    Column("learned_max_requests", Integer, comment="what GHL's headers said last; null: nothing yet"),
    Column("learned_interval_seconds", Double),
    Column("learned_at", DateTime(timezone=True), comment="when they first said so"),
    Column("blocked_until", Double, nullable=False, server_default="0", comment="epoch seconds"),
    Column("epoch", Integer, nullable=False, server_default="0", comment="bumped by a 429; older leases are void"),
    Column("day", Date, nullable=False, comment="UTC"),
    Column("used_today", Integer, nullable=False, server_default="0"),
    Column("max_per_day", Integer, nullable=False, comment="what the latest lease was held to"),
    Column(
        "interactive_slots",
        ARRAY(Double),
        nullable=False,
        server_default=text("'{}'::double precision[]"),
        comment="the last slot times that only interactive work may have, epoch seconds, ascending",
    ),
    comment="The request budget of a location, shared by all processes",
)

location_learning = Table(
    "location_learning",
    metadata,
    Column("location_id", Text, primary_key=True),
    Column("group_size", Integer, nullable=False, comment="addresses one search is known to take"),
    Column("group_ceiling", Integer, nullable=False, comment="more than this was refused, or is more than we ever ask"),
    _now_column("updated_at"),
    Column(
        "groups_are_wrong",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="groups were answered wrongly, so that leads are asked for one by one",
    ),
    Column("case_matters", Boolean, comment="whether an e-mail is found only in its own letter case"),
    Column("searches_by_date", Boolean, comment="whether a search by dateUpdated finds what it should"),
    Column("dates_tried_at", DateTime(timezone=True), comment="when that was last tried"),
    Column("surveyed_at", DateTime(timezone=True), comment="when groups and letter case were last tried"),
    Column("contacts", Integer, comment="contacts of the location when last counted"),
    Column(
        "changes_seen_until",
        DateTime(timezone=True),
        comment="contacts changed before then are known to every lead with a lookup on record",
    ),
    comment="What the GHL API was found to take, per location",
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256; the secret itself was shown once"),
    _now_column("created_at"),
    CheckConstraint("provider IN ('ghl_workflow', 'emailbison')", name="provider_has_secrets"),
    comment="What senders without a signature prove themselves with; a client may have several while one is replaced",
)
Index("ix_webhook_secrets_client_id", webhook_secrets.c.client_id)

emailbison_workspaces = Table(
    "emailbison_workspaces",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column("base_url", Text, nullable=False, comment="of the EmailBison instance, without /api"),
    Column("workspace_id", BigInteger, nullable=False, comment="events of any other workspace are refused"),
    Column("token_encrypted", Text, comment="Fernet; null: events arrive, nothing can be asked"),
    Column("events_seen_until", DateTime(timezone=True), comment="where the next look for lost events begins"),
    _now_column("created_at"),
    _now_column("updated_at"),
    UniqueConstraint("base_url", "workspace_id"),
    comment="A client's EmailBison workspace",
)

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("provider", Text, nullable=False),
    Column("dedupe_key", Text, nullable=False, comment="the same for every delivery of one event; holds no address"),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE")),
    Column("location_id", Text, comment="as the sender named it; without a client when no client has it"),
    Column("event_type", Text, nullable=False, comment="as the sender calls it"),
    Column("body", LargeBinary, comment="as it was sent; null once purged, and for locations of no client"),
    Column("lead_id", BigInteger, ForeignKey("leads.id", ondelete="SET NULL"), comment="whom it is about"),
    Column("found_by", Text, nullable=False, server_default="webhook", comment="webhook, or reconcile: it was lost"),
    Column("occurred_at", DateTime(timezone=True), comment="when it happened, as the sender says"),
    _now_column("received_at"),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _now_column("due_at"),
    Column("claimed_by", Text, comment="who works on it, until the claim runs out"),
    Column("claimed_until", DateTime(timezone=True)),
    Column("outcome", Text, comment="what was done, of webhooks.outcomes.EventOutcome"),
    Column("error_class", Text),
    Column("error_text", Text, comment="sanitised; holds no value of a person"),
    Column("handled_at", DateTime(timezone=True)),
    Column(
        "person_keys",
        ARRAY(Uuid),
        nullable=False,
        server_default=text("'{}'::uuid[]"),
        comment="hashes of what the person is known by, of events about somebody who was no lead",
    ),
    Column(
        "status_applied_at",
        DateTime(timezone=True),
        comment="when the event gave its lead a status, which no later attempt repeats",
    ),
    UniqueConstraint("provider", "dedupe_key"),
    CheckConstraint("provider IN ('ghl', 'ghl_workflow', 'emailbison')", name="provider_is_known"),
    CheckConstraint("state IN ('pending', 'done', 'ignored', 'dead')", name="state_is_known"),
    CheckConstraint("found_by IN ('webhook', 'reconcile')", name="found_by_is_known"),
    comment="The inbox: each event that a provider sent, once, and what became of it",
)
# Which locations have something due; what of a location to claim, in the order of arrival; whose claim ran out. Handled
# events are in none of these, so that they stay small however long the history is.
Index(
    "ix_webhook_events_pending",
    webhook_events.c.location_id,
    webhook_events.c.due_at,
    postgresql_where=text("state = 'pending'"),
)
Index(
    "ix_webhook_events_in_order",
    webhook_events.c.location_id,
    webhook_events.c.id,
    postgresql_where=text("state = 'pending'"),
)
Index(
    "ix_webhook_events_claimed",
    webhook_events.c.location_id,
    webhook_events.c.claimed_until,
    postgresql_where=text("state = 'pending' AND claimed_by IS NOT NULL"),
)
# Events about somebody who was no lead then, looked for when somebody becomes one.
Index(
    "ix_webhook_events_person_keys",
    webhook_events.c.person_keys,
    postgresql_using="gin",
    postgresql_where=text("outcome = 'no_lead'"),
)
Index(
    "ix_webhook_events_dead",
    webhook_events.c.location_id,
    webhook_events.c.id,
    postgresql_where=text("state = 'dead'"),
)
Index(
    "ix_webhook_events_body",
    webhook_events.c.received_at,
    postgresql_where=text("body IS NOT NULL"),
)
Index("ix_webhook_events_lead_id", webhook_events.c.lead_id)
Index("ix_webhook_events_client_id_id", webhook_events.c.client_id, webhook_events.c.id)

messages = Table(
    "messages",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("lead_id", BigInteger, ForeignKey("leads.id", ondelete="CASCADE"), nullable=False),
    Column("provider", Text, nullable=False, comment="ghl or emailbison"),
    Column("external_id", Text, comment="the provider's message id; null until it is known"),
    Column("channel", Text, nullable=False, comment="sms, email, whatsapp, ..."),
    Column("direction", Text, nullable=False),
    Column("subject", Text),
    Column("body", Text, nullable=False, server_default=""),
    Column("status", Text, comment="as the provider calls it"),
    Column("is_automated", Boolean, nullable=False, server_default=text("false"), comment="an automatic reply"),
    Column("is_interested", Boolean, nullable=False, server_default=text("false"), comment="marked so by EmailBison"),
    Column("conversation_id", Text),
    Column("source", Text, nullable=False, comment="webhook, import or reconcile: how it came first"),
    Column("sent_at", DateTime(timezone=True), nullable=False, comment="as the provider says, else when it arrived"),
    _now_column("created_at"),
    _now_column("updated_at"),
    CheckConstraint("provider IN ('ghl', 'emailbison')", name="provider_is_known"),
    CheckConstraint("direction IN ('inbound', 'outbound')", name="direction_is_known"),
    CheckConstraint("source IN ('webhook', 'import', 'reconcile')", name="source_is_known"),
    comment="What was written to and by a lead, each message once",
)
Index(
    "uq_messages_external",
    messages.c.client_id,
    messages.c.provider,
    messages.c.external_id,
    unique=True,
    postgresql_where=text("external_id IS NOT NULL"),
)
Index("ix_messages_lead", messages.c.lead_id, messages.c.sent_at)

message_imports = Table(
    "message_imports",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "imported_until", DateTime(timezone=True), comment="messages up to then are stored; the next import overlaps"
    ),
    Column(
        "live_since", DateTime(timezone=True), nullable=False, comment="messages after then make a lead, as webhooks do"
    ),
    _now_column("updated_at"),
    comment="How far a client's messages are imported",
)

contact_creations = Table(
    "contact_creations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("lead_id", BigInteger, ForeignKey("leads.id", ondelete="SET NULL")),
    Column("address", Text, nullable=False, comment="trimmed, lower-cased"),
    Column("state", Text, nullable=False, server_default="started"),
    Column("contact_id", Text),
    Column("phone_refused", Boolean, nullable=False, server_default=text("false"), comment="created without its phone"),
    Column("error_class", Text),
    _now_column("started_at"),
    Column("ended_at", DateTime(timezone=True)),
    UniqueConstraint("client_id", "address"),
    CheckConstraint("state IN ('started', 'created', 'found', 'refused')", name="state_is_known"),
    comment="Each contact that was to be created, noted before GHL was told, so that none is created twice",
)
Index("ix_contact_creations_lead_id", contact_creations.c.lead_id)
