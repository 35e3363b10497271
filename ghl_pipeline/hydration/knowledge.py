"""What one run knows of a location, and finds out when it needs to: group size, letter case, dates, how many contacts.

Groups are believed only after a survey (`ghl/survey.py`) has shown that this location answers them rightly; it is made
before the first group goes out, kept, and repeated when it is old. So is a search by date, before a delta.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Engine

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import GhlUnreachable, RateLimited, TransientGhlError
from ghl_pipeline.ghl.payloads import Contact, SearchPage
from ghl_pipeline.ghl.survey import FIRST_PAGE, searches_by_date, survey
from ghl_pipeline.hydration.group_size import GroupSize
from ghl_pipeline.hydration.pull import ask_about_nobody, page_or_none
from ghl_pipeline.locations.learning import Learned, record_survey, save_facts
from ghl_pipeline.orchestration.blocking import in_thread

log = logging.getLogger(__name__)


class LocationKnowledge:
    """The learned of a location as it is used and changed by one run.

    Attributes:
        learned: as it was when the run began.
        group_size: shared with the lookups, which learn too.
        case_matters, groups_are_wrong, searches_by_date, contacts: as in `Learned`, and as found out since.

    Args:
        client: the location's.
        learned: what is known.
        engine: where what is found out is kept; None in a preview, which keeps nothing.
        detailed: whether the first page's contacts come with their details, for who goes on from it.
    """

    def __init__(
        self, client: LocationClient, learned: Learned, engine: Engine | None = None, *, detailed: bool = False
    ) -> None:
        self.learned = learned
        self.group_size = GroupSize(learned.group_size, learned.group_ceiling)
        self.case_matters = learned.case_matters
        self.groups_are_wrong = learned.groups_are_wrong
        self.searches_by_date = learned.searches_by_date
        self.contacts = learned.contacts
        self._client = client
        self._engine = engine
        self._survey_is_due = learned.survey_is_due
        self._first_search = replace(FIRST_PAGE, detailed=detailed)
        self._first_page: SearchPage | None = None
        self._first_page_was_asked = False

    async def first_page(self) -> SearchPage | None:
        """The oldest contacts, at most 500, and the total; asked for once. None when the location does not give it.

        Raises:
            GhlError: GHL is down, or the location refuses.
        """
        if not self._first_page_was_asked:
            self._first_page = await page_or_none(self._client, self._first_search)
            self._first_page_was_asked = True
            if self._first_page is not None:
                self.contacts = self._first_page.total
        return self._first_page

    async def before_groups(self) -> None:
        """Surveys the location if that is due; at most once a run.

        Raises:
            GhlError: GHL is down, or the location refuses.
        """
        if not self._survey_is_due:
            return
        self._survey_is_due = False
        page = await self.first_page()
        if page is None:
            return
        try:
            found = await survey(self._client, page)
        except (RateLimited, GhlUnreachable):
            raise
        except TransientGhlError:
            # Groups of any size fail: an outage, or a location that takes single questions only.
            await ask_about_nobody(self._client)
            self.group_size.size = self.group_size.ceiling = 1
            return
        self.case_matters = self.case_matters if found.case_matters is None else found.case_matters
        if found.answers:
            self.groups_are_wrong = found.groups_are_wrong
            self.group_size.size = self.group_size.ceiling = max(1, found.largest_right)
        if self._engine is not None:
            await in_thread(record_survey, self._engine, self._client.location_id, found)
        if self.groups_are_wrong:
            log.warning(
                "location %s: GHL answers groups of addresses wrongly; its leads are asked for one by one",
                self._client.location_id,
            )
        elif found.answers:
            log.info("location %s: groups of %d are answered rightly", self._client.location_id, found.largest_right)
        await self.try_dates(page.contacts)

    async def try_dates(self, contacts: Sequence[Contact]) -> None:
        """Finds out, if it is not known, whether a search by date can be trusted. Some of the location's contacts help.

        Raises:
            GhlError: GHL is down, or the location refuses.
        """
        if self.searches_by_date is None:
            await self.dates_are_searched(await searches_by_date(self._client, contacts))

    async def dates_are_searched(self, rightly: bool | None) -> None:
        """Keeps whether they are; None says nothing."""
        if rightly is None:
            return
        self.searches_by_date = rightly
        await in_thread(self.keep, searches_by_date=rightly)
        if not rightly:
            log.warning("location %s: GHL does not find contacts by their date of change", self._client.location_id)

    def keep(self, *, contacts: int | None = None, searches_by_date: bool | None = None) -> None:
        """Keeps what was found out in passing. Blocking."""
        if self._engine is not None:
            with self._engine.begin() as connection:
                save_facts(
                    connection,
                    self._client.location_id,
                    self.learned.group_size,
                    contacts=contacts,
                    searches_by_date=searches_by_date,
                )
