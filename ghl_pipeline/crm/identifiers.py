"""Who is known: the rows of both sides with what GHL can be asked for them, and what their last lookup came to."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, RowMapping, text

from ghl_pipeline.hydration.matching import normal_address

# What a row is looked up by, as one value: a row that has changed in it counts as never looked up. The address in the
# form of the unique index, because another spelling of it is no other question.
_ASKED = "md5(json_build_array({row}.ghl_contact_id, lower(btrim({row}.email)), {opportunity})::text)"
# A row that somebody marks back by hand is looked up by the next run, not when its lookup is old. The mark is beside
# the digest, not in it, as the run that found the contact gone sets it itself.
_REMEMBERED = "{asked} || CASE WHEN {row}.status = '{missing}' THEN ' missing' ELSE '' END"


# The status of a row whose contact is gone.
MISSING_STATUS = "inactive_ghl_deleted"


class Side(StrEnum):
    """Which table a row is of."""

    VENDOR = "vendor"
    LEAD = "lead"


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A vendor or a lead, as far as it is looked up by it.

    Attributes:
        side, id: the row.
        contact_id: its link, which may be junk; None when blank.
        email: normalised; None when blank.
        opportunity_id: of a lead; None when blank.
        status: as it is.
        looked_up: when it was last looked up by exactly these identifiers, marked as missing or not as it is now; None
            when never.
        outcome: `found`, `not_found` or `gone`, what that came to.
        scanned: whether the list of contacts was gone through for it then.
        asked: the digest of these identifiers.
        updated_at: when it was last changed; None where nobody asks.
    """

    side: Side
    id: int
    contact_id: str | None
    email: str | None = field(repr=False)
    opportunity_id: str | None
    status: str
    looked_up: datetime | None = None
    outcome: str | None = None
    scanned: bool = False
    asked: str = ""
    updated_at: datetime | None = None

    @property
    def key(self) -> tuple[Side, int]:
        """The row, as results name it."""
        return self.side, self.id


@dataclass(frozen=True, slots=True)
class Identifiers:
    """All rows of a client, in id order."""

    vendors: tuple[KnownRow, ...] = ()
    leads: tuple[KnownRow, ...] = ()

    @property
    def rows(self) -> tuple[KnownRow, ...]:
        """Both sides, vendors first."""
        return self.vendors + self.leads


def asked_sql(side: Side, row: str) -> str:
    """The digest of a row's identifiers as an SQL expression; `row` is the name the statement gives the row."""
    return _ASKED.format(row=row, opportunity=f"{row}.ghl_opportunity_id" if side is Side.LEAD else "NULL")


def remembered_sql(side: Side, row: str) -> str:
    """As `asked_sql`, and whether the row is marked as missing: what `crm_lookups` keeps."""
    return _REMEMBERED.format(asked=asked_sql(side, row), row=row, missing=MISSING_STATUS)


def table_of(side: Side) -> str:
    """The table that holds the rows of a side."""
    return "vendors" if side is Side.VENDOR else "leads"


def load_identifiers(connection: Connection, client_id: int) -> Identifiers:
    """Everybody whom the client knows: one query a side."""
    return Identifiers(_load(connection, client_id, Side.VENDOR), _load(connection, client_id, Side.LEAD))


def _load(connection: Connection, client_id: int, side: Side) -> tuple[KnownRow, ...]:
    opportunity = "row.ghl_opportunity_id" if side is Side.LEAD else "NULL::text"
    query = text(f"""
        SELECT row.id, row.ghl_contact_id, row.email, {opportunity} AS opportunity_id, row.status, row.asked,
               row.updated_at, lookup.looked_up_at, lookup.outcome, coalesce(lookup.scanned, false) AS scanned
        FROM (
            SELECT row.*, {asked_sql(side, "row")} AS asked, {remembered_sql(side, "row")} AS remembered
            FROM {table_of(side)} AS row
            WHERE row.client_id = :client_id
        ) AS row
        LEFT JOIN crm_lookups AS lookup
            ON lookup.client_id = row.client_id AND lookup.side = :side AND lookup.row_id = row.id
            AND lookup.asked = row.remembered
        ORDER BY row.id
    """)  # noqa: S608 - the names are this module's own
    rows = connection.execute(query, {"client_id": client_id, "side": side.value}).mappings()
    return tuple(_known(side, row) for row in rows)


def _known(side: Side, row: RowMapping) -> KnownRow:
    return KnownRow(
        side=side,
        id=row["id"],
        contact_id=_filled(row["ghl_contact_id"]),
        email=normal_address(row["email"]),
        opportunity_id=_filled(row["opportunity_id"]),
        status=row["status"],
        looked_up=row["looked_up_at"],
        outcome=row["outcome"],
        scanned=row["scanned"],
        asked=row["asked"],
        updated_at=row["updated_at"],
    )


def _filled(value: str | None) -> str | None:
    return (value.strip() or None) if value else None
