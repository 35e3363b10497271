"""What is kept of a location for the next run, and for how long a refusal is believed."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.hydration.learning import load_group_size, save_group_size
from ghl_pipeline.hydration.lookup import MAX_GROUP, GroupSize

LOCATION = "location000000000001"


def age(engine: Engine, days: float) -> None:
    """Makes what was learned so many days older."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE location_learning SET updated_at = updated_at - CAST(:age AS interval)"),
            {"age": timedelta(days=days)},
        )


def learned_days_ago(engine: Engine) -> float:
    """How old the ceiling is taken to be."""
    with engine.connect() as connection:
        updated_at: datetime = connection.execute(text("SELECT updated_at FROM location_learning")).scalar_one()
    return (datetime.now(UTC) - updated_at) / timedelta(days=1)


def test_a_location_never_asked_starts_with_the_default(engine: Engine) -> None:
    assert load_group_size(engine, LOCATION, 30) == GroupSize(30, MAX_GROUP)


def test_what_was_learned_comes_back(engine: Engine) -> None:
    save_group_size(engine, LOCATION, GroupSize(6, 12))
    save_group_size(engine, "location000000000002", GroupSize(50, 100))
    assert load_group_size(engine, LOCATION, 30) == GroupSize(6, 12)


@pytest.mark.parametrize(
    ("days", "learned", "loaded"),
    [
        (6.9, GroupSize(6, 6), GroupSize(6, 6)),
        (7.1, GroupSize(6, 6), GroupSize(6, 12)),
        (7.1, GroupSize(1, 1), GroupSize(1, 2)),
        (7.1, GroupSize(40, 60), GroupSize(40, MAX_GROUP)),
        (365, GroupSize(50, 100), GroupSize(50, MAX_GROUP)),
    ],
)
def test_a_ceiling_is_tried_again_after_a_week(
    engine: Engine, days: float, learned: GroupSize, loaded: GroupSize
) -> None:
    save_group_size(engine, LOCATION, learned)
    age(engine, days)
    assert load_group_size(engine, LOCATION, 30) == loaded


def test_a_ceiling_grows_week_by_week_until_it_is_refused(engine: Engine) -> None:
    save_group_size(engine, LOCATION, GroupSize(25, 25))
    age(engine, 8)
    learned = load_group_size(engine, LOCATION, 30)
    learned.grow(25)
    save_group_size(engine, LOCATION, learned)
    assert load_group_size(engine, LOCATION, 30) == GroupSize(50, 50)
    age(engine, 8)
    learned = load_group_size(engine, LOCATION, 30)
    learned.grow(50)
    learned.shrink(100, refused=True)
    save_group_size(engine, LOCATION, learned)
    # Refused again: believed for another week, so that it costs one refused attempt a week and not one a run.
    assert learned_days_ago(engine) < 1
    assert load_group_size(engine, LOCATION, 30) == GroupSize(50, 50)


def test_a_size_that_goes_up_and_down_does_not_make_the_ceiling_young(engine: Engine) -> None:
    save_group_size(engine, LOCATION, GroupSize(6, 6))
    age(engine, 6)
    save_group_size(engine, LOCATION, GroupSize(3, 6))
    assert load_group_size(engine, LOCATION, 30) == GroupSize(3, 6)
    assert learned_days_ago(engine) > 5
    save_group_size(engine, LOCATION, GroupSize(3, 3))
    assert learned_days_ago(engine) < 1
