"""Finding out how a location's search answers: how many addresses it takes at once, and whether letter case matters.

GHL documents OR groups and no limit on their size, and says nothing about letter case. A group that is cut off in
silence, or an address that is found only as it was typed, would make leads look absent, so both are tried with
addresses that the location is known to have before any "not found" is believed.
"""

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import GhlUnreachable, RateLimited, RequestRejected, TransientGhlError
from ghl_pipeline.ghl.payloads import Contact, SearchPage
from ghl_pipeline.ghl.search import MAX_PAGE, ContactSearch, any_of, changed_since, equals, fits_eq

# Tried from the largest down, until one is answered rightly.
GROUP_SIZES = (100, 50, 25, 10, 2)
# Known addresses in one group. The others are nobody's, as most addresses of a lead list are for a search.
KNOWN_IN_GROUP = 20
# Known addresses that may prove unfit (deleted meanwhile, or shared by hundreds) before the search itself is doubted.
MOST_UNFIT = 3
# Enough of an answer to see whether it is one.
_FEW = 20


class GroupAnswer(StrEnum):
    """How a group of known and impossible addresses was answered."""

    RIGHT = "right"  # with the known ones' contacts and no others
    WRONG = "wrong"  # without a known one's contact, or with a stranger's
    REFUSED = "refused"  # 4xx
    FAILED = "failed"  # no usable answer, after the client's own retries


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found out. `contacts` is the location's total, None when GHL did not say it.

    `answers` holds the group sizes that were tried, and is empty when the page had no address to try them with.
    `case_matters` is None when no address with capital letters was at hand, or none that is found in any spelling.
    """

    contacts: int | None = None
    answers: Mapping[int, GroupAnswer] = field(default_factory=dict)
    case_matters: bool | None = None

    @property
    def largest_right(self) -> int:
        """The largest group that was answered rightly; 0 when none was."""
        return max((size for size, answer in self.answers.items() if answer is GroupAnswer.RIGHT), default=0)

    @property
    def groups_are_wrong(self) -> bool:
        """Whether groups cannot be used at all: some were answered, and none rightly."""
        return GroupAnswer.WRONG in self.answers.values() and self.largest_right == 0


# The location's oldest contacts, at most 500, with the total: also the first page of a scan.
FIRST_PAGE = ContactSearch(page_limit=MAX_PAGE, oldest_first="dateAdded")


async def first_page(client: LocationClient) -> SearchPage:
    """The answer to `FIRST_PAGE`. Raises GhlError."""
    return await client.search_contacts(FIRST_PAGE)


async def survey(
    client: LocationClient, page: SearchPage, *, sizes: Sequence[int] = GROUP_SIZES, stop_at_first_right: bool = True
) -> Survey:
    """Tries groups and letter case with addresses of `page`: two calls where all is well.

    Args:
        client: the location's.
        page: contacts that the location has, as `first_page` gives them.
        sizes: groups to try, in addresses (at least 2 each); from the largest down.
        stop_at_first_right: False tries every size, to know of each how it is answered.

    Raises:
        RateLimited, GhlUnreachable: an outage, which says nothing about groups.
        TransientGhlError: every size failed, with the last one's error.
        PermanentGhlError: the location refuses searches as a whole (token, access, scope, daily quota).
    """
    trial = _Trial(client, _known_addresses(page.contacts))
    answers: dict[int, GroupAnswer] = {}
    failure: TransientGhlError | None = None
    for size in sorted(sizes, reverse=True):
        try:
            answer = await trial.answer_to(size)
        except RequestRejected:
            answer = GroupAnswer.REFUSED
        except (RateLimited, GhlUnreachable):
            raise
        except TransientGhlError as error:
            answer, failure = GroupAnswer.FAILED, error
        if answer is None:
            break
        answers[size] = answer
        if answer is GroupAnswer.RIGHT and stop_at_first_right:
            break
    if failure is not None and set(answers.values()) == {GroupAnswer.FAILED}:
        raise failure
    return Survey(page.total, answers, await _case_matters(client, page.contacts))


class _Trial:
    """Groups asked of one location, and the known addresses that have not proved unfit to be asked for."""

    def __init__(self, client: LocationClient, known: list[str]) -> None:
        self._client = client
        self._known = known
        self._found_alone: set[str] = set()
        self._unfit = 0

    async def answer_to(self, size: int) -> GroupAnswer | None:
        """How a group of `size` addresses is answered; None when no known address is left to tell it by."""
        while self._known:
            known = _spread(self._known, min(KNOWN_IN_GROUP, max(2, size // 2)))
            group = _group(size, known)
            # A whole page: an address that several contacts share must not push another one out of the answer.
            page = await self._client.search_contacts(ContactSearch((any_of("email", group),)))
            answered = [_addresses_of(contact) for contact in page.contacts]
            if any(addresses.isdisjoint(group) for addresses in answered):
                return GroupAnswer.WRONG
            found = Counter(address for addresses in answered for address in addresses)
            missing = [address for address in known if address not in found]
            if not missing:
                return GroupAnswer.RIGHT
            if self._unfit == MOST_UNFIT:
                return GroupAnswer.WRONG
            if len(page.contacts) + page.unreadable >= MAX_PAGE:
                unfit = max(known, key=lambda address: found[address])
            elif await self._is_found_alone(missing):
                return GroupAnswer.WRONG
            else:
                unfit = missing[-1]
            self._known.remove(unfit)
            self._unfit += 1
        return None

    async def _is_found_alone(self, missing: list[str]) -> bool:
        """Whether the location still has the last of these: its contact may be deleted or changed since the page.

        The last one, because a group that is cut off lacks that one at every size, so that it is asked alone once.
        """
        address = missing[-1]
        if self._found_alone.isdisjoint(missing):
            page = await self._client.search_contacts(ContactSearch((equals("email", address),)))
            if all(address not in _addresses_of(contact) for contact in page.contacts):
                return False
            self._found_alone.add(address)
        return True


async def searches_by_date(client: LocationClient, contacts: Sequence[Contact]) -> bool | None:
    """Whether a search by `dateUpdated` can be trusted: one call.

    Asks for what changed since the newest of the contacts did. That has to find something, and nothing older. None when
    none of the contacts has a date.

    Raises:
        GhlError: any but RequestRejected, which is an answer: no.
    """
    newest = max((contact.date_updated for contact in contacts if contact.date_updated), default=None)
    if newest is None:
        return None
    search = ContactSearch((changed_since(newest),), page_limit=_FEW, oldest_first="dateUpdated")
    try:
        page = await client.search_contacts(search)
    except RequestRejected:
        return False
    return bool(page.contacts) and are_changed_since(page.contacts, newest)


def are_changed_since(contacts: Iterable[Contact], moment: datetime) -> bool:
    """Whether none of the contacts is older than `moment`, as far as they have a date. GHL's dates are milliseconds."""
    at_least = moment - timedelta(milliseconds=1)
    return all(contact.date_updated is None or contact.date_updated >= at_least for contact in contacts)


