"""What is on record of a location: tries, leases, the throttle, what was learned."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ghl_pipeline.database.tables.base import metadata, now_column

location_attempts = Table(
    "location_attempts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("location_id", Text, nullable=False),
    Column("capability", Text, nullable=False, comment="hydration, crm, ..."),
    Column("run_id", Text, comment="Dagster run, null for work outside one"),
    Column("state", Text, nullable=False, server_default="running"),
    Column("error_class", Text),
    Column("error_text", Text, comment="sanitised; holds no value of a person"),
    Column("permanent", Boolean, comment="of a failure: whether a rerun alone cannot help"),
    Column("report", JSONB, nullable=False, server_default=text("'{}'::jsonb"), comment="counts only"),
    now_column("started_at"),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("state IN ('running', 'succeeded', 'failed', 'interrupted')", name="state_is_known"),
    comment="Each try to work on a location, for checks, reruns and reports",
)
Index(
    "ix_location_attempts_latest",
    location_attempts.c.capability,
    location_attempts.c.location_id,
    location_attempts.c.id.desc(),
)

Index(
    "ix_location_attempts_run_id",
    location_attempts.c.run_id,
    postgresql_where=text("run_id IS NOT NULL"),
)

location_standings = Table(
    "location_standings",
    metadata,
    Column("location_id", Text, primary_key=True),
    Column("capability", Text, primary_key=True, comment="hydration, crm, ..."),
    Column("state", Text, nullable=False, comment="of the latest attempt"),
    Column("attempt_id", BigInteger, comment="the latest attempt"),
    Column("run_id", Text, comment="Dagster run of the latest attempt, null for work outside one"),
    Column("began_at", DateTime(timezone=True), comment="when the latest attempt began"),
    Column("ended_at", DateTime(timezone=True), comment="when the latest attempt ended"),
    Column("succeeded_at", DateTime(timezone=True), comment="when an attempt last succeeded"),
    Column("failures", Integer, nullable=False, server_default="0", comment="attempts since then that did not"),
    Column("failing_since", DateTime(timezone=True), comment="the first of them; null when all is well"),
    Column("error_class", Text),
    Column("error_text", Text, comment="sanitised; holds no value of a person"),
    Column("permanent", Boolean, comment="of a failure: whether a rerun alone cannot help"),
    Column("cause", Text, comment="why it did not succeed: transient, quota, ...; null when all is well"),
    Column("rerun_at", DateTime(timezone=True), comment="when it is asked for again; null: not by itself"),
    Column("reruns", Integer, nullable=False, server_default="0", comment="asked for since the last success"),
    Column("requested_at", DateTime(timezone=True), comment="when it was last asked for again"),
    CheckConstraint("state IN ('running', 'succeeded', 'failed', 'interrupted')", name="state_is_known"),
    comment="How the latest work of each kind ended at each location, and when it is tried again",
)
Index(
    "ix_location_standings_unwell",
    location_standings.c.capability,
    location_standings.c.rerun_at,
    postgresql_where=text("cause IS NOT NULL"),
)

rerun_rounds = Table(
    "rerun_rounds",
    metadata,
    Column("capability", Text, primary_key=True, comment="hydration, crm, ..."),
    Column("asked_at", DateTime(timezone=True), nullable=False, comment="when the latest round was asked for"),
    comment="Kinds of work that failed at many locations at once: they come back a round at a time",
)

location_leases = Table(
    "location_leases",
    metadata,
    Column("location_id", Text, primary_key=True),
    Column(
        "holder",
        Text,
        nullable=False,
        comment="who works on it, for people; the advisory lock is what keeps others off",
    ),
    now_column("acquired_at"),
    comment="Who works on a location right now",
)

location_throttle = Table(
    "location_throttle",
    metadata,
    Column("location_id", Text, primary_key=True),
    Column(
        "slots",
        ARRAY(Double),
        nullable=False,
        server_default=text("'{}'::double precision[]"),
        comment="the last slot times, epoch seconds, ascending; as many as the largest limit so far",
    ),
    Column("leased", Integer, nullable=False, server_default="0", comment="how many of them the latest lease took"),
    Column("asked_max_requests", Integer, nullable=False, comment="the lowest limit that processes ask for now"),
    Column("asked_interval_seconds", Double, nullable=False),
    Column(
        "asked_until", Double, nullable=False, server_default="0", comment="epoch seconds; then a higher one may hold"
    ),
    Column("learned_max_requests", Integer, comment="what GHL's headers said last; null: nothing yet"),
    Column("learned_interval_seconds", Double),
    Column("learned_at", DateTime(timezone=True), comment="when they first said so"),
    Column("blocked_until", Double, nullable=False, server_default="0", comment="epoch seconds"),
    Column("epoch", Integer, nullable=False, server_default="0", comment="bumped by a 429; older leases are void"),
    Column("day", Date, nullable=False, comment="UTC"),
    Column("used_today", Integer, nullable=False, server_default="0"),
    Column("max_per_day", Integer, nullable=False, comment="what the latest lease was held to"),
    Column(
        "interactive_slots",
        ARRAY(Double),
        nullable=False,
        server_default=text("'{}'::double precision[]"),
        comment="the last slot times that only interactive work may have, epoch seconds, ascending",
    ),
    Column("refusals", BigInteger, nullable=False, server_default="0", comment="429 answers, of all processes"),
    comment="The request budget of a location, shared by all processes",
)

location_learning = Table(
    "location_learning",
    metadata,
    Column("location_id", Text, primary_key=True),
    Column("group_size", Integer, nullable=False, comment="addresses one search is known to take"),
    Column("group_ceiling", Integer, nullable=False, comment="more than this was refused, or is more than we ever ask"),
    now_column("updated_at"),
    Column(
        "groups_are_wrong",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="groups were answered wrongly, so that leads are asked for one by one",
    ),
    Column("case_matters", Boolean, comment="whether an e-mail is found only in its own letter case"),
    Column("searches_by_date", Boolean, comment="whether a search by dateUpdated finds what it should"),
    Column("dates_tried_at", DateTime(timezone=True), comment="when that was last tried"),
    Column("surveyed_at", DateTime(timezone=True), comment="when groups and letter case were last tried"),
    Column("contacts", Integer, comment="contacts of the location when last counted"),
    Column(
        "changes_seen_until",
        DateTime(timezone=True),
        comment="contacts changed before then are known to every lead with a lookup on record",
    ),
    comment="What the GHL API was found to take, per location",
)
