"""Text messages of the sample agency's contacts: a few short conversations of the last weeks, drawn from a seed.

Their times count back from when they are made, because an import reaches only some weeks back; all else is the same in
every process.
"""

from typing import Final

from ghl_pipeline.sandbox.agency import SampleLocation
from ghl_pipeline.sandbox.conversations import Direction
from ghl_pipeline.sandbox.people import ghl_id, seeded
from ghl_pipeline.sandbox.world import Location

SHARE_WITH_MESSAGES: Final = 0.03
FEWEST_CONVERSATIONS: Final = 3
_SPAN: Final = 25 * 86_400_000
_LONGEST_PAUSE: Final = 3 * 3_600_000
# By turns: the client's side, the contact's side.
_TEXTS: Final[dict[Direction, tuple[str, ...]]] = {
    "outbound": (
        "Hi, this is the sample agency. Is this still the right number?",
        "Would Thursday at 10 suit you?",
        "Great, talk soon!",
        "Just checking in.",
    ),
    "inbound": (
        "Yes it is, who is this?",
        "Thursday works 👍",
        "Please call me in the afternoon",
        "Not interested, thanks",
        'What does "free estimate" mean?',
    ),
}


def add_sample_messages(location: Location, sample: SampleLocation, *, seed: int, now: int) -> None:
    """Adds the conversations of the sample's contacts.

    Args:
        location: of the sandbox, with the sample's contacts.
        sample: whose contacts they are.
        seed: equal numbers give equal conversations.
        now: epoch milliseconds from which their times count back.
    """
    rng = seeded("messages", seed, sample.id)
    wanted = max(FEWEST_CONVERSATIONS, round(SHARE_WITH_MESSAGES * len(sample.contacts)))
    for contact in rng.sample(sample.contacts, k=min(wanted, len(sample.contacts))):
        at = now - rng.randrange(_LONGEST_PAUSE * 4, _SPAN)
        first = rng.randrange(2)
        for turn in range(rng.randrange(1, 5)):
            direction: Direction = "inbound" if (turn + first) % 2 else "outbound"
            location.add_message(
                contact.id, rng.choice(_TEXTS[direction]), direction, at=at, id=ghl_id(rng), source="workflow"
            )
            at += rng.randrange(60_000, _LONGEST_PAUSE)
