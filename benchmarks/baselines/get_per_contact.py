"""The older kind of sync: one GET for each contact whose id is known, with 0.12 s of sleep between them.

Does not: find contacts of leads without a link, merge or write, resume, notice a 429.
"""

import time
from typing import Final

import httpx

from benchmarks.baselines.asked import Asked
from benchmarks.sandbox import contact_id_of

SECONDS_OF_SLEEP: Final = 0.12


def main() -> None:
    """Gets the first contacts of the slice."""
    asked = Asked.from_environment()
    found = 0
    with httpx.Client(base_url=asked.url, headers=asked.headers, timeout=30.0) as client:
        for number in range(1, asked.slice + 1):
            answer = client.get(f"/contacts/{contact_id_of(number)}").raise_for_status().json()
            found += bool(answer["contact"])
            time.sleep(SECONDS_OF_SLEEP)
    print(found)


if __name__ == "__main__":
    main()
