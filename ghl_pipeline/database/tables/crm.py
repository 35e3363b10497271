"""Vendors, and what keeping them and the leads in step with GHL has come to."""

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
    Numeric,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ghl_pipeline.database.tables.base import metadata, now_column


def _texts(name: str, comment: str | None = None) -> Column[list[str]]:
    return Column(name, ARRAY(Text), nullable=False, server_default=text("'{}'::text[]"), comment=comment)


crm_clients = Table(
    "crm_clients",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column(
        "discover",
        Boolean,
        nullable=False,
        server_default=text("true"),
        comment="whether vendors and new leads that only GHL knows are looked for",
    ),
    Column(
        "field_keys",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="our name of a value: the key of the location's custom field that holds it, where it is not the same",
    ),
    Column("changes_seen_until", DateTime(timezone=True), comment="contacts changed before then are in step"),
    Column("full_pass_at", DateTime(timezone=True), comment="when a pass that can see deletions last ended"),
    now_column("created_at"),
    now_column("updated_at"),
    comment="Clients whose vendors and leads are kept in step with GHL, and how far that has come",
)

vendors = Table(
    "vendors",
    metadata,
    Column("id", BigInteger, Identity(always=False), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("ghl_contact_id", Text),
    Column("email", Text),
    Column("phone", Text, comment="E.164 when valid, else digits"),
    Column("name", Text),
    Column("company_name", Text),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("status_before_missing", Text, comment="what comes back with the contact"),
    _texts("service_categories"),
    _texts("services_offered"),
    Column("service_zip_codes", Text, comment="as GHL has it"),
    Column("coverage_kind", Text, nullable=False, server_default="none"),
    _texts("coverage_states", "two-letter codes"),
    _texts("coverage_counties", "such as Miami-Dade, FL"),
    _texts("coverage_zip_codes"),
    _texts("coverage_unread", "parts of service_zip_codes that could not be read"),
    Column("taking_new_work", Boolean),
    Column("last_lead_assigned_at", DateTime(timezone=True)),
    Column("lead_close_percentage", Numeric(5, 2)),
    Column("primary_service_category", Text),
    Column("ghl_user_id", Text),
    now_column("created_at"),
    now_column("updated_at"),
    CheckConstraint(
        "coverage_kind IN ('none', 'global', 'national', 'states', 'counties', 'zip_codes', 'unreadable')",
        name="coverage_kind_is_known",
    ),
    CheckConstraint("lead_close_percentage BETWEEN 0 AND 100", name="lead_close_percentage_is_one"),
    comment="A company that takes leads of a client's marketplace; kept in step with its GHL contact",
)
# As for leads: an empty text is no contact and no address.
Index(
    "uq_vendors_client_contact",
    vendors.c.client_id,
    vendors.c.ghl_contact_id,
    unique=True,
    postgresql_where=text("ghl_contact_id <> ''"),
)
Index(
    "uq_vendors_client_email",
    vendors.c.client_id,
    func.lower(func.btrim(vendors.c.email)),
    unique=True,
    postgresql_where=text("btrim(email) <> ''"),
)
Index("ix_vendors_client_id_id", vendors.c.client_id, vendors.c.id)

crm_lookups = Table(
    "crm_lookups",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column("side", Text, primary_key=True, comment="vendor or lead"),
    Column("row_id", BigInteger, primary_key=True),
    Column("asked", Text, nullable=False, comment="MD5 of the identifiers it was looked up by"),
    Column("outcome", Text, nullable=False),
    Column(
        "scanned",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether the location's list of contacts was gone through for it as well",
    ),
    now_column("looked_up_at"),
    CheckConstraint("side IN ('vendor', 'lead')", name="side_is_known"),
    CheckConstraint("outcome IN ('found', 'not_found', 'gone')", name="outcome_is_known"),
    comment="What the last lookup of a vendor or lead came to, so that one that is not found costs no scan every time",
)
