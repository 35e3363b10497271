"""The usual script: one search for each lead, paced in the process at 90 searches per 10 s.

Does not: merge or write, resume, share its pace with another process, retry.
"""

import time
from typing import Final

import httpx

from benchmarks.baselines.asked import Asked
from benchmarks.project import UNKNOWN_EVERY
from benchmarks.sandbox import email_of

SECONDS_APART: Final = 10.0 / 90


def main() -> None:
    """Searches for the first leads of the slice, every fifth of them in vain as in the database."""
    asked = Asked.from_environment()
    found = 0
    due = time.monotonic()
    with httpx.Client(base_url=asked.url, headers=asked.headers, timeout=30.0) as client:
        for number in range(1, asked.slice + 1):
            email = email_of(number) if number % UNKNOWN_EVERY else f"nobody.{number}@example.com"
            body = {
                "locationId": asked.location,
                "pageLimit": 1,
                "filters": [{"field": "email", "operator": "eq", "value": email}],
            }
            time.sleep(max(0.0, due - time.monotonic()))
            due = time.monotonic() + SECONDS_APART
            answer = client.post("/contacts/search", json=body).raise_for_status().json()
            found += len(answer["contacts"])
    print(found)


if __name__ == "__main__":
    main()
