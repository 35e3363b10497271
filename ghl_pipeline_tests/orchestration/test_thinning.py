"""What is kept of the asset history, by a rule told in Python and on a real instance, where all that counts stays.

The tables are Dagster's own and undocumented; these tests are what an upgrade has to pass.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterInstance
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ghl_pipeline.orchestration import thinning
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.thinning import KeptHistory, thin_history
from ghl_pipeline.partitions import location_partitions
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.project import add_sample_agency
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.orchestration.test_run_events import ASSETS, Hydration
from ghl_pipeline_tests.orchestration.test_run_events import dagster_database as dagster_database  # noqa: PLC0414
from ghl_pipeline_tests.orchestration.test_run_events import hydration as hydration  # noqa: PLC0414 - fixtures

KEPT = KeptHistory(whole=timedelta(days=2), daily=timedelta(days=30))
Event = tuple[str, str | None, str, float]  # asset, partition, type, hours ago


def add_events(log: Engine, events: Sequence[Event], *, run_id: str = "a-run") -> list[int]:
    """Their ids, in the order given."""
    insert = text("""
        INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, asset_key, partition)
        VALUES (:run_id, '{}', :type, :at, :asset, :partition) RETURNING id
    """)
    now = datetime.now(UTC).replace(tzinfo=None)
    with log.begin() as connection:
        return [
            connection.execute(
                insert,
                {"asset": asset, "partition": place, "type": type_, "at": now - timedelta(hours=ago), "run_id": run_id},
            ).scalar_one()
            for asset, place, type_, ago in events
        ]


def ids_left(log: Engine) -> list[int]:
    with log.connect() as connection:
        return list(connection.execute(text("SELECT id FROM event_logs ORDER BY id")).scalars())


def kept_by_rule(log: Engine, ids: Mapping[int, Event], now: datetime) -> set[int]:
    """All of two days; of 30 the last of each day; of each partition the newest; and all of other types."""
    now = now.replace(tzinfo=None)
    with log.connect() as connection:
        at = {row.id: row.timestamp for row in connection.execute(text("SELECT id, timestamp FROM event_logs"))}
    groups: dict[tuple[str, str | None, str], list[int]] = defaultdict(list)
    for each, (asset, place, type_, _) in sorted(ids.items()):
        groups[asset, place, type_].append(each)
    kept: set[int] = set()
    for (_, _, type_), members in groups.items():
        last_of_day = {at[each].date(): each for each in members if each in at}
        for each in members:
            age = now - at[each] if each in at else timedelta.max
            if (
                type_ not in thinning.THINNED
                or each == members[-1]
                or age < KEPT.whole
                or (age < KEPT.daily and last_of_day[at[each].date()] == each)
            ):
                kept.add(each)
    return kept


hours = st.lists(
    st.tuples(
        st.sampled_from(["one", "other"]),
        st.sampled_from([None, "Here", "There"]),
        st.sampled_from(["ASSET_MATERIALIZATION", "ASSET_OBSERVATION", "ASSET_MATERIALIZATION_PLANNED"]),
        # Never within the time that the test takes of a limit.
        st.integers(0, 24 * 40).map(lambda hour: hour + 0.5),
    ),
    max_size=60,
).map(
    # Of an asset without partitions no event has one.
    lambda events: sorted(
        ((asset if place else "whole", place, type_, ago) for asset, place, type_, ago in events),
        key=lambda event: -event[3],
    )
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(hours, st.integers(1, 20), st.lists(st.integers(1, 20 * 24), max_size=3))
def test_what_is_kept_is_what_the_rule_says_however_often_and_in_whatever_pages(
    dagster_database: Engine, events: list[Event], page: int, hours_later: list[int]
) -> None:
    with dagster_database.begin() as connection:
        connection.execute(text("TRUNCATE event_logs"))
        connection.execute(text("DELETE FROM kvs"))
    ids = dict(zip(add_events(dagster_database, events), events, strict=True))
    before = thinning.EVENTS_PER_STATEMENT
    thinning.EVENTS_PER_STATEMENT = page
    try:
        now = datetime.now(UTC)
        for later in [0, *hours_later]:
            # The clock is moved and not the events: what was one day stays one.
            now += timedelta(hours=later)
            there, expected = set(ids_left(dagster_database)), kept_by_rule(dagster_database, ids, now)
            foreseen = thin_history(dagster_database, KEPT, dry_run=True, now=now)
            assert set(ids_left(dagster_database)) == there, "it only counted"
            assert thin_history(dagster_database, KEPT, now=now) == foreseen == len(there - expected)
            assert set(ids_left(dagster_database)) == expected & there == expected
            assert thin_history(dagster_database, KEPT, now=now) == 0
    finally:
        thinning.EVENTS_PER_STATEMENT = before


def test_what_a_backfill_under_way_did_is_left_to_it(dagster_database: Engine, instance: DagsterInstance) -> None:
    """Its daemon may have been away for days, and goes on from what its runs left."""
    backfill = PartitionBackfill(
        "a-backfill", BulkActionStatus.REQUESTED, from_failure=False, tags={}, backfill_timestamp=1.0,
        asset_selection=[dg.AssetKey("one")], partition_names=["Here"],
    )  # fmt: skip
    instance.add_backfill(backfill)
    run = instance.create_run_for_job(dg.job(name="empty")(lambda: None), tags={"dagster/backfill": "a-backfill"})
    of_backfill = add_events(dagster_database, [("one", "Here", "ASSET_MATERIALIZATION", 90)], run_id=run.run_id)
    later = add_events(dagster_database, [("one", "Here", "ASSET_MATERIALIZATION", hours) for hours in (89.9, 89.8)])
    day_apart = {*of_backfill, later[-1]}
    thin_history(dagster_database, KEPT)
    assert set(ids_left(dagster_database)) >= day_apart
    with dagster_database.begin() as connection:
        connection.execute(text("UPDATE bulk_actions SET status = 'COMPLETED_SUCCESS'"))
        connection.execute(text("UPDATE event_logs SET timestamp = timestamp - interval '40 days'"))
    assert thin_history(dagster_database, KEPT) >= 1
    assert ids_left(dagster_database) == later[-1:]


def test_where_only_some_events_of_an_asset_have_a_partition_too_many_are_kept_rather_than_too_few(
    dagster_database: Engine,
) -> None:
    mixed: list[Event] = [("one", place, "ASSET_MATERIALIZATION", 900) for place in (None, "Here", None)]
    ids = add_events(dagster_database, mixed)
    assert thin_history(dagster_database, KEPT) == 0
    assert ids_left(dagster_database) == ids


def test_tags_of_events_go_with_them(dagster_database: Engine) -> None:
    ids = add_events(dagster_database, [("one", "Here", "ASSET_MATERIALIZATION", 1000 - n) for n in range(3)])
    with dagster_database.begin() as connection:
        connection.execute(
            text("INSERT INTO asset_event_tags (event_id, asset_key, key) VALUES (:id, 'one', 'a')"),
            [{"id": each} for each in ids],
        )
    assert thin_history(dagster_database, KEPT) == 2
    with dagster_database.connect() as connection:
        assert connection.execute(text("SELECT event_id FROM asset_event_tags")).scalars().all() == ids[-1:]


def facts(hydration: Hydration) -> list[object]:
    """What asset pages, backfills, resuming and a retry read; twice, as the UI has it in its cache and without it."""
    instance = hydration.instance
    wanted = [dg.AssetKey(asset) for asset in ASSETS]
    places = instance.get_dynamic_partitions("location")

    def status() -> list[object]:
        return [
            get_and_update_asset_status_cache_value(instance, asset, location_partitions, instance) for asset in wanted
        ]

    cached = status()
    with hydration.log.begin() as connection:
        connection.execute(text("UPDATE asset_keys SET cached_status_data = NULL"))
    return [
        cached,
        status(),
        instance.get_asset_records(wanted),
        [
            (
                sorted(instance.get_materialized_partitions(asset)),
                instance.get_latest_materialization_event(asset),
                instance.event_log_storage.get_latest_storage_id_by_partition(
                    asset, dg.DagsterEventType.ASSET_MATERIALIZATION
                ),
                [
                    read(dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[place]), limit=1).records
                    for place in places
                    for read in (instance.fetch_materializations, instance.fetch_observations)
                ],
            )
            for asset in wanted
        ],
        [(run.run_id, run.status, run.tags) for run in instance.get_runs()],
        [(each.status, each.tags, each.title) for each in instance.get_backfills()],
    ]


def test_asset_pages_backfills_and_resuming_read_the_same_of_a_thinned_history(
    engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance, hydration: Hydration
) -> None:
    agency = add_sample_agency(engine, project, sandbox, locations=4, leads=12)
    ids = [location.id for location in agency.locations]
    sync_partitions(instance, ids)
    instance.add_backfill(
        PartitionBackfill(
            "a-backfill", BulkActionStatus.COMPLETED_FAILED, from_failure=False, tags={}, backfill_timestamp=1.0,
            title="All", asset_selection=[dg.AssetKey(asset) for asset in ASSETS], partition_names=ids,
        )
    )  # fmt: skip
    all_of_them = {
        "dagster/backfill": "a-backfill",
        "dagster/asset_partition_range_start": ids[0],
        "dagster/asset_partition_range_end": ids[-1],
    }
    for _ in range(4):
        assert hydration.run(locations=ids[:3]).success
    sandbox.faults(ids[3], token_revoked=True)
    failed = hydration.run(tags=all_of_them, page_size=5)
    assert not failed.success
    with hydration.log.begin() as connection:
        connection.execute(text("UPDATE event_logs SET timestamp = timestamp - interval '40 days'"))
    before, rows = facts(hydration), hydration.rows()

    dropped = thin_history(hydration.log, KEPT)

    left = hydration.rows()
    assert facts(hydration) == before
    assert dropped == sum(rows.values()) - sum(left.values())
    # The fourth has its list of leads and no more.
    assert left["ASSET_MATERIALIZATION"] == 3 * len(ASSETS) + 1 < rows["ASSET_MATERIALIZATION"]
    assert left["ASSET_OBSERVATION"] <= 2 * len(ids)
    assert {name: rows[name] for name in rows if name not in thinning.THINNED} == {
        name: left[name] for name in left if name not in thinning.THINNED
    }

    sandbox.faults()
    retried = {**all_of_them, "dagster/root_run_id": failed.run_id, "dagster/retry_number": "1"}
    retry = hydration.run(tags=retried)
    assert retry.success
    assert {event.partition for event in retry.asset_materializations_for_node("lead_hydration")} == {ids[3]}, (
        "what the attempt had done is not done again"
    )


def test_a_stopped_run_is_resumed_from_a_checkpoint_of_weeks_ago(
    engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance, hydration: Hydration
) -> None:
    agency = add_sample_agency(engine, project, sandbox, locations=1, leads=30)
    place = agency.locations[0].id
    sync_partitions(instance, [place])
    hydration.run(locations=[place], page_size=5, max_leads=10)
    with engine.begin() as connection:
        connection.execute(text("UPDATE leads SET phone = NULL, ghl_contact_id = NULL"))
    first = hydration.run(locations=[place], page_size=5)
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(ASSETS[1]), asset_partitions=[place])
    before = instance.fetch_observations(wanted, limit=100).records
    assert len(before) > 2
    with hydration.log.begin() as connection:
        connection.execute(text("UPDATE event_logs SET timestamp = timestamp - interval '40 days'"))
    assert thin_history(hydration.log, KEPT) > 0
    after = instance.fetch_observations(wanted, limit=100).records
    assert after == before[:1], "the newest, from which work is resumed"
    assert after[0].run_id == first.run_id


def test_whatever_the_log_looks_like_each_event_costs_a_look_into_an_index(dagster_database: Engine) -> None:
    """A page of a busy log once took more than a minute: PostgreSQL went through the whole of it for each event."""
    filler = text("""
        INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, asset_key, partition)
        SELECT 'run-' || n / 500, '{}', 'ASSET_MATERIALIZATION', timezone('UTC', now()) - interval '60 days',
               CASE WHEN n % 9999 = 0 THEN 'rare' ELSE 'busy' END,
               CASE WHEN n % 9999 > 0 THEN 'location-' || n % :places END
        FROM generate_series(1, 50000) AS n
    """)
    values = {
        "type": "ASSET_MATERIALIZATION", "after": 20000, "size": 5000, "daily": False,
        "since": datetime(2000, 1, 1), "until": datetime(2100, 1, 1),  # noqa: DTZ001 - as Dagster stores it
    }  # fmt: skip
    for places in (1, 500):
        with dagster_database.begin() as connection:
            connection.execute(text("TRUNCATE event_logs RESTART IDENTITY"))
            connection.execute(filler, {"places": places})
            connection.execute(text("ANALYZE event_logs"))
            explained = connection.execute(text(f"EXPLAIN {thinning._FOUND.text}"), values)
            plan = "\n".join(explained.scalars())
            dropping = connection.execute(text(f"EXPLAIN {thinning._DROP.text}"), {"ids": list(range(5000))})
            assert "Seq Scan" not in "\n".join(dropping.scalars())
        assert "using idx_events_by_asset_partition on event_logs newer" in plan
        assert "using idx_events_by_asset on event_logs newer" in plan
        assert "Seq Scan on event_logs" not in plan
