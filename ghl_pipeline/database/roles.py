"""Who may do what in the databases: three group roles, their rights on each table, and row-level security by client.

`ghl_pipeline_receiver` stores what comes in and reads no token. `ghl_pipeline_worker` does the work: every row, no
table. `ghl_pipeline_viewer` reads the rows of the clients that `viewer_clients` gives to its login, and no secret. The
rights are told here as statements, from the tables themselves, so that a new table is covered by running them again;
`granting.py` runs them. The owner of the tables is bound by none of it: it migrates them.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from sqlalchemy import Table

from ghl_pipeline.database.migrate import VERSION_TABLE
from ghl_pipeline.database.tables import metadata

RECEIVER: Final = "ghl_pipeline_receiver"
WORKER: Final = "ghl_pipeline_worker"
VIEWER: Final = "ghl_pipeline_viewer"
ROLES: Final = (RECEIVER, WORKER, VIEWER)

VIEWER_CLIENTS: Final = "viewer_clients"

# Tables that a viewer has no use for, or must not see; every other one has to say whose its rows are.
HIDDEN_FROM_VIEWERS: Final[Mapping[str, str]] = {
    "webhook_secrets": "digests of secrets",
    "location_leases": "names processes and machines of the agency",
    "location_throttle": "the inner state of the throttle",
    "location_learning": "the inner state of lookups",
    "work_items": "ids alone, and no client of their own",
    "resolved_contacts": "in between lookup and write-back, without a client of their own",
    "pulled_contacts": "in between lookup and write-back, without a client of their own",
    "crm_lookups": "hashes",
    "contact_creations": "the inner state of creating contacts",
    "daily_figures": "sums over all clients",
    "rerun_rounds": "of all clients at once",
    "alerts": "of all clients at once",
    "alert_deliveries": "where the agency is told of failures",
    "alert_memory": "the inner state of alerts",
}
# Columns that no viewer reads: what opens something, and what a sender sent word by word.
SECRET_COLUMNS: Final = frozenset(
    {
        "clients.ghl_token_encrypted",
        "clients.previous_token_encrypted",
        "clients.settings",
        "emailbison_workspaces.token_encrypted",
        "booking_calendars.calendly_token_encrypted",
        "webhook_events.body",
        "webhook_events.dedupe_key",
        "webhook_events.person_keys",
        "webhook_events.claimed_by",
    }
)

# What storing an event takes, and what `/metrics` counts; found by running the receiver with nothing else.
_RECEIVER_GRANTS: Final[Mapping[str, str]] = {
    "clients": "SELECT (id, location_id, active, default_region)",
    "emailbison_workspaces": "SELECT (client_id, workspace_id)",
    "webhook_secrets": "SELECT (client_id, provider, digest)",
    "webhook_events": "SELECT (id, provider, dedupe_key, lead_id, state, location_id, received_at), INSERT",
    "leads": "SELECT, INSERT, UPDATE",
    "messages": "SELECT, INSERT, UPDATE",
    "location_standings": "SELECT",
    "location_totals": "SELECT",
    "location_throttle": "SELECT",
    "reply_drafts": "SELECT (client_id, state)",
    "booking_calendars": "SELECT (client_id, state, refreshed_at, booking_link, auto_booking_calendar_id)",
    "alert_deliveries": "SELECT (channel, state)",
}
_EVERY_ROW: Final = "SELECT, INSERT, UPDATE, DELETE"
# Who sees what is for the owner to say, and the version for migrations.
_READ_BY_WORKERS: Final = frozenset({VIEWER_CLIENTS, VERSION_TABLE})

_OWN_CLIENTS: Final = "ANY (ARRAY(SELECT client_id FROM viewer_clients WHERE role_name = CAST(current_user AS text)))"
# `clients` shows a viewer its own ones alone, so this needs no condition.
_OWN_LOCATIONS: Final = "ANY (ARRAY(SELECT location_id FROM clients))"


def viewer_rows(table: Table) -> str | None:
    """The condition on a row that a viewer may see; None when the table is not for viewers."""
    if table.name in HIDDEN_FROM_VIEWERS:
        return None
    if table.name == VIEWER_CLIENTS:
        return "role_name = CAST(current_user AS text)"
    if table.name == "clients":
        return f"id = {_OWN_CLIENTS}"
    if "client_id" in table.columns:
        # An array, not a join: it is found out once, and an index on the column can be used.
        return f"client_id = {_OWN_CLIENTS}"
    if "location_id" in table.columns:
        return f"location_id = {_OWN_LOCATIONS}"
    return None


def viewer_columns(table: Table) -> list[str]:
    """The columns that a viewer may read, in the table's order."""
    return [each.name for each in table.columns if f"{table.name}.{each.name}" not in SECRET_COLUMNS]


