"""Figures that are kept because counting them anew at each look would read every lead, or every attempt."""

from sqlalchemy import BigInteger, Column, Date, DateTime, Double, Integer, Table, Text

from ghl_pipeline.database.tables.base import metadata

location_figures = Table(
    "location_figures",
    metadata,
    Column("location_id", Text, primary_key=True),
    Column("leads", Integer, nullable=False),
    Column("linked", Integer, nullable=False, comment="leads with a contact"),
    Column("without_phone", Integer, nullable=False),
    Column("without_name", Integer, nullable=False, comment="leads without a first or without a last name"),
    Column("looked_up", Integer, nullable=False, comment="leads with a lookup on record"),
    Column("not_found", Integer, nullable=False, comment="leads whose latest lookup found no contact"),
    Column("counted_at", DateTime(timezone=True), nullable=False, comment="as of when"),
    comment="How the leads of each location stood when they were last counted",
)

daily_figures = Table(
    "daily_figures",
    metadata,
    Column("day", Date, primary_key=True, comment="UTC; of an attempt, when it began"),
    Column("repaired", BigInteger, nullable=False, server_default="0", comment="leads in which something was filled"),
    Column("looked_at", BigInteger, nullable=False, server_default="0", comment="leads that hydration looked at"),
    Column("not_found", BigInteger, nullable=False, server_default="0", comment="of them, without a contact"),
    Column("attempts", BigInteger, nullable=False, server_default="0", comment="of hydration"),
    Column("attempts_failed", BigInteger, nullable=False, server_default="0"),
    Column("requests", BigInteger, nullable=False, server_default="0", comment="to GHL, of all work"),
    Column(
        "peak_share",
        Double,
        nullable=False,
        server_default="0",
        comment="of its day's requests, what the busiest location used",
    ),
    Column("first_attempt_id", BigInteger, comment="the day's first of hydration; where a count begins"),
    comment="What was done on each day, over all locations, for the operator's charts",
)
