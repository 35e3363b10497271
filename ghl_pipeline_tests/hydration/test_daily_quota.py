"""The day's requests are used up in the middle of a backfill: it stops cleanly, and goes on after midnight UTC."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from ghl_pipeline.hydration.hydration import Hydration, RunResult
from ghl_pipeline.hydration.options import Options, Step
from ghl_pipeline.hydration.plan import Way
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.sandbox.limits import Limits, RateLimiter
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import Agency, Place, prefer_lookups

SEARCH = "POST /contacts/search"
QUOTA = 3
GROUP = PAGE = 20
DAY = 86_400
# Leads, contacts, and calls that they take: six pages of one group each; six pages of contacts.
SIZES = {Way.LOOKUP: (6 * PAGE, 200), Way.SCAN: (900, 2900)}
CALLS = 6


@dataclass(frozen=True)
class Day:
    """A location whose backfill takes twice as many calls as the day has."""

    agency: Agency
    place: Place
    way: Way
    hydration: Hydration
    history: RememberedHistory
    begin_the_next: Callable[[], None]

    async def run(self) -> RunResult:
        return await self.hydration.run([self.place.id], self.history, Options(page_size=PAGE))

    def answered(self) -> int:
        counts: dict[str, int] = self.agency.sandbox.stats(self.place.id)["by_route"][SEARCH]
        return counts["200"]

    def linked(self) -> int:
        return sum(row["ghl_contact_id"] is not None for row in self.agency.rows())


@pytest.fixture(params=["GHL's quota", "our own quota"])
def begin(request: pytest.FixtureRequest, agency: Agency) -> Callable[[Way], Day]:
    """Makes the day."""

    def began(way: Way) -> Day:
        leads, contacts = SIZES[way]
        people = crowd(contacts, "quota")
        place = agency.place(contacts=people)
        agency.leads(place, [{"email": contact.email} for contact in people[:leads]])
        if way is Way.LOOKUP:
            prefer_lookups(agency.engine, place.id, GROUP)
        ours = request.param == "our own quota"
        if not ours:
            place.ghl.limiter = RateLimiter(Limits(10_000, 10.0, QUOTA))
        settings = Settings(
            api_url=agency.sandbox.url, requests_per_10s=1000, requests_per_day=QUOTA if ours else 200_000
        )
        opener = client_opener(settings, agency.engine)
        hydration = Hydration(engine=agency.engine, cipher=agency.cipher, open_client=opener)

        def our_midnight() -> None:
            with agency.engine.begin() as connection:
                connection.execute(text("UPDATE location_throttle SET day = day - 1"))

        def their_midnight() -> None:
            world = agency.sandbox.world
            clock = world.clock
            world.clock = lambda: clock() + DAY

        return Day(agency, place, way, hydration, RememberedHistory(), our_midnight if ours else their_midnight)

    return began


@pytest.mark.parametrize("way", SIZES)
async def test_a_backfill_goes_on_the_next_day_and_asks_nothing_twice(begin: Callable[[Way], Day], way: Way) -> None:
    day = begin(way)
    (failure,) = (await day.run()).failures
    assert (failure.error_class, failure.permanent) == ("DailyQuotaReached", False)
    assert "the location's daily requests are used up" in failure.text
    assert "goes on from its resume point after 00:00 UTC" in failure.text
    assert day.answered() == QUOTA
    told = day.history.last_progress(Step.RESOLVED_CONTACTS, day.place.id) or {}
    if way is Way.LOOKUP:
        # What was found is written, and where to go on is told.
        assert day.linked() == told["position"] == QUOTA * PAGE
    else:
        (plan,) = (row["plan"] for row in day.agency.table("work_lists"))
        assert (plan["received"], day.agency.count("pulled_contacts") > 0) == (QUOTA * 500, True)
    assert Step.HYDRATED_LEADS not in day.history.done_steps(day.place.id)

    (again,) = (await day.run()).failures
    assert again.error_class == "DailyQuotaReached"
    assert day.answered() == QUOTA

    day.begin_the_next()
    result = await day.run()
    leads = SIZES[way][0]
    # That run comes after one that only tried, so it does the rest on the way that was chosen at first.
    assert [report.outcomes["linked_and_hydrated"] for report in result.reports] == [leads]
    assert (result.failures, day.linked(), day.answered()) == ((), leads, CALLS)
    assert day.agency.sandbox.stats(day.place.id)["lookups"]["email"]["repeated"] == 0
    assert day.history.done_steps(day.place.id)[-1] == Step.HYDRATED_LEADS
