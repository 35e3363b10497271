"""Sends webhooks at a steady rate, whatever the answers take, and says how long they took. A process of its own.

`python -m benchmarks.webhook_load PLAN` reads a `Plan` as JSON, makes and signs every body beforehand, sends, and
prints a `Report` as JSON. A latency counts from the moment at which a request was due, so that a receiver that stops
for a while is charged for all who would have come meanwhile.
"""

import asyncio
import base64
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CONNECTIONS: Final = 100
START_AFTER_SECONDS: Final = 0.5
TWICE_SHARE: Final = 0.05
"""Of all requests; the second one follows within a second, mostly while the first is under way."""
LARGE_TEXT: Final = "Thank you, that sounds interesting. Could you send me more about it? " * 20


class Place(msgspec.Struct):
    """A client to send for. Its known contacts are `KnownContact...` numbered from 0."""

    location_id: str
    workspace_id: int
    emailbison_secret: str


class Plan(msgspec.Struct):
    """What to send. `first_number` keeps the events of several plans apart."""

    url: str
    rate: int
    seconds: float
    places: list[Place]
    known: int
    private_key: str
    first_number: int


class Report(msgspec.Struct):
    """What came back. Latencies in milliseconds, one for each request; ids of what was answered 200."""

    statuses: dict[str, int]
    latencies: list[float]
    seconds: float
    most_behind_ms: float
    events: int
    ghl_ids: list[str]
    message_ids: list[str]
    new_people: int


class Request(msgspec.Struct):
    """A webhook to send, and what has to be in the database once it is answered."""

    path: str
    body: bytes
    headers: dict[str, str]
    event_id: str
    ghl_id: str | None = None
    message_id: str | None = None
    new_person: str | None = None


def known_contact(place: int, number: int) -> str:
    """The contact id of a client's known lead."""
    return f"KnownContact{place:02}x{number:06}"


class Maker:
    """Makes requests: half contact updates, a third inbound SMS, the rest replies to campaigns; 10 % of new people."""

    def __init__(self, plan: Plan, at: datetime) -> None:
        self._plan = plan
        self._stamp = at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self._key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(plan.private_key))
        self._random = random.Random(plan.first_number)  # noqa: S311 - repeatable

    def make(self, number: int) -> Request:
        """Request number n of all plans."""
        index = self._random.randrange(len(self._plan.places))
        place = self._plan.places[index]
        contact = known_contact(index, self._random.randrange(self._plan.known))
        chance = self._random.random()
        if chance < 0.5:
            return self._contact_update(number, place, contact)
        if chance < 0.75:
            return self._sms(number, place, contact, is_new=False)
        if chance < 0.82:
            return self._sms(number, place, f"NewContact{number:09}", is_new=True)
        return self._reply(number, place)

    def _signed(self, number: int, content: Mapping[str, object]) -> Request:
        webhook_id = f"00000000-0000-4000-8000-{number:012}"
        body = msgspec.json.encode({**content, "timestamp": self._stamp, "webhookId": webhook_id})
        signature = base64.b64encode(self._key.sign(body)).decode()
        headers = {"content-type": "application/json", "x-ghl-signature": signature}
        return Request("/webhooks/ghl", body, headers, webhook_id, ghl_id=webhook_id)

    def _contact_update(self, number: int, place: Place, contact: str) -> Request:
        content = {
            "type": "ContactUpdate",
            "locationId": place.location_id,
            "id": contact,
            "firstName": "Ada",
            "lastName": "Lovelace",
            "email": f"{contact.lower()}@example.com",
            "phone": "+13055550123",
            "companyName": "Engines",
            "tags": ["replied", "warm"],
            "customFields": [{"id": f"Field{each:016}", "value": "some text"} for each in range(20)],
        }
        return self._signed(number, content)

    def _sms(self, number: int, place: Place, contact: str, *, is_new: bool) -> Request:
        message = f"MessageOfSms{number:010}"
        content = {
            "type": "InboundMessage",
            "locationId": place.location_id,
            "body": "Yes, tomorrow at noon is fine",
            "contactId": contact,
            "conversationId": f"Conversation{contact[-8:]}",
            "dateAdded": self._stamp,
            "direction": "inbound",
            "messageType": "SMS",
            "messageTypeId": 2,
            "messageTypeString": "TYPE_SMS",
            "messageId": message,
            "status": "delivered",
            "from": "+13055550123",
            "to": "+13055550100",
        }
        request = self._signed(number, content)
        request.message_id = message
        request.new_person = contact if is_new else None
        return request

    def _reply(self, number: int, place: Place) -> Request:
        lead = number % 4000 + 1
        email = f"bison.{lead}@example.com"
        event = {"type": "LEAD_REPLIED", "name": "Contact Replied", "workspace_id": place.workspace_id}
        reply = {
            "id": number,
            "email_subject": "Re: a question",
            "text_body": LARGE_TEXT,
            "html_body": f"<p>{LARGE_TEXT}</p>",
            "from_email_address": email,
            "date_received": self._stamp,
            "automated_reply": False,
            "interested": False,
            "folder": "Inbox",
        }
        person = {"id": lead, "email": email, "first_name": "Grace", "last_name": "Hopper"}
        return Request(
            f"/webhooks/emailbison/{place.location_id}/{place.emailbison_secret}",
            msgspec.json.encode({"event": event, "data": {"reply": reply, "lead": person}}),
            {"content-type": "application/json"},
            f"reply {number}",
            message_id=str(number),
            new_person=f"{place.location_id} {lead}",
        )


