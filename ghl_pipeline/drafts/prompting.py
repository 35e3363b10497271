"""From a conversation to a prompt: the rules and what the client says in one part, what others wrote in another.

Rules are files in `prompts/`, one for each channel and version, so that a draft says by which one it was written. What
a lead wrote is data: JSON in which no `<`, `>` or `&` is left, so that nothing in it can end the block that it stands
in. Pure, but for reading those files.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from ghl_pipeline.drafts.outcomes import Channel
from ghl_pipeline.drafts.time_zones import zone_or_utc

VERSIONS: Final = {Channel.SMS: "sms_v1", Channel.EMAIL: "email_v1"}
OPEN, CLOSE = "<data>", "</data>"
# The message that is answered may be long; what came before only has to say what it is about.
LONGEST_TRIGGER, LONGEST_MESSAGE, LONGEST_CONVERSATION = 6_000, 1_500, 12_000
LONGEST_NAME, LONGEST_TONE = 40, 2_000
# A time that is offered has to be still free, and still ahead, when the operator sends it and the lead answers.
OFFERED_FROM: Final = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a conversation. `body` is not shown by `repr`."""

    direction: str
    channel: str
    sent_at: datetime
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client gives a draft to work with. `repr` shows none of its words.

    Attributes:
        client_name: the business, as the agency calls it.
        tone: how it speaks, in its own words.
        slots: free times, aware; those that may be named.
        time_zone: the calendar's, IANA.
        booking_link: where leads book; the only link that a draft may hold.
        region: of the client's local phone numbers.
    """

    client_name: str = field(repr=False)
    tone: str | None = field(default=None, repr=False)
    slots: tuple[datetime, ...] = ()
    time_zone: str = "UTC"
    booking_link: str | None = field(default=None, repr=False)
    region: str = "US"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked: the rules, and the data. `repr` shows neither."""

    channel: Channel
    version: str
    instructions: str = field(repr=False)
    data: str = field(repr=False)

    @property
    def text(self) -> str:
        """Both, for their size."""
        return f"{self.instructions}\n{self.data}"


def render(
    channel: Channel, offer: Offer, first_name: str | None, conversation: Sequence[Said], now: datetime
) -> Prompt:
    """The prompt for a reply to the last inbound message of a conversation.

    Args:
        channel: how the reply would be sent.
        offer: of the client.
        first_name: the lead's, as stored; left out where it can be no name.
        conversation: oldest first; the last one is answered.
        now: aware.
    """
    version = VERSIONS[channel]
    times = [slot_text(slot, zone_or_utc(offer.time_zone)) for slot in offer.slots]
    facts = [
        f"Business: {_one_line(offer.client_name)}",
        f"Tone: {(offer.tone or 'friendly, brief, to the point').strip()[:LONGEST_TONE]}",
        f"Booking link: {offer.booking_link or 'none'}",
        f"Free times ({offer.time_zone}): {'; '.join(times) if times else 'none known'}",
        f"Today: {now.astimezone(zone_or_utc(offer.time_zone)).strftime('%A, %d %B %Y')}",
    ]
    data = {"first_name": plausible_name(first_name), "conversation": _messages(conversation)}
    return Prompt(
        channel=channel,
        version=version,
        instructions=f"{_rules(version)}\n" + "\n".join(facts),
        data=f"{OPEN}\n{escaped_json(data)}\n{CLOSE}",
    )


def escaped_json(data: object) -> str:
    """JSON without `<`, `>` and `&`, which it writes as escapes: no text in it can look like a tag."""
    encoded = msgspec.json.encode(data).decode()
    return encoded.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def plausible_name(name: str | None) -> str | None:
    """The name if it can be one: letters, spaces, hyphens, dots and apostrophes, at most 40 of them."""
    text = (name or "").strip()
    is_name = 0 < len(text) <= LONGEST_NAME and all(
        unicodedata.category(letter)[0] in "LM" or letter in " -'.\u2019" for letter in text
    )
    return text if is_name and any(letter.isalpha() for letter in text) else None


def chosen_slots(slots: Sequence[datetime], count: int, zone: ZoneInfo, now: datetime) -> tuple[datetime, ...]:
    """At most so many of the free times, in order: the first of each day, then, while there is room, later ones.

    Args:
        slots: aware, in any order.
        count: the most to name.
        zone: by whose days.
        now: times before two hours from now are left out.
    """
    ahead = sorted({slot for slot in slots if slot >= now + OFFERED_FROM})
    first_of_day = {slot.astimezone(zone).date(): slot for slot in reversed(ahead)}
    firsts = set(first_of_day.values())
    preferred = [*sorted(firsts), *(slot for slot in ahead if slot not in firsts)]
    return tuple(sorted(preferred[:count]))


def slot_text(slot: datetime, zone: ZoneInfo) -> str:
    """A time as people say it, such as `Tue 3 Mar, 2:30 PM`."""
    local = slot.astimezone(zone)
    return f"{local:%a} {local.day} {local:%b}, {local.hour % 12 or 12}:{local:%M %p}"


def _messages(conversation: Sequence[Said]) -> list[dict[str, str]]:
    """The newest that fit, oldest first; the last one always."""
    told: list[dict[str, str]] = []
    room = LONGEST_CONVERSATION
    for number, said in enumerate(reversed(conversation)):
        body = said.body.strip()[: LONGEST_TRIGGER if number == 0 else LONGEST_MESSAGE]
        if number and len(body) > room:
            break
        room -= len(body)
        told.append({"direction": said.direction, "channel": said.channel, "body": body})
    return told[::-1]


def _one_line(text: str) -> str:
    return " ".join(text.split())


@cache
def _rules(version: str) -> str:
    return (resources.files("ghl_pipeline.drafts") / "prompts" / f"{version}.md").read_text(encoding="utf-8")
