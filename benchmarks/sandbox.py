"""GHL's stand-in in a process of its own, with crowds of a size that the benchmark names.

Contact number n (from 1) has the address `person.N@example.com` and an id that follows from n, so that leads can be
made in the database by `generate_series` and contacts be changed by number, without anybody handing lists around. All
locations of a sandbox hold the same people; each has its own rate limit and its own counts.

`python -m benchmarks.sandbox '[...]'` is the child: it reads the locations as JSON and serves until its input ends.
"""

import contextlib
import selectors
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import httpx
import msgspec

from benchmarks.harness import ROOT, BenchmarkFailed
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.limits import Limits
from ghl_pipeline.sandbox.people import contact_of, person, private_token, seeded
from ghl_pipeline.sandbox.process import READY, serve
from ghl_pipeline.sandbox.world import World

_SECONDS_TO_START: Final = 300.0


class SandboxLocation(msgspec.Struct, frozen=True):
    """A location to be: contacts 1 to `contacts`, and `requests` per `interval_seconds` of true time."""

    id: str
    token: str
    contacts: int
    requests: int = 100
    interval_seconds: float = 10.0
    requests_per_day: int = 200_000

    @classmethod
    def named(
        cls,
        name: str,
        *,
        contacts: int,
        requests: int = 100,
        interval_seconds: float = 10.0,
        requests_per_day: int = 200_000,
    ) -> "SandboxLocation":
        """A location whose id (letters and digits, padded to 20) and token follow from `name`."""
        token = private_token(seeded("benchmark", name))
        return cls(name.ljust(20, "x"), token, contacts, requests, interval_seconds, requests_per_day)


def email_of(number: int) -> str:
    """The address of contact `number`."""
    return f"person.{number}@example.com"


def contact_id_of(number: int) -> str:
    """The id of contact `number`: 20 letters and digits, in no order."""
    return f"c{number * 2_654_435_761 % 2**32:08x}{number:011d}"


def people(numbers: Iterable[int]) -> Iterator[Contact]:
    """The contacts of these numbers, complete but for what real ones lack; equal in every process."""
    for number in numbers:
        rng = seeded("benchmark", number)
        contact = contact_of(person(rng, number), rng)
        yield msgspec.structs.replace(contact, id=contact_id_of(number), email=email_of(number))


class SandboxProcess:
    """A running sandbox, asked over its control routes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=60.0)

    def stats(self, location_id: str) -> dict[str, Any]:
        """What the sandbox counted for a location; see `ghl_pipeline/sandbox/statistics.py`."""
        counts: dict[str, Any] = self._client.get("/_sandbox/stats").raise_for_status().json()["locations"][location_id]
        return counts

    def requests(self, location_id: str) -> int:
        """How many requests it has answered for the location, refused ones included."""
        return int(self.stats(location_id)["requests"])

    def reset_stats(self) -> None:
        """Starts counting anew."""
        self._client.post("/_sandbox/stats/reset").raise_for_status()

    def faults(self, **faults: object) -> None:
        """Sets the faults of all locations; none: all is well again. See `ghl_pipeline/sandbox/faults.py`."""
        self._client.post("/_sandbox/faults", json=faults).raise_for_status()

    def change(self, location_id: str, *, touch: Sequence[int] = (), add: Sequence[tuple[int, str]] = ()) -> None:
        """Touches contacts by number, which moves their date, and adds new ones: (number, address)."""
        fields = ("id", "first_name", "last_name", "phone", "company_name")
        added = zip(people(number for number, _ in add), (email for _, email in add), strict=True)
        body = {
            "location": location_id,
            "change": {contact_id_of(number): {} for number in touch},
            "add": [{name: getattr(contact, name) for name in fields} | {"email": email} for contact, email in added],
        }
        self._client.post("/_sandbox/contacts", json=body).raise_for_status()

    def touch(self, location_id: str, contact_ids: Sequence[str]) -> None:
        """Moves the date of contacts by id."""
        body = {"location": location_id, "change": {contact_id: {} for contact_id in contact_ids}}
        self._client.post("/_sandbox/contacts", json=body).raise_for_status()

    def marketplace(self, **order: object) -> dict[str, Any]:
        """A new location with a marketplace in it, and who is there; see `ghl_pipeline/sandbox/marketplace.py`."""
        answer = self._client.post("/_sandbox/marketplace", json=order).raise_for_status()
        made: dict[str, Any] = answer.json()
        return made

    def close(self) -> None:
        """Closes the connection; the process is stopped by `started_sandbox`."""
        self._client.close()


@contextlib.contextmanager
def started_sandbox(locations: Sequence[SandboxLocation], **faults: object) -> Iterator[SandboxProcess]:
    """Starts a sandbox with these locations in a child process, and stops it at the end.

    Raises:
        BenchmarkFailed: it was not ready within 300 s.
    """
    described = msgspec.json.encode(locations).decode()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sandbox", described],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,  # Ctrl-C goes to the benchmark, which ends the sandbox's input
    ) as process:
        try:
            line = _first_line(process)
            if not line.startswith(READY):
                raise BenchmarkFailed(f"The sandbox was not ready within {_SECONDS_TO_START:.0f} s.")
            sandbox = SandboxProcess(line.removeprefix(READY).strip())
            with contextlib.closing(sandbox):
                if faults:
                    sandbox.faults(**faults)
                yield sandbox
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()  # the end of its input is the agreed sign to stop
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _first_line(process: "subprocess.Popen[str]") -> str:
    if process.stdout is None:
        return ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(_SECONDS_TO_START) else ""


def statuses(counts: Mapping[str, Any]) -> dict[str, int]:
    """Status -> answers, over all routes of a location's counts."""
    total: dict[str, int] = {}
    for by_status in counts["by_route"].values():
        for status, count in by_status.items():
            total[status] = total.get(status, 0) + count
    return total


def _serve(locations: Sequence[SandboxLocation]) -> None:
    world = World()
    crowd = list(people(range(1, 1 + max((location.contacts for location in locations), default=0))))
    for location in locations:
        limits = Limits(location.requests, location.interval_seconds, location.requests_per_day)
        world.add_location(location.id, token=location.token, contacts=crowd[: location.contacts], limits=limits)
    serve(0, world, stop_with_input=True)


if __name__ == "__main__":
    _serve(msgspec.json.decode(sys.argv[1], type=list[SandboxLocation]))
