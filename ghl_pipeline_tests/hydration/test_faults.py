"""What GHL does wrong, and that every lead that can be repaired is repaired all the same, by look-ups and by a scan.

Each kind of trouble meets the sample agency, which knows how every lead has to end. The quick tests pause for
milliseconds; the slow ones have the bounds that the product has by default.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import msgspec
import pytest

from ghl_pipeline.ghl import retries
from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.throttle import Limits as ThrottleLimits
from ghl_pipeline.ghl.throttle import LocationThrottle
from ghl_pipeline.hydration.hydration import Hydration, RunResult
from ghl_pipeline.hydration.options import Options, Step
from ghl_pipeline.hydration.plan import Way
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.locations.opening import OpenClient, client_opener
from ghl_pipeline.sandbox.agency import FIELDS, SampleLocation, sample_agency
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.faults import FaultDice, Mishap
from ghl_pipeline.sandbox.limits import Limits, RateLimiter
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.hydration.test_hydration import assert_as_expected

# The attempts of the product, without its pauses.
PATIENT = RetryPolicy(max_attempts=5, max_429=8, deadline_seconds=60.0, first_pause_seconds=0.002)
# For an outage, which no number of attempts outlasts.
IMPATIENT = RetryPolicy(max_attempts=2, max_429=2, deadline_seconds=60.0, first_pause_seconds=0.002)
TIMEOUT_SECONDS = 0.7
# GHL's window, shortened: a 429 without Retry-After pauses a location for one window.
WINDOW_SECONDS = 0.3
# No run may take longer, whatever happens to it; a calm one takes one second.
BOUND_SECONDS = 90.0
GET, DUPLICATE, SEARCH = "GET /contacts/{id}", "GET /contacts/search/duplicate", "POST /contacts/search"
# Leads, and contacts of whom no lead knows: 3 pages of contacts against 5 groups; 2 groups against 3 pages.
SIZES = {Way.SCAN: (600, 600), Way.LOOKUP: (250, 1000)}
WAYS = list(SIZES)
PAGE = 60

Faults = dict[str, Any]


@dataclass
class Scene:
    """A location of the sample agency that is best scanned, or best looked up, and who hydrates it."""

    agency: Agency
    place: Place
    sample: SampleLocation
    way: Way
    hydration: Hydration
    mishaps: Counter[Mishap]

    def faults(self, **faults: object) -> None:
        self.agency.sandbox.faults(self.place.id, **faults)

    async def run(self, history: RememberedHistory | None = None) -> RunResult:
        async with asyncio.timeout(BOUND_SECONDS):
            return await self.hydration.run(
                [self.place.id], history if history is not None else RememberedHistory(), Options(page_size=PAGE)
            )

    def assert_repaired(self, result: RunResult) -> None:
        """Every lead ended as the sample says, the counts add up, and nothing was changed at GHL."""
        assert result.failures == ()
        (report,) = result.reports
        assert_as_expected(self.agency, self.place, self.sample)
        assert {name: count for name, count in report.outcomes.items() if count} == self.sample.outcomes
        assert report.eligible == sum(report.outcomes.values()) == self.sample.eligible
        assert {name: report.fields[name] for name in FIELDS} == {n: self.sample.fills.get(n, 0) for n in FIELDS}
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        stats = self.agency.sandbox.stats(self.place.id)
        assert (stats["creates"], stats["updates"], stats["deletes"]) == (0, 0, 0)
        assert self.agency.count("resolved_contacts") == self.agency.count("pulled_contacts") == 0

    def assert_fields_filled(self) -> None:
        """The rows are those of a repaired location, however many runs that took."""
        contacts = {contact.id: contact for contact in self.sample.contacts}
        rows = {row["emailbison_lead_id"]: row for row in self.agency.rows()}
        for lead in self.sample.leads:
            row = rows[lead.emailbison_lead_id]
            for name in lead.fills:
                value = getattr(contacts[row["ghl_contact_id"]], name)
                expected = storable_phone(value, "US") if name == "phone" else value.strip()
                assert row[name] == expected, (lead.case, name)


@cache
def sample_of(way: Way) -> SampleLocation:
    leads, strangers = SIZES[way]
    (sample,) = sample_agency(locations=1, leads=leads, seed=11).locations
    return replace(sample, contacts=(*sample.contacts, *_strangers(strangers)))


def _strangers(number: int) -> list[Contact]:
    return [msgspec.structs.replace(c, email=f"stranger.{c.email}") for c in crowd(number, "strangers")]


@pytest.fixture
def mishaps(monkeypatch: pytest.MonkeyPatch) -> Counter[Mishap]:
    """What the sandbox's dice have shown so far."""
    shown: Counter[Mishap] = Counter()
    roll = FaultDice.roll

    def counted(dice: FaultDice, route: str) -> Mishap:
        mishap = roll(dice, route)
        shown[mishap] += 1
        return mishap

    monkeypatch.setattr(FaultDice, "roll", counted)
    return shown