def prepared(plan: Plan) -> list[Request]:
    """Every request of the plan in the order of sending, those that are sent twice included."""
    count = int(plan.rate * plan.seconds)
    at = datetime.now(UTC) + timedelta(seconds=plan.seconds / 2)
    maker = Maker(plan, at)
    chances = random.Random(plan.first_number)  # noqa: S311 - repeatable
    requests: list[Request] = []
    number = plan.first_number
    while len(requests) < count:
        if requests and chances.random() < TWICE_SHARE:
            requests.append(requests[-1 - min(chances.randrange(plan.rate), len(requests) - 1)])
        else:
            requests.append(maker.make(number))
            number += 1
    return requests


async def send(plan: Plan, requests: list[Request]) -> Report:
    """Sends each request when it is due."""
    statuses: Counter[str] = Counter()
    latencies: list[float] = []
    accepted: dict[str, Request] = {}
    most_behind = 0.0
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=15)
    async with aiohttp.ClientSession(plan.url, connector=connector, timeout=timeout) as session:

        async def one(request: Request, due: float) -> None:
            try:
                async with session.post(request.path, data=request.body, headers=request.headers) as answer:
                    await answer.read()
                    status = str(answer.status)
            except (aiohttp.ClientError, TimeoutError) as error:
                status = type(error).__name__
            latencies.append((time.perf_counter() - due) * 1000)
            statuses[status] += 1
            if status == "200":
                accepted[request.event_id] = request

        began = time.perf_counter() + START_AFTER_SECONDS
        under_way: set[asyncio.Task[None]] = set()
        for position, request in enumerate(requests):
            due = began + position / plan.rate
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            most_behind = max(most_behind, -wait)
            task = asyncio.create_task(one(request, due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    return Report(
        statuses=dict(statuses),
        latencies=latencies,
        seconds=time.perf_counter() - began,
        most_behind_ms=most_behind * 1000,
        events=len(accepted),
        ghl_ids=[each.ghl_id for each in accepted.values() if each.ghl_id],
        message_ids=[each.message_id for each in accepted.values() if each.message_id],
        new_people=len({each.new_person for each in accepted.values() if each.new_person}),
    )


def main() -> None:
    """Reads the plan, sends it, prints the report."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    requests = prepared(plan)
    report = uvloop.run(send(plan, requests))
    sys.stdout.write(msgspec.json.encode(report).decode())


if __name__ == "__main__":
    main()
