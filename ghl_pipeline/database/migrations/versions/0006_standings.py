"""How each location stands at each kind of work, and alerts about it.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "location_standings",
        sa.Column("location_id", sa.Text(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False, comment="hydration, crm, ..."),
        sa.Column("state", sa.Text(), nullable=False, comment="of the latest attempt"),
        sa.Column("attempt_id", sa.BigInteger(), comment="the latest attempt"),
        sa.Column("run_id", sa.Text(), comment="Dagster run of the latest attempt, null for work outside one"),
        sa.Column("began_at", sa.DateTime(timezone=True), comment="when the latest attempt began"),
        sa.Column("ended_at", sa.DateTime(timezone=True), comment="when the latest attempt ended"),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), comment="when an attempt last succeeded"),
        sa.Column(
            "failures", sa.Integer(), nullable=False, server_default="0", comment="attempts since then that did not"
        ),
        sa.Column("failing_since", sa.DateTime(timezone=True), comment="the first of them; null when all is well"),
        sa.Column("error_class", sa.Text()),
        sa.Column("error_text", sa.Text(), comment="sanitised; holds no value of a person"),
        sa.Column("permanent", sa.Boolean(), comment="of a failure: whether a rerun alone cannot help"),
        sa.Column("cause", sa.Text(), comment="why it did not succeed: transient, quota, ...; null when all is well"),
        sa.Column("rerun_at", sa.DateTime(timezone=True), comment="when it is asked for again; null: not by itself"),
        sa.Column(
            "reruns", sa.Integer(), nullable=False, server_default="0", comment="asked for since the last success"
        ),
        sa.Column("requested_at", sa.DateTime(timezone=True), comment="when it was last asked for again"),
        sa.CheckConstraint(
            "state IN ('running', 'succeeded', 'failed', 'interrupted')",
            name=op.f("ck_location_standings_state_is_known"),
        ),
        sa.PrimaryKeyConstraint("location_id", "capability", name="pk_location_standings"),
        comment="How the latest work of each kind ended at each location, and when it is tried again",
    )
    op.create_index(
        "ix_location_standings_unwell",
        "location_standings",
        ["capability", "rerun_at"],
        postgresql_where=sa.text("cause IS NOT NULL"),
    )
    _fill_standings()
    op.create_table(
        "rerun_rounds",
        sa.Column("capability", sa.Text(), nullable=False, comment="hydration, crm, ..."),
        sa.Column(
            "asked_at", sa.DateTime(timezone=True), nullable=False, comment="when the latest round was asked for"
        ),
        sa.PrimaryKeyConstraint("capability", name="pk_rerun_rounds"),
        comment="Kinds of work that failed at many locations at once: they come back a round at a time",
    )
    op.create_table(
        "location_figures",
        sa.Column("location_id", sa.Text(), nullable=False),
        sa.Column("leads", sa.Integer(), nullable=False),
        sa.Column("linked", sa.Integer(), nullable=False, comment="leads with a contact"),
        sa.Column("without_phone", sa.Integer(), nullable=False),
        sa.Column("without_name", sa.Integer(), nullable=False, comment="leads without a first or without a last name"),
        sa.Column("looked_up", sa.Integer(), nullable=False, comment="leads with a lookup on record"),
        sa.Column("not_found", sa.Integer(), nullable=False, comment="leads whose latest lookup found no contact"),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=False, comment="as of when"),
        sa.PrimaryKeyConstraint("location_id", name="pk_location_figures"),
        comment="How the leads of each location stood when they were last counted",
    )
    op.create_table(
        "daily_figures",
        sa.Column("day", sa.Date(), nullable=False, comment="UTC; of an attempt, when it began"),
        sa.Column(
            "repaired",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="leads in which something was filled",
        ),
        sa.Column(
            "looked_at", sa.BigInteger(), nullable=False, server_default="0", comment="leads that hydration looked at"
        ),
        sa.Column(
            "not_found", sa.BigInteger(), nullable=False, server_default="0", comment="of them, without a contact"
        ),
        sa.Column("attempts", sa.BigInteger(), nullable=False, server_default="0", comment="of hydration"),
        sa.Column("attempts_failed", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("requests", sa.BigInteger(), nullable=False, server_default="0", comment="to GHL, of all work"),
        sa.Column(
            "peak_share",
            sa.Double(),
            nullable=False,
            server_default="0",
            comment="of its day's requests, what the busiest location used",
        ),
        sa.Column("first_attempt_id", sa.BigInteger(), comment="the day's first of hydration; where a count begins"),
        sa.PrimaryKeyConstraint("day", name="pk_daily_figures"),
        comment="What was done on each day, over all locations, for the operator's charts",
    )


def downgrade() -> None:
    op.drop_table("daily_figures")
    op.drop_table("location_figures")
    op.drop_table("rerun_rounds")
    op.drop_index("ix_location_standings_unwell", "location_standings")
    op.drop_table("location_standings")


def _fill_standings() -> None:
    """From the attempts that are on record, as the code of this version would have told of them.

    What had failed is asked for again within the hour after the upgrade, spread over it; refusals wait for somebody.
    Attempts that found the location busy, and dry runs, say nothing.
    """
    op.execute("""
        INSERT INTO location_standings (
            location_id, capability, state, attempt_id, run_id, began_at, ended_at, succeeded_at, failures,
            failing_since, error_class, error_text, permanent, cause, rerun_at)
        SELECT latest.location_id, latest.capability, latest.state, latest.id, latest.run_id, latest.started_at,
            latest.ended_at, success.ended_at, coalesce(failed.failures, 0),
            CASE WHEN latest.cause IS NOT NULL THEN coalesce(failed.since, latest.ended_at) END,
            latest.error_class, latest.error_text, latest.permanent, latest.cause,
            CASE WHEN latest.cause NOT IN ('refused', 'decision')
                  AND latest.capability NOT IN ('webhooks', 'drafts', 'doctor')
                 THEN now() + make_interval(secs => 60 + abs(CAST(hashtext(latest.location_id) AS bigint)) % 3540) END
        FROM (
            SELECT DISTINCT ON (capability, location_id) *,
                CASE WHEN state = 'interrupted' THEN 'killed'
                     WHEN state <> 'failed' THEN NULL
                     WHEN error_class = 'DailyQuotaReached' THEN 'quota'
                     WHEN error_class IN ('TokenRejected', 'LocationAccessDenied', 'ScopeMissing', 'TokenMissing',
                         'TokenUnreadable', 'EmailBisonAccessDenied', 'EmailBisonWrongWorkspace',
                         'CalendlyAccessDenied') THEN 'refused'
                     WHEN error_class = 'TooManyMissing' THEN 'decision'
                     WHEN permanent THEN 'broken'
                     ELSE 'transient' END AS cause
            FROM location_attempts
            WHERE error_class IS DISTINCT FROM 'LocationBusy' AND NOT report @> '{"dry_run": true}'
            ORDER BY capability, location_id, id DESC
        ) AS latest
        LEFT JOIN LATERAL (
            SELECT id, ended_at FROM location_attempts AS attempt
            WHERE attempt.capability = latest.capability AND attempt.location_id = latest.location_id
              AND attempt.state = 'succeeded' AND NOT attempt.report @> '{"dry_run": true}'
            ORDER BY id DESC LIMIT 1
        ) AS success ON true
        LEFT JOIN LATERAL (
            SELECT count(*) AS failures, min(attempt.ended_at) AS since FROM location_attempts AS attempt
            WHERE latest.cause IS NOT NULL
              AND attempt.capability = latest.capability AND attempt.location_id = latest.location_id
              AND attempt.id > coalesce(success.id, 0) AND attempt.state IN ('failed', 'interrupted')
              AND attempt.error_class IS DISTINCT FROM 'LocationBusy'
              AND attempt.error_class IS DISTINCT FROM 'DailyQuotaReached'
        ) AS failed ON true
    """)
