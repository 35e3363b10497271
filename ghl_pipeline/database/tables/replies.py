"""What an operator answers with: drafts, free times, and the accounts that send."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from ghl_pipeline.database.tables.base import metadata, now_column

draft_clients = Table(
    "draft_clients",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("tone", Text, comment="how the client speaks, in the client's own words"),
    Column("slots_offered", Integer, nullable=False, server_default="3", comment="free times that a draft may name"),
    now_column("created_at"),
    now_column("updated_at"),
    CheckConstraint("slots_offered BETWEEN 0 AND 10", name="slots_offered_are_few"),
    comment="Clients whose leads' messages are answered with drafts, and how",
)

reply_drafts = Table(
    "reply_drafts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("lead_id", BigInteger, ForeignKey("leads.id", ondelete="CASCADE"), nullable=False),
    Column("message_id", BigInteger, ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    Column("channel", Text, nullable=False, comment="sms or email: how it would be sent"),
    Column("state", Text, nullable=False),
    Column("body", Text, comment="the draft; null while there is none"),
    Column("failure", Text, comment="why there is none, of drafts.outcomes.DraftFailure"),
    Column("failure_text", Text, comment="the same for people; holds no value of a person"),
    Column("attempts", Integer, nullable=False, server_default="1"),
    Column("retry_at", DateTime(timezone=True), comment="when a failed one is tried again; null: not by itself"),
    Column("provider", Text),
    Column("model", Text),
    Column("prompt_version", Text),
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("cost_usd", Numeric(12, 6), comment="when the model's price is set"),
    Column("seconds", Double),
    Column("decided_at", DateTime(timezone=True), comment="when it was approved or rejected"),
    now_column("created_at"),
    now_column("updated_at"),
    CheckConstraint("state IN ('pending', 'approved', 'rejected', 'failed')", name="state_is_known"),
    CheckConstraint("(state = 'failed') = (failure IS NOT NULL)", name="a_failure_has_a_reason"),
    CheckConstraint("state = 'failed' OR body <> ''", name="a_draft_has_a_body"),
    CheckConstraint("channel IN ('sms', 'email')", name="channel_is_known"),
    UniqueConstraint("message_id", "channel"),
    comment="A reply that an operator may send, one for each message and channel",
)
Index("ix_reply_drafts_client_id_id", reply_drafts.c.client_id, reply_drafts.c.id)
Index("ix_reply_drafts_lead_id", reply_drafts.c.lead_id)
Index(
    "ix_reply_drafts_open",
    reply_drafts.c.client_id,
    reply_drafts.c.state,
    postgresql_where=text("state IN ('pending', 'failed')"),
)
Index(
    "ix_reply_drafts_retry_at",
    reply_drafts.c.client_id,
    reply_drafts.c.retry_at,
    postgresql_where=text("state = 'failed' AND retry_at IS NOT NULL"),
)

booking_calendars = Table(
    "booking_calendars",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column("booking_link", Text, comment="the page on which the client's leads book"),
    Column("auto_booking_calendar_id", Text, comment="of the client's location; used when the link leads nowhere"),
    Column("calendly_token_encrypted", Text, comment="Fernet"),
    Column("provider", Text, comment="ghl or calendly, as resolved"),
    Column("provider_calendar_id", Text, comment="as resolved; believed while resolved_from is unchanged"),
    Column("resolved_from", Text, comment="MD5 of what it was resolved from"),
    Column("time_zone", Text, comment="the calendar's"),
    Column("state", Text, nullable=False, server_default="never"),
    Column("reason", Text, comment="why it is not fresh, of availability.outcomes.Reason"),
    Column("refreshed_at", DateTime(timezone=True), comment="as of when the slots are"),
    Column("stale_since", DateTime(timezone=True)),
    Column("tried_at", DateTime(timezone=True)),
    now_column("created_at"),
    now_column("updated_at"),
    CheckConstraint("provider IN ('ghl', 'calendly')", name="provider_is_known"),
    CheckConstraint("state IN ('never', 'fresh', 'no_slots', 'stale', 'unsupported')", name="state_is_known"),
    comment="Where a client's free times come from, and how old they are",
)

availability_slots = Table(
    "availability_slots",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column("starts_at", DateTime(timezone=True), primary_key=True),
    comment="Free times of a client's calendar, the next 30 days",
)

sender_accounts = Table(
    "sender_accounts",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column("sender_id", BigInteger, primary_key=True, comment="EmailBison's"),
    Column("email", Text),
    Column("name", Text),
    Column("status", Text, comment="as EmailBison calls it"),
    Column("can_send", Boolean, nullable=False),
    Column("daily_limit", Integer),
    Column("gone_at", DateTime(timezone=True), comment="when a complete listing lacked it"),
    Column("refused_at", DateTime(timezone=True), comment="when EmailBison last refused to send by it"),
    now_column("seen_at"),
    now_column("created_at"),
    now_column("updated_at"),
    comment="Accounts by which a client's workspace sends",
)

campaign_senders = Table(
    "campaign_senders",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column("campaign_id", BigInteger, primary_key=True, comment="EmailBison's"),
    Column("sender_id", BigInteger, primary_key=True),
    comment="Which accounts a campaign sends by",
)

sender_healings = Table(
    "sender_healings",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("lead_id", BigInteger, ForeignKey("leads.id", ondelete="CASCADE"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("replaced_sender_id", BigInteger, comment="null: the lead had none"),
    Column("sender_id", BigInteger, comment="null: there was none to give"),
    now_column("healed_at"),
    CheckConstraint("reason IN ('missing', 'unknown', 'cannot_send', 'refused')", name="reason_is_known"),
    comment="Each time a lead was given another account to send by",
)
Index("ix_sender_healings_lead_id", sender_healings.c.lead_id, sender_healings.c.id)
Index("ix_sender_healings_client_id", sender_healings.c.client_id)
