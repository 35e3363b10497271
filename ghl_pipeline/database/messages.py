"""Storing messages, so that each is one row per client however it arrives: by webhook, by import, or by both."""

from collections.abc import Sequence
from dataclasses import replace

import psycopg.errors
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.blank import WHITE_SPACE
from ghl_pipeline.database.lead_rows import is_race
from ghl_pipeline.database.leads import lock_clients
from ghl_pipeline.database.message_rows import SAME_MESSAGE_WITHIN, MessageRow, MessageRows, Report, StoredMessage
from ghl_pipeline.database.new_messages import NewMessage, storable_message
from ghl_pipeline.database.rows import as_json_rows
from ghl_pipeline.errors import DatabaseUnavailable, InvalidInput

__all__ = ["SAME_MESSAGE_WITHIN", "NewMessage", "StoredMessage", "store_messages"]

# Each attempt that fails means that a writer without the lock stored one of the messages, or deleted a lead, meanwhile.
_ATTEMPTS = 10


def store_messages(
    connection: Connection, rows: Sequence[tuple[int, int, NewMessage]]
) -> list[StoredMessage | InvalidInput]:
    """Stores messages of leads in three statements, in their order, so that each message is one row per client.

    A message with an external id is the row of its client and provider that has the id. Else it is the row without one
    that says the same: of the lead, provider, channel and direction, with the same text but for surrounding space,
    sent within `SAME_MESSAGE_WITHIN`, the nearest in time; that row gets the id and the time (it is healed). A message
    without external id is the nearest row that says the same, with or without id. Else it is a new row. So two external
    ids are two messages, whatever they say.

    Of a row that is there only these change: `status` (when one is given), `is_automated` and `is_interested` (which
    stay once they are set), and `conversation_id` when it is empty. Texts are stored without NULs and lone surrogates.
    A time that cannot be one counts as unknown.

    Callers who store messages of one client at the same time wait for each other (`leads.lock_clients`) until the
    transaction ends. So call this before the transaction writes leads. Needs READ COMMITTED, the default.

    Args:
        connection: in the caller's transaction, which the caller commits.
        rows: (`clients.id`, `leads.id`, the message), of any clients; a message may be among them several times.

    Returns:
        One entry for each message, in their order. `InvalidInput`, which costs the others nothing: the lead is not the
        client's (any more), or a field cannot be stored.

    Raises:
        DatabaseUnavailable: other writers kept changing the same rows.
    """
    stored: dict[int, StoredMessage | InvalidInput] = {}
    reports: list[Report] = []
    for place, (client_id, lead_id, message) in enumerate(rows):
        try:
            reports.append(Report(place, client_id, lead_id, storable_message(message)))
        except InvalidInput as refused:
            stored[place] = refused
    if reports:
        lock_clients(connection, (report.client_id for report in reports))
        stored |= _store(connection, reports)
    return [stored[place] for place in range(len(rows))]


def _store(connection: Connection, reports: Sequence[Report]) -> dict[int, StoredMessage | InvalidInput]:
    for _ in range(_ATTEMPTS):
        rows, of_others = _read(connection, reports)
        taken = {report.place: rows.take(report) for report in reports if report.place not in of_others}
        try:
            with connection.begin_nested():
                _write(connection, rows)
        except DBAPIError as error:
            if not is_race(error) and not isinstance(error.orig, psycopg.errors.ForeignKeyViolation):
                raise
        else:
            stored: dict[int, StoredMessage | InvalidInput] = {
                place: replace(entry, message_id=row.message_id or 0) for place, (row, entry) in taken.items()
            }
            return stored | of_others
    raise DatabaseUnavailable(
        f"Messages could not be stored: other writers changed the rows they belong to {_ATTEMPTS} times in a row. "
        "Nothing was written; send them again."
    )


def _read(connection: Connection, reports: Sequence[Report]) -> tuple[MessageRows, dict[int, InvalidInput]]:
    """The rows that the reports may belong to, and the reports whose lead is not the client's."""
    wanted = [
        {
            "place": report.place,
            "client_id": report.client_id,
            "lead_id": report.lead_id,
            "provider": report.message.provider,
            "channel": report.message.channel,
            "direction": report.message.direction,
            "external_id": report.message.external_id,
            "body": report.message.body.strip(),
            "sent_at": report.message.sent_at,
        }
        for report in reports
    ]
    by_place = {report.place: report for report in reports}
    rows = MessageRows()
    of_others: dict[int, InvalidInput] = {}
    parameters = {"rows": as_json_rows(wanted), "within": SAME_MESSAGE_WITHIN, "white_space": WHITE_SPACE}
    for found in connection.execute(_READ, parameters):
        report = by_place[found.place]
        report.sent_at = found.report_sent_at
        if not found.is_clients:
            of_others[report.place] = InvalidInput(
                f"Client {report.client_id} has no lead {report.lead_id}, so that its message cannot be stored."
            )
        elif found.id is not None:
            row = MessageRow(
                found.id, found.external_id, found.sent_at, found.status, found.is_automated, found.is_interested,
                found.conversation_id,
            )  # fmt: skip
            rows.add(row, report, says_the_same=found.says_the_same)
    return rows, of_others