def quick(agency: Agency, policy: RetryPolicy) -> OpenClient:
    """Clients whose pauses are milliseconds."""

    @asynccontextmanager
    async def opened(access: LocationAccess) -> AsyncIterator[LocationClient]:
        async with open_client(
            base_url=agency.sandbox.url,
            location_id=access.location_id,
            token=access.token,
            throttle=LocationThrottle(agency.engine, access.location_id, ThrottleLimits(10_000, 10.0, 200_000)),
            policy=policy,
            timeout_seconds=TIMEOUT_SECONDS,
        ) as client:
            yield client

    return opened


Stage = Callable[..., Scene]


@pytest.fixture
def stage(agency: Agency, mishaps: Counter[Mishap], monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Makes the scene: `stage(Way.SCAN)`; with `settings`, the product's own clients."""

    def made(way: Way, *, policy: RetryPolicy = PATIENT, settings: Settings | None = None) -> Scene:
        if settings is None:
            monkeypatch.setattr(retries, "SEARCH_CONTEXT_PAUSE_SECONDS", 0.01)
        sample = sample_of(way)
        (place,) = agency.sample(sample)
        if settings is None:
            place.ghl.limiter = RateLimiter(Limits(10_000, WINDOW_SECONDS, 200_000))
        opened = quick(agency, policy) if settings is None else client_opener(settings, agency.engine)
        hydration = Hydration(engine=agency.engine, cipher=agency.cipher, open_client=opened)
        return Scene(agency, place, sample, way, hydration, mishaps)

    return made


def told(history: RememberedHistory, place: Place) -> dict[str, Any]:
    """What the materialization of `resolved_contacts` says."""
    return dict(history.last_done(Step.RESOLVED_CONTACTS, place.id) or {})


# --- what comes and goes

PASSING: dict[str, Faults] = {
    "one answer in five is a 500": {"error_rate": 0.2},
    "one answer in five is a 503": {"error_rate": 0.2, "error_status": 503, "seed": 3},
    "one answer in twenty takes 20 s": {"hang_rate": 0.05, "hang_seconds": 20.0, "seed": 9},
    "one answer in five takes 20 s": {"hang_rate": 0.2, "hang_seconds": 20.0},
    "connections break": {"drop_rate": 0.2},
    "answers are a proxy's page": {"garbage_rate": 0.2},
    "search contexts expire, says a 400": {"search_context_rate": 0.3, "search_context_status": 400},
    "search contexts expire, says a 404": {"search_context_rate": 0.3, "search_context_status": 404},
    "search contexts expire, says a 422": {"search_context_rate": 0.3, "search_context_status": 422},
    "search contexts expire, says a 500": {"search_context_rate": 0.3, "search_context_status": 500},
    "everything at once": {
        "error_rate": 0.1,
        "hang_rate": 0.05,
        "drop_rate": 0.05,
        "garbage_rate": 0.05,
        "search_context_rate": 0.1,
        "search_context_status": 404,
        "latency_seconds": 0.01,
        "storm_requests": 2,
        "retry_after": 0.1,
    },
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
async def test_trouble_that_passes_costs_calls_and_no_lead(stage: Stage, way: Way, faults: Faults) -> None:
    scene = stage(way)
    # A scan has only three calls for the mishaps to meet.
    scene.faults(**{**faults, "seed": seed_that_bites(scene.place, faults)})
    history = RememberedHistory()
    result = await scene.run(history)
    scene.assert_repaired(result)
    assert scene.mishaps.total() > scene.mishaps[Mishap.NONE]
    assert told(history, scene.place)["way"] == scene.way
    assert not scene.agency.table("location_learning")[0]["groups_are_wrong"]


def seed_that_bites(place: Place, faults: Faults) -> int:
    """A seed with a mishap among the first two rolls, and never five in a row: every call has an attempt that works."""
    for seed in range(1000):
        dice = FaultDice(msgspec.convert({**faults, "seed": seed}, type(place.ghl.faults)), place.id, 0.0)
        rolls = [dice.roll(SEARCH) is not Mishap.NONE for _ in range(40)]
        if any(rolls[:2]) and not any(all(rolls[at : at + 5]) for at in range(36)):
            return seed
    raise AssertionError("no seed bites")


STORMS: dict[str, Faults] = {
    "without Retry-After": {"storm_requests": 3},
    "for some time": {"storm_seconds": 0.8},
    "with Retry-After in seconds": {"storm_requests": 3, "retry_after": 0.2},
    "with a Retry-After of 0": {"storm_requests": 3, "retry_after": 0.0},
    "with Retry-After as a date": {"storm_requests": 2, "retry_after": 1.0, "retry_after_as_date": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("storm", STORMS.values(), ids=STORMS)
async def test_a_storm_of_429_is_sat_out(stage: Stage, way: Way, storm: Faults) -> None:
    scene = stage(way)
    history = RememberedHistory()

    def breaks_loose(_asset: str, report: object) -> None:
        history.before_progress = None
        scene.faults(**storm)

    history.before_progress = breaks_loose
    scene.assert_repaired(await scene.run(history))
    assert scene.agency.sandbox.stats(scene.place.id)["refused_429"] > 0
    assert told(history, scene.place)["way"] == scene.way


# --- how the location answers, day in, day out

LIMITED_GROUPS: dict[str, Faults] = {
    f"groups of more than 30 are refused with {status}": {"max_or_leaves": 30, "or_refusal_status": status}
    for status in (400, 413, 422, 500)
} | {"groups of more than 30 answer for the first 30": {"or_answers_first_leaves": 30}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("faults", LIMITED_GROUPS.values(), ids=LIMITED_GROUPS)
async def test_groups_of_a_size_that_is_answered_rightly_are_found_and_kept(
    stage: Stage, way: Way, faults: Faults
) -> None:
    scene = stage(way)
    scene.faults(**faults)
    history = RememberedHistory()
    scene.assert_repaired(await scene.run(history))
    assert told(history, scene.place)["way"] == way
    (learned,) = scene.agency.table("location_learning")
    assert not learned["groups_are_wrong"]
    if way is Way.LOOKUP:
        # The largest of those that are tried; after that no larger one goes out.
        assert (learned["group_size"], learned["group_ceiling"]) == (25, 25)
        assert told(history, scene.place)["groups"] == "up to 25 at a time"


@pytest.mark.parametrize("way", WAYS)
async def test_groups_that_answer_for_their_first_address_only_are_reported_and_not_used(
    stage: Stage, way: Way
) -> None:
    scene = stage(way)
    scene.faults(or_answers_first_leaf_only=True)
    history = RememberedHistory()
    scene.assert_repaired(await scene.run(history))
    if way is Way.LOOKUP:
        (learned,) = scene.agency.table("location_learning")
        assert (learned["groups_are_wrong"], learned["group_size"]) == (True, 1)
        assert told(history, scene.place)["groups"] == "one by one: GHL answered groups wrongly"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "faults",
    [
        {"case_sensitive_email": True},
        {"lower_case_names_only": True},
        {"case_sensitive_email": True, "lower_case_names_only": True, "max_or_leaves": 30, "or_refusal_status": 413},
        {"case_sensitive_email": True, "or_answers_first_leaves": 30, "error_rate": 0.15, "drop_rate": 0.05},
        {"or_answers_first_leaf_only": True, "error_rate": 0.1, "search_context_rate": 0.1, "garbage_rate": 0.05},
        {"max_or_leaves": 30, "or_refusal_status": 500, "error_rate": 0.1, "storm_requests": 2, "retry_after": 0.1},
    ],
    ids=", ".join,
)
async def test_a_location_with_ways_of_its_own_is_repaired(stage: Stage, way: Way, faults: Faults) -> None:
    scene = stage(way)
    scene.faults(**faults)
    scene.assert_repaired(await scene.run())


# --- what does not pass


@pytest.mark.parametrize("way", WAYS)
async def test_what_cannot_be_asked_is_on_record_and_is_asked_by_the_next_run(stage: Stage, way: Way) -> None:
    scene = stage(way)
    scene.faults(error_rate=1.0, routes=[GET])
    numbers = {row["id"]: row["emailbison_lead_id"] for row in scene.agency.rows()}
    case_of = {lead.emailbison_lead_id: lead.case for lead in scene.sample.leads}
    (failure,) = (await scene.run()).failures
    assert (failure.error_class, failure.permanent) == ("LookupsFailed", False)
    failed = {row["lead_id"] for row in scene.agency.table("work_items") if row["outcome"] == "failed"}
    assert {case_of[numbers[lead]] for lead in failed} == {"contact_deleted"}
    assert f"{len(failed)} of {scene.sample.eligible} leads could not be looked up" in failure.text
    assert all(row["outcome"] is not None for row in scene.agency.table("work_items"))
    scene.faults()
    asked = scene.agency.requests(scene.place)
    scene.assert_repaired(await scene.run())
    # Just those: their links by a group, a GET each, their addresses by a group.
    assert scene.agency.requests(scene.place) - asked == 2 + len(failed)


@pytest.mark.parametrize(
    ("route", "hopeless"),
    [
        (DUPLICATE, [{"email": f"{'x' * 80}{number}@example.com"} for number in range(4)]),
        (GET, [{"ghl_contact_id": f"gone{number:020d}"} for number in range(4)]),
    ],
    ids=["addresses too long for a search", "links that lead nowhere"],
)
async def test_several_leads_of_a_kind_that_ghl_does_not_answer_hold_nobody_else_back(
    agency: Agency, route: str, hopeless: list[dict[str, object]]
) -> None:
    """One route of GHL is down; whoever is found by another one is repaired."""
    place = agency.place()
    agency.leads(place, hopeless)
    people = crowd(20, "others")
    place.ghl.load(people)
    others = agency.leads(place, [{"email": contact.email} for contact in people])
    agency.prefer_lookups(place)
    agency.sandbox.faults(error_rate=1.0, routes=[route])
    (failure,) = (await agency.backfill(place)).failures
    assert not failure.permanent
    assert all(agency.row(lead)["ghl_contact_id"] for lead in others)
    outcomes = Counter(row["outcome"] for row in agency.table("work_items"))
    assert outcomes == {"linked_and_hydrated": len(others), "failed": len(hopeless)}


DEAD: dict[str, tuple[Faults, str]] = {
    "every answer is a 503": ({"error_rate": 1.0, "error_status": 503}, "GhlServerError"),
    "every answer is a 429": ({"storm_seconds": 3600.0, "retry_after": 0.01}, "RateLimited"),
    "every connection breaks": ({"drop_rate": 1.0}, "GhlUnreachable"),
    "every answer is a proxy's page": ({"garbage_rate": 1.0}, "UnreadableAnswer"),
    "no answer comes": ({"hang_rate": 1.0, "hang_seconds": 600.0}, "GhlTimeout"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("faults", "error"), DEAD.values(), ids=DEAD)
async def test_an_outage_in_the_middle_ends_the_run_and_the_next_one_goes_on(
    stage: Stage, way: Way, faults: Faults, error: str
) -> None:
    scene = stage(way, policy=IMPATIENT)
    history = RememberedHistory()

    def outage(asset: str, _report: object) -> None:
        if asset == Step.RESOLVED_CONTACTS:
            history.before_progress = None
            scene.faults(**faults)

    history.before_progress = outage
    (failure,) = (await scene.run(history)).failures
    assert (failure.error_class, failure.permanent) == (error, False)
    assert scene.place.id in failure.text
    before = scene.agency.sandbox.stats(scene.place.id)["lookups"]
    scene.faults()
    scene.assert_repaired(await scene.run(history))
    after = scene.agency.sandbox.stats(scene.place.id)["lookups"]
    # The page that was under way is asked again; a dropped answer was given, and so counts.
    for name in ("email", "id"):
        assert after[name]["repeated"] - before[name]["repeated"] <= PAGE


@pytest.mark.parametrize("way", WAYS)
async def test_contacts_that_the_search_does_not_show_yet_are_the_next_runs(stage: Stage, way: Way) -> None:
    scene = stage(way)
    late = [lead.email for lead in scene.sample.leads if lead.case == "email_first"][::3]
    unseen = [contact for contact in scene.sample.contacts if contact.email in set(late)]
    assert len(unseen) == len(late)
    for contact in unseen:
        scene.place.ghl.remove(contact.id)
    scene.faults(index_lag_seconds=3600.0)
    now = int(time.time() * 1000)
    for contact in unseen:
        scene.place.ghl.add(**{**msgspec.structs.asdict(contact), "date_added": now, "date_updated": now})
    (report,) = (first := await scene.run()).reports
    assert first.failures == ()
    expected = scene.sample.outcomes
    assert report.outcomes["not_found"] == expected["not_found"] + len(late)
    assert report.outcomes["linked_and_hydrated"] == expected["linked_and_hydrated"] - len(late)
    scene.faults()
    asked = scene.agency.requests(scene.place)
    history = RememberedHistory(attempt="after the lag")
    (report,) = (await scene.run(history)).reports
    assert report.outcomes["linked_and_hydrated"] == len(late)
    assert told(history, scene.place)["way"] == Way.DELTA
    assert scene.agency.requests(scene.place) - asked <= 1 + math.ceil(len(late) / 500)
    scene.assert_fields_filled()
    scene.assert_nothing_left()


# --- with the product's own patience


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "faults",
    [
        {"error_rate": 0.2},
        # With a timeout of 2 s for the product's 30 s, a hang of 20 s is as lost as one of 300 s.
        {"error_rate": 0.1, "hang_rate": 0.05, "hang_seconds": 20.0, "drop_rate": 0.05},
        {"search_context_rate": 0.2, "search_context_status": 404},
    ],
    ids=", ".join,
)
async def test_with_the_default_settings_trouble_costs_time_and_no_lead(
    agency: Agency, stage: Stage, way: Way, faults: Faults
) -> None:
    settings = Settings(api_url=agency.sandbox.url, requests_per_10s=1000, timeout_seconds=2.0)
    scene = stage(way, settings=settings)
    scene.faults(**{**faults, "seed": seed_that_bites(scene.place, faults)})
    scene.assert_repaired(await scene.run())
    assert scene.mishaps.total() > scene.mishaps[Mishap.NONE]


@pytest.mark.slow
async def test_a_hang_of_twenty_seconds_is_waited_for_by_default(agency: Agency, stage: Stage) -> None:
    """Filtered searches have been seen to answer after 18 to 20 s; asking again would only hang again."""
    settings = Settings(api_url=agency.sandbox.url, requests_per_10s=1000)
    scene = stage(Way.LOOKUP, settings=settings)
    scene.faults(hang_rate=1.0, hang_seconds=20.0, times=1)
    result = await scene.run()
    scene.assert_repaired(result)
    assert result.reports[0].requests == scene.mishaps.total()
    assert scene.agency.sandbox.stats(scene.place.id)["by_route"][SEARCH].keys() == {"200"}
