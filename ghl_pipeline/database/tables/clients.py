"""The clients, who may see them, and their leads."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ghl_pipeline.database.tables.base import metadata, now_column

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
    now_column("created_at"),
    now_column("updated_at"),
    Column("previous_token_encrypted", Text, comment="Fernet; the token before the last rotation"),
    Column(
        "previous_token_until",
        DateTime(timezone=True),
        comment="until when it may be used in the new one's place",
    ),
    CheckConstraint(
        "(previous_token_encrypted IS NULL) = (previous_token_until IS NULL)", name="previous_token_has_an_end"
    ),
    CheckConstraint("default_region ~ '^[A-Z]{2}$'", name="default_region_is_alpha2"),
    CheckConstraint("btrim(name) <> ''", name="name_is_not_blank"),
    comment="An agency customer: its GHL location, its token, its settings",
)
Index("uq_clients_name", func.lower(clients.c.name), unique=True)

viewer_clients = Table(
    "viewer_clients",
    metadata,
    Column("role_name", Text, primary_key=True, comment="the login, a member of ghl_pipeline_viewer"),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    now_column("created_at"),
    comment="Which clients' rows a viewer's login may see",
)
Index("ix_viewer_clients_client_id", viewer_clients.c.client_id)

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
    Column("ghl_opportunity_id", Text, comment="what the lead is known by where it has no contact yet"),
    Column("primary_service_category", Text),
    Column("specific_service_requested", Text),
    Column("zip_code", Text),
    Column("county", Text),
    Column("state", Text, comment="two-letter code"),
    Column("status_before_missing", Text, comment="what comes back with the contact"),
    Column("emailbison_campaign_id", BigInteger, comment="the campaign that wrote last"),
    Column("emailbison_sender_id", BigInteger, comment="the account that writes to them"),
    now_column("created_at"),
    now_column("updated_at"),
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
# How many leads an account writes to: a lead that needs another one gets the one with the fewest.
Index(
    "ix_leads_client_sender",
    leads.c.client_id,
    leads.c.emailbison_sender_id,
    postgresql_where=text("emailbison_sender_id IS NOT NULL"),
)
