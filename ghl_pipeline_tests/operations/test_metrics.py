"""What the database knows of runs, as Prometheus reads it."""

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from ghl_pipeline.cli.app import app
from ghl_pipeline.conversations.import_report import ImportReport
from ghl_pipeline.crm.report import CrmReport
from ghl_pipeline.ghl import throttle_row
from ghl_pipeline.ghl.throttle_row import Limits
from ghl_pipeline.hydration.outcomes import Counts
from ghl_pipeline.operations.metrics import exposition
from ghl_pipeline.operations.metrics import families as f
from ghl_pipeline.operations.metrics.exposition import Distribution, exposed
from ghl_pipeline.operations.metrics.readings import Reading, read_metrics
from ghl_pipeline.orchestration.attempts import begin_attempt, end_attempt, record_refusal
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.senders.report import SendersReport
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.handling.reports import EventsReport
from ghl_pipeline_tests.fixtures.metrics import Values, value, values_of

ONE, TWO = "LocationOne", "LocationTwo"


@pytest.fixture
def clients(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO clients (name, location_id) SELECT id, id FROM unnest(CAST(:ids AS text[])) AS id"),
            {"ids": [ONE, TWO]},
        )


def scraped(engine: Engine, *, per_location_up_to: int = 2) -> Values:
    with engine.connect() as connection:
        return values_of(exposed(read_metrics(connection, per_location_up_to=per_location_up_to)).decode())


def hydrate(engine: Engine, location_id: str, *, hydrated: int, requests: int, **more: object) -> None:
    report = {
        "outcomes": {"hydrated": hydrated, "not_found": 0}, "fields": {"phone": hydrated}, "requests": requests,
        "seconds_waited_on_limit": 1.5, "location": location_id, "eligible": 10, **more,
    }  # fmt: skip
    end_attempt(engine, begin_attempt(engine, location_id, "run-1"), "succeeded", report=report)


def fail(engine: Engine, location_id: str, error_class: str, *, permanent: bool) -> None:
    failure = FailedLocation(location_id, error_class, "It was refused.", permanent)
    end_attempt(engine, begin_attempt(engine, location_id, "run-2"), "failed", failure=failure)


@pytest.mark.usefixtures("clients")
def test_runs_are_told_by_what_they_left_on_record(engine: Engine) -> None:
    hydrate(engine, ONE, hydrated=3, requests=7)
    hydrate(engine, ONE, hydrated=2, requests=1)
    hydrate(engine, TWO, hydrated=1, requests=1)
    fail(engine, TWO, "TokenRejected", permanent=True)
    values = scraped(engine)
    assert value(values, "attempts_total", capability="hydration", state="succeeded") == 3
    assert value(values, "attempts_total", capability="hydration", state="failed") == 1
    assert value(values, "requests_total", capability="hydration") == 9
    assert value(values, "limit_wait_seconds_total", capability="hydration") == 4.5
    assert value(values, "leads_total", outcome="hydrated") == 6
    assert value(values, "leads_total", outcome="ambiguous") == 0
    assert value(values, "fields_filled_total", field="phone") == 6
    assert value(values, "locations", capability="hydration", state="held") == 1
    assert value(values, "locations", capability="hydration", state="succeeded") == 1
    assert value(values, "held", location=TWO, capability="hydration") == 1
    assert value(values, "held", location=ONE, capability="hydration") == 0
    assert value(values, "failures_in_a_row", location=TWO, capability="hydration") == 1
    assert value(values, "location_requests_total", location=ONE, capability="hydration") == 8
    oldest = value(values, "oldest_success_timestamp_seconds", capability="hydration")
    assert oldest == value(values, "last_success_timestamp_seconds", location=ONE, capability="hydration")
    assert oldest < value(values, "newest_success_timestamp_seconds", capability="hydration")


@pytest.mark.usefixtures("clients")
def test_counters_do_not_fall_when_attempts_are_purged_or_a_client_leaves(engine: Engine) -> None:
    hydrate(engine, ONE, hydrated=3, requests=7)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM location_attempts"))
        connection.execute(text("UPDATE clients SET active = false"))
    values = scraped(engine)
    assert value(values, "attempts_total", capability="hydration", state="succeeded") == 1
    assert value(values, "leads_total", outcome="hydrated") == 3
    assert not [name for name, _ in values if name.startswith("ghl_pipeline_last_success")]


