"""A page of leads -> one resolution each, and which questions GHL is asked for it."""

from collections.abc import Sequence

import pytest

from ghl_pipeline.ghl.errors import GhlServerError, UnreadableAnswer
from ghl_pipeline.hydration.group_size import GroupSize
from ghl_pipeline.hydration.lookup import ContactLookup
from ghl_pipeline.hydration.outcomes import Outcome
from ghl_pipeline.hydration.resolve import LeadKey, ResolvedPage, askable_address, resolve_page
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import OpenLocation

GET_CONTACT = "GET /contacts/{id}"
GONE = "deletedContact000001"


@pytest.fixture
def location(sandbox: Sandbox) -> Location:
    return sandbox.add_location()


class Resolver:
    """Resolves pages at one location and tells what was asked."""

    def __init__(self, sandbox: Sandbox, location: Location, open_location: OpenLocation) -> None:
        self._sandbox, self._location, self._open = sandbox, location, open_location

    async def page(self, keys: Sequence[LeadKey]) -> ResolvedPage:
        async with self._open(self._location) as client:
            return await resolve_page(keys, ContactLookup(client, GroupSize()))

    async def one(
        self, contact_id: str | None = None, email: str | None = None, *, needs_names: bool = False
    ) -> tuple[Outcome, str | None]:
        (resolution,) = (await self.page([LeadKey(1, 1, contact_id, email, needs_names)])).resolutions
        return resolution.outcome, resolution.contact.contact_id if resolution.contact else None

    @property
    def asked(self) -> dict[str, int]:
        """Requests by route."""
        routes = self._sandbox.stats(self._location.id)["by_route"]
        return {route: sum(statuses.values()) for route, statuses in routes.items()}

    def leaves(self, field: str) -> int:
        """How many values of a field the searches asked for."""
        return int(self._sandbox.stats(self._location.id)["lookups"][field]["asked"])


@pytest.fixture
def resolver(sandbox: Sandbox, location: Location, open_location: OpenLocation) -> Resolver:
    return Resolver(sandbox, location, open_location)


async def test_a_lead_is_found_by_its_link_without_asking_for_its_address(
    resolver: Resolver, location: Location
) -> None:
    linked = location.add(email="ada@example.com")
    location.add(email="other@example.com", phone="+13055550123")
    assert await resolver.one(linked.id, "other@example.com") == (Outcome.UNCHANGED, linked.id)
    assert resolver.asked == {"POST /contacts/search": 1}
    assert resolver.leaves("email") == 0


async def test_a_link_that_the_search_does_not_know_yet_is_verified_before_it_counts_as_deleted(
    resolver: Resolver, location: Location, sandbox: Sandbox
) -> None:
    sandbox.faults(index_lag_seconds=60)
    fresh = location.add(email="ada@example.com")
    assert await resolver.one(fresh.id, "ada@example.com") == (Outcome.UNCHANGED, fresh.id)
    assert resolver.asked == {"POST /contacts/search": 1, GET_CONTACT: 1}


async def test_a_deleted_contact_is_reported_when_nothing_else_is_found(resolver: Resolver) -> None:
    assert await resolver.one(GONE, None) == (Outcome.CONTACT_DELETED, None)
    assert await resolver.one(GONE, "nobody@example.com") == (Outcome.CONTACT_DELETED, None)
    assert resolver.asked == {"POST /contacts/search": 3, GET_CONTACT: 2}


async def test_a_deleted_contact_falls_back_to_the_address(resolver: Resolver, location: Location) -> None:
    successor = location.add(email="ada@example.com")
    assert await resolver.one(GONE, " Ada@Example.com ") == (Outcome.UNCHANGED, successor.id)


@pytest.mark.parametrize(
    "junk",
    ["test_contact_1", "short", "x" * 65, "contact 000000000000", "../../locations/abc", "ada@example.com", "é" * 20],
)
async def test_a_link_that_cannot_be_one_is_never_sent(resolver: Resolver, location: Location, junk: str) -> None:
    assert await resolver.one(junk, None) == (Outcome.INVALID_CONTACT_ID, None)
    assert resolver.asked == {}
    assert await resolver.one(junk, "nobody@example.com") == (Outcome.INVALID_CONTACT_ID, None)
    found = location.add(email="ada@example.com")
    assert await resolver.one(junk, "ada@example.com") == (Outcome.UNCHANGED, found.id)
    assert resolver.leaves("id") == 0
    assert GET_CONTACT not in resolver.asked


async def test_a_blank_link_is_no_link(resolver: Resolver) -> None:
    assert await resolver.one(" ", "nobody@example.com") == (Outcome.NOT_FOUND, None)


