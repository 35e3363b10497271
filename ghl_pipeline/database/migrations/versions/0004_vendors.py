"""Vendors, and what keeps them and the leads in step with GHL.

Revision ID: 0004
Revises: 0003
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LEAD_COLUMNS = (
    ("ghl_opportunity_id", "what the lead is known by where it has no contact yet"),
    ("primary_service_category", None),
    ("specific_service_requested", None),
    ("zip_code", None),
    ("county", None),
    ("state", "two-letter code"),
    ("status_before_missing", "what comes back with the contact"),
)


def upgrade() -> None:
    for name, comment in _LEAD_COLUMNS:
        op.add_column("leads", sa.Column(name, sa.Text(), comment=comment))
    op.create_table(
        "crm_clients",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False, server_default=sa.text("true")),
        sa.Column(
            "discover",
            sa.Boolean(),
            nullable=False,
            server_default=sa.text("true"),
            comment="whether vendors and new leads that only GHL knows are looked for",
        ),
        sa.Column(
            "field_keys",
            JSONB(),
            nullable=False,
            server_default=sa.text("'{}'::jsonb"),
            comment="our name of a value: the key of the location's custom field that holds it, where it is not the "
            "same",
        ),
        _moment("changes_seen_until", "contacts changed before then are in step"),
        _moment("full_pass_at", "when a pass that can see deletions last ended"),
        _now("created_at"),
        _now("updated_at"),
        _client("crm_clients"),
        sa.PrimaryKeyConstraint("client_id", name="pk_crm_clients"),
        comment="Clients whose vendors and leads are kept in step with GHL, and how far that has come",
    )
    _create_vendors()
    op.create_table(
        "crm_lookups",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False, comment="vendor or lead"),
        sa.Column("row_id", sa.BigInteger(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False, comment="MD5 of the identifiers it was looked up by"),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column(
            "scanned",
            sa.Boolean(),
            nullable=False,
            server_default=sa.text("false"),
            comment="whether the location's list of contacts was gone through for it as well",
        ),
        _now("looked_up_at"),
        sa.CheckConstraint("side IN ('vendor', 'lead')", name=op.f("ck_crm_lookups_side_is_known")),
        sa.CheckConstraint("outcome IN ('found', 'not_found', 'gone')", name=op.f("ck_crm_lookups_outcome_is_known")),
        _client("crm_lookups"),
        sa.PrimaryKeyConstraint("client_id", "side", "row_id", name="pk_crm_lookups"),
        comment="What the last lookup of a vendor or lead came to, so that one that is not found costs no scan every "
        "time",
    )
    for table in ("crm_clients", "vendors"):
        op.execute(
            f"""
            CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW
            WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION ghl_pipeline_touch()
            """
        )


def downgrade() -> None:
    for table in ("crm_lookups", "vendors", "crm_clients"):
        op.drop_table(table)
    for name, _ in reversed(_LEAD_COLUMNS):
        op.drop_column("leads", name)


def _create_vendors() -> None:
    op.create_table(
        "vendors",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("ghl_contact_id", sa.Text()),
        sa.Column("email", sa.Text()),
        sa.Column("phone", sa.Text(), comment="E.164 when valid, else digits"),
        sa.Column("name", sa.Text()),
        sa.Column("company_name", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False, server_default="pending"),
        sa.Column("status_before_missing", sa.Text(), comment="what comes back with the contact"),
        _texts("service_categories"),
        _texts("services_offered"),
        sa.Column("service_zip_codes", sa.Text(), comment="as GHL has it"),
        sa.Column("coverage_kind", sa.Text(), nullable=False, server_default="none"),
        _texts("coverage_states", "two-letter codes"),
        _texts("coverage_counties", "such as Miami-Dade, FL"),
        _texts("coverage_zip_codes"),
        _texts("coverage_unread", "parts of service_zip_codes that could not be read"),
        sa.Column("taking_new_work", sa.Boolean()),
        _moment("last_lead_assigned_at"),
        sa.Column("lead_close_percentage", sa.Numeric(5, 2)),
        sa.Column("primary_service_category", sa.Text()),
        sa.Column("ghl_user_id", sa.Text()),
        _now("created_at"),
        _now("updated_at"),
        sa.CheckConstraint(
            "coverage_kind IN ('none', 'global', 'national', 'states', 'counties', 'zip_codes', 'unreadable')",
            name=op.f("ck_vendors_coverage_kind_is_known"),
        ),
        sa.CheckConstraint(
            "lead_close_percentage BETWEEN 0 AND 100", name=op.f("ck_vendors_lead_close_percentage_is_one")
        ),
        _client("vendors"),
        sa.PrimaryKeyConstraint("id", name="pk_vendors"),
        comment="A company that takes leads of a client's marketplace; kept in step with its GHL contact",
    )
    op.create_index(
        "uq_vendors_client_contact",
        "vendors",
        ["client_id", "ghl_contact_id"],
        unique=True,
        postgresql_where=sa.text("ghl_contact_id <> ''"),
    )
    op.create_index(
        "uq_vendors_client_email",
        "vendors",
        ["client_id", sa.text("lower(btrim(email))")],
        unique=True,
        postgresql_where=sa.text("btrim(email) <> ''"),
    )
    op.create_index("ix_vendors_client_id_id", "vendors", ["client_id", "id"])


def _moment(name: str, comment: str | None = None) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), comment=comment)


def _now(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def _texts(name: str, comment: str | None = None) -> sa.Column[Any]:
    default = sa.text("'{}'::text[]")
    return sa.Column(name, sa.ARRAY(sa.Text()), nullable=False, server_default=default, comment=comment)


def _client(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=f"fk_{table}_client_id", ondelete="CASCADE")
