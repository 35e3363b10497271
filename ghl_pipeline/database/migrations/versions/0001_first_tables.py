"""The first tables: clients, leads, the work on them, and what is kept per location.

Revision ID: 0001
Revises: nothing
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Tables whose `updated_at` the database keeps, whoever writes: the pipeline, the dashboard, a person with psql.
_TOUCHED = ("clients", "leads")


def upgrade() -> None:
    _create_clients_and_leads()
    _create_work_in_progress()
    _create_location_state()
    _create_touch_triggers()


def downgrade() -> None:
    for table in (
        "location_learning",
        "location_throttle",
        "location_leases",
        "location_attempts",
        "resolved_contacts",
        "work_items",
        "work_lists",
        "lead_lookups",
        "leads",
        "clients",
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION ghl_pipeline_touch()")


def _create_clients_and_leads() -> None:
    op.create_table(
        "clients",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("location_id", sa.Text(), nullable=False, comment="GHL sub-account; the partition key"),
        sa.Column("ghl_token_encrypted", sa.Text(), comment="Fernet; null until a token is given"),
        sa.Column(
            "default_region",
            sa.Text(),
            server_default="US",
            nullable=False,
            comment="ISO 3166 alpha-2, for local phones",
        ),
        sa.Column("time_zone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("settings", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("deactivated_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("btrim(name) <> ''", name="ck_clients_name_is_not_blank"),
        sa.CheckConstraint("default_region ~ '^[A-Z]{2}$'", name="ck_clients_default_region_is_alpha2"),
        sa.PrimaryKeyConstraint("id", name="pk_clients"),
        sa.UniqueConstraint("location_id", name="uq_clients_location_id"),
        comment="An agency customer: its GHL location, its token, its settings",
    )
    op.create_index("uq_clients_name", "clients", [sa.literal_column("lower(name)")], unique=True)
    op.create_table(
        "leads",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("ghl_contact_id", sa.Text()),
        sa.Column("emailbison_lead_id", sa.BigInteger()),
        sa.Column("email", sa.Text()),
        sa.Column("phone", sa.Text(), comment="E.164 when valid, else digits"),
        sa.Column("first_name", sa.Text()),
        sa.Column("last_name", sa.Text()),
        sa.Column("company_name", sa.Text()),
        sa.Column("status", sa.Text(), server_default="new", nullable=False),
        sa.Column("enrichment_status", sa.Text(), comment="not_needed, enriched, or what the dashboard sets"),
        sa.Column("enrichment_source", sa.Text()),
        sa.Column("enriched_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_leads_client_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_leads"),
        comment="A person a client's campaigns write to; repaired from the GHL contact",
    )
    op.create_index("ix_leads_client_id_id", "leads", ["client_id", "id"])
    op.create_index(
        "uq_leads_client_contact",
        "leads",
        ["client_id", "ghl_contact_id"],
        unique=True,
        postgresql_where=sa.text("ghl_contact_id <> ''"),
    )
    op.create_index(
        "uq_leads_client_email",
        "leads",
        ["client_id", sa.literal_column("lower(btrim(email))")],
        unique=True,
        postgresql_where=sa.text("btrim(email) <> ''"),
    )
    op.create_index(
        "uq_leads_client_emailbison_lead",
        "leads",
        ["client_id", "emailbison_lead_id"],
        unique=True,
        postgresql_where=sa.text("emailbison_lead_id IS NOT NULL"),
    )
    op.create_table(
        "lead_lookups",
        sa.Column("lead_id", sa.BigInteger(), nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("looked_up_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_lead_lookups_client_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["lead_id"], ["leads.id"], name="fk_lead_lookups_lead_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("lead_id", name="pk_lead_lookups"),
        comment="When a lead was last looked up in GHL, and with what outcome",
    )
    op.create_index("ix_lead_lookups_client_id", "lead_lookups", ["client_id"])


def _create_work_in_progress() -> None:
    op.create_table(
        "work_lists",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False, comment="all, or never_looked_up"),
        sa.Column("listed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("looked_up", sa.Integer(), server_default="0", nullable=False),
        sa.Column("written", sa.Integer(), server_default="0", nullable=False),
        sa.Column("built_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("scope IN ('all', 'never_looked_up')", name="ck_work_lists_scope_is_known"),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_work_lists_client_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_work_lists"),
        comment="One pass over the eligible leads of a client; at most one is open per client",
    )
    op.create_index(
        "uq_work_lists_open", "work_lists", ["client_id"], unique=True, postgresql_where=sa.text("finished_at IS NULL")
    )
    op.create_table(
        "work_items",
        sa.Column("work_list_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "position",
            sa.Integer(),
            nullable=False,
            comment="1, 2, 3 ... in the order of work; resume points count in it",
        ),
        sa.Column("lead_id", sa.BigInteger(), nullable=False),
        sa.Column("reasons", sa.SmallInteger(), nullable=False, comment="bits of hydration.outcomes.Reason"),
        sa.Column("outcome", sa.Text(), comment="null until written back"),
        sa.Column(
            "filled",
            sa.SmallInteger(),
            server_default="0",
            nullable=False,
            comment="bits of hydration.outcomes.LeadField",
        ),
        sa.ForeignKeyConstraint(
            ["work_list_id"], ["work_lists.id"], name="fk_work_items_work_list_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("work_list_id", "position", name="pk_work_items"),
        comment="The leads of a work list in the order of work",
    )
    op.create_index("uq_work_items_lead", "work_items", ["work_list_id", "lead_id"], unique=True)
    op.create_table(
        "resolved_contacts",
        sa.Column("work_list_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("lead_id", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column(
            "asked_contact_id",
            sa.Text(),
            comment="the lead's link when it was looked up; the write-back checks it still holds",
        ),
        sa.Column(
            "asked_email", sa.Text(), comment="the lead's address when it was looked up, trimmed and lower-cased"
        ),
        sa.Column(
            "link_is_dead",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the lead's link leads nowhere and may be replaced",
        ),
        sa.Column("contact_id", sa.Text()),
        sa.Column("email", sa.Text()),
        sa.Column("phone", sa.Text()),
        sa.Column("first_name", sa.Text()),
        sa.Column("last_name", sa.Text()),
        sa.Column("company_name", sa.Text()),
        sa.ForeignKeyConstraint(
            ["work_list_id"], ["work_lists.id"], name="fk_resolved_contacts_work_list_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("work_list_id", "position", name="pk_resolved_contacts"),
        comment="What was found for each looked-up lead; emptied by the write-back",
    )


def _create_location_state() -> None:
    op.create_table(
        "location_attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("location_id", sa.Text(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False, comment="hydration, crm, ..."),
        sa.Column("run_id", sa.Text(), comment="Dagster run, null for work outside one"),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("error_class", sa.Text()),
        sa.Column("error_text", sa.Text(), comment="sanitised; holds no value of a person"),
        sa.Column("permanent", sa.Boolean(), comment="of a failure: whether a rerun alone cannot help"),
        sa.Column("report", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False, comment="counts only"),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "state IN ('running', 'succeeded', 'failed', 'interrupted')", name="ck_location_attempts_state_is_known"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_location_attempts"),
        comment="Each try to work on a location, for checks, reruns and reports",
    )
    op.create_index(
        "ix_location_attempts_latest", "location_attempts", ["capability", "location_id", sa.literal_column("id DESC")]
    )
    op.create_table(
        "location_leases",
        sa.Column("location_id", sa.Text(), nullable=False),
        sa.Column(
            "holder",
            sa.Text(),
            nullable=False,
            comment="who works on it, for people; the advisory lock is what keeps others off",
        ),
        sa.Column("acquired_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("location_id", name="pk_location_leases"),
        comment="Who works on a location right now",
    )
    op.create_table(
        "location_throttle",
        sa.Column("location_id", sa.Text(), nullable=False),
        sa.Column(
            "slots",
            sa.ARRAY(sa.Double()),
            server_default=sa.text("'{}'::double precision[]"),
            nullable=False,
            comment="the last slot times, epoch seconds, ascending; as many as the largest limit so far",
        ),
        sa.Column(
            "leased",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="how many of them the latest lease took",
        ),
        sa.Column(
            "asked_max_requests",
            sa.Integer(),
            nullable=False,
            comment="the lowest limit that processes ask for now",
        ),
        sa.Column("asked_interval_seconds", sa.Double(), nullable=False),
        sa.Column(
            "asked_until",
            sa.Double(),
            server_default="0",
            nullable=False,
            comment="epoch seconds; then a higher one may hold",
        ),
        sa.Column("learned_max_requests", sa.Integer(), comment="what GHL's headers said last; null: nothing yet"),
        sa.Column("learned_interval_seconds", sa.Double()),
        sa.Column("learned_at", sa.DateTime(timezone=True), comment="when they first said so"),
        sa.Column("blocked_until", sa.Double(), server_default="0", nullable=False, comment="epoch seconds"),
        sa.Column(
            "epoch", sa.Integer(), server_default="0", nullable=False, comment="bumped by a 429; older leases are void"
        ),
        sa.Column("day", sa.Date(), nullable=False, comment="UTC"),
        sa.Column("used_today", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_per_day", sa.Integer(), nullable=False, comment="what the latest lease was held to"),
        sa.PrimaryKeyConstraint("location_id", name="pk_location_throttle"),
        comment="The request budget of a location, shared by all processes",
    )
    op.create_table(
        "location_learning",
        sa.Column("location_id", sa.Text(), nullable=False),
        sa.Column("group_size", sa.Integer(), nullable=False, comment="addresses one search is known to take"),
        sa.Column(
            "group_ceiling",
            sa.Integer(),
            nullable=False,
            comment="more than this was refused, or is more than we ever ask",
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("location_id", name="pk_location_learning"),
        comment="What the GHL API was found to take, per location",
    )


def _create_touch_triggers() -> None:
    op.execute(
        """
        CREATE FUNCTION ghl_pipeline_touch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := now();
            RETURN NEW;
        END
        $$
        """
    )
    op.execute("COMMENT ON FUNCTION ghl_pipeline_touch() IS 'Keeps updated_at of a row that really changed'")
    for table in _TOUCHED:
        # An update that writes the same values again is not a change: who reads by updated_at must not see it.
        op.execute(
            f"""
            CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW
            WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION ghl_pipeline_touch()
            """
        )
