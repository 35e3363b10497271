"""What is learned of a location's GHL and kept for the next run: group size, letter case, contacts, changes seen.

Table: `location_learning`. What was found out is believed for a while only: a refusal can be a passing mood of GHL.
Its `updated_at` is when any of it last changed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, text

from ghl_pipeline.ghl.survey import GROUP_SIZES, Survey

LARGEST_GROUP = max(GROUP_SIZES)
SURVEY_IS_BELIEVED_FOR = timedelta(days=30)
# A limit below what GHL usually takes costs calls every night, so it is doubted sooner.
A_POOR_SURVEY_IS_BELIEVED_FOR = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of a location.

    Attributes:
        group_size: addresses one search asks for.
        group_ceiling: more than that is not asked for.
        groups_are_wrong: groups were answered wrongly; every lead is asked for alone.
        case_matters: an e-mail is found only as it was typed; None when that could not be tried.
        contacts: how many the location had when last counted; None when never.
        survey_is_due: these were never found out, or too long ago.
        searches_by_date: a search by `dateUpdated` finds what it should; None when that was not tried for a month.
        changes_seen_until: contacts changed before then are known to every lead with a lookup on record; None before
            the first complete pass.
    """

    group_size: int
    group_ceiling: int = LARGEST_GROUP
    groups_are_wrong: bool = False
    case_matters: bool | None = None
    contacts: int | None = None
    survey_is_due: bool = True
    searches_by_date: bool | None = None
    changes_seen_until: datetime | None = None


def load_learned(engine: Engine, location_id: str, default_group_size: int) -> Learned:
    """What is known of the location; the default size and nothing else for one never asked."""
    query = text("""
        SELECT group_size, group_ceiling, groups_are_wrong, case_matters, contacts, changes_seen_until,
               CASE WHEN dates_tried_at > now() - CAST(:good AS interval) THEN searches_by_date END AS searches_by_date,
               surveyed_at IS NULL OR surveyed_at < now() - CASE
                   WHEN groups_are_wrong OR group_ceiling < :largest THEN CAST(:poor AS interval)
                   ELSE CAST(:good AS interval) END AS survey_is_due
        FROM location_learning WHERE location_id = :location_id
    """)
    values = {
        "location_id": location_id,
        "largest": LARGEST_GROUP,
        "poor": A_POOR_SURVEY_IS_BELIEVED_FOR,
        "good": SURVEY_IS_BELIEVED_FOR,
    }
    with engine.connect() as connection:
        row = connection.execute(query, values).one_or_none()
    if row is None:
        return Learned(default_group_size)
    return Learned(
        row.group_size,
        row.group_ceiling,
        row.groups_are_wrong,
        row.case_matters,
        row.contacts,
        row.survey_is_due,
        row.searches_by_date,
        row.changes_seen_until,
    )


def save_group_size(engine: Engine, location_id: str, size: int, ceiling: int) -> None:
    """Keeps the size that groups have come to, and the ceiling that a refusal left."""
    upsert = text("""
        INSERT INTO location_learning (location_id, group_size, group_ceiling)
        VALUES (:location_id, :size, :ceiling)
        ON CONFLICT (location_id) DO UPDATE
        SET group_size = excluded.group_size, group_ceiling = excluded.group_ceiling, updated_at = now()
    """)
    with engine.begin() as connection:
        connection.execute(upsert, {"location_id": location_id, "size": size, "ceiling": ceiling})


def record_survey(engine: Engine, location_id: str, survey: Survey) -> None:
    """Keeps what a survey found out. What it could not try stays as it was known."""
    size = max(1, survey.largest_right) if survey.answers else None
    upsert = text("""
        INSERT INTO location_learning AS known
            (location_id, group_size, group_ceiling, groups_are_wrong, case_matters, contacts, surveyed_at)
        VALUES (:location_id, coalesce(:size, 50), coalesce(:size, :largest), :wrong, :case_matters, :contacts,
                CASE WHEN :size IS NOT NULL THEN now() END)
        ON CONFLICT (location_id) DO UPDATE SET
            group_size = coalesce(:size, known.group_size),
            group_ceiling = coalesce(:size, known.group_ceiling),
            groups_are_wrong = CASE WHEN :size IS NULL THEN known.groups_are_wrong ELSE :wrong END,
            case_matters = coalesce(excluded.case_matters, known.case_matters),
            contacts = coalesce(excluded.contacts, known.contacts),
            surveyed_at = coalesce(excluded.surveyed_at, known.surveyed_at),
            updated_at = now()
    """)
    values = {
        "location_id": location_id,
        "size": size,
        "largest": LARGEST_GROUP,
        "wrong": survey.groups_are_wrong,
        "case_matters": survey.case_matters,
        "contacts": survey.contacts,
    }
    with engine.begin() as connection:
        connection.execute(upsert, values)


def save_facts(
    connection: Connection,
    location_id: str,
    default_group_size: int,
    *,
    contacts: int | None = None,
    searches_by_date: bool | None = None,
    changes_seen_until: datetime | None = None,
) -> None:
    """Keeps what was found out in passing, as in `Learned`; what is None stays as it was known.

    The default size is for a location of which nothing was known.
    """
    upsert = text("""
        INSERT INTO location_learning AS known
            (location_id, group_size, group_ceiling, contacts, searches_by_date, dates_tried_at, changes_seen_until)
        VALUES (:location_id, :size, :ceiling, CAST(:contacts AS integer), CAST(:searches_by_date AS boolean),
                CASE WHEN CAST(:searches_by_date AS boolean) IS NOT NULL THEN now() END,
                CAST(:changes_seen_until AS timestamptz))
        ON CONFLICT (location_id) DO UPDATE SET
            contacts = coalesce(excluded.contacts, known.contacts),
            searches_by_date = coalesce(excluded.searches_by_date, known.searches_by_date),
            dates_tried_at = coalesce(excluded.dates_tried_at, known.dates_tried_at),
            changes_seen_until = coalesce(excluded.changes_seen_until, known.changes_seen_until),
            updated_at = now()
    """)
    values = {
        "location_id": location_id,
        "size": default_group_size,
        "ceiling": LARGEST_GROUP,
        "contacts": contacts,
        "searches_by_date": searches_by_date,
        "changes_seen_until": changes_seen_until,
    }
    connection.execute(upsert, values)
