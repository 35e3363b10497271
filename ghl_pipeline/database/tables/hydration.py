"""Work lists, and what was found of their leads."""

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
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ghl_pipeline.database.tables.base import metadata, now_column

work_lists = Table(
    "work_lists",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id", ondelete="CASCADE"), nullable=False),
    Column("scope", Text, nullable=False, comment="all, or never_looked_up"),
    Column("listed", Integer, nullable=False, server_default="0"),
    Column("looked_up", Integer, nullable=False, server_default="0"),
    Column("written", Integer, nullable=False, server_default="0"),
    now_column("built_at"),
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
    now_column("looked_up_at"),
    Column("asked", Uuid, comment="hash of the link and the address the answer stands for"),
    Column("missing", SmallInteger, comment="bits of hydration.outcomes.Reason, after the write-back"),
    comment="When a lead was last looked up in GHL, and with what outcome",
)
Index("ix_lead_lookups_client_id", lead_lookups.c.client_id)
