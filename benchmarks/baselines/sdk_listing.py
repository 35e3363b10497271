"""GHL's official Python SDK 3.0, listing the location's contacts by pages of 500 with its `search_contacts_advanced`.

Does not: keep to the limit, retry a 429 (its user gets an exception), match, merge, resume. The slice is the number of
pages after which it stops; 0 lists all.
"""

import asyncio
from typing import Any

from highlevel import HighLevel

from benchmarks.baselines.asked import Asked


async def list_contacts(asked: Asked) -> int:
    """Lists the contacts; returns how many."""
    HighLevel.BASE_URL = asked.url
    client = HighLevel(private_integration_token=asked.token)
    body: dict[str, Any] = {"locationId": asked.location, "pageLimit": 500}
    found = pages = 0
    while True:
        contacts = (await client.contacts.search_contacts_advanced(body))["contacts"]
        found, pages = found + len(contacts), pages + 1
        if len(contacts) < 500 or pages == asked.slice:
            return found
        body["searchAfter"] = contacts[-1]["searchAfter"]


if __name__ == "__main__":
    print(asyncio.run(list_contacts(Asked.from_environment())))
