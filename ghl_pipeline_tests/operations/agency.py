"""Clients whose locations stand as a test says, without any work being done."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event, text


class Agency:
    """Rows as the pipeline leaves them behind. Times are given as SQL intervals ago, such as `2 hours`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def sql(self, statement: str, **values: object) -> Any:
        """Runs a statement; returns the first value of its rows, if it has any."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.scalar() if result.returns_rows else None

    def client(
        self, location_id: str, *, active: bool = True, token: bool = True, age: str = "0 seconds", name: str = ""
    ) -> int:
        """A client; returns its id."""
        return int(
            self.sql(
                """INSERT INTO clients (name, location_id, active, ghl_token_encrypted, created_at)
                   VALUES (:name, :id, :active, :token, now() - CAST(:age AS interval)) RETURNING id""",
                id=location_id, name=name or f"Client of {location_id}", active=active, age=age,
                token="sealed" if token else None,
            )
        )  # fmt: skip

    def leads(self, client: int, number: int, *, phone: bool = False, outcome: str | None = None) -> None:
        """Leads of the client, with a lookup on record where an outcome is given."""
        self.sql(
            """WITH added AS (
                   INSERT INTO leads (client_id, phone, first_name, last_name)
                   SELECT :client, CASE WHEN :phone THEN '+13055550187' END, 'Ada', 'Lovelace'
                   FROM generate_series(1, :number) RETURNING id, client_id)
               INSERT INTO lead_lookups (lead_id, client_id, outcome)
               SELECT id, client_id, :outcome FROM added WHERE CAST(:outcome AS text) IS NOT NULL""",
            client=client, number=number, phone=phone, outcome=outcome,
        )  # fmt: skip

    def standing(
        self,
        location_id: str,
        capability: str,
        state: str,
        *,
        ended: str = "0 seconds",
        succeeded: str | None = None,
        error: str | None = None,
        permanent: bool | None = None,
        rerun_in: str | None = None,
        failures: int = 0,
    ) -> None:
        """How the latest work of a kind ended there; one that failed has done so since then."""
        self.sql(
            """INSERT INTO location_standings (location_id, capability, state, began_at, ended_at, succeeded_at,
                   failures, failing_since, error_class, error_text, permanent, rerun_at)
               VALUES (:location, :capability, :state, now() - CAST(:ended AS interval),
                   CASE WHEN :state <> 'running' THEN now() - CAST(:ended AS interval) END,
                   now() - CAST(:succeeded AS interval), :failures,
                   CASE WHEN :failures > 0 THEN now() - CAST(:ended AS interval) END,
                   split_part(:error, ':', 1), :error, :permanent, now() + CAST(:rerun_in AS interval))""",
            location=location_id, capability=capability, state=state, ended=ended, succeeded=succeeded, error=error,
            permanent=permanent, rerun_in=rerun_in, failures=failures,
        )  # fmt: skip

    def attempt(
        self, location_id: str, *, days_ago: int = 0, state: str = "succeeded", error: str | None = None, report: str
    ) -> None:
        """An attempt at hydration on record, at noon of a UTC day."""
        self.sql(
            """INSERT INTO location_attempts (location_id, capability, state, error_class, report, started_at, ended_at)
               VALUES (:id, 'hydration', :state, :error, CAST(:report AS jsonb),
                   (date_trunc('day', now() AT TIME ZONE 'UTC') - make_interval(days => :days)) AT TIME ZONE 'UTC',
                   now())""",
            id=location_id, state=state, error=error, report=report, days=days_ago,
        )  # fmt: skip

    def requests(self, location_id: str, used: int, of: int, *, days_ago: int = 0) -> None:
        """Requests that the throttle counted."""
        self.sql(
            """INSERT INTO location_throttle
                   (location_id, asked_max_requests, asked_interval_seconds, day, used_today, max_per_day)
               VALUES (:id, 90, 10, (now() AT TIME ZONE 'UTC')::date - :days, :used, :of)""",
            id=location_id, used=used, of=of, days=days_ago,
        )  # fmt: skip

    def event(self, client: int, location_id: str, state: str, *, number: int = 1, due: str = "0 seconds") -> None:
        """Events in the inbox; due so long ago, or in so long where the interval is negative."""
        self.sql(
            """INSERT INTO webhook_events (provider, dedupe_key, client_id, location_id, event_type, body, state,
                   received_at, due_at)
               SELECT 'ghl', gen_random_uuid()::text, :client, :location, 'InboundMessage', '{}', :state,
                   now() - greatest(CAST(:due AS interval), interval '0'), now() - CAST(:due AS interval)
               FROM generate_series(1, :number)""",
            client=client, location=location_id, state=state, number=number, due=due,
        )  # fmt: skip

    def calendar(self, client: int, state: str, *, refreshed: str | None, added: str = "0 seconds") -> None:
        """A calendar whose free times are so old."""
        self.sql(
            """INSERT INTO booking_calendars (client_id, booking_link, state, refreshed_at, created_at)
               VALUES (:client, 'https://example.com/widget/booking/roof', :state,
                   now() - CAST(:refreshed AS interval), now() - CAST(:added AS interval))""",
            client=client, state=state, refreshed=refreshed, added=added,
        )  # fmt: skip

    def statements(self, act: Callable[[], object]) -> list[str]:
        """The statements that `act` sends."""
        seen: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            seen.append(statement)

        event.listen(self.engine, "before_cursor_execute", note)
        try:
            act()
        finally:
            event.remove(self.engine, "before_cursor_execute", note)
        return seen
