"""Who is asked for again now, on a real database whose clock the test moves: pauses, rounds, leases, holds."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.operations import reruns
from ghl_pipeline.operations.reruns import Chosen, choose
from ghl_pipeline.operations.waiting import held_locations
from ghl_pipeline.orchestration.attempts import begin_attempt, end_attempt, held_back, record_refusal
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.holds import left_to_reruns, release_where_somebody_acted
from ghl_pipeline.orchestration.rerun_rules import RerunRules
from ghl_pipeline.orchestration.standings import use_rules

TICK = 30


def failure(location_id: str, error_class: str = "GhlServerError", *, permanent: bool = False) -> FailedLocation:
    return FailedLocation(location_id, error_class, f"{error_class}: location {location_id} failed", permanent)


@dataclass
class Clinic:
    """Locations that work and fail as the test says, without GHL."""

    engine: Engine
    busy: set[str] = field(default_factory=set)

    def add(self, number: int) -> list[str]:
        with self.engine.begin() as connection:
            query = text("""
                INSERT INTO clients (name, location_id, active, ghl_token_encrypted)
                SELECT 'Client ' || n, 'Location' || lpad(n::text, 12, '0'), true, 'x'
                FROM generate_series(1, :number) AS n RETURNING location_id
            """)
            return list(connection.execute(query, {"number": number}).scalars())

    def work(self, location_id: str, said: FailedLocation | None = None) -> int:
        attempt = begin_attempt(self.engine, location_id, "run-1", "hydration")
        end_attempt(self.engine, attempt, "failed" if said else "succeeded", failure=said)
        return attempt

    def all_fail(self, locations: list[str], error_class: str = "GhlServerError", *, permanent: bool = False) -> None:
        for location_id in locations:
            record_refusal(self.engine, failure(location_id, error_class, permanent=permanent), "run-1")

    def ask(self, *, wanted: Collection[str] | None = None) -> Chosen:
        askable = active_locations if wanted is None else lambda _: wanted
        return choose(self.engine, "hydration", askable, {"run": self.busy})

    def left_to_reruns(self) -> set[str]:
        with self.engine.connect() as connection:
            return left_to_reruns(connection, "hydration")

    def asked(self) -> list[str]:
        return [each for run in self.ask().runs for each in run]

    def pass_time(self, seconds: float) -> None:
        """As if so much time had passed: everything on record is as much longer ago."""
        ago = "make_interval(secs => :seconds)"
        statements = [
            f"""UPDATE location_standings SET began_at = began_at - {ago}, ended_at = ended_at - {ago},
                succeeded_at = succeeded_at - {ago}, failing_since = failing_since - {ago},
                rerun_at = rerun_at - {ago}, requested_at = requested_at - {ago}""",
            f"UPDATE rerun_rounds SET asked_at = asked_at - {ago}",
            # The trigger would set it to now.
            "ALTER TABLE clients DISABLE TRIGGER USER",
            f"UPDATE clients SET updated_at = updated_at - {ago}",
            "ALTER TABLE clients ENABLE TRIGGER USER",
        ]
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), {"seconds": seconds} if ":seconds" in statement else {})

    def standing(self, location_id: str) -> dict[str, object]:
        query = text("SELECT * FROM location_standings WHERE location_id = :id AND capability = 'hydration'")
        with self.engine.connect() as connection:
            return dict(connection.execute(query, {"id": location_id}).one()._mapping)

    def counted(self, condition: str) -> int:
        with self.engine.connect() as connection:
            return int(
                connection.execute(text(f"SELECT count(*) FROM location_standings WHERE {condition}")).scalar_one()
            )


@pytest.fixture
def clinic(engine: Engine) -> Clinic:
    return Clinic(engine)


def test_what_failed_is_asked_for_when_its_pause_is_over_and_not_twice(clinic: Clinic) -> None:
    failed, well = clinic.add(2)
    clinic.work(failed, failure(failed))
    clinic.work(well)
    assert clinic.asked() == [], "its pause is not over"
    clinic.pass_time(121)
    assert clinic.asked() == [failed]
    assert clinic.asked() == []


def test_each_failure_waits_longer_and_a_success_forgets_them(clinic: Clinic) -> None:
    (location,) = clinic.add(1)
    clinic.work(location, failure(location))
    pauses = []
    for _ in range(4):
        standing = clinic.standing(location)
        pauses.append((standing["rerun_at"] - standing["ended_at"]).total_seconds())  # type: ignore[operator]
        clinic.pass_time(7201)
        assert clinic.asked() == [location]
        clinic.work(location, failure(location))
    assert [60 * 2**n <= pause < 120 * 2**n for n, pause in enumerate(pauses)] == [True] * 4
    assert clinic.standing(location)["failures"] == 5
    clinic.work(location)
    standing = clinic.standing(location)
    assert (standing["failures"], standing["reruns"], standing["rerun_at"], standing["cause"]) == (0, 0, None, None)


def test_after_a_dozen_reruns_there_is_one_a_day(clinic: Clinic) -> None:
    use_rules(clinic.engine, RerunRules(most=3))
    (location,) = clinic.add(1)
    clinic.work(location, failure(location))
    for _ in range(3):
        clinic.pass_time(7201)
        assert clinic.asked() == [location]
        clinic.work(location, failure(location))
    clinic.pass_time(7201)
    assert clinic.asked() == []
    clinic.pass_time(24 * 3600)
    assert clinic.asked() == [location]


def test_a_request_that_got_lost_is_made_again(clinic: Clinic) -> None:
    """The daemon died between noting that it asks and starting the run."""
    (location,) = clinic.add(1)
    clinic.work(location, failure(location))
    clinic.pass_time(121)
    assert clinic.asked() == [location]
    clinic.pass_time(599)
    assert clinic.asked() == []
    clinic.pass_time(2)
    assert clinic.asked() == [location]


def test_a_location_that_a_run_has_in_hand_is_left_to_it(clinic: Clinic) -> None:
    (location,) = clinic.add(1)
    clinic.work(location, failure(location))
    clinic.pass_time(121)
    clinic.busy = {location}
    assert clinic.asked() == []
    clinic.busy = set()
    assert clinic.asked() == [location]


def test_a_location_that_ends_its_process_again_and_again_goes_alone(clinic: Clinic) -> None:
    deadly, *others = clinic.add(4)
    for _ in range(4):
        begin_attempt(clinic.engine, deadly, "run-1", "hydration")
    end_attempt(clinic.engine, begin_attempt(clinic.engine, deadly, "run-1", "hydration"), "interrupted")
    for each in others:
        clinic.work(each, failure(each))
    clinic.pass_time(121)
    assert sorted(map(sorted, clinic.ask().runs)) == sorted([[deadly], sorted(others)])


def test_two_that_look_at_once_never_ask_for_the_same(clinic: Clinic) -> None:
    locations = clinic.add(300)
    clinic.all_fail(locations, "KeyError", permanent=True)  # bugs: no slow start
    clinic.pass_time(121)
    with ThreadPoolExecutor(4) as pool:
        asked = [location for found in pool.map(lambda _: clinic.asked(), range(8)) for location in found]
    assert sorted(asked) == locations


def test_the_days_quota_is_no_failure_and_waits_for_the_reset(clinic: Clinic) -> None:
    (location,) = clinic.add(1)
    clinic.work(location)
    clinic.work(location, failure(location, "DailyQuotaReached"))
    standing = clinic.standing(location)
    assert (standing["failures"], standing["failing_since"], standing["cause"]) == (0, None, "quota")
    assert clinic.asked() == []
    clinic.pass_time(25 * 3600)
    assert clinic.asked() == [location]


def test_a_dry_run_says_nothing_and_is_never_repeated(clinic: Clinic) -> None:
    (location,) = clinic.add(1)
    attempt = begin_attempt(clinic.engine, location, "run-1", "hydration", trial=True)
    end_attempt(clinic.engine, attempt, "failed", failure=failure(location))
    assert clinic.counted("true") == 0


def test_a_success_at_a_part_of_the_work_leaves_the_failure_to_be_made_up_for(clinic: Clinic) -> None:
    location, refused, well = clinic.add(3)

    def work_at_a_part(location_id: str) -> dict[str, object]:
        attempt = begin_attempt(clinic.engine, location_id, "run-2", "hydration")
        end_attempt(clinic.engine, attempt, "succeeded", whole=False)
        return clinic.standing(location_id)

    clinic.work(location, failure(location))
    before = clinic.standing(location)
    after = work_at_a_part(location)
    assert [after[name] for name in ("state", "cause", "failures", "rerun_at")] == [
        "failed", "transient", 1, before["rerun_at"],
    ]  # fmt: skip
    clinic.work(refused, failure(refused, "TokenRejected", permanent=True))
    assert work_at_a_part(refused)["rerun_at"] is not None, "it is refused no more"
    assert (work_at_a_part(well)["state"], clinic.standing(well)["succeeded_at"] is not None) == ("succeeded", True)
    clinic.pass_time(121)
    assert clinic.asked() == [refused, location]


def test_work_that_tries_by_itself_is_not_asked_for(clinic: Clinic) -> None:
    (location,) = clinic.add(1)
    for capability in ("webhooks", "drafts"):
        record_refusal(clinic.engine, failure(location), "run-1", capability)
    assert clinic.counted("rerun_at IS NOT NULL") == 0
    with clinic.engine.connect() as connection:
        assert held_locations(connection) == []


# --- holds


def test_a_refusal_is_held_looked_at_once_a_day_and_counts_as_held_until_then(clinic: Clinic) -> None:
    (location,) = clinic.add(1)
    clinic.pass_time(60)
    clinic.work(location, failure(location, "TokenRejected", permanent=True))

    def release() -> int:
        with clinic.engine.begin() as connection:
            return release_where_somebody_acted(connection, ["hydration"])

    for _ in range(3):
        assert release() == 0
        assert clinic.asked() == []
        with clinic.engine.connect() as connection:
            assert held_back(connection, "hydration") == {location}
            (held,) = held_locations(connection)
        assert (held.location_id, held.cause, held.error_class) == (location, "refused", "TokenRejected")
        clinic.pass_time(26 * 3600)
        assert release() == 1
        assert clinic.asked() == [location]
        clinic.work(location, failure(location, "TokenRejected", permanent=True))


@pytest.mark.parametrize(
    ("capability", "error_class", "change", "taken_up"),
    [
        ("hydration", "TokenRejected", "UPDATE clients SET ghl_token_encrypted = 'y'", True),
        ("crm", "TokenRejected", "UPDATE crm_clients SET discover = NOT discover", False),
        ("crm", "TooManyMissing", "UPDATE crm_clients SET discover = NOT discover", True),
        ("hydration", "TokenRejected", "UPDATE booking_calendars SET booking_link = 'https://example.com/b'", False),
        ("availability", "CalendlyAccessDenied", "UPDATE booking_calendars SET booking_link = ''", True),
        ("senders", "EmailBisonAccessDenied", "UPDATE emailbison_workspaces SET workspace_id = 8", True),
        ("hydration", "TokenRejected", "UPDATE emailbison_workspaces SET workspace_id = 8", False),
    ],
)  # fmt: skip
def test_a_change_of_what_was_refused_takes_it_up_again(
    clinic: Clinic, capability: str, error_class: str, change: str, taken_up: bool
) -> None:
    (location,) = clinic.add(1)
    with clinic.engine.begin() as connection:
        for statement in (
            "INSERT INTO crm_clients (client_id) SELECT id FROM clients",
            "INSERT INTO booking_calendars (client_id, booking_link) SELECT id, 'https://example.com/a' FROM clients",
            """INSERT INTO emailbison_workspaces (client_id, base_url, workspace_id)
               SELECT id, 'https://bison.example.com', 7 FROM clients""",
        ):
            connection.execute(text(statement))
    cause = FailedLocation(location, error_class, "a text", permanent=True)
    record_refusal(clinic.engine, cause, "run-1", capability)
    if error_class == "TooManyMissing":
        with clinic.engine.begin() as connection:
            connection.execute(text("UPDATE location_standings SET cause = 'decision', rerun_at = NULL"))
    with clinic.engine.begin() as connection:
        assert release_where_somebody_acted(connection, [capability]) == 0
    with clinic.engine.begin() as connection:
        connection.execute(text(change))
        if "emailbison" in change:
            connection.execute(text("UPDATE emailbison_workspaces SET updated_at = now()"))
    with clinic.engine.begin() as connection:
        held = held_back(connection, capability, also=["TooManyMissing"])
        assert (held == set()) == taken_up
        assert release_where_somebody_acted(connection, [capability]) == taken_up


# --- many at once


def test_many_that_fail_at_once_come_back_a_few_first(clinic: Clinic) -> None:
    clinic.all_fail(clinic.add(200))
    assert clinic.asked() == []
    clinic.pass_time(130)
    first = clinic.asked()
    assert len(first) == 5
    assert clinic.asked() == [], "they have not been heard of"
    for location_id in first:
        clinic.work(location_id)
    assert len(clinic.asked()) == 20


def test_a_round_that_fails_leaves_the_others_their_tries(clinic: Clinic) -> None:
    clinic.all_fail(clinic.add(100))
    clinic.pass_time(130)
    for expected in (5, 2, 1, 1):
        asked = clinic.asked()
        assert len(asked) == expected
        for location_id in asked:
            clinic.work(location_id, failure(location_id))
        assert clinic.asked() == [], "the next one is a minute later"
        clinic.pass_time(61)
    assert clinic.counted("reruns > 0") == 9, "each time others, so that one that is broken does not speak for all"


def test_a_new_token_comes_before_those_that_wait_for_ghl(clinic: Clinic) -> None:
    refused, *others = clinic.add(60)
    clinic.all_fail(others)
    clinic.work(refused, failure(refused, "TokenRejected", permanent=True))
    clinic.pass_time(130)
    with clinic.engine.begin() as connection:
        connection.execute(
            text("UPDATE clients SET ghl_token_encrypted = 'y' WHERE location_id = :id"), {"id": refused}
        )
    with clinic.engine.begin() as connection:
        release_where_somebody_acted(connection, ["hydration"])
    assert refused in clinic.asked()


def test_locations_at_which_the_work_is_not_wanted_any_more_take_nobodys_place(clinic: Clinic) -> None:
    locations = clinic.add(60)
    wanted, (alone, *_) = locations[50:], locations
    clinic.all_fail(locations)
    clinic.pass_time(130)
    chosen = clinic.ask(wanted=wanted)
    assert sorted(each for run in chosen.runs for each in run) == wanted, "ten that fail are no outage"
    assert (chosen.waiting, chosen.held_up) == (0, False)
    assert clinic.standing(alone)["reruns"] == 0
    assert clinic.ask().locations == 0, "switched on again, they are asked for when the lease is over"
    clinic.pass_time(601)
    assert clinic.ask().locations == 5


def test_schedules_leave_an_outage_and_the_quota_to_the_reruns(clinic: Clinic) -> None:
    used_up, *others = clinic.add(31)
    clinic.work(used_up, failure(used_up, "DailyQuotaReached"))
    clinic.all_fail(others[:1])
    assert clinic.left_to_reruns() == {used_up}, "what fails by itself has its turns all the same"
    clinic.all_fail(others)
    assert clinic.left_to_reruns() == {used_up}, "nobody asks for them yet"
    clinic.pass_time(130)
    assert len(clinic.asked()) == 5
    assert clinic.left_to_reruns() == {used_up, *others}
    clinic.pass_time(15 * 60)
    assert clinic.left_to_reruns() == {used_up}, "the sensor is switched off"
    for each in others:
        clinic.work(each)
    assert (clinic.asked(), clinic.left_to_reruns()) == ([], {used_up})
    clinic.pass_time(25 * 3600)
    assert clinic.left_to_reruns() == set()


@pytest.mark.slow
def test_ghl_is_down_for_five_minutes_and_a_thousand_locations_are_back_soon_without_a_storm(clinic: Clinic) -> None:
    """Looked at every 30 s, as the sensor does; a location that is asked fails or succeeds before the next look."""
    down, limit = 300, 900
    clinic.all_fail(clinic.add(1000))
    asked_per_look: list[int] = []
    for second in range(0, limit, TICK):
        clinic.pass_time(TICK)
        asked = clinic.asked()
        asked_per_look.append(len(asked))
        for location_id in asked:
            clinic.work(location_id, failure(location_id) if second < down else None)
        if clinic.counted("state <> 'succeeded'") == 0:
            break
    per_minute = [sum(asked_per_look[at : at + 2]) for at in range(0, down // TICK, 2)]
    assert max(per_minute) <= 5, asked_per_look
    assert sum(per_minute) >= 5, "somebody has to find out"
    assert clinic.counted("state <> 'succeeded'") == 0, asked_per_look
    assert second <= down + 360, asked_per_look


def test_looking_for_what_is_due_reads_what_is_unwell_and_not_everything(clinic: Clinic) -> None:
    failed = clinic.add(2)
    clinic.all_fail(failed)
    many = text("""
        INSERT INTO location_standings (location_id, capability, state, succeeded_at)
        SELECT 'Well' || n, capability, 'succeeded', now()
        FROM generate_series(1, 5000) AS n, unnest(ARRAY['hydration', 'crm', 'conversations', 'senders']) AS capability
    """)
    values = {"capability": "hydration", "left_alone": "[]", "early": None, "most": 1000, "wanted": "[]"}
    with clinic.engine.begin() as connection:
        connection.execute(many)
        connection.execute(text("ANALYZE location_standings"))
        for statement in (reruns._IS_ANY_UNWELL, reruns._PUT_OFF, reruns._WAITING, reruns._CANDIDATES):
            plan = connection.execute(text(f"EXPLAIN {statement.text}"), values).scalars().all()
            assert any("ix_location_standings_unwell" in line for line in plan), plan
            assert not any("Seq Scan on location_standings" in line for line in plan), plan
