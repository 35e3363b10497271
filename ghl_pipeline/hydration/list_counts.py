"""Counts of a work list: leads by reason, by lookup, by final outcome; what a plan is made from."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ghl_pipeline.hydration.outcomes import FOUND, Counts, LeadField, Outcome, Reason
from ghl_pipeline.hydration.work_list import WorkList


@dataclass(frozen=True, slots=True)
class ToPlan:
    """Leads of a list without an answer: never looked up as they are now, or current; and the database's time.

    `beyond` are those of them that a plan which goes up to some position knows nothing of.
    """

    to_ask: int
    current: int
    beyond: int
    now: datetime

    @property
    def unanswered(self) -> int:
        """All of them."""
        return self.to_ask + self.current


def count_to_plan(connection: Connection, work_list: WorkList, upto: int) -> ToPlan:
    """What a plan is made from, or judged by: `upto` is how far it goes."""
    query = text("""
        SELECT count(*) FILTER (WHERE NOT is_current) AS to_ask, count(*) FILTER (WHERE is_current) AS current,
               count(*) FILTER (WHERE position > :upto) AS beyond, clock_timestamp() AS now
        FROM work_items WHERE work_list_id = :id AND position > :after AND outcome IS NULL
    """)
    row = connection.execute(query, {"id": work_list.id, "after": work_list.position, "upto": upto}).one()
    return ToPlan(int(row.to_ask), int(row.current), int(row.beyond), row.now)


def reason_counts(connection: Connection, work_list: WorkList) -> dict[Reason, int]:
    """Leads on the list by reason; a lead with several reasons counts in each."""
    columns = ", ".join(f"count(*) FILTER (WHERE reasons & {reason.value} <> 0)" for reason in Reason)
    query = text(f"SELECT {columns} FROM work_items WHERE work_list_id = :id")  # noqa: S608 - numbers of our enum
    row = connection.execute(query, {"id": work_list.id}).one()
    return dict(zip(Reason, map(int, row), strict=True))


def lookup_counts(connection: Connection, work_list: WorkList) -> dict[str, int]:
    """Leads looked up so far: `found`, or the outcome of a lookup that found nothing."""
    query = text("""
        SELECT coalesce(resolved.outcome, item.outcome) AS outcome, count(*)
        FROM work_items AS item
        LEFT JOIN resolved_contacts AS resolved
            ON resolved.work_list_id = item.work_list_id AND resolved.position = item.position
        WHERE item.work_list_id = :id AND coalesce(resolved.outcome, item.outcome) IS NOT NULL
        GROUP BY 1
    """)
    by_outcome = {Outcome(name): int(count) for name, count in connection.execute(query, {"id": work_list.id})}
    counts = {"found": sum(count for outcome, count in by_outcome.items() if outcome in FOUND)}
    counts |= {outcome.value: by_outcome.get(outcome, 0) for outcome in Outcome if outcome not in FOUND}
    return counts


def final_counts(connection: Connection, work_list: WorkList) -> Counts:
    """The list's leads by final outcome, and the fields that were filled."""
    outcomes = text("""
        SELECT outcome, count(*) FROM work_items WHERE work_list_id = :id AND outcome IS NOT NULL GROUP BY outcome
    """)
    columns = ", ".join(f"count(*) FILTER (WHERE filled & {field.value} <> 0)" for field in LeadField)
    fields = text(f"SELECT {columns} FROM work_items WHERE work_list_id = :id")  # noqa: S608 - numbers of our enum
    values = {"id": work_list.id}
    return Counts(
        {Outcome(name): int(count) for name, count in connection.execute(outcomes, values)},
        dict(zip(LeadField, map(int, connection.execute(fields, values).one()), strict=True)),
    )
