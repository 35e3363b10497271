"""Whether a list of accounts that names no total may be believed when it lacks most of those that are known.

A list that says how many accounts there are is whole or an error. One that does not (paged by a cursor, or bare rows)
looks whole wherever it breaks off, and an empty one would leave every lead of the client without an account. Such a
list is stored as far as it goes; who is missing from it is gone only if an hour later, and without another word in
between, the next one says the same.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from ghl_pipeline.emailbison.sender_lists import SenderList
from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.locations.emailbison import WorkspaceAccess

BELIEVED_AFTER = timedelta(hours=1)
# Of the accounts that are known to be able, a list has to have so many to be believed at once.
LEAST_SHARE = 0.5
# In the record of an attempt: when the first doubtful list of a row of them began.
DOUBTED_SINCE = "doubted_since"


def is_doubtful(listed: SenderList, known: Collection[int], known_able: Collection[int]) -> bool:
    """Whether a list is not to be believed for what it lacks.

    Args:
        listed: as EmailBison sent it.
        known: ids of the accounts that are stored and not gone.
        known_able: of those the ones that can send.
    """
    if listed.is_counted or not known:
        return False
    ids = {account.id for account in listed.accounts}
    return not ids or len(ids.intersection(known_able)) < LEAST_SHARE * len(known_able)


def doubted_since(connection: Connection, access: WorkspaceAccess, capability: str) -> datetime | None:
    """Since when the client's lists are doubtful, each of them; None when the last one was not, or failed."""
    query = text("""
        SELECT CAST(report ->> :name AS timestamptz) FROM location_attempts
        WHERE capability = :capability AND location_id = :location_id AND state <> 'running'
          AND error_class IS DISTINCT FROM :busy
        ORDER BY id DESC LIMIT 1
    """)
    values = {
        "name": DOUBTED_SINCE,
        "capability": capability,
        "location_id": access.location_id,
        "busy": LocationBusy.__name__,
    }
    since: datetime | None = connection.execute(query, values).scalar_one_or_none()
    return since
