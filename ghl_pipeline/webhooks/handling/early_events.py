"""Events about somebody who was no lead when they were handled, and came to be one afterwards.

Providers deliver in any order, so an opt-out or a bounce may come before the reply that makes its lead. Such an event
ends as `no_lead`, with the person's keys on its row. Once an event brings a lead with one of these keys, the earlier
one is handled again, and is about that lead from then on: so it is brought back once, and not by each later event.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.rows import as_json_rows
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.webhooks.events import EventKind
from ghl_pipeline.webhooks.handling.known_leads import KnownLead, leads_by_id
from ghl_pipeline.webhooks.handling.verdicts import Item, Place, Verdicts
from ghl_pipeline.webhooks.outcomes import EventOutcome
from ghl_pipeline.webhooks.person_keys import person_keys

# What it would have changed in its lead. What a contact looked like then, GHL is asked anyway.
WORTH_KEEPING = frozenset(
    {
        EventKind.LEAD_UNSUBSCRIBED,
        EventKind.LEAD_BOUNCED,
        EventKind.MESSAGE_OF_KNOWN_LEAD,
        EventKind.MESSAGE_SENT,
        EventKind.CONTACT_DELETED,
    }
)
BROUGHT_BACK_WITHIN = timedelta(days=30)


class EarlierNewsFirst(PipelineError):
    """Earlier events about an interested person are handled before a contact is made of them."""

    def __init__(self, lead_id: int) -> None:
        super().__init__(
            f"EarlierNewsFirst: events about lead {lead_id} that came before it was a lead are handled first. "
            "Nothing to do: this one is tried again in a second."
        )


class EarlyEvents:
    """The early events of a client, as one batch of its events needs them."""

    def __init__(self, engine: Engine, place: Place) -> None:
        self._engine = engine
        self._client_id = place.client_id
        self._asked: set[tuple[int, UUID]] = set()

    def of_these_leads(self, items: Iterable[Item], leads: Mapping[int, KnownLead]) -> set[int]:
        """Has events handled again that are about leads which these events may have made; blocking.

        Args:
            items: the batch.
            leads: by event id, the lead that it is about.

        Returns:
            The leads that have earlier events to wait for.
        """
        keys: dict[int, set[UUID]] = {}
        for item in items:
            if item.id in leads and item.event.makes_lead:
                lead = leads[item.id]
                keys.setdefault(lead.id, set()).update(lead.keys, person_keys(item.event.person or NewLead()))
        return self._bring_back(keys)

    def of_leads_of(self, verdicts: Verdicts) -> None:
        """The same once events are handled: their leads may be known by more than before, as the e-mail of who texted.

        Whatever became of the events, since what filled their leads may have been an attempt that was killed.
        """
        lead_ids = {done.lead_id for done in verdicts.done.values() if done.lead_id}
        if lead_ids:
            with self._engine.connect() as connection:
                leads = leads_by_id(connection, self._client_id, lead_ids)
            self._bring_back({lead.id: set(lead.keys) for lead in leads.values()})

    def _bring_back(self, keys: Mapping[int, Iterable[UUID]]) -> set[int]:
        asked = {(lead_id, key) for lead_id, of_lead in keys.items() for key in of_lead} - self._asked
        self._asked |= asked
        if not asked:
            return set()
        with self._engine.begin() as connection:
            return bring_back(connection, self._client_id, sorted(asked))

    def note_strangers(self, items: Sequence[Item], verdicts: Verdicts) -> None:
        """Notes on events about nobody's lead whom they are about, in case that person becomes one; blocking."""
        keys = {
            item.id: person_keys(item.event.person)
            for item in items
            if item.event.person is not None
            and item.event.kind in WORTH_KEEPING
            and item.id in verdicts.done
            and verdicts.done[item.id].outcome is EventOutcome.NO_LEAD
        }
        if keys:
            with self._engine.begin() as connection:
                note_keys(connection, keys)


def note_keys(connection: Connection, keys: Mapping[int, Iterable[UUID]]) -> None:
    """Notes on events, by id, what the person they are about is known by."""
    query = text("""
        UPDATE webhook_events AS event SET person_keys = new.keys
        FROM json_to_recordset(CAST(:rows AS json)) AS new (id bigint, keys uuid[])
        WHERE event.id = new.id AND event.person_keys <> new.keys
    """)
    rows = [{"id": event_id, "keys": list(of_event)} for event_id, of_event in keys.items()]
    if rows:
        connection.execute(query, {"rows": as_json_rows(rows)})


def bring_back(connection: Connection, client_id: int, keys: Sequence[tuple[int, UUID]]) -> set[int]:
    """Makes earlier events about somebody with one of these keys pending again, each for the lead that has the key.

    Events whose body is not kept any more stay as they are; so do those that were brought back before, unless the lead
    they were brought back for was deleted.

    Args:
        connection: in a transaction of its own, which it leaves with settings for this statement.
        client_id: whose events; the keys name no client.
        keys: lead ids, each with something that the lead is known by, as `person_keys`.

    Returns:
        The leads that have earlier events to wait for.
    """
    values = {
        "client_id": client_id,
        "rows": as_json_rows([{"lead_id": lead_id, "key": key} for lead_id, key in keys]),
        "within": BROUGHT_BACK_WITHIN,
    }
    connection.execute(_BY_INDEX)
    return {lead_id for lead_id in connection.execute(_BRING_BACK, values).scalars() if lead_id is not None}


# The planner takes each key for 0.5 % of the table, many for most of it, and would read all events, or the client's,
# and compile the statement first. So: key by key, behind an `OFFSET 0`, by `ANY(ARRAY())`, and with this.
_BY_INDEX = text("SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)")

# What `SKIP LOCKED` passes over, somebody is changing at this moment, as the purge of bodies does.
_BRING_BACK = text("""
    WITH earlier AS MATERIALIZED (
        SELECT event.id, known.lead_id
        FROM json_to_recordset(CAST(:rows AS json)) AS known (lead_id bigint, key uuid)
        CROSS JOIN LATERAL (
            SELECT id, client_id, state, lead_id, received_at, body IS NOT NULL AS is_kept FROM webhook_events
            WHERE outcome = 'no_lead' AND person_keys @> ARRAY[known.key] OFFSET 0
        ) AS event
        WHERE event.client_id = :client_id AND event.state = 'done' AND event.lead_id IS NULL AND event.is_kept
          AND event.received_at > now() - CAST(:within AS interval)
    )
    UPDATE webhook_events AS event
    SET state = 'pending', outcome = NULL, handled_at = NULL, attempts = 0, due_at = now(),
        lead_id = (SELECT lead.id FROM leads AS lead
                   WHERE lead.id = (SELECT min(lead_id) FROM earlier WHERE earlier.id = event.id) FOR KEY SHARE)
    WHERE event.id = ANY(ARRAY(
        SELECT id FROM webhook_events
        WHERE id = ANY(ARRAY(SELECT id FROM earlier)) AND outcome = 'no_lead' AND body IS NOT NULL
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING event.lead_id
""")
