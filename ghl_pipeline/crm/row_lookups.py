"""Looking rows up: their links in groups, what the search does not know by GET, then e-mails in groups."""

from collections.abc import Sequence
from itertools import zip_longest

from ghl_pipeline.crm.gathering import Gathering, link_of, links_of
from ghl_pipeline.crm.identifiers import KnownRow, Side
from ghl_pipeline.crm.list_scan import page_or_error
from ghl_pipeline.crm.whole_list import costs_no_more, scan
from ghl_pipeline.ghl.errors import TransientGhlError
from ghl_pipeline.ghl.payloads import Contact, SearchPage
from ghl_pipeline.ghl.search import ContactSearch, any_of, changed_since, fits_eq
from ghl_pipeline.hydration.lookup import ContactLookup, Found
from ghl_pipeline.hydration.matching import addresses_of
from ghl_pipeline.hydration.resolve import askable_address

# Each link that a group did not bring is verified by GET; with more of them it is worth three calls to find out
# whether groups are answered rightly here.
MISSES_NOT_WORTH_A_SURVEY = 10


class RowLookups:
    """Lookups for one fetch.

    A location that was never surveyed, or long ago, is asked at once all the same: what a group brings is matched again
    here, so that a wrong answer can only lack somebody. Only then the survey is made.
    """

    def __init__(self, gathering: Gathering) -> None:
        self._at = gathering
        knowledge = gathering.knowledge
        self._unsure = ContactLookup(gathering.client, knowledge.group_size, detailed=True)
        self._sure = ContactLookup(gathering.client, knowledge.group_size, knowledge, detailed=True)
        self._is_surveyed = not knowledge.learned.survey_is_due

    async def look_up(self, rows: Sequence[KnownRow]) -> None:
        """Gathers the contacts of rows, as far as their links and e-mails find them.

        Raises:
            GhlError: GHL is down, or the location refuses.
        """
        await self._ask_links(rows)
        await self._ask_addresses([row for row in rows if self._at.wants_address(row)])

    async def fetch_ids(self, ids: Sequence[str]) -> None:
        """Gathers contacts of nobody's link; one that is gone is no news. Raises as `look_up`."""
        await self._ask_ids(ids)
        contacts = await self._get([id_ for id_ in ids if id_ not in self._at.contacts])
        self._at.add(contact for contact in contacts.values() if contact is not None)

    # --- links

    async def _ask_links(self, rows: Sequence[KnownRow]) -> None:
        await self._ask_ids(links_of(rows))
        at = self._at
        missing = set(links_of(rows)) - at.contacts.keys() - at.failed_ids.keys()
        await self._verify([row for row in rows if link_of(row) in missing and not at.is_believed_gone(row)])

    async def _ask_ids(self, ids: Sequence[str]) -> None:
        ids = [id_ for id_ in ids if id_ not in self._at.contacts]
        with self._at.counting("groups_by_id"):
            found = await (self._sure if self._is_surveyed else self._unsure).find_ids(ids)
        self._take_ids(ids, found)
        missing = [id_ for id_ in ids if id_ not in self._at.contacts]
        if len(missing) > MISSES_NOT_WORTH_A_SURVEY and await self._asks_otherwise_now(len(ids)):
            with self._at.counting("groups_by_id"):
                found = await self._sure.find_ids(missing)
            self._take_ids(missing, found)

    def _take_ids(self, ids: Sequence[str], found: Found) -> None:
        wanted = set(ids)
        self._at.add(contact for contact in found.contacts if contact.id in wanted)
        self._at.failed_ids.update(found.failed)

    async def _verify(self, rows: Sequence[KnownRow]) -> None:
        """Asks by GET for what the search does not know: it lags behind writes.

        After a complete scan the search is as good as known, so that a sample decides about many. A scan for that is
        made where it takes fewer calls than the GETs that it saves.
        """
        at = self._at
        if at.scan is None and await costs_no_more(at, len(links_of(rows)) - at.rules.confirm_gets - 1):
            await scan(at)
            rows = [row for row in rows if link_of(row) not in at.contacts]
        links = links_of(rows)
        scan_is_proof = at.scan is not None and at.scan.is_complete
        if not scan_is_proof or len(links) <= at.rules.confirm_gets:
            await self._confirm(links)
            return
        sample = sample_of(rows, at.rules.confirm_gets)
        if await self._confirm(sample):
            at.gone.update(links)
            return
        at.unconfirmed.update(link for link in links if link not in set(sample))
        at.notes.append(
            f"{len(at.unconfirmed)} linked contacts are not on the location's list and were not verified, because of "
            f"{len(sample)} that were, not all are gone"
        )

    async def _confirm(self, links: Sequence[str]) -> bool:
        """Asks for each by GET; whether GHL said of all of them that they are gone."""
        answers = await self._get(links)
        self._at.add(contact for contact in answers.values() if contact is not None)
        gone = [link for link, contact in answers.items() if contact is None]
        self._at.gone.update(gone)
        self._at.told_gone.update(gone)
        return len(gone) == len(links)

    async def _get(self, ids: Sequence[str]) -> dict[str, Contact | None]:
        with self._at.counting("single"):
            answers, failed = await self._sure.get(ids)
        self._at.failed_ids.update(failed)
        return answers

    # --- e-mails

    async def _ask_addresses(self, rows: Sequence[KnownRow]) -> None:
        addresses = list(dict.fromkeys(address for row in rows if (address := askable_address(row.email))))
        short = [address for address in addresses if fits_eq(address)]
        with self._at.counting("groups_by_email"):
            found = await (self._sure if self._is_surveyed else self._unsure).find_addresses(short)
        self._take_addresses(short, found)
        answered = {address for contact in found.contacts for address, _ in addresses_of(contact)}
        missing = [a for a in short if a not in answered and a not in self._at.failed_addresses]
        if len(short) > 1 and missing and await self._asks_otherwise_now(len(short)):
            with self._at.counting("groups_by_email"):
                found = await self._sure.find_addresses(missing)
            self._take_addresses(missing, found)
        with self._at.counting("single"):
            contacts, failed = await self._sure.find_long([address for address in addresses if not fits_eq(address)])
        self._take_addresses(addresses, Found([contact for contact in contacts.values() if contact], failed))
        self._at.note_asked(address for address in addresses if address not in self._at.failed_addresses)

    def _take_addresses(self, addresses: Sequence[str], found: Found) -> None:
        wanted = set(addresses)
        self._at.add(c for c in found.contacts if any(address in wanted for address, _ in addresses_of(c)))
        self._at.failed_addresses.update(found.failed)

    # --- the survey

    async def _asks_otherwise_now(self, asked: int) -> bool:
        """Surveys the location if that is due; whether the answers before were to groups that it does not take."""
        if self._is_surveyed:
            return False
        self._is_surveyed = True
        knowledge = self._at.knowledge
        largest = min(knowledge.group_size.ceiling, asked)
        with self._at.counting("list_pages"):
            page = await knowledge.first_page()
        with self._at.counting("survey"):
            await try_dates(self._at, page.contacts if page else ())
            await knowledge.before_groups()
        return knowledge.group_size.ceiling < largest or bool(knowledge.case_matters)


