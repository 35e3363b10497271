"""How much a run asks for: what is cut off is told, many who are gone are sampled, and settings reach the fetch."""

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from ghl_pipeline.crm.build import build_crm
from ghl_pipeline.crm.crm import DEFAULT_CONCURRENCY
from ghl_pipeline.crm.fetch_rules import FetchRules
from ghl_pipeline.crm.missing import TooManyMissing
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.crm.syncing import RULES, Client
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


@pytest.fixture
def client(engine: Engine, sandbox: Sandbox) -> Client:
    return Client(engine, sandbox, allow_duplicates=True)


async def test_discovery_that_is_cut_off_is_told(client: Client) -> None:
    for n in range(30):
        client.contact(email=f"p{n}@example.com", tags=("new vendor",))
    rules = replace(RULES, fetch=FetchRules(list_scan_cap=20))
    report = await client.sync(rules=rules)
    assert report.vendors_created == 20
    assert any("raise LIST_SCAN_CAP" in warning for warning in report.warnings)
    assert not any("LIST_SCAN_CAP" in warning for warning in (await client.sync()).warnings)


async def test_discovery_that_ends_early_is_told(client: Client) -> None:
    client.contact(email="ada@example.com", tags=("new vendor",))
    client.faults(total_surplus=5)
    report = await client.sync()
    assert any("ended before all of them came" in warning for warning in report.warnings)


async def test_many_that_groups_lack_are_sampled_after_a_scan_instead_of_asked_for_one_by_one(client: Client) -> None:
    people = [client.contact(email=f"p{n}@example.com") for n in range(300)]
    for person in people:
        client.lead(ghl_contact_id=person.id, email=person.email)
    for person in people[:150]:
        client.ghl.remove(person.id)
    with pytest.raises(TooManyMissing, match="150 of 300 leads"):
        await client.sync(accept=False)
    asked = client.asked()
    assert sum(asked["by_route"]["GET /contacts/{id}"].values()) == 100
    assert asked["searches"]["none"] == 1


async def test_a_few_more_than_the_sample_are_asked_for_where_a_list_costs_more(client: Client) -> None:
    people = [client.contact(email=f"p{n}@example.com") for n in range(60)]
    for person in people:
        client.lead(ghl_contact_id=person.id)
    for person in people[:12]:
        client.ghl.remove(person.id)
    rules = replace(RULES, fetch=FetchRules(confirm_gets=10, list_scan_page=20))
    report = await client.sync(rules=rules)
    assert (report.leads_deleted, report.calls["single"]) == (12, 12)


@pytest.mark.parametrize(("page", "pages"), [(500, 1), (20, 3)])
async def test_a_scan_asks_for_as_many_at_a_time_as_it_is_told(client: Client, page: int, pages: int) -> None:
    for n in range(45):
        client.contact(email=f"p{n}@example.com")
    client.lead(email="nobody.knows@example.com")
    report = await client.sync(rules=replace(RULES, fetch=FetchRules(list_scan_page=page)))
    assert report.calls["list_pages"] == pages


def test_the_settings_say_how_large_a_page_and_a_sample_are(
    engine: Engine, project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build_crm(project, engine)._rules.fetch == FetchRules()
    monkeypatch.setenv("LIST_SCAN_PAGE", "20")
    monkeypatch.setenv("CRM_CONFIRM_GETS", "7")
    rules = build_crm(Settings(token_keys=project.token_keys), engine)._rules.fetch
    assert (rules.list_scan_page, rules.confirm_gets) == (20, 7)


@pytest.mark.parametrize("page", ["0", "501"])
def test_a_page_is_no_larger_than_ghl_gives(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIST_SCAN_PAGE", page)
    with pytest.raises(ValueError, match="LIST_SCAN_PAGE"):
        Settings()


def test_no_more_locations_are_in_memory_at_once_than_fit() -> None:
    assert DEFAULT_CONCURRENCY * 80 < 1_000, "megabytes, of 15,000 contacts each"