@pytest.mark.usefixtures("clients")
def test_what_changed_nothing_is_not_counted_as_work(engine: Engine) -> None:
    hydrate(engine, ONE, hydrated=3, requests=7, dry_run=True)
    record_refusal(engine, FailedLocation(ONE, "LocationBusy", "Another run is at it.", False), "run-3")
    values = scraped(engine)
    assert value(values, "leads_total", outcome="hydrated") == 0
    assert value(values, "requests_total", capability="hydration") == 7
    assert value(values, "attempts_total", capability="hydration", state="failed") == 0


@pytest.mark.usefixtures("clients")
def test_a_killed_attempt_and_one_that_never_began_are_counted_once(engine: Engine) -> None:
    begin_attempt(engine, ONE, "run-1")
    hydrate(engine, ONE, hydrated=1, requests=1)  # marks the one before as interrupted
    record_refusal(engine, FailedLocation(TWO, "TokenMissing", "It has no token.", True), "run-3")
    values = scraped(engine)
    assert value(values, "attempts_total", capability="hydration", state="interrupted") == 1
    assert value(values, "attempts_total", capability="hydration", state="succeeded") == 1
    assert value(values, "attempts_total", capability="hydration", state="failed") == 1


@pytest.mark.usefixtures("clients")
def test_the_days_quota_is_no_hold_and_refusals_of_the_rate_are_counted(engine: Engine) -> None:
    limits = Limits(max_requests=90, interval_seconds=10, max_per_day=200, interactive=5)
    throttle_row.register(engine, ONE, limits)
    throttle_row.reserve(engine, ONE, 50, limits)
    throttle_row.block(engine, ONE, 60)
    throttle_row.block(engine, ONE, 60)
    fail(engine, ONE, "DailyQuotaReached", permanent=False)
    values = scraped(engine)
    assert value(values, "locations", capability="hydration", state="waiting_for_quota") == 1
    assert value(values, "held", location=ONE, capability="hydration") == 0
    assert value(values, "quota_used_ratio_max") == 0.25
    assert value(values, "location_requests_today", location=ONE) == 50
    assert value(values, "location_requests_per_day_limit", location=ONE) == 200
    assert value(values, "rate_refusals_total") == 2
    assert value(values, "blocked_locations") == 1
    assert 50 < value(values, "location_blocked_seconds", location=ONE) <= 60
    with engine.begin() as connection:
        connection.execute(text("UPDATE location_throttle SET day = day - 1, blocked_until = 0"))
    values = scraped(engine)
    assert value(values, "requests_today") == 0
    assert value(values, "blocked_locations") == 0
    assert value(values, "rate_refusals_total") == 2


