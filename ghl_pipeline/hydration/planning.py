"""Making a list's plan: counts what is cheap to count, and weighs the three ways."""

from dataclasses import dataclass
from datetime import timedelta

from msgspec import structs

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.payloads import SearchPage
from ghl_pipeline.ghl.search import MAX_PAGE
from ghl_pipeline.ghl.survey import are_changed_since
from ghl_pipeline.hydration.knowledge import LocationKnowledge
from ghl_pipeline.hydration.list_counts import ToPlan
from ghl_pipeline.hydration.plan import NOT_WORTH_COUNTING, Costs, Plan, Way, lookup_calls, pull_calls
from ghl_pipeline.hydration.pull import page_or_none, search_of
from ghl_pipeline.hydration.work_list import WorkList


@dataclass(frozen=True, slots=True)
class PlanRules:
    """What is relied on.

    Attributes:
        overlap: how far before the last pass changes are looked for again: for the search's lag behind writes (up to a
            minute was seen) and for clocks that differ.
        look_up_every: how often a lead is looked up although no change was seen, because not every change moves a
            contact's date, and a deletion leaves none.
    """

    overlap: timedelta = timedelta(minutes=10)
    look_up_every: timedelta = timedelta(days=30)


async def make_plan(
    work_list: WorkList, counts: ToPlan, client: LocationClient, knowledge: LocationKnowledge, rules: PlanRules
) -> tuple[Plan, SearchPage | None]:
    """The plan with the fewest calls, and the first page of its pull when counting has brought it.

    Raises:
        GhlError: GHL is down, or the location refuses.
    """
    lookup = Plan(
        way=Way.LOOKUP, upto=work_list.listed, began_at=counts.now, to_ask=counts.to_ask, current=counts.current
    )
    group, case_matters = knowledge.group_size.ceiling, bool(knowledge.case_matters)
    costs = Costs(lookup=lookup_calls(counts.unanswered, group, case_matters=case_matters))
    plans: dict[Way, tuple[Plan, SearchPage | None]] = {Way.LOOKUP: (lookup, None)}
    if counts.current and (since := knowledge.learned.changes_seen_until) and await _has_dates(knowledge, costs.lookup):
        delta = structs.replace(lookup, way=Way.DELTA, since=since - rules.overlap, pulled=False)
        changed = await _changed_page(client, knowledge, delta)
        to_pull = None if changed is None else _calls_to_pull(changed)
        if changed is not None and to_pull is not None:
            # Its first page is paid for.
            new = lookup_calls(counts.to_ask, group, case_matters=case_matters)
            costs = structs.replace(costs, delta=to_pull - 1 + new)
            plans[Way.DELTA] = delta, changed
    cheapest = min(calls for calls in (costs.lookup, costs.delta) if calls is not None)
    if cheapest > NOT_WORTH_COUNTING and not _scan_is_hopeless(knowledge.contacts, cheapest):
        first = await knowledge.first_page()
        if first is not None and first.total is not None:
            costs = structs.replace(costs, scan=pull_calls(first.total))
            plans[Way.SCAN] = structs.replace(lookup, way=Way.SCAN, pulled=False), first
    plan, page = plans[costs.cheapest()]
    return structs.replace(plan, costs=costs), page


async def _has_dates(knowledge: LocationKnowledge, calls_by_lookup: int) -> bool:
    """Whether changes can be searched for; tried now if it is not known and worth the calls that takes."""
    if knowledge.searches_by_date is None and calls_by_lookup > NOT_WORTH_COUNTING:
        page = await knowledge.first_page()
        await knowledge.try_dates(page.contacts if page else ())
    return bool(knowledge.searches_by_date)


async def _changed_page(client: LocationClient, knowledge: LocationKnowledge, delta: Plan) -> SearchPage | None:
    """The first page of the delta; None when GHL does not give it, or gives contacts that did not change since."""
    page = await page_or_none(client, search_of(delta))
    if page is None or not page.contacts or delta.since is None:
        return page
    rightly = are_changed_since(page.contacts, delta.since)
    await knowledge.dates_are_searched(rightly)
    return page if rightly else None


def _calls_to_pull(first: SearchPage) -> int | None:
    """Calls that the pull takes which begins with this page; None when nobody knows."""
    if first.total is not None:
        return pull_calls(first.total)
    return 1 if len(first.contacts) + first.unreadable < MAX_PAGE else None


def _scan_is_hopeless(contacts_last_time: int | None, cheapest: int) -> bool:
    """Whether the location had so many contacts that counting them anew is not worth a call."""
    return contacts_last_time is not None and pull_calls(contacts_last_time) > 2 * cheapest
