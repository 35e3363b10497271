"""The token before the last rotation, and who may see which client.

Roles, grants and row-level security are not made here but by `ghl-pipeline db roles`: whoever may upgrade the tables of
a hosted database may not always make roles, and one without these roles must look after an upgrade as it did before.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Tables with encrypted values: encrypting them anew, or dropping a token that has run out, is no change of theirs.
_KEEP_TIME = ("clients", "emailbison_workspaces", "booking_calendars")


def upgrade() -> None:
    op.add_column(
        "clients",
        sa.Column("previous_token_encrypted", sa.Text(), comment="Fernet; the token before the last rotation"),
    )
    op.add_column(
        "clients",
        sa.Column(
            "previous_token_until",
            sa.DateTime(timezone=True),
            comment="until when it may be used in the new one's place",
        ),
    )
    op.create_check_constraint(
        op.f("ck_clients_previous_token_has_an_end"),
        "clients",
        "(previous_token_encrypted IS NULL) = (previous_token_until IS NULL)",
    )
    op.create_table(
        "viewer_clients",
        sa.Column("role_name", sa.Text(), nullable=False, comment="the login, a member of ghl_pipeline_viewer"),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_viewer_clients_client_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("role_name", "client_id", name=op.f("pk_viewer_clients")),
        comment="Which clients' rows a viewer's login may see",
    )
    op.create_index("ix_viewer_clients_client_id", "viewer_clients", ["client_id"])
    for table in _KEEP_TIME:
        _touch(
            table,
            "OLD.* IS DISTINCT FROM NEW.* AND current_setting('ghl_pipeline.keeps_time', true) IS DISTINCT FROM 'on'",
        )


def downgrade() -> None:
    for table in _KEEP_TIME:
        _touch(table, "OLD.* IS DISTINCT FROM NEW.*")
    # Made by `ghl-pipeline db roles`, and they ask this table. Without them viewers see no row at all.
    op.execute(
        """
        DO $$
        DECLARE policy record;
        BEGIN
            FOR policy IN SELECT schemaname, tablename, policyname FROM pg_policies
                WHERE policyname = 'ghl_pipeline_own_clients' AND schemaname = current_schema()
            LOOP
                EXECUTE 'DROP POLICY ' || policy.policyname || ' ON ' || quote_ident(policy.schemaname) || '.'
                    || quote_ident(policy.tablename);
            END LOOP;
        END $$
        """
    )
    op.drop_table("viewer_clients")
    op.drop_constraint("ck_clients_previous_token_has_an_end", "clients")
    op.drop_column("clients", "previous_token_until")
    op.drop_column("clients", "previous_token_encrypted")


def _touch(table: str, condition: str) -> None:
    op.execute(f"DROP TRIGGER touch ON {table}")
    op.execute(
        f"""
        CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW
        WHEN ({condition}) EXECUTE FUNCTION ghl_pipeline_touch()
        """
    )
