"""Events from outside: who may send them, the inbox, messages, and contacts that were to be created.

Revision ID: 0003
Revises: 0002
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TOUCHED = ("emailbison_workspaces", "messages", "message_imports")


def upgrade() -> None:
    _extend_leads()
    _create_senders()
    _create_inbox()
    _create_messages()
    _create_contact_creations()
    for table in _TOUCHED:
        op.execute(
            f"""
            CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW
            WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION ghl_pipeline_touch()
            """
        )


def downgrade() -> None:
    for table in (
        "contact_creations",
        "message_imports",
        "messages",
        "webhook_events",
        "emailbison_workspaces",
        "webhook_secrets",
    ):
        op.drop_table(table)
    for column in ("contact_deleted_at", "opted_out_at"):
        op.drop_column("leads", column)


def _moment(name: str, comment: str | None = None) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), comment=comment)


def _now(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def _no(name: str, comment: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.text("false"), comment=comment)


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False)


def _client(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=f"fk_{table}_client_id", ondelete="CASCADE")


def _lead(table: str, ondelete: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["lead_id"], ["leads.id"], name=f"fk_{table}_lead_id", ondelete=ondelete)


def _extend_leads() -> None:
    op.add_column("leads", _moment("opted_out_at", "when the person asked not to be written to; never undone"))
    op.add_column("leads", _moment("contact_deleted_at", "when GHL said that the linked contact is deleted"))


def _create_senders() -> None:
    op.create_table(
        "webhook_secrets",
        _id(),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256; the secret itself was shown once"),
        _now("created_at"),
        sa.CheckConstraint(
            "provider IN ('ghl_workflow', 'emailbison')", name=op.f("ck_webhook_secrets_provider_has_secrets")
        ),
        _client("webhook_secrets"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_secrets"),
        comment="What senders without a signature prove themselves with; a client may have several while one is "
        "replaced",
    )
    op.create_index("ix_webhook_secrets_client_id", "webhook_secrets", ["client_id"])
    op.create_table(
        "emailbison_workspaces",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False, comment="of the EmailBison instance, without /api"),
        sa.Column("workspace_id", sa.BigInteger(), nullable=False, comment="events of any other workspace are refused"),
        sa.Column("token_encrypted", sa.Text(), comment="Fernet; null: events arrive, nothing can be asked"),
        _moment("events_seen_until", "where the next look for lost events begins"),
        _now("created_at"),
        _now("updated_at"),
        _client("emailbison_workspaces"),
        sa.PrimaryKeyConstraint("client_id", name="pk_emailbison_workspaces"),
        sa.UniqueConstraint("base_url", "workspace_id", name="uq_emailbison_workspaces_base_url_workspace_id"),
        comment="A client's EmailBison workspace",
    )


def _create_inbox() -> None:
    op.create_table(
        "webhook_events",
        _id(),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column(
            "dedupe_key",
            sa.Text(),
            nullable=False,
            comment="the same for every delivery of one event; holds no address",
        ),
        sa.Column("client_id", sa.BigInteger()),
        sa.Column("location_id", sa.Text(), comment="as the sender named it; without a client when no client has it"),
        sa.Column("event_type", sa.Text(), nullable=False, comment="as the sender calls it"),
        sa.Column("body", sa.LargeBinary(), comment="as it was sent; null once purged, and for locations of no client"),
        sa.Column("lead_id", sa.BigInteger(), comment="whom it is about"),
        sa.Column(
            "found_by",
            sa.Text(),
            nullable=False,
            server_default="webhook",
            comment="webhook, or reconcile: it was lost",
        ),
        _moment("occurred_at", "when it happened, as the sender says"),
        _now("received_at"),
        sa.Column("state", sa.Text(), nullable=False, server_default="pending"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        _now("due_at"),
        sa.Column("claimed_by", sa.Text(), comment="who works on it, until the claim runs out"),
        _moment("claimed_until"),
        sa.Column("outcome", sa.Text(), comment="what was done, of webhooks.outcomes.EventOutcome"),
        sa.Column("error_class", sa.Text()),
        sa.Column("error_text", sa.Text(), comment="sanitised; holds no value of a person"),
        _moment("handled_at"),
        sa.Column(
            "person_keys",
            sa.ARRAY(sa.Uuid()),
            nullable=False,
            server_default=sa.text("'{}'::uuid[]"),
            comment="hashes of what the person is known by, of events about somebody who was no lead",
        ),
        _moment("status_applied_at", "when the event gave its lead a status, which no later attempt repeats"),
        sa.CheckConstraint(
            "provider IN ('ghl', 'ghl_workflow', 'emailbison')", name=op.f("ck_webhook_events_provider_is_known")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'done', 'ignored', 'dead')", name=op.f("ck_webhook_events_state_is_known")
        ),
        sa.CheckConstraint("found_by IN ('webhook', 'reconcile')", name=op.f("ck_webhook_events_found_by_is_known")),
        _client("webhook_events"),
        _lead("webhook_events", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_events"),
        sa.UniqueConstraint("provider", "dedupe_key", name="uq_webhook_events_provider_dedupe_key"),
        comment="The inbox: each event that a provider sent, once, and what became of it",
    )
    for name, columns, condition in (
        ("pending", ["location_id", "due_at"], "state = 'pending'"),
        ("in_order", ["location_id", "id"], "state = 'pending'"),
        ("claimed", ["location_id", "claimed_until"], "state = 'pending' AND claimed_by IS NOT NULL"),
        ("dead", ["location_id", "id"], "state = 'dead'"),
        ("body", ["received_at"], "body IS NOT NULL"),
    ):
        op.create_index(f"ix_webhook_events_{name}", "webhook_events", columns, postgresql_where=sa.text(condition))
    op.create_index("ix_webhook_events_lead_id", "webhook_events", ["lead_id"])
    op.create_index("ix_webhook_events_client_id_id", "webhook_events", ["client_id", "id"])
    op.create_index(
        "ix_webhook_events_person_keys",
        "webhook_events",
        ["person_keys"],
        postgresql_using="gin",
        postgresql_where=sa.text("outcome = 'no_lead'"),
    )


def _create_messages() -> None:
    op.create_table(
        "messages",
        _id(),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("lead_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False, comment="ghl or emailbison"),
        sa.Column("external_id", sa.Text(), comment="the provider's message id; null until it is known"),
        sa.Column("channel", sa.Text(), nullable=False, comment="sms, email, whatsapp, ..."),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text()),
        sa.Column("body", sa.Text(), nullable=False, server_default=""),
        sa.Column("status", sa.Text(), comment="as the provider calls it"),
        _no("is_automated", "an automatic reply"),
        _no("is_interested", "marked so by EmailBison"),
        sa.Column("conversation_id", sa.Text()),
        sa.Column("source", sa.Text(), nullable=False, comment="webhook, import or reconcile: how it came first"),
        sa.Column(
            "sent_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="as the provider says, else when it arrived",
        ),
        _now("created_at"),
        _now("updated_at"),
        sa.CheckConstraint("provider IN ('ghl', 'emailbison')", name=op.f("ck_messages_provider_is_known")),
        sa.CheckConstraint("direction IN ('inbound', 'outbound')", name=op.f("ck_messages_direction_is_known")),
        sa.CheckConstraint("source IN ('webhook', 'import', 'reconcile')", name=op.f("ck_messages_source_is_known")),
        _client("messages"),
        _lead("messages", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        comment="What was written to and by a lead, each message once",
    )
    op.create_index(
        "uq_messages_external",
        "messages",
        ["client_id", "provider", "external_id"],
        unique=True,
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
    op.create_index("ix_messages_lead", "messages", ["lead_id", "sent_at"])
    op.create_table(
        "message_imports",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        _moment("imported_until", "messages up to then are stored; the next import overlaps"),
        sa.Column(
            "live_since",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="messages after then make a lead, as webhooks do",
        ),
        _now("updated_at"),
        _client("message_imports"),
        sa.PrimaryKeyConstraint("client_id", name="pk_message_imports"),
        comment="How far a client's messages are imported",
    )


def _create_contact_creations() -> None:
    op.create_table(
        "contact_creations",
        _id(),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("lead_id", sa.BigInteger()),
        sa.Column("address", sa.Text(), nullable=False, comment="trimmed, lower-cased"),
        sa.Column("state", sa.Text(), nullable=False, server_default="started"),
        sa.Column("contact_id", sa.Text()),
        _no("phone_refused", "created without its phone"),
        sa.Column("error_class", sa.Text()),
        _now("started_at"),
        _moment("ended_at"),
        sa.CheckConstraint(
            "state IN ('started', 'created', 'found', 'refused')", name=op.f("ck_contact_creations_state_is_known")
        ),
        _client("contact_creations"),
        _lead("contact_creations", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_contact_creations"),
        sa.UniqueConstraint("client_id", "address", name="uq_contact_creations_client_id_address"),
        comment="Each contact that was to be created, noted before GHL was told, so that none is created twice",
    )
    op.create_index("ix_contact_creations_lead_id", "contact_creations", ["lead_id"])
