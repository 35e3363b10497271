"""What a run over inboxes says of them, and the few database connections that it works on many with."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

from ghl_pipeline.webhooks.handling.many_inboxes import handle_inboxes
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import COMPLETE, Agency
from ghl_pipeline_tests.webhooks.ensuring import the_only_contact
from ghl_pipeline_tests.webhooks.handling_tools import Inbox, bison

LOCATIONS = 50
# The engine's pool, its overflow, the session of the runs' locks and the session of the turns.
MOST_CONNECTIONS = 25


@contextmanager
def watched(engine: Engine) -> Iterator[list[int]]:
    """Counts the connections to the database ten times a second, its own included."""
    counts: list[int] = []
    over = threading.Event()
    query = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")

    def watch() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not over.wait(0.1):
                counts.append(connection.execute(query).scalar_one())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield counts
    finally:
        over.set()
        watching.join()


async def test_fifty_locations_with_an_interested_lead_each_leave_connections_to_others(
    engine: Engine, sandbox: Sandbox
) -> None:
    agency = Agency(engine, sandbox)
    inbox = Inbox(agency)
    places = [agency.place(f"client {number}") for number in range(LOCATIONS)]
    for place in places:
        inbox.deliver(place, bison("LEAD_INTERESTED"))
    # So that all of them are under way at the same time.
    sandbox.faults(latency_seconds=1.0)
    with watched(engine) as connections:
        result = await handle_inboxes(inbox.handling(), [place.id for place in places])
    assert (len(result.reports), result.failures) == (LOCATIONS, ())
    assert all(the_only_contact(place).email == "ada@example.com" for place in places)
    assert max(connections) <= MOST_CONNECTIONS


async def test_values_that_ghl_does_not_take_are_counted_and_stop_no_event(engine: Engine, sandbox: Sandbox) -> None:
    agency = Agency(engine, sandbox)
    inbox, place = Inbox(agency), agency.place()
    place.ghl.add(email="ada@example.com")
    agency.lead(place, **COMPLETE)
    sandbox.faults(refused_properties=("companyName",))
    inbox.deliver(place, bison("LEAD_INTERESTED"))
    result = await handle_inboxes(inbox.handling(), [place.id])
    counts = result.reports[place.id].counts()
    assert (counts["lead_updated"], counts["values_refused"], counts["phones_refused"]) == (1, 1, 0)
    assert (the_only_contact(place).first_name, the_only_contact(place).company_name) == ("Ada", None)
