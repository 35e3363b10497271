"""Two leads that turn out to be one person become one.

A new person whose first events name different keys is two leads: one by the contact id (an SMS), one by the e-mail (a
reply to a campaign). Only GHL can say that they are one: its contact has that id and that e-mail. The lead with the
e-mail stays, since campaigns and the dashboard know it; the other one, which an event or an import made and nobody
else, becomes part of it. Why so, and why backfills leave both: docs/decisions/0022-inbox.md.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, RowMapping, text
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.blank import blank_sql, is_blank
from ghl_pipeline.database.foreign_rows import has_foreign_rows
from ghl_pipeline.database.lead_rows import is_race
from ghl_pipeline.database.leads import lock_clients
from ghl_pipeline.database.moved_messages import move_messages
from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.database.storable import storable_text
from ghl_pipeline.hydration.merge import NOT_NEEDED
from ghl_pipeline.webhooks.handling.lead_status import status_of_both

log = logging.getLogger(__name__)

# Each attempt that fails means that the dashboard or a write-back changed the same rows meanwhile.
_ATTEMPTS = 5
# What PostgreSQL says (SQLSTATE) when somebody else's tables keep a row from being deleted: a foreign key, a trigger
# that forbids it, a table that we may not read.
_REFUSALS = frozenset({"23001", "23503", "42501", "P0001"})


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two leads and the contact that shows them to be one person. Its `repr` shows no address."""

    gone: int
    kept: int
    contact_id: str
    email: str = field(repr=False)


class OnePerson:
    """Makes one lead of two that are one person's."""

    def __init__(self, engine: Engine, protected_statuses: frozenset[str]) -> None:
        self._engine = engine
        self._protected = protected_statuses

    def __repr__(self) -> str:
        return "OnePerson()"

    def unite(self, client_id: int, contacts: Iterable[tuple[str, str | None]]) -> Mapping[int, int]:
        """Unites the client's leads that these contacts show to be one person; blocking.

        A lead becomes part of another one, and is deleted, only if it is linked to the contact, has neither e-mail nor
        EmailBison id, and was made by an event or an import; the other one has the contact's e-mail and no link. All
        else stays as it is, also when a table that is not ours refers to the lead that would be deleted.

        Each pair is one transaction, in which the client's other events wait. A second call does nothing.

        Args:
            client_id: whose leads; nobody else's are read.
            contacts: id and own e-mail of contacts, as GHL itself told them.

        Returns:
            The leads that are no more, each with the one that it has become part of.
        """
        shown = sorted({(storable_text(id_), storable_text(email)) for id_, email in contacts if email})
        if not shown:
            return {}
        with self._engine.connect() as connection:
            pairs = _pairs(connection, client_id, shown)
        united = [pair for pair in pairs if self._unite(client_id, pair)]
        for pair in united:
            log.info("client %d: lead %d is the person of lead %d, and part of it now", client_id, pair.gone, pair.kept)
        return {pair.gone: pair.kept for pair in united}

    def _unite(self, client_id: int, pair: _Pair) -> bool:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._engine.begin() as connection:
                    return self._in_transaction(connection, client_id, pair)
            except _StayTwo:
                break
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) in _REFUSALS:
                    break
                if attempt == _ATTEMPTS or not is_race(error):
                    raise
        log.warning(
            "client %d: leads %d and %d are one person, and stay two because tables that are not the pipeline's keep "
            "lead %d or a message of it from being deleted",
            client_id, pair.gone, pair.kept, pair.gone,
        )  # fmt: skip
        return False

    def _in_transaction(self, connection: Connection, client_id: int, pair: _Pair) -> bool:
        """Whether the two were united; False: they changed meanwhile, and are none any more.

        Raises:
            _StayTwo: what was written is to be undone.
        """
        # Before the rows: who stores an event takes them in this order.
        lock_clients(connection, [client_id])
        ids = {"client_id": client_id, "gone": pair.gone, "kept": pair.kept}
        rows = {row["id"]: row for row in connection.execute(_LOCK, ids).mappings()}
        if pair not in _pairs(connection, client_id, [(pair.contact_id, pair.email)]):
            return False
        doubles = move_messages(connection, client_id, pair.gone, pair.kept)
        if has_foreign_rows(connection, "leads", [pair.gone]) or has_foreign_rows(connection, "messages", doubles):
            raise _StayTwo
        connection.execute(_DELETE_MESSAGES, {"client_id": client_id, "doubles": as_array(doubles)})
        for statement in (_MOVE_EVENTS, _MOVE_CREATIONS, _MOVE_HEALINGS, _FORGET_LOOKUPS, _DELETE):
            connection.execute(statement, ids)
        connection.execute(_UPDATE, {**ids, **_values_of_both(rows[pair.gone], rows[pair.kept], self._protected)})
        return True


class _StayTwo(Exception):
    """Somebody else's rows hang on what would be deleted."""