# A row is found by id, or by what it says in the minute around; as two lookups, so that each uses its index.
_READ = text("""
    WITH wanted AS MATERIALIZED (
        SELECT place, client_id, lead_id, provider, channel, direction, external_id, body,
            coalesce(sent_at, clock_timestamp()) AS sent_at
        FROM json_to_recordset(CAST(:rows AS json)) AS given (
            place integer, client_id bigint, lead_id bigint, provider text, channel text, direction text,
            external_id text, body text, sent_at timestamptz)
    )
    SELECT wanted.place, wanted.sent_at AS report_sent_at, lead.id IS NOT NULL AS is_clients, found.*
    FROM wanted
    LEFT JOIN leads AS lead ON lead.id = wanted.lead_id AND lead.client_id = wanted.client_id
    LEFT JOIN LATERAL (
        SELECT false AS says_the_same, id, external_id, sent_at, status, is_automated, is_interested, conversation_id
        FROM messages AS by_id
        WHERE by_id.client_id = wanted.client_id AND by_id.provider = wanted.provider
            AND by_id.external_id = wanted.external_id
        UNION ALL
        SELECT true, id, external_id, sent_at, status, is_automated, is_interested, conversation_id
        FROM messages AS alike
        WHERE alike.lead_id = wanted.lead_id AND alike.client_id = wanted.client_id
            AND alike.sent_at BETWEEN wanted.sent_at - :within AND wanted.sent_at + :within
            AND alike.provider = wanted.provider AND alike.channel = wanted.channel
            AND alike.direction = wanted.direction AND btrim(alike.body, :white_space) = wanted.body
    ) AS found ON true
    ORDER BY wanted.place, found.id
""")


def _write(connection: Connection, rows: MessageRows) -> None:
    changed = [
        {
            "id": row.message_id,
            "external_id": row.external_id,
            "sent_at": row.sent_at,
            "status": row.status,
            "is_automated": row.is_automated,
            "is_interested": row.is_interested,
            "conversation_id": row.conversation_id,
        }
        for row in rows.all.values()
        if row.is_changed
    ]
    if changed:
        connection.execute(_UPDATE, {"rows": as_json_rows(changed)})
    if rows.new:
        inserted = connection.execute(_INSERT, {"rows": as_json_rows(_new_values(rows.new))}).scalars()
        # Identities are given out in the order of the rows.
        for row, message_id in zip(rows.new, sorted(inserted), strict=True):
            row.message_id = message_id


def _new_values(new: Sequence[MessageRow]) -> list[dict[str, object]]:
    return [
        {
            "place": place,
            "client_id": report.client_id,
            "lead_id": report.lead_id,
            "provider": report.message.provider,
            "external_id": row.external_id,
            "channel": report.message.channel,
            "direction": report.message.direction,
            "subject": report.message.subject,
            "body": report.message.body,
            "status": row.status,
            "is_automated": row.is_automated,
            "is_interested": row.is_interested,
            "conversation_id": row.conversation_id,
            "source": report.message.source,
            "sent_at": row.sent_at,
        }
        for place, row in enumerate(new)
        if (report := row.first) is not None
    ]


_UPDATE = text("""
    UPDATE messages AS message SET
        external_id = new.external_id, sent_at = new.sent_at, status = new.status, is_automated = new.is_automated,
        is_interested = new.is_interested, conversation_id = new.conversation_id
    FROM json_to_recordset(CAST(:rows AS json)) AS new (
        id bigint, external_id text, sent_at timestamptz, status text, is_automated boolean, is_interested boolean,
        conversation_id text)
    WHERE message.id = new.id
""")

_INSERT = text("""
    INSERT INTO messages (client_id, lead_id, provider, external_id, channel, direction, subject, body, status,
        is_automated, is_interested, conversation_id, source, sent_at)
    SELECT client_id, lead_id, provider, external_id, channel, direction, subject, body, status, is_automated,
        is_interested, conversation_id, source, sent_at
    FROM json_to_recordset(CAST(:rows AS json)) AS new (
        place integer, client_id bigint, lead_id bigint, provider text, external_id text, channel text,
        direction text, subject text, body text, status text, is_automated boolean, is_interested boolean,
        conversation_id text, source text, sent_at timestamptz)
    ORDER BY place
    RETURNING id
""")
