"""What an operator answers with: drafts, free times, and the accounts that send.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = (
    "draft_clients",
    "reply_drafts",
    "booking_calendars",
    "availability_slots",
    "sender_accounts",
    "campaign_senders",
    "sender_healings",
)
_TOUCHED = ("draft_clients", "reply_drafts", "booking_calendars", "sender_accounts")


def upgrade() -> None:
    op.add_column("leads", sa.Column("emailbison_campaign_id", sa.BigInteger(), comment="the campaign that wrote last"))
    op.add_column(
        "leads", sa.Column("emailbison_sender_id", sa.BigInteger(), comment="the account that writes to them")
    )
    op.create_index(
        "ix_leads_client_sender",
        "leads",
        ["client_id", "emailbison_sender_id"],
        postgresql_where=sa.text("emailbison_sender_id IS NOT NULL"),
    )
    op.create_index(
        "ix_messages_inbound",
        "messages",
        ["client_id", "sent_at"],
        postgresql_where=sa.text("direction = 'inbound'"),
    )
    _create_drafts()
    _create_availability()
    _create_senders()
    for table in _TOUCHED:
        op.execute(
            f"""
            CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW
            WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION ghl_pipeline_touch()
            """
        )


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
    op.drop_index("ix_messages_inbound", "messages")
    op.drop_index("ix_leads_client_sender", "leads")
    for column in ("emailbison_sender_id", "emailbison_campaign_id"):
        op.drop_column("leads", column)


def _create_drafts() -> None:
    op.create_table(
        "draft_clients",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False, server_default=sa.text("true")),
        sa.Column("tone", sa.Text(), comment="how the client speaks, in the client's own words"),
        sa.Column(
            "slots_offered",
            sa.Integer(),
            nullable=False,
            server_default="3",
            comment="free times that a draft may name",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_draft_clients_client_id", ondelete="CASCADE"),
        sa.CheckConstraint("slots_offered BETWEEN 0 AND 10", name=op.f("ck_draft_clients_slots_offered_are_few")),
        sa.PrimaryKeyConstraint("client_id", name="pk_draft_clients"),
        comment="Clients whose leads' messages are answered with drafts, and how",
    )
    op.create_table(
        "reply_drafts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("lead_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False, comment="sms or email: how it would be sent"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), comment="the draft; null while there is none"),
        sa.Column("failure", sa.Text(), comment="why there is none, of drafts.outcomes.DraftFailure"),
        sa.Column("failure_text", sa.Text(), comment="the same for people; holds no value of a person"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="1"),
        sa.Column(
            "retry_at", sa.DateTime(timezone=True), comment="when a failed one is tried again; null: not by itself"
        ),
        sa.Column("provider", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("prompt_version", sa.Text()),
        sa.Column("tokens_in", sa.Integer()),
        sa.Column("tokens_out", sa.Integer()),
        sa.Column("cost_usd", sa.Numeric(12, 6), comment="when the model's price is set"),
        sa.Column("seconds", sa.Double()),
        sa.Column("decided_at", sa.DateTime(timezone=True), comment="when it was approved or rejected"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_reply_drafts_client_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["lead_id"], ["leads.id"], name="fk_reply_drafts_lead_id", ondelete="CASCADE"),
        sa.UniqueConstraint("message_id", "channel", name="uq_reply_drafts_message_id_channel"),
        sa.CheckConstraint(
            "(state = 'failed') = (failure IS NOT NULL)",
            name=op.f("ck_reply_drafts_a_failure_has_a_reason"),
        ),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name="fk_reply_drafts_message_id", ondelete="CASCADE"),
        sa.CheckConstraint("state = 'failed' OR body <> ''", name=op.f("ck_reply_drafts_a_draft_has_a_body")),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'rejected', 'failed')",
            name=op.f("ck_reply_drafts_state_is_known"),
        ),
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_reply_drafts_channel_is_known")),
        sa.PrimaryKeyConstraint("id", name="pk_reply_drafts"),
        comment="A reply that an operator may send, one for each message and channel",
    )
    op.create_index("ix_reply_drafts_client_id_id", "reply_drafts", ["client_id", "id"])
    op.create_index("ix_reply_drafts_lead_id", "reply_drafts", ["lead_id"])
    op.create_index(
        "ix_reply_drafts_retry_at",
        "reply_drafts",
        ["client_id", "retry_at"],
        postgresql_where=sa.text("state = 'failed' AND retry_at IS NOT NULL"),
    )


def _create_availability() -> None:
    op.create_table(
        "booking_calendars",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("booking_link", sa.Text(), comment="the page on which the client's leads book"),
        sa.Column(
            "auto_booking_calendar_id", sa.Text(), comment="of the client's location; used when the link leads nowhere"
        ),
        sa.Column("calendly_token_encrypted", sa.Text(), comment="Fernet"),
        sa.Column("provider", sa.Text(), comment="ghl or calendly, as resolved"),
        sa.Column("provider_calendar_id", sa.Text(), comment="as resolved; believed while resolved_from is unchanged"),
        sa.Column("resolved_from", sa.Text(), comment="MD5 of what it was resolved from"),
        sa.Column("time_zone", sa.Text(), comment="the calendar's"),
        sa.Column("state", sa.Text(), nullable=False, server_default="never"),
        sa.Column("reason", sa.Text(), comment="why it is not fresh, of availability.outcomes.Reason"),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), comment="as of when the slots are"),
        sa.Column("stale_since", sa.DateTime(timezone=True)),
        sa.Column("tried_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name="fk_booking_calendars_client_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("provider IN ('ghl', 'calendly')", name=op.f("ck_booking_calendars_provider_is_known")),
        sa.CheckConstraint(
            "state IN ('never', 'fresh', 'no_slots', 'stale', 'unsupported')",
            name=op.f("ck_booking_calendars_state_is_known"),
        ),
        sa.PrimaryKeyConstraint("client_id", name="pk_booking_calendars"),
        comment="Where a client's free times come from, and how old they are",
    )
    op.create_table(
        "availability_slots",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name="fk_availability_slots_client_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("client_id", "starts_at", name="pk_availability_slots"),
        comment="Free times of a client's calendar, the next 30 days",
    )


def _create_senders() -> None:
    op.create_table(
        "sender_accounts",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("sender_id", sa.BigInteger(), nullable=False, comment="EmailBison's"),
        sa.Column("email", sa.Text()),
        sa.Column("name", sa.Text()),
        sa.Column("status", sa.Text(), comment="as EmailBison calls it"),
        sa.Column("can_send", sa.Boolean(), nullable=False),
        sa.Column("daily_limit", sa.Integer()),
        sa.Column("gone_at", sa.DateTime(timezone=True), comment="when a complete listing lacked it"),
        sa.Column("refused_at", sa.DateTime(timezone=True), comment="when EmailBison last refused to send by it"),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_sender_accounts_client_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("client_id", "sender_id", name="pk_sender_accounts"),
        comment="Accounts by which a client's workspace sends",
    )
    op.create_table(
        "campaign_senders",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("campaign_id", sa.BigInteger(), nullable=False, comment="EmailBison's"),
        sa.Column("sender_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name="fk_campaign_senders_client_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("client_id", "campaign_id", "sender_id", name="pk_campaign_senders"),
        comment="Which accounts a campaign sends by",
    )
    op.create_table(
        "sender_healings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("lead_id", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("replaced_sender_id", sa.BigInteger(), comment="null: the lead had none"),
        sa.Column("sender_id", sa.BigInteger(), comment="null: there was none to give"),
        sa.Column("healed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.ForeignKeyConstraint(["lead_id"], ["leads.id"], name="fk_sender_healings_lead_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_sender_healings_client_id", ondelete="CASCADE"),
        sa.CheckConstraint(
            "reason IN ('missing', 'unknown', 'cannot_send', 'refused')",
            name=op.f("ck_sender_healings_reason_is_known"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_sender_healings"),
        comment="Each time a lead was given another account to send by",
    )
    op.create_index("ix_sender_healings_client_id", "sender_healings", ["client_id"])
    op.create_index("ix_sender_healings_lead_id", "sender_healings", ["lead_id", "id"])