async def _case_matters(client: LocationClient, contacts: Sequence[Contact]) -> bool | None:
    """Asks for one contact in lower case, and, when that does not find it, as it is spelled."""
    times = _times_of_addresses(contacts)
    capitals = (c for c in contacts if c.email and c.email != c.email.lower() and _can_be_asked(c.email, times))
    contact = next(capitals, None)
    if contact is None or contact.email is None:
        return None
    try:
        for spelling, matters in ((contact.email.lower(), False), (contact.email, True)):
            page = await client.search_contacts(ContactSearch((equals("email", spelling),)))
            if any(found.id == contact.id for found in page.contacts):
                return matters
    except (RateLimited, GhlUnreachable):
        raise
    except (RequestRejected, TransientGhlError):
        pass  # not worth losing what is known of the groups
    return None


def _known_addresses(contacts: Sequence[Contact]) -> list[str]:
    """Addresses that exactly one of the contacts has, spelled in lower case, in the order of the contacts."""
    times = _times_of_addresses(contacts)
    return [c.email for c in contacts if c.email and c.email == c.email.lower() and _can_be_asked(c.email, times)]


def _can_be_asked(email: str, times: Mapping[str, int]) -> bool:
    """Whether the address tells something: plain, short enough for `eq`, and of one contact only."""
    plain = email.isascii() and email.isprintable() and " " not in email and "@" in email
    return plain and fits_eq(email) and times[email.lower()] == 1


def _times_of_addresses(contacts: Iterable[Contact]) -> Counter[str]:
    return Counter(address for contact in contacts for address in _addresses_of(contact))


def _addresses_of(contact: Contact) -> set[str]:
    """All addresses of the contact in the form in which they are compared: trimmed, lower-case."""
    return {email.strip().lower() for email in (contact.email, *contact.additional_emails) if email}


def _spread(values: Sequence[str], count: int) -> list[str]:
    """`count` of the values, or all when there are fewer, evenly spread; the last one among them."""
    count = min(count, len(values))
    return [values[(at + 1) * len(values) // count - 1] for at in range(count)]


def _group(size: int, known: Sequence[str]) -> list[str]:
    """The known addresses spread among made-up ones: one first and one last, so that no cut goes unnoticed.

    The made-up ones are under example.com (RFC 2606) and new each time. A single known address comes last.
    """
    gaps = len(known) - 1
    places = (
        {round(at * (size - 1) / gaps): address for at, address in enumerate(known)} if gaps else {size - 1: known[0]}
    )
    return [places.get(at) or f"{secrets.token_hex(8)}@example.com" for at in range(size)]