@pytest.mark.usefixtures("clients")
def test_the_inbox_drafts_and_calendars_are_told(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO webhook_events
                    (provider, dedupe_key, client_id, location_id, event_type, state, received_at)
                SELECT 'ghl', number::text, client.id, client.location_id, 'InboundMessage',
                       CASE WHEN number < 4 THEN 'pending' WHEN number = 4 THEN 'dead' ELSE 'done' END,
                       now() - interval '1 minute' * number
                FROM generate_series(1, 9) AS number JOIN clients AS client ON client.location_id = :one
            """),
            {"one": ONE},
        )
        connection.execute(
            text("""
                INSERT INTO booking_calendars (client_id, booking_link, state, refreshed_at)
                SELECT id, 'https://book.example.com/a', 'fresh', now() - interval '2 hours' FROM clients
                WHERE location_id = :one
            """),
            {"one": ONE},
        )
    values = scraped(engine)
    assert (value(values, "events_pending"), value(values, "events_dead")) == (3, 1)
    assert 180 <= value(values, "events_oldest_pending_seconds") < 240
    assert value(values, "location_events_pending", location=ONE) == 3
    assert value(values, "drafts", state="failed") == 0
    assert value(values, "calendars", state="fresh") == 1
    assert 7200 <= value(values, "calendar_age_seconds_max") < 7300
    assert 7200 <= value(values, "location_calendar_age_seconds", location=ONE) < 7300


@pytest.mark.usefixtures("clients")
def test_above_a_number_of_locations_no_series_names_one_and_that_is_said(engine: Engine) -> None:
    hydrate(engine, ONE, hydrated=3, requests=7)
    assert value(scraped(engine), "locations_told_apart") == 1
    for up_to in (1, 0):
        values = scraped(engine, per_location_up_to=up_to)
        assert value(values, "locations_told_apart") == 0
        assert value(values, "leads_total", outcome="hydrated") == 3
        assert not [labels for _, labels in values if "location" in dict(labels)]
    with engine.begin() as connection:
        connection.execute(text("UPDATE clients SET active = false WHERE location_id = :two"), {"two": TWO})
    assert value(scraped(engine, per_location_up_to=1), "locations_told_apart") == 1


def test_what_is_told_of_each_location_is_read_by_prometheus_as_it_was_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exposition, "SAMPLES_AT_ONCE", 2)
    odd = ["plain", 'quo"ted', "back\\slash", "two\nlines", "{braces}", "100 %s", "ünknown"]
    samples = [
        ((name, "crm"), value) for name, value in zip(odd, (0.0, 1.0, 0.5, 1e6, 1e17, 1.7e9 + 0.25, 3.0), strict=True)
    ]
    reading = Reading({f.LAST_SUCCESS: samples, f.LOCATION_REQUESTS: samples}, 0.1)
    values = values_of(exposed(reading).decode())
    for (location, _), number in samples:
        for name in ("last_success_timestamp_seconds", "location_requests_total"):
            assert value(values, name, location=location, capability="crm") == number


def test_every_metric_of_the_database_is_there_before_anything_happened(engine: Engine) -> None:
    with engine.connect() as connection:
        content = exposed(read_metrics(connection, per_location_up_to=2))
    told = [line.split()[2] for line in content.decode().splitlines() if line.startswith("# TYPE")]
    assert told == [family.name for family in (f.DATABASE_UP, f.READING_SECONDS, f.READING_AGE, *f.FROM_DATABASE)]


def test_a_histogram_is_cumulative() -> None:
    spread = Distribution((0.1, 1.0), (3, 2, 1), 4.5)
    content = exposed(None, {}, {f.ANSWER_SECONDS: {("ghl",): spread}})
    values = values_of(content.decode())
    assert [value(values, "receiver_answer_seconds_bucket", route="ghl", le=le) for le in ("0.1", "1.0", "+Inf")] == [
        3, 5, 6,
    ]  # fmt: skip
    assert value(values, "receiver_answer_seconds_count", route="ghl") == 6
    assert value(values, "receiver_answer_seconds_sum", route="ghl") == 4.5
    assert value(values, "database_up") == 0


def test_names_and_labels_are_ones_that_prometheus_takes() -> None:
    names = [family.name for family in f.FAMILIES]
    assert len(set(names)) == len(names)
    for family in f.FAMILIES:
        assert family.name.endswith("_total") == (family.kind is f.Kind.COUNTER)
        assert ("location" in family.labels) == family.per_location


def test_what_is_counted_is_in_the_reports() -> None:
    """The words are those of other folders, which `operations/` must not know."""
    counts = Counts()
    assert list(f.OUTCOMES) == list(counts.outcome_counts())
    assert list(f.FILLED_FIELDS) == list(counts.field_counts())
    reports = {
        "crm": CrmReport.__dataclass_fields__.keys(),
        "conversations": {*ImportReport.__dataclass_fields__, "messages_seen", "messages_imported"},
        "webhooks": EventsReport().counts().keys(),
        "senders": SendersReport("x").counts().keys(),
    }
    for capability, known in reports.items():
        assert set(f.COUNTED_WORK[capability]) <= set(known)


@pytest.mark.usefixtures("clients")
def test_the_command_prints_the_same_for_a_machine_without_a_receiver(engine: Engine, project: Settings) -> None:
    hydrate(engine, ONE, hydrated=3, requests=7)
    result = CliRunner().invoke(app, ["metrics"])
    assert result.exit_code == 0, result.output
    assert value(values_of(result.stdout), "leads_total", outcome="hydrated") == 3
    totals = CliRunner().invoke(app, ["metrics", "--totals"]).stdout
    assert 'location="' in result.stdout
    assert 'location="' not in totals