async def test_an_address_too_long_for_a_search_goes_through_the_duplicate_lookup(
    resolver: Resolver, location: Location
) -> None:
    address = f"{'long' * 70}@example.com"
    contact = location.add(email=address)
    assert await resolver.one(None, address.upper()) == (Outcome.UNCHANGED, contact.id)
    assert await resolver.one(None, f"x{address}") == (Outcome.NOT_FOUND, None)
    assert resolver.asked == {"GET /contacts/search/duplicate": 2}


@pytest.mark.parametrize("address", [None, "", "  ", "no address", f"{'x' * 320}@example.com", "\xa0"])
async def test_what_cannot_be_an_address_is_never_sent(resolver: Resolver, address: str | None) -> None:
    assert askable_address(address) is None
    assert await resolver.one(None, address) == (Outcome.NOT_FOUND, None)
    assert resolver.asked == {}


async def test_an_address_of_several_equal_contacts_is_ambiguous(resolver: Resolver, location: Location) -> None:
    first = location.add(email="ada@example.com")
    location.add(email="ada@example.com", date_updated=first.date_updated)
    assert await resolver.one(None, "ada@example.com") == (Outcome.AMBIGUOUS, None)


@pytest.mark.parametrize("by_link", [True, False], ids=["found by link", "found by address"])
async def test_names_in_lower_case_are_asked_again_only_where_a_name_is_missing(
    resolver: Resolver, location: Location, sandbox: Sandbox, by_link: bool
) -> None:
    contact = location.add(email="ada@example.com", first_name="Ada", last_name="O'Byron")
    sandbox.faults(lower_case_names_only=True)
    link, address = (contact.id, None) if by_link else (None, "ada@example.com")
    page = await resolver.page([LeadKey(1, 1, link, address, needs_names=False)])
    assert page.resolutions[0].contact is not None
    assert GET_CONTACT not in resolver.asked
    page = await resolver.page([LeadKey(1, 1, link, address, needs_names=True)])
    found = page.resolutions[0].contact
    assert found is not None
    assert (found.first_name, found.last_name) == ("Ada", "O'Byron")
    assert resolver.asked[GET_CONTACT] == 1


async def test_two_addresses_of_one_contact_both_get_the_whole_names(
    resolver: Resolver, location: Location, sandbox: Sandbox
) -> None:
    location.add(email="ada@example.com", additional_emails=("ada@example.org",), first_name="Ada")
    sandbox.faults(lower_case_names_only=True)
    page = await resolver.page(
        [LeadKey(1, 1, None, "ada@example.com", needs_names=True), LeadKey(2, 2, None, "ada@example.org", True)]
    )
    assert [r.contact and r.contact.first_name for r in page.resolutions] == ["Ada", "Ada"]
    assert resolver.asked[GET_CONTACT] == 1


async def test_a_contact_that_only_the_search_still_knows_is_not_linked(
    resolver: Resolver, location: Location, sandbox: Sandbox
) -> None:
    contact = location.add(email="ada@example.com", first_name="Ada")
    sandbox.faults(lower_case_names_only=True, index_lag_seconds=60)
    location.remove(contact.id)
    assert await resolver.one(None, "ada@example.com", needs_names=True) == (Outcome.NOT_FOUND, None)


async def test_a_lead_whose_names_could_not_be_read_is_not_passed_over(
    resolver: Resolver, location: Location, sandbox: Sandbox
) -> None:
    location.add(email="ada@example.com", first_name="Ada")
    other = location.add(email="bob@example.com", first_name="Bob")
    sandbox.faults(lower_case_names_only=True, routes=(GET_CONTACT,), error_rate=1.0)
    page = await resolver.page(
        [LeadKey(1, 1, None, "ada@example.com", True), LeadKey(2, 2, None, "bob@example.com", False)]
    )
    assert [r.outcome for r in page.resolutions] == [Outcome.FAILED, Outcome.UNCHANGED]
    assert page.resolutions[1].contact is not None
    assert page.resolutions[1].contact.contact_id == other.id
    assert [type(error) for error in page.errors] == [GhlServerError]


async def test_a_link_that_could_not_be_verified_fails_instead_of_counting_as_deleted(
    resolver: Resolver, location: Location, sandbox: Sandbox
) -> None:
    location.add(email="ada@example.com")
    sandbox.faults(routes=(GET_CONTACT,), error_rate=1.0)
    assert await resolver.one(GONE, "ada@example.com") == (Outcome.FAILED, None)
    assert resolver.leaves("email") == 0


