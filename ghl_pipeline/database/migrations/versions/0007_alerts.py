"""Alerts: an outbox, and what keeps them few. Totals of attempts, for metrics.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Of a report, whole numbers are added up by their names; those of these parts by part and name.
_PARTS = "'outcomes', 'fields', 'drafted', 'failed', 'skipped'"


def upgrade() -> None:
    _create_totals()
    _create_alerts()
    op.add_column(
        "location_throttle",
        sa.Column(
            "refusals", sa.BigInteger(), nullable=False, server_default="0", comment="429 answers, of all processes"
        ),
    )
    op.create_index(
        "ix_location_attempts_run_id",
        "location_attempts",
        ["run_id"],
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.create_index(
        "ix_reply_drafts_open",
        "reply_drafts",
        ["client_id", "state"],
        postgresql_where=sa.text("state IN ('pending', 'failed')"),
    )


def downgrade() -> None:
    op.drop_index("ix_reply_drafts_open", "reply_drafts")
    op.drop_index("ix_location_attempts_run_id", "location_attempts")
    op.drop_column("location_throttle", "refusals")
    op.drop_table("alert_memory")
    op.drop_table("alert_deliveries")
    op.drop_table("alerts")
    op.execute("DROP TRIGGER count_new_attempt ON location_attempts")
    op.execute("DROP TRIGGER count_attempt ON location_attempts")
    op.execute("DROP FUNCTION ghl_pipeline_count_attempt()")
    op.drop_table("location_totals")


def _create_totals() -> None:
    op.create_table(
        "location_totals",
        sa.Column("location_id", sa.Text(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False, comment="hydration, crm, ..."),
        sa.Column("succeeded", sa.BigInteger(), comment="attempts that ended so", nullable=False, server_default="0"),
        sa.Column("failed", sa.BigInteger(), comment="attempts that ended so", nullable=False, server_default="0"),
        sa.Column("interrupted", sa.BigInteger(), comment="attempts that ended so", nullable=False, server_default="0"),
        sa.Column("requests", sa.BigInteger(), comment="of all reports", nullable=False, server_default="0"),
        sa.Column(
            "waited_seconds", sa.Double(), comment="on the limit, of all reports", nullable=False, server_default="0"
        ),
        sa.Column(
            "counts",
            postgresql.JSONB(),
            nullable=False,
            server_default=sa.text("'{}'::jsonb"),
            comment="whole numbers of all reports added up, by name; dry runs are left out",
        ),
        sa.PrimaryKeyConstraint("location_id", "capability", name="pk_location_totals"),
        comment="What all attempts of one kind at a location came to, kept when the attempts themselves are purged",
    )
    # A trigger, so that no way of ending an attempt can forget it. One row per location and capability, where one
    # attempt at a time is at work: nobody waits for anybody.
    op.execute(
        f"""
        CREATE FUNCTION ghl_pipeline_count_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            counted jsonb := '{{}}';
        BEGIN
            IF NOT NEW.report @> '{{"dry_run": true}}' THEN
                SELECT coalesce(jsonb_object_agg(name, value), '{{}}') INTO counted
                FROM (
                    SELECT key AS name, value FROM jsonb_each(NEW.report)
                    UNION ALL
                    SELECT part.key || '.' || inner_part.key, inner_part.value
                    FROM jsonb_each(NEW.report) AS part
                    CROSS JOIN LATERAL jsonb_each(
                        CASE WHEN jsonb_typeof(part.value) = 'object' AND part.key IN ({_PARTS}) THEN part.value
                             ELSE '{{}}' END) AS inner_part
                ) AS told
                WHERE jsonb_typeof(value) = 'number' AND value::text ~ '^[1-9][0-9]{{0,15}}$';
            END IF;
            INSERT INTO location_totals AS t
                (location_id, capability, succeeded, failed, interrupted, requests, waited_seconds, counts)
            VALUES (
                NEW.location_id, NEW.capability,
                (NEW.state = 'succeeded')::integer, (NEW.state = 'failed')::integer,
                (NEW.state = 'interrupted')::integer,
                CASE WHEN jsonb_typeof(NEW.report -> 'requests') = 'number'
                     THEN greatest(0, (NEW.report ->> 'requests')::numeric::bigint) ELSE 0 END,
                CASE WHEN jsonb_typeof(NEW.report -> 'seconds_waited_on_limit') = 'number'
                     THEN greatest(0, (NEW.report ->> 'seconds_waited_on_limit')::double precision) ELSE 0 END,
                counted)
            ON CONFLICT (location_id, capability) DO UPDATE
            SET succeeded = t.succeeded + EXCLUDED.succeeded,
                failed = t.failed + EXCLUDED.failed,
                interrupted = t.interrupted + EXCLUDED.interrupted,
                requests = t.requests + EXCLUDED.requests,
                waited_seconds = t.waited_seconds + EXCLUDED.waited_seconds,
                counts = CASE WHEN EXCLUDED.counts = '{{}}' THEN t.counts ELSE (
                    SELECT jsonb_object_agg(key, total)
                    FROM (SELECT key, sum(value::bigint) AS total
                          FROM (SELECT * FROM jsonb_each_text(t.counts)
                                UNION ALL SELECT * FROM jsonb_each_text(EXCLUDED.counts)) AS told
                          GROUP BY key) AS sums) END;
            RETURN NULL;
        END
        $$
        """  # noqa: S608 - the parts are the ones above
    )
    op.execute("COMMENT ON FUNCTION ghl_pipeline_count_attempt() IS 'Adds an attempt that ended to location_totals'")
    op.execute(
        """
        CREATE TRIGGER count_attempt AFTER UPDATE OF state ON location_attempts FOR EACH ROW
        WHEN (OLD.state = 'running' AND NEW.state <> 'running' AND NEW.error_class IS DISTINCT FROM 'LocationBusy')
        EXECUTE FUNCTION ghl_pipeline_count_attempt()
        """
    )
    op.execute(
        """
        CREATE TRIGGER count_new_attempt AFTER INSERT ON location_attempts FOR EACH ROW
        WHEN (NEW.state <> 'running' AND NEW.error_class IS DISTINCT FROM 'LocationBusy')
        EXECUTE FUNCTION ghl_pipeline_count_attempt()
        """
    )


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False, comment="hydration, crm, ...; of a run that died, its job"),
        sa.Column("error_class", sa.Text(), nullable=False),
        sa.Column(
            "locations",
            postgresql.JSONB(),
            nullable=False,
            server_default=sa.text("'[]'::jsonb"),
            comment="the ids of the first ones; all are counted in location_count",
        ),
        sa.Column("location_count", sa.Integer(), nullable=False, server_default="0"),
        sa.Column(
            "suppressed",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="failures not told since the last alert",
        ),
        sa.Column("error_text", sa.Text(), comment="of the first location; sanitised, holds no value of a person"),
        sa.Column("run_id", sa.Text(), comment="Dagster run of the first location"),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('failed', 'held', 'died')", name=op.f("ck_alerts_kind_is_known")),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
        comment="What somebody is told of failures, stored before it is sent",
    )
    op.create_index(
        "ix_alerts_gathering", "alerts", ["capability", "error_class", "kind", sa.literal_column("id DESC")]
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("alert_id", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False, comment="log, webhook or slack"),
        sa.Column("state", sa.Text(), nullable=False, server_default="waiting"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reason", sa.Text(), comment="why it was not taken; holds no address and no secret"),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("state IN ('waiting', 'sent', 'given_up')", name=op.f("ck_alert_deliveries_state_is_known")),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"], name="fk_alert_deliveries_alert_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("alert_id", "channel", name="pk_alert_deliveries"),
        comment="An alert's way to each channel",
    )
    op.create_index(
        "ix_alert_deliveries_due_at", "alert_deliveries", ["due_at"], postgresql_where=sa.text("state = 'waiting'")
    )
    op.create_table(
        "alert_memory",
        sa.Column("location_id", sa.Text(), nullable=False, comment="empty: of runs that named no location"),
        sa.Column("capability", sa.Text(), nullable=False),
        sa.Column("error_class", sa.Text(), nullable=False),
        sa.Column(
            "is_permanent", sa.Boolean(), nullable=False, comment="held: told once, until it was well in between"
        ),
        sa.Column("told_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "suppressed",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="failures since then that were not told",
        ),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("location_id", "capability", "error_class", name="pk_alert_memory"),
        comment="Which failures of a location were told last, so that the same is not told again and again",
    )
