"""Finding many contacts with few calls: one search asks for a whole group of ids or addresses.

GHL documents OR groups but no limit on their size, so the size is learned per location: a survey before the first group
tells how many addresses are answered rightly, groups are halved when GHL refuses or fails, and what works is remembered
for the next run.

A value that fails even alone is put on record and the others go on. When several fail in a row, the same question is
asked about nobody: an answer puts the blame on the values, a failure on GHL or the location, and that ends the lookups.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import (
    CONTACT_ROUTE,
    CallFacts,
    ContactNotFound,
    GhlError,
    GhlUnreachable,
    RateLimited,
    RequestRejected,
    TransientGhlError,
    UnreadableAnswer,
)
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.ghl.search import MAX_PAGE, NOBODY, ContactSearch, LookupField, any_of, fits_eq
from ghl_pipeline.hydration.group_size import GroupSize
from ghl_pipeline.hydration.knowledge import LocationKnowledge
from ghl_pipeline.hydration.matching import addresses_of
from ghl_pipeline.hydration.pull import ask_about_nobody

# Room for several contacts per address in one answer, where a location allows duplicates.
CONTACTS_PER_VALUE = 5
# Calls of one page that are under way at the same time.
CALLS_IN_FLIGHT = 10
# After this many failures in a row it is asked, or certain, whether GHL is down rather than the values odd.
OUTAGE_AFTER_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """What a lookup brought: contacts, and the values whose lookup failed even alone, with the error."""

    contacts: list[Contact] = field(default_factory=list)
    failed: dict[str, GhlError] = field(default_factory=dict)


class ContactLookup:
    """Lookups in one location. Keeps the learned group size, notices an outage and a location that refuses.

    Args:
        client: the location's.
        group_size: learned; changed as answers come.
        knowledge: of the location, with that same group size; None where groups and letter case are not in question.
        confirm_misses: an address that the search does not find is asked once more by the duplicate lookup, which does
            not lag behind writes: for a person who waits, at a call for each.
        detailed: whether the contacts come with their details.
    """

    def __init__(
        self,
        client: LocationClient,
        group_size: GroupSize,
        knowledge: LocationKnowledge | None = None,
        *,
        confirm_misses: bool = False,
        detailed: bool = False,
    ) -> None:
        self.group_size = group_size
        self._client = client
        self._knowledge = knowledge
        self._confirm_misses = confirm_misses
        self._detailed = detailed
        self._learned_before = replace(group_size)
        self._failures_in_a_row = 0
        self._values_are_to_blame = False
        self._unwell = False
        self._routes_down: dict[str, GhlError] = {}

    def try_everything_again(self) -> None:
        """Forgets what failed: a question that GHL did not answer a while ago is asked anew."""
        self._failures_in_a_row, self._values_are_to_blame = 0, False
        self._routes_down.clear()

    async def find_ids(self, ids: Sequence[str]) -> Found:
        """Contacts with these ids, by groups. One not found may exist: searches lag behind writes. Raises as `find`."""
        return await self.find("id", ids)

    async def find_addresses(self, addresses: Sequence[str]) -> Found:
        """Contacts with these normalised addresses: by groups, or one by one where a search cannot find them.

        That is for addresses too long for it, and for those it did not find where it minds the letter case. Raises as
        `find`.
        """
        found = await self.find("email", [address for address in addresses if fits_eq(address)])
        alone = [address for address in addresses if not fits_eq(address)]
        if self._confirm_misses or (self._knowledge is not None and self._knowledge.case_matters):
            answered = {address for contact in found.contacts for address, _ in addresses_of(contact)}
            alone = [a for a in addresses if a not in answered and a not in found.failed]
        contacts, failed = await self.find_long(alone)
        return Found(found.contacts + [contact for contact in contacts.values() if contact], {**found.failed, **failed})

    async def find(self, by: LookupField, values: Sequence[str]) -> Found:
        """Searches contacts whose `id` or `email` is one of `values` (any number; grouped, groups side by side).

        Raises:
            PermanentGhlError: the location as a whole refuses (token, access, scope, daily quota, or every search).
            TransientGhlError: GHL is down: single lookups fail one after the other and one about nobody too, or groups
                are let in no more (429, no connection).
        """
        if len(values) > 1 and self._knowledge is not None:
            await self._knowledge.before_groups()
            self._learned_before = replace(self.group_size)
        found = Found()
        queue = list(values)
        rounds_shut_out = 0
        self._values_are_to_blame = False
        while queue:
            size = self.group_size.size
            # While GHL is unwell one group at a time goes out: enough to learn from, and no storm of retries.
            width = 1 if self._unwell else CALLS_IN_FLIGHT
            groups = [queue[at : at + size] for at in range(0, min(len(queue), size * width), size)]
            queue = queue[sum(map(len, groups)) :]
            results = await asyncio.gather(*(self._find_group(by, group) for group in groups), return_exceptions=True)
            shut_out = [result for result in results if isinstance(result, RateLimited | GhlUnreachable)]
            rounds_shut_out = rounds_shut_out + 1 if len(shut_out) == len(results) else 0
            if rounds_shut_out == OUTAGE_AFTER_FAILURES:
                raise shut_out[0]
            for group, result in zip(groups, results, strict=True):
                if isinstance(result, GhlError):
                    queue = await self._after_failure(by, group, result, found) + queue
                elif isinstance(result, BaseException):
                    raise result
                else:
                    self._answered()
                    self._unwell = False
                    self.group_size.grow(len(group))
                    found.contacts.extend(result)
        return found

    async def get(self, contact_ids: Sequence[str]) -> tuple[dict[str, Contact | None], dict[str, GhlError]]:
        """Contacts by GET, which knows what a search does not know yet.

        Returns:
            The contact of each id, None where GHL says that there is none; and the errors of the ids that failed. An
            answer that holds another contact than the one asked for is a failure.

        A route that answers nothing, although searches are answered, fails for all its keys, without a call each.

        Raises:
            PermanentGhlError: the location as a whole refuses.
            TransientGhlError: GHL is down: one call after the other fails, one about nobody too, and a search.
        """

        async def one(contact_id: str) -> Contact | None:
            try:
                contact = await self._client.contact(contact_id, detailed=self._detailed)
            except ContactNotFound:
                return None
            if contact.id != contact_id:
                facts = CallFacts(self._client.location_id, "GET", CONTACT_ROUTE)
                raise UnreadableAnswer(facts, "answered with another contact than the one asked for")
            return contact

        return await self._one_by_one(one, contact_ids, "id")

    async def find_long(self, addresses: Sequence[str]) -> tuple[dict[str, Contact | None], dict[str, GhlError]]:
        """Contacts of addresses by the duplicate lookup, which takes any length. Returns and raises like `get`."""
        return await self._one_by_one(partial(self._client.duplicate_of, detailed=self._detailed), addresses, "email")

    async def _find_group(self, by: LookupField, group: Sequence[str]) -> list[Contact]:
        room = min(MAX_PAGE, max(20, CONTACTS_PER_VALUE * len(group)))
        search = ContactSearch((any_of(by, group),), page_limit=room, detailed=self._detailed)
        return [contact async for page in self._client.search_all_pages(search) for contact in page.contacts]

    async def _after_failure(self, by: LookupField, group: list[str], error: GhlError, found: Found) -> list[str]:
        """What to ask again: the group, in halves from now on. A value that failed alone is put on record instead."""
        refused = isinstance(error, RequestRejected)
        if not refused and not isinstance(error, TransientGhlError):
            raise error
        self._unwell = self._unwell or not refused
        if isinstance(error, RateLimited | GhlUnreachable):
            # Neither the size of the group nor its values had a part in that: it is asked again as it is.
            return group
        if len(group) > 1:
            self.group_size.shrink(len(group), refused=refused)
            return group
        if refused:
            # It was this value that GHL would not take, not the size of the groups it was in.
            self.group_size.ceiling = self._learned_before.ceiling
        await self._failed_alone(error, partial(self._find_group, by, [NOBODY[by]]))
        found.failed[group[0]] = error
        return []

    async def _one_by_one(
        self, ask: Callable[[str], Awaitable[Contact | None]], keys: Sequence[str], by: LookupField
    ) -> tuple[dict[str, Contact | None], dict[str, GhlError]]:
        """Calls that cannot be grouped, some side by side; the answers, and the errors of the keys that failed."""
        contacts: dict[str, Contact | None] = {}
        failed: dict[str, GhlError] = {}
        self._values_are_to_blame = False
        for at in range(0, len(keys), CALLS_IN_FLIGHT):
            batch = keys[at : at + CALLS_IN_FLIGHT]
            if (down := self._routes_down.get(by)) is not None:
                failed.update(dict.fromkeys(batch, down))
                continue
            results = await asyncio.gather(*map(ask, batch), return_exceptions=True)
            for key, result in zip(batch, results, strict=True):
                if isinstance(result, RequestRejected | TransientGhlError):
                    failed[key] = result
                    if by not in self._routes_down:
                        await self._failed_on_route(result, by, partial(ask, NOBODY[by]))
                elif isinstance(result, BaseException):
                    raise result
                else:
                    self._answered()
                    contacts[key] = result
        return contacts, failed

    async def _failed_on_route(
        self, error: GhlError, by: LookupField, ask_about_nobody_here: Callable[[], Awaitable[object]]
    ) -> None:
        """As `_failed_alone`; a route that answers for nobody either is down, if searches are answered.

        Raises:
            GhlError: GHL is down, or the location refuses.
        """
        try:
            await self._failed_alone(error, ask_about_nobody_here)
        except (RateLimited, GhlUnreachable):
            raise
        except (RequestRejected, TransientGhlError) as down:
            await ask_about_nobody(self._client)
            self._routes_down[by] = down

    def _answered(self) -> None:
        self._failures_in_a_row, self._values_are_to_blame = 0, False

    async def _failed_alone(self, error: GhlError, ask_about_nobody: Callable[[], Awaitable[object]]) -> None:
        """A lookup of a single value failed. After several in a row, finds out whether the values are to blame.

        The same question is asked, because GHL can be up while one kind of question is not answered. Values it refuses
        cost that once; values it fails on cost it every few, as an outage may begin at any time.

        Raises:
            GhlError: the question about nobody failed too. What was learned on the way there is forgotten.
        """
        self._failures_in_a_row += 1
        told_already = self._values_are_to_blame and isinstance(error, RequestRejected)
        if told_already or self._failures_in_a_row < OUTAGE_AFTER_FAILURES:
            return
        try:
            await ask_about_nobody()
        except GhlError:
            self.group_size.size, self.group_size.ceiling = self._learned_before.size, self._learned_before.ceiling
            raise
        self._failures_in_a_row, self._values_are_to_blame = 0, True
