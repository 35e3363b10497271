"""What operating the pipeline keeps: totals for metrics, alerts and how each was delivered."""

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
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ghl_pipeline.database.tables.base import metadata, now_column

# Kept by the trigger `count_attempt` on location_attempts.
location_totals = Table(
    "location_totals",
    metadata,
    Column("location_id", Text, primary_key=True),
    Column("capability", Text, primary_key=True, comment="hydration, crm, ..."),
    Column("succeeded", BigInteger, nullable=False, server_default="0", comment="attempts that ended so"),
    Column("failed", BigInteger, nullable=False, server_default="0", comment="attempts that ended so"),
    Column("interrupted", BigInteger, nullable=False, server_default="0", comment="attempts that ended so"),
    Column("requests", BigInteger, nullable=False, server_default="0", comment="of all reports"),
    Column("waited_seconds", Double, nullable=False, server_default="0", comment="on the limit, of all reports"),
    Column(
        "counts",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="whole numbers of all reports added up, by name; dry runs are left out",
    ),
    comment="What all attempts of one kind at a location came to, kept when the attempts themselves are purged",
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("capability", Text, nullable=False, comment="hydration, crm, ...; of a run that died, its job"),
    Column("error_class", Text, nullable=False),
    Column(
        "locations",
        JSONB,
        nullable=False,
        server_default=text("'[]'::jsonb"),
        comment="the ids of the first ones; all are counted in location_count",
    ),
    Column("location_count", Integer, nullable=False, server_default="0"),
    Column("suppressed", Integer, nullable=False, server_default="0", comment="failures not told since the last alert"),
    Column("error_text", Text, comment="of the first location; sanitised, holds no value of a person"),
    Column("run_id", Text, comment="Dagster run of the first location"),
    now_column("made_at"),
    CheckConstraint("kind IN ('failed', 'held', 'died')", name="kind_is_known"),
    comment="What somebody is told of failures, stored before it is sent",
)
Index("ix_alerts_gathering", alerts.c.capability, alerts.c.error_class, alerts.c.kind, alerts.c.id.desc())

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert_id", BigInteger, ForeignKey("alerts.id", ondelete="CASCADE"), primary_key=True),
    Column("channel", Text, primary_key=True, comment="log, webhook or slack"),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    now_column("due_at"),
    Column("reason", Text, comment="why it was not taken; holds no address and no secret"),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("state IN ('waiting', 'sent', 'given_up')", name="state_is_known"),
    comment="An alert's way to each channel",
)
Index("ix_alert_deliveries_due_at", alert_deliveries.c.due_at, postgresql_where=text("state = 'waiting'"))

alert_memory = Table(
    "alert_memory",
    metadata,
    Column("location_id", Text, primary_key=True, comment="empty: of runs that named no location"),
    Column("capability", Text, primary_key=True),
    Column("error_class", Text, primary_key=True),
    Column("is_permanent", Boolean, nullable=False, comment="held: told once, until it was well in between"),
    now_column("told_at"),
    Column("suppressed", Integer, nullable=False, server_default="0", comment="failures since then that were not told"),
    now_column("seen_at"),
    comment="Which failures of a location were told last, so that the same is not told again and again",
)