async def try_dates(at: Gathering, contacts: Sequence[Contact]) -> None:
    """Finds out with one call, if it is not known, whether a search by date can be trusted.

    Asks for two contacts, and of them for who changed since the newer one did: that has to find this one only.

    Args:
        at: the fetch.
        contacts: some of the location's.

    Raises:
        GhlError: GHL is down, or the location refuses.
    """
    dated = [(contact.date_updated, contact.id) for contact in contacts if contact.date_updated is not None]
    if at.knowledge.searches_by_date is not None or not dated:
        return
    (newest, newest_id), (oldest, oldest_id) = max(dated), min(dated)
    ids = list(dict.fromkeys((newest_id, oldest_id)))
    search = ContactSearch((any_of("id", ids), changed_since(newest)), page_limit=20)
    page = await page_or_error(at.client, search)
    if isinstance(page, TransientGhlError):
        return
    found = {contact.id for contact in page.contacts} if isinstance(page, SearchPage) else set()
    rightly = newest_id in found and (oldest_id not in found or oldest == newest)
    await at.knowledge.dates_are_searched(rightly)


def sample_of(rows: Sequence[KnownRow], size: int) -> list[str]:
    """At most `size` links of the rows: half of them the newest rows', the others spread evenly over the rest.

    The newest, because what a search does not know yet was written a moment ago.
    """
    newest_first = [
        row
        for pair in zip_longest(*([r for r in reversed(rows) if r.side is side] for side in Side))
        for row in pair
        if row is not None
    ]
    links = links_of(newest_first)
    newest, others = links[: size // 2], links[size // 2 :]
    room = min(size - len(newest), len(others))
    return newest + [others[at * len(others) // room] for at in range(room)]
