"""What a list's plan needs: what leads were asked for, pulled contacts, what is learned; slots for interactive work.

Revision ID: 0002
Revises: 0001
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _extend_lists()
    _create_pulled_contacts()
    _extend_lookups()
    _extend_location_state()


def downgrade() -> None:
    for table, columns in _added().items():
        for column in columns:
            op.drop_column(table, column.name)
    op.drop_table("pulled_contacts")


def _extend_lists() -> None:
    _add("work_lists", "work_items")
    op.execute("UPDATE work_lists SET position = looked_up")


def _extend_lookups() -> None:
    _add("lead_lookups")


def _extend_location_state() -> None:
    _add("location_learning", "location_throttle")


def _add(*tables: str) -> None:
    for table in tables:
        for column in _added()[table]:
            op.add_column(table, column)


def _added() -> dict[str, list[sa.Column[Any]]]:
    return {
        "work_lists": [
            sa.Column(
                "position",
                sa.Integer(),
                nullable=False,
                server_default="0",
                comment="every lead up to here has its answer stored; where a resumed run goes on",
            ),
            sa.Column("unlimited", sa.Boolean(), nullable=False, server_default=sa.text("false")),
            sa.Column("plan", JSONB(), comment="hydration.plan.Plan; null until planned"),
        ],
        "work_items": [
            sa.Column(
                "is_current",
                sa.Boolean(),
                nullable=False,
                server_default=sa.text("false"),
                comment="looked up before, as it is: only a contact that changed since can matter",
            ),
            sa.Column("asked", sa.Uuid(), comment="hash of the lead's link and address when it was listed"),
        ],
        "lead_lookups": [
            sa.Column("asked", sa.Uuid(), comment="hash of the link and the address the answer stands for"),
            sa.Column("missing", sa.SmallInteger(), comment="bits of hydration.outcomes.Reason, after the write-back"),
        ],
        "location_learning": [
            sa.Column(
                "groups_are_wrong",
                sa.Boolean(),
                nullable=False,
                server_default=sa.text("false"),
                comment="groups were answered wrongly, so that leads are asked for one by one",
            ),
            sa.Column("case_matters", sa.Boolean(), comment="whether an e-mail is found only in its own letter case"),
            sa.Column("searches_by_date", sa.Boolean(), comment="whether a search by dateUpdated finds what it should"),
            sa.Column("dates_tried_at", sa.DateTime(timezone=True), comment="when that was last tried"),
            sa.Column("surveyed_at", sa.DateTime(timezone=True), comment="when groups and letter case were last tried"),
            sa.Column("contacts", sa.Integer(), comment="contacts of the location when last counted"),
            sa.Column(
                "changes_seen_until",
                sa.DateTime(timezone=True),
                comment="contacts changed before then are known to every lead with a lookup on record",
            ),
        ],
        "location_throttle": [
            sa.Column(
                "interactive_slots",
                sa.ARRAY(sa.Double()),
                nullable=False,
                server_default=sa.text("'{}'::double precision[]"),
                comment="the last slot times that only interactive work may have, epoch seconds, ascending",
            ),
        ],
    }


def _create_pulled_contacts() -> None:
    op.create_table(
        "pulled_contacts",
        sa.Column("work_list_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=False),
        sa.Column("email", sa.Text()),
        sa.Column("additional_emails", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("phone", sa.Text()),
        sa.Column("first_name", sa.Text()),
        sa.Column("last_name", sa.Text()),
        sa.Column("company_name", sa.Text()),
        sa.Column("date_updated", sa.DateTime(timezone=True)),
        sa.Column("names_are_whole", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["work_list_id"], ["work_lists.id"], name="fk_pulled_contacts_work_list_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("work_list_id", "position", "contact_id", name="pk_pulled_contacts"),
        comment="Contacts that a scan or a delta brought for listed leads; emptied as the leads are resolved",
    )