def _pairs(connection: Connection, client_id: int, shown: Sequence[tuple[str, str]]) -> list[_Pair]:
    rows = [{"contact_id": contact_id, "email": email} for contact_id, email in shown]
    found = connection.execute(_PAIRS, {"client_id": client_id, "rows": as_json_rows(rows)})
    return [_Pair(row.gone, row.kept, row.contact_id, row.email) for row in found]


# Rows that one transaction made carry the same time, its own. The address is compared as its index compares.
_PAIRS = text(f"""
    SELECT gone.id AS gone, kept.id AS kept, shown.contact_id, shown.email
    FROM json_to_recordset(CAST(:rows AS json)) AS shown (contact_id text, email text)
    JOIN leads AS gone ON gone.client_id = :client_id AND gone.ghl_contact_id <> ''
        AND gone.ghl_contact_id = shown.contact_id
    JOIN leads AS kept ON kept.client_id = :client_id AND btrim(kept.email) <> ''
        AND lower(btrim(kept.email)) = lower(btrim(shown.email))
    WHERE gone.id <> kept.id AND {blank_sql("gone.email")} AND gone.emailbison_lead_id IS NULL
      AND {blank_sql("kept.ghl_contact_id")}
      AND (EXISTS (SELECT FROM webhook_events AS event
                   WHERE event.lead_id = gone.id AND event.received_at = gone.created_at)
           OR EXISTS (SELECT FROM messages AS message
                      WHERE message.lead_id = gone.id AND message.created_at = gone.created_at))
    ORDER BY gone.id, kept.id
""")  # noqa: S608 - constants of ours

# In the order of the write-back. Nobody can give a message to a row that is locked so.
_LOCK = text("""
    SELECT * FROM leads WHERE client_id = :client_id AND id IN (:gone, :kept) ORDER BY id FOR UPDATE
""")

_DELETE_MESSAGES = text("""
    DELETE FROM messages WHERE client_id = :client_id AND id = ANY(CAST(:doubles AS bigint[]))
""")

_MOVE_EVENTS = text("UPDATE webhook_events SET lead_id = :kept WHERE lead_id = :gone AND client_id = :client_id")

_MOVE_CREATIONS = text("UPDATE contact_creations SET lead_id = :kept WHERE lead_id = :gone AND client_id = :client_id")

_MOVE_HEALINGS = text("UPDATE sender_healings SET lead_id = :kept WHERE lead_id = :gone AND client_id = :client_id")

# They stand for what the two were. Of the kept one's link nobody has asked yet.
_FORGET_LOOKUPS = text("DELETE FROM lead_lookups WHERE lead_id IN (:gone, :kept) AND client_id = :client_id")

_DELETE = text("DELETE FROM leads WHERE id = :gone AND client_id = :client_id")

_UPDATE = text("""
    UPDATE leads SET
        ghl_contact_id = :ghl_contact_id, phone = :phone, first_name = :first_name, last_name = :last_name,
        company_name = :company_name, status = :status, enrichment_status = :enrichment_status,
        enrichment_source = :enrichment_source, enriched_at = :enriched_at, opted_out_at = :opted_out_at,
        contact_deleted_at = :contact_deleted_at, ghl_opportunity_id = :ghl_opportunity_id, zip_code = :zip_code,
        county = :county, state = :state, primary_service_category = :primary_service_category,
        specific_service_requested = :specific_service_requested, emailbison_campaign_id = :emailbison_campaign_id,
        emailbison_sender_id = :emailbison_sender_id
    WHERE id = :kept AND client_id = :client_id
""")


def _values_of_both(gone: RowMapping, kept: RowMapping, protected: frozenset[str]) -> dict[str, object]:
    """What the lead that stays has of both: its own where it has something, else the other one's."""
    values: dict[str, object] = {
        name: gone[name] if is_blank(kept[name]) else kept[name]
        for name in (
            "phone", "first_name", "last_name", "company_name", "ghl_opportunity_id", "zip_code", "county", "state",
            "primary_service_category", "specific_service_requested",
        )
    }  # fmt: skip
    of = kept if kept["emailbison_sender_id"] is not None else gone
    values |= {name: of[name] for name in ("emailbison_campaign_id", "emailbison_sender_id")}
    # The contact is the other one's, and so is what GHL said of it.
    values |= {name: gone[name] for name in ("ghl_contact_id", "contact_deleted_at")}
    opted_out_at = min((row["opted_out_at"] for row in (gone, kept) if row["opted_out_at"]), default=None)
    values["opted_out_at"] = opted_out_at
    new_status = status_of_both(kept["status"], gone["status"], opted_out=opted_out_at is not None, protected=protected)
    values["status"] = new_status or kept["status"]
    is_enriched = is_blank(kept["phone"]) and not is_blank(gone["phone"]) and kept["enrichment_status"] != NOT_NEEDED
    of = gone if is_blank(kept["enrichment_status"]) or (is_enriched and gone["enriched_at"]) else kept
    return values | {name: of[name] for name in ("enrichment_status", "enrichment_source", "enriched_at")}
