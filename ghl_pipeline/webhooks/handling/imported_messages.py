"""What an imported message says of its lead's status: the same as if it had come as an event."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Connection

from ghl_pipeline.database.messages import NewMessage
from ghl_pipeline.webhooks.events import EventKind
from ghl_pipeline.webhooks.handling.lead_status import message_opts_out
from ghl_pipeline.webhooks.handling.status_changes import StatusChange, change_statuses

# Lead, message, when it was sent, and whether it is news: an old reply does not make a lead `replied`.
ImportedMessage = tuple[int, NewMessage, datetime, bool]
News = Callable[[Connection, int, Sequence[ImportedMessage]], None]


def news_of_imports(protected: frozenset[str]) -> News:
    """What tells leads of imported messages, in the transaction that stores these.

    The result is called with a connection in that transaction, the client's id, and per message: the lead's id, the
    message, the time it was sent, and whether it is news. Outbound messages say nothing and may be among them. An
    opt-out counts however old it is; any other reply makes its lead `replied` only if it is news. A second call with
    the same messages changes nothing that a person changed in between, but for an opt-out, which always wins.

    Args:
        protected: statuses, lower-case, that only an opt-out changes (`webhooks.protected_statuses`).
    """

    def tell(connection: Connection, client_id: int, messages: Sequence[ImportedMessage]) -> None:
        changes = []
        for lead_id, message, at, is_news in messages:
            if message.direction != "inbound":
                continue
            opts_out = message_opts_out(message)
            if opts_out or is_news:
                changes.append(
                    StatusChange(
                        lead_id,
                        EventKind.MESSAGE_RECEIVED,
                        at,
                        is_automated=message.is_automated,
                        opts_out=opts_out,
                    )
                )
        if changes:
            change_statuses(connection, client_id, changes, protected)

    return tell
