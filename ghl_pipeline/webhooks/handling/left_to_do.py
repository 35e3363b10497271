"""Sorting the events of a batch by what is to be done about them, once the statuses are changed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import assert_never

from ghl_pipeline.webhooks.events import EventKind
from ghl_pipeline.webhooks.handling.early_events import EarlierNewsFirst
from ghl_pipeline.webhooks.handling.known_leads import KnownLead, Matches
from ghl_pipeline.webhooks.handling.verdicts import Item, Verdicts
from ghl_pipeline.webhooks.outcomes import EventOutcome

# For so long an interested lead waits for earlier events about the same person, which are due at once.
EARLIER_NEWS_TAKES = timedelta(seconds=1)


@dataclass(slots=True)
class LeftToDo:
    """Events that more is to be done about than to change a status; of leads that GHL is asked about, by lead id."""

    messages: list[Item] = field(default_factory=list)
    contacts: list[Item] = field(default_factory=list)
    to_ask: dict[int, list[Item]] = field(default_factory=dict)
    to_ensure: dict[int, list[Item]] = field(default_factory=dict)


def left_to_do(
    items: Sequence[Item],
    found: Mapping[int, Matches],
    leads: Mapping[int, KnownLead],
    *,
    waiting: Collection[int],
    updated: Collection[int],
    verdicts: Verdicts,
) -> LeftToDo:
    """Sorts events by what is to be done about them. Those that nothing is left to do about get their verdict.

    Args:
        items: the batch.
        found: by event id, the leads that have the person's keys.
        leads: by event id, the lead that it is about.
        waiting: leads about which earlier events come first.
        updated: leads whose status the batch has changed.
        verdicts: of the batch; filled.
    """
    left = LeftToDo()
    for item in items:
        kind, lead = item.event.kind, leads.get(item.id)
        match kind:
            case EventKind.CONTACT_CHANGED | EventKind.CONTACT_DELETED:
                left.contacts.append(item)
            case EventKind.OTHER:
                verdicts.finish(item, EventOutcome.UNCHANGED)
            case _ if lead is None:
                verdicts.finish(item, EventOutcome.NO_LEAD)
            case EventKind.MESSAGE_SENT | EventKind.MESSAGE_OF_KNOWN_LEAD:
                left.messages.append(item)
            case EventKind.MESSAGE_RECEIVED | EventKind.LEAD_REPLIED:
                left.to_ask.setdefault(lead.id, []).append(item)
            case EventKind.LEAD_INTERESTED if lead.id in waiting:
                retry_at = datetime.now(UTC) + EARLIER_NEWS_TAKES
                verdicts.postpone(item.claimed, EarlierNewsFirst(lead.id), retry_at)
            case EventKind.LEAD_INTERESTED:
                left.to_ensure.setdefault(lead.id, []).append(item)
            case EventKind.LEAD_BOUNCED | EventKind.LEAD_UNSUBSCRIBED:
                changed = not {lead.id, *found[item.id].ids}.isdisjoint(updated)
                verdicts.finish(item, EventOutcome.LEAD_UPDATED if changed else EventOutcome.UNCHANGED, lead.id)
            case _:
                assert_never(kind)
    return left