def create_roles() -> str:
    """Makes the three group roles where they are missing; they belong to the whole server, and nobody logs in by them.

    Several databases of a server may be set up at once: whoever comes second finds the role there.
    """
    names = ", ".join(f"'{role}'" for role in ROLES)
    return f"""DO $$
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[{names}] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE 'CREATE ROLE ' || quote_ident(wanted) || ' NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE';
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
END $$"""


def schema_statements(schema: str, owner: str) -> list[str]:
    """Rights on the schema of the pipeline's tables, and on tables that a later migration makes.

    A new table is the worker's at once, so that an upgrade stops nothing. For receiver and viewer it does not exist
    until the rights are granted anew.
    """
    inside, granting = quoted(schema), quoted(owner)
    return [
        f"REVOKE CREATE ON SCHEMA {inside} FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA {inside} TO {', '.join(ROLES)}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {granting} IN SCHEMA {inside} GRANT {_EVERY_ROW} ON TABLES TO {WORKER}",
    ]


def table_statements(schema: str) -> Iterator[tuple[str, list[str]]]:
    """Rights and policies, table by table: its name, and the statements that belong into one transaction."""
    for table in metadata.sorted_tables:
        yield table.name, list(_of_table(schema, table))
    name = f"{quoted(schema)}.{VERSION_TABLE}"
    yield VERSION_TABLE, [*_anew(name), f"GRANT SELECT ON {name} TO {WORKER}, {RECEIVER}"]


def _of_table(schema: str, table: Table) -> Iterator[str]:
    name = f"{quoted(schema)}.{quoted(table.name)}"
    yield from _anew(name)
    yield f"GRANT {'SELECT' if table.name in _READ_BY_WORKERS else _EVERY_ROW} ON {name} TO {WORKER}"
    if table.name in _RECEIVER_GRANTS:
        yield f"GRANT {_RECEIVER_GRANTS[table.name]} ON {name} TO {RECEIVER}"
    rows = viewer_rows(table)
    if rows is not None:
        yield f"GRANT SELECT ({', '.join(map(quoted, viewer_columns(table)))}) ON {name} TO {VIEWER}"
    for policy in ("every_row", "own_clients"):
        yield f"DROP POLICY IF EXISTS ghl_pipeline_{policy} ON {name}"
    yield f"CREATE POLICY ghl_pipeline_every_row ON {name} TO {WORKER}, {RECEIVER} USING (true) WITH CHECK (true)"
    if rows is not None:
        yield f"CREATE POLICY ghl_pipeline_own_clients ON {name} FOR SELECT TO {VIEWER} USING ({rows})"
    yield f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"


def _anew(name: str) -> list[str]:
    """Takes what was granted before, on the table and on its columns."""
    return [f"REVOKE ALL ON {name} FROM PUBLIC, {', '.join(ROLES)}"]


def dagster_statements(database: str, schema: str, owner: str, *, is_shared: bool) -> list[str]:
    """Rights on Dagster's storage: the worker's alone.

    Args:
        database: its name.
        schema: of its tables.
        owner: of its tables, who migrates them.
        is_shared: whether the pipeline's tables are in the same database, which others then may reach.
    """
    name, inside, granting = quoted(database), quoted(schema), quoted(owner)
    reach = [
        f"REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC",
        f"REVOKE ALL ON DATABASE {name} FROM {RECEIVER}, {VIEWER}",
        f"GRANT CONNECT ON DATABASE {name} TO {WORKER}, {granting}",
    ]
    on_sequences = "USAGE, SELECT, UPDATE"
    defaults = f"ALTER DEFAULT PRIVILEGES FOR ROLE {granting} IN SCHEMA {inside} GRANT"
    return [
        *([] if is_shared else reach),
        f"REVOKE CREATE ON SCHEMA {inside} FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA {inside} TO {WORKER}",
        f"GRANT {_EVERY_ROW} ON ALL TABLES IN SCHEMA {inside} TO {WORKER}",
        f"GRANT {on_sequences} ON ALL SEQUENCES IN SCHEMA {inside} TO {WORKER}",
        f"{defaults} {_EVERY_ROW} ON TABLES TO {WORKER}",
        f"{defaults} {on_sequences} ON SEQUENCES TO {WORKER}",
    ]


def advisory_lock_statements(functions: Iterable[str], others: Iterable[str]) -> list[str]:
    """Advisory locks for those who work, and for nobody else: a viewer who holds a location's lease stops its work.

    Args:
        functions: the signatures of PostgreSQL's advisory lock functions.
        others: roles that have rights on the tables already, and keep these.
    """
    keep = ", ".join([WORKER, RECEIVER, *map(quoted, others)])
    named = ", ".join(functions)
    return [f"REVOKE EXECUTE ON FUNCTION {named} FROM PUBLIC", f"GRANT EXECUTE ON FUNCTION {named} TO {keep}"]


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"{}"'.format(name.replace('"', '""'))
