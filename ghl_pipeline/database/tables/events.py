"""Who may send events, the inbox, messages, and contacts that were to be created."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from ghl_pipeline.database.tables.base import metadata, now_column

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256; the secret itself was shown once"),
    now_column("created_at"),
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
    now_column("created_at"),
    now_column("updated_at"),
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
    now_column("received_at"),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    now_column("due_at"),
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
    now_column("created_at"),
    now_column("updated_at"),
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
# What came lately and may want a draft.
Index(
    "ix_messages_inbound",
    messages.c.client_id,
    messages.c.sent_at,
    postgresql_where=text("direction = 'inbound'"),
)

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
    now_column("updated_at"),
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
    now_column("started_at"),
    Column("ended_at", DateTime(timezone=True)),
    UniqueConstraint("client_id", "address"),
    CheckConstraint("state IN ('started', 'created', 'found', 'refused')", name="state_is_known"),
    comment="Each contact that was to be created, noted before GHL was told, so that none is created twice",
)
Index("ix_contact_creations_lead_id", contact_creations.c.lead_id)