@pytest.mark.parametrize("needs_names", [False, True])
async def test_an_answer_about_a_stranger_links_nobody(
    resolver: Resolver, location: Location, sandbox: Sandbox, needs_names: bool
) -> None:
    sandbox.faults(index_lag_seconds=60)  # the search does not know the link yet, so it is verified by a GET
    linked, stranger = location.add(email="ada@example.com"), location.add(email="stranger@example.com")
    location.contacts.by_id[linked.id] = stranger
    page = await resolver.page([LeadKey(1, 1, linked.id, "ada@example.com", needs_names)])
    (resolution,) = page.resolutions
    assert (resolution.outcome, resolution.contact, resolution.link_is_dead) == (Outcome.FAILED, None, False)
    assert [type(error) for error in page.errors] == [UnreadableAnswer]


@pytest.mark.parametrize(
    ("link", "email", "outcome", "dead"),
    [
        (GONE, "ada@example.com", Outcome.UNCHANGED, True),
        (GONE, "nobody@example.com", Outcome.CONTACT_DELETED, True),
        (GONE, None, Outcome.CONTACT_DELETED, True),
        ("test_contact_1", "ada@example.com", Outcome.UNCHANGED, True),
        ("test_contact_1", None, Outcome.INVALID_CONTACT_ID, True),
        (None, "ada@example.com", Outcome.UNCHANGED, False),
        (" ", "ada@example.com", Outcome.UNCHANGED, False),
        (None, None, Outcome.NOT_FOUND, False),
    ],
)
async def test_a_link_is_dead_when_it_leads_nowhere(
    resolver: Resolver, location: Location, link: str | None, email: str | None, outcome: Outcome, dead: bool
) -> None:
    location.add(email="ada@example.com")
    (resolution,) = (await resolver.page([LeadKey(1, 1, link, email)])).resolutions
    assert (resolution.outcome, resolution.link_is_dead) == (outcome, dead)


async def test_a_link_that_works_is_not_dead_whatever_the_address_says(resolver: Resolver, location: Location) -> None:
    linked = location.add(email="ada@example.com")
    location.add(email="other@example.com")
    (resolution,) = (await resolver.page([LeadKey(1, 1, linked.id, "other@example.com")])).resolutions
    assert not resolution.link_is_dead


async def test_a_link_that_could_not_be_verified_is_not_dead(
    resolver: Resolver, location: Location, sandbox: Sandbox
) -> None:
    location.add(email="ada@example.com")
    sandbox.faults(routes=(GET_CONTACT,), error_rate=1.0)
    (resolution,) = (await resolver.page([LeadKey(1, 1, GONE, "ada@example.com")])).resolutions
    assert (resolution.outcome, resolution.link_is_dead) == (Outcome.FAILED, False)


async def test_two_leads_may_lead_to_one_contact(resolver: Resolver, location: Location) -> None:
    contact = location.add(email="ada@example.com", additional_emails=("ada@example.org",))
    keys = [
        LeadKey(1, 11, contact.id, None),
        LeadKey(2, 12, None, "ada@example.com"),
        LeadKey(3, 13, None, "ADA@example.org"),
    ]
    page = await resolver.page(keys)
    assert [r.key for r in page.resolutions] == keys
    assert {r.contact.contact_id for r in page.resolutions if r.contact} == {contact.id}


async def test_what_the_lead_said_when_asked_is_kept_for_the_write_back(resolver: Resolver) -> None:
    page = await resolver.page([LeadKey(1, 1, GONE, " Ada@Example.com ")])
    assert page.resolutions[0].key.contact_id == GONE
    assert page.resolutions[0].asked_email == "ada@example.com"


async def test_a_page_costs_a_search_for_the_links_and_one_for_the_addresses(
    resolver: Resolver, location: Location
) -> None:
    linked = [location.add(email=f"linked{n}@example.com").id for n in range(40)]
    for n in range(45):
        location.add(email=f"person{n}@example.com")
    keys = [LeadKey(n, n, id_, f"unused{n}@example.com", True) for n, id_ in enumerate(linked)]
    keys += [LeadKey(100 + n, 100 + n, None, f"person{n}@example.com", True) for n in range(50)]
    keys += [LeadKey(200 + n, 200 + n, f"test_contact_{n}", None) for n in range(20)]
    keys += [LeadKey(300 + n, 300 + n, None, f"{n}{'x' * 80}@example.com") for n in range(3)]
    page = await resolver.page(keys)
    assert len(page.resolutions) == len(keys)
    assert resolver.asked == {"POST /contacts/search": 2, "GET /contacts/search/duplicate": 3}
    assert (resolver.leaves("id"), resolver.leaves("email")) == (40, 50)


async def test_an_empty_page_costs_nothing(resolver: Resolver) -> None:
    assert (await resolver.page([])).resolutions == ()
    assert resolver.asked == {}
