"""In which time zone a client's calendar is: read once a day, and never taken for read when it was not.

No calendar of GHL says its zone; the location's is read for it. At Calendly it is the account's. A zone that is wrong
is worse than none, since leads would be offered hours at which nobody is there. So what could not be read is neither
stored nor remembered: the next run asks again, and meanwhile the last one that was read is used, else the client's own.
"""

import asyncio
from dataclasses import dataclass
from datetime import date, timedelta

from ghl_pipeline.availability.client_calendars import ClientCalendar
from ghl_pipeline.availability.outcomes import Provider
from ghl_pipeline.availability.providers import Providers
from ghl_pipeline.errors import PipelineError

# A day without an answer is a provider in trouble; after two, somebody has to look.
SILENT_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Zone:
    """A calendar's time zone.

    Attributes:
        name: as it was read last, an IANA name; None: it never was.
        used: the same, else the client's own.
        read_on: the day (UTC) on which it was read; None: not, or for another link or account.
        is_unread: whether people have to know that it could not be read.
    """

    name: str | None
    used: str
    read_on: date | None = None
    is_unread: bool = False


async def zone_now(
    calendar: ClientCalendar,
    provider: Provider,
    providers: Providers,
    *,
    seconds: float,
    today: date,
    told: str | None = None,
) -> Zone:
    """The zone of a client's calendar; asks its provider unless it did so today. A failure is no error.

    Args:
        calendar: of the client, with what was read before.
        provider: whose the calendar is.
        providers: to ask.
        seconds: the longest wait for the answer.
        today: UTC.
        told: what the provider has said in this run already.
    """
    known, read_on = calendar.zone_of(provider)
    if told is None and known is not None and read_on == today:
        return Zone(known, known, read_on)
    name = told
    if name is None:
        try:
            async with asyncio.timeout(seconds):
                name = await _asked(provider, providers)
        except (TimeoutError, PipelineError):
            pass  # whether the calendar itself can be asked, its slots will tell
    if name is not None:
        return Zone(name, name, today)
    is_unread = known is None or read_on is None or today - read_on > SILENT_FOR
    return Zone(known, known or calendar.client_zone, read_on, is_unread)


async def _asked(provider: Provider, providers: Providers) -> str | None:
    if provider is Provider.GHL:
        return (await (await providers.ghl()).location()).time_zone
    client = await providers.calendly()
    return None if client is None else (await client.me()).time_zone
