"""What is kept of a location for the next run, and for how long it is believed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.ghl.survey import GroupAnswer, Survey
from ghl_pipeline.locations.learning import (
    A_POOR_SURVEY_IS_BELIEVED_FOR,
    LARGEST_GROUP,
    SURVEY_IS_BELIEVED_FOR,
    Learned,
    load_learned,
    record_survey,
    save_facts,
    save_group_size,
)

LOCATION, OTHER = "location000000000001", "location000000000002"
UNTIL = datetime(2026, 5, 4, 2, 30, 15, 123456, tzinfo=UTC)
RIGHT, WRONG, REFUSED, FAILED = GroupAnswer.RIGHT, GroupAnswer.WRONG, GroupAnswer.REFUSED, GroupAnswer.FAILED
GOOD = Survey(1234, {100: RIGHT}, case_matters=False)
SMALLER = Survey(1234, {100: REFUSED, 50: REFUSED, 25: RIGHT}, case_matters=False)
CUT_OFF = Survey(1234, dict.fromkeys((100, 50, 25, 10, 2), WRONG), case_matters=True)
WITHOUT_ADDRESSES = Survey(0)


def learned(engine: Engine, location_id: str = LOCATION) -> Learned:
    return load_learned(engine, location_id, 30)


def found_out(engine: Engine, **facts: Any) -> None:
    """What a run finds out in passing."""
    with engine.begin() as connection:
        save_facts(connection, LOCATION, 30, **facts)


def changes_seen(engine: Engine, until: datetime) -> None:
    found_out(engine, changes_seen_until=until)


def age(engine: Engine, by: timedelta) -> None:
    """Makes what was learned so much older."""
    older = text("""
        UPDATE location_learning
        SET surveyed_at = surveyed_at - CAST(:by AS interval), updated_at = updated_at - CAST(:by AS interval),
            dates_tried_at = dates_tried_at - CAST(:by AS interval)
    """)
    with engine.begin() as connection:
        connection.execute(older, {"by": by})


def updated_at(engine: Engine) -> datetime:
    with engine.connect() as connection:
        when: datetime = connection.execute(text("SELECT updated_at FROM location_learning")).scalar_one()
    return when


def test_of_a_location_never_asked_nothing_is_known(engine: Engine) -> None:
    assert learned(engine) == Learned(
        30, LARGEST_GROUP, groups_are_wrong=False, case_matters=None, contacts=None, survey_is_due=True,
        changes_seen_until=None,
    )  # fmt: skip


def test_a_group_size_comes_back_to_its_location_only(engine: Engine) -> None:
    save_group_size(engine, LOCATION, 6, 12)
    save_group_size(engine, OTHER, 50, 100)
    assert (learned(engine).group_size, learned(engine).group_ceiling) == (6, 12)
    assert (learned(engine, OTHER).group_size, learned(engine, OTHER).group_ceiling) == (50, 100)
    save_group_size(engine, LOCATION, 3, 3)
    assert (learned(engine).group_size, learned(engine).group_ceiling) == (3, 3)


def test_a_group_size_learned_on_the_way_is_no_survey(engine: Engine) -> None:
    save_group_size(engine, LOCATION, 100, 100)
    assert learned(engine).survey_is_due


@pytest.mark.parametrize(
    ("survey", "expected"),
    [
        pytest.param(GOOD, Learned(100, 100, False, False, 1234, False), id="groups of 100 are right"),
        pytest.param(SMALLER, Learned(25, 25, False, False, 1234, False), id="groups of 25 are"),
        pytest.param(CUT_OFF, Learned(1, 1, True, True, 1234, False), id="no group is"),
        pytest.param(
            Survey(9, {100: FAILED, 50: REFUSED}), Learned(1, 1, False, None, 9, False), id="groups are not answered"
        ),
        pytest.param(WITHOUT_ADDRESSES, Learned(50, 100, False, None, 0, True), id="there was nothing to try it with"),
    ],
)
def test_what_a_survey_found_comes_back(engine: Engine, survey: Survey, expected: Learned) -> None:
    record_survey(engine, LOCATION, survey)
    assert learned(engine) == expected


@pytest.mark.parametrize(
    ("survey", "believed_for"),
    [
        (GOOD, SURVEY_IS_BELIEVED_FOR),
        (SMALLER, A_POOR_SURVEY_IS_BELIEVED_FOR),
        (CUT_OFF, A_POOR_SURVEY_IS_BELIEVED_FOR),
    ],
    ids=["all is well", "smaller groups", "wrong groups"],
)
def test_a_survey_is_believed_for_30_days_and_one_that_found_limits_for_7(
    engine: Engine, survey: Survey, believed_for: timedelta
) -> None:
    assert (SURVEY_IS_BELIEVED_FOR.days, A_POOR_SURVEY_IS_BELIEVED_FOR.days) == (30, 7)
    record_survey(engine, LOCATION, survey)
    age(engine, believed_for - timedelta(minutes=1))
    assert not learned(engine).survey_is_due
    age(engine, timedelta(minutes=2))
    assert learned(engine).survey_is_due
    # It is doubted, not forgotten.
    assert learned(engine).group_ceiling == max(1, survey.largest_right)


def test_a_ceiling_that_lookups_lowered_is_doubted_after_a_week_too(engine: Engine) -> None:
    record_survey(engine, LOCATION, GOOD)
    save_group_size(engine, LOCATION, 12, 12)
    age(engine, timedelta(days=8))
    assert learned(engine).survey_is_due
    assert learned(engine).group_size == 12


def test_a_survey_that_is_made_again_is_believed_anew(engine: Engine) -> None:
    record_survey(engine, LOCATION, CUT_OFF)
    age(engine, timedelta(days=8))
    record_survey(engine, LOCATION, GOOD)
    assert learned(engine) == Learned(100, 100, False, False, 1234, survey_is_due=False)


def test_a_survey_that_could_not_try_keeps_what_was_known_but_for_the_contacts(engine: Engine) -> None:
    record_survey(engine, LOCATION, CUT_OFF)
    changes_seen(engine, UNTIL)
    age(engine, timedelta(days=8))
    record_survey(engine, LOCATION, WITHOUT_ADDRESSES)
    assert learned(engine) == Learned(1, 1, True, True, 0, survey_is_due=True, changes_seen_until=UNTIL)


def test_a_survey_that_did_not_learn_the_number_of_contacts_keeps_the_last_one(engine: Engine) -> None:
    found_out(engine, contacts=77)
    record_survey(engine, LOCATION, Survey(None, {100: RIGHT}))
    assert learned(engine).contacts == 77


def test_the_number_of_contacts_is_kept_beside_the_rest(engine: Engine) -> None:
    found_out(engine, contacts=5)
    assert learned(engine) == Learned(30, LARGEST_GROUP, contacts=5, survey_is_due=True)
    record_survey(engine, LOCATION, SMALLER)
    found_out(engine, contacts=1235)
    assert learned(engine) == Learned(25, 25, False, False, 1235, survey_is_due=False)


def test_up_to_when_changes_were_seen_is_kept_to_the_microsecond_beside_the_rest(engine: Engine) -> None:
    changes_seen(engine, UNTIL)
    assert learned(engine) == Learned(30, LARGEST_GROUP, survey_is_due=True, changes_seen_until=UNTIL)
    record_survey(engine, LOCATION, SMALLER)
    save_group_size(engine, LOCATION, 20, 25)
    later = UNTIL + timedelta(days=1)
    changes_seen(engine, later)
    assert learned(engine) == Learned(20, 25, False, False, 1234, survey_is_due=False, changes_seen_until=later)


@pytest.mark.parametrize("rightly", [True, False])
def test_whether_changes_can_be_searched_for_is_believed_for_30_days(engine: Engine, rightly: bool) -> None:
    assert learned(engine).searches_by_date is None
    found_out(engine, searches_by_date=rightly)
    # Neither a survey nor what else is found out is a new trial, or makes this one younger.
    age(engine, SURVEY_IS_BELIEVED_FOR - timedelta(minutes=1))
    record_survey(engine, LOCATION, GOOD)
    found_out(engine, contacts=7, changes_seen_until=UNTIL)
    assert learned(engine).searches_by_date is rightly
    age(engine, timedelta(minutes=2))
    assert learned(engine).searches_by_date is None
    found_out(engine, searches_by_date=not rightly)
    assert learned(engine).searches_by_date is not rightly
    assert (learned(engine).contacts, learned(engine).changes_seen_until) == (7, UNTIL)


def test_the_row_says_when_any_of_it_changed_last(engine: Engine) -> None:
    save_group_size(engine, LOCATION, 6, 12)
    changes: tuple[Callable[[], None], ...] = (
        lambda: save_group_size(engine, LOCATION, 3, 12),
        lambda: record_survey(engine, LOCATION, GOOD),
        lambda: found_out(engine, contacts=1),
        lambda: found_out(engine, searches_by_date=False),
        lambda: changes_seen(engine, UNTIL),
    )
    for change in changes:
        age(engine, timedelta(days=6))
        before = updated_at(engine)
        change()
        assert updated_at(engine) - before > timedelta(days=5)
