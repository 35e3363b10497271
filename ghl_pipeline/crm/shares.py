"""Which share of each location's vendors, leads and contacts is amiss: what the asset checks judge. Counts only.

Read from the database for all clients that are kept in step, whichever run was there last: a run of one location must
not hide what is amiss at another.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from ghl_pipeline.crm.identifiers import Side, table_of
from ghl_pipeline.crm.missing import MISSING_STATUS, TooManyMissing
from ghl_pipeline.database.blank import blank_sql

# Longer than the week between two full passes, which are what finds most of the missing; what was marked before that
# has been seen, or would hide what is new.
RECENT_DAYS = 8


@dataclass(frozen=True, slots=True)
class LocationShare:
    """`part` of `whole` is amiss at a location; `stopped`: a run wrote nothing, because it would be too many.

    None that looks everybody up has ended there since.
    """

    location_id: str
    part: int
    whole: int
    stopped: bool = False

    @property
    def share(self) -> float:
        """From 0 to 1; 0 when there is nothing."""
        return self.part / self.whole if self.whole else 0.0


def missing_shares(connection: Connection, side: Side) -> list[LocationShare]:
    """The vendors or leads that were marked missing lately, of all that have a contact.

    A vendor keeps no time of its own for that; one that is marked and was touched lately counts.
    """
    marked_at = "row.contact_deleted_at" if side is Side.LEAD else "row.updated_at"
    query = text(f"""
        SELECT client.location_id, coalesce(counts.part, 0), coalesce(counts.whole, 0), latest.stopped
        FROM crm_clients AS crm
        JOIN clients AS client ON client.id = crm.client_id AND client.active AND crm.enabled
        LEFT JOIN (
            SELECT row.client_id, count(*) AS whole, count(*) FILTER (
                       WHERE row.status = :missing
                         AND {marked_at} > now() - make_interval(days => :recent)) AS part
            FROM {table_of(side)} AS row JOIN crm_clients USING (client_id)
            WHERE NOT {blank_sql("row.ghl_contact_id")}
            GROUP BY row.client_id
        ) AS counts ON counts.client_id = client.id
        LEFT JOIN LATERAL (
            SELECT error_class IS NOT DISTINCT FROM :stopped
                   AND coalesce(report->'too_many' ? :side, true) AS stopped
            FROM location_attempts
            WHERE capability = 'crm' AND location_id = client.location_id
              -- A pass that asks for changes does not see who is gone, so that it says nothing of them.
              AND (error_class = :stopped
                   OR report @> '{{"mode": "full", "dry_run": false}}'
                   OR report @> '{{"mode": "nothing", "dry_run": false}}')
            ORDER BY id DESC LIMIT 1
        ) AS latest ON true
        ORDER BY client.id
    """)  # noqa: S608 - the names are ours
    values = {
        "recent": RECENT_DAYS,
        "missing": MISSING_STATUS,
        "stopped": TooManyMissing.__name__,
        "side": side.value,
    }
    return [
        LocationShare(location_id, int(part), int(whole), bool(stopped))
        for location_id, part, whole, stopped in connection.execute(query, values)
    ]


def unread_coverages(connection: Connection) -> list[LocationShare]:
    """The vendors whose service-zip-codes field was not understood, at least in part, of those that filled it in."""
    query = text(f"""
        SELECT client.location_id,
               count(vendor.id) FILTER (WHERE cardinality(vendor.coverage_unread) > 0),
               count(vendor.id) FILTER (WHERE NOT {blank_sql("vendor.service_zip_codes")})
        FROM crm_clients AS crm
        JOIN clients AS client ON client.id = crm.client_id AND client.active AND crm.enabled
        LEFT JOIN vendors AS vendor ON vendor.client_id = client.id AND vendor.status <> :missing
        GROUP BY client.id ORDER BY client.id
    """)  # noqa: S608 - the rule for blank
    rows = connection.execute(query, {"missing": MISSING_STATUS})
    return [LocationShare(location_id, int(part), int(whole)) for location_id, part, whole in rows]


def unclassified_contacts(connection: Connection) -> list[LocationShare]:
    """The contacts that nobody here knows and that have no sign of a vendor or lead, of those the last full pass saw.

    A pass that asks for changes alone sees too few contacts to say anything, and one by groups only known ones.
    """
    query = text("""
        SELECT client.location_id, latest.report
        FROM crm_clients AS crm
        JOIN clients AS client ON client.id = crm.client_id AND client.active AND crm.enabled
        JOIN LATERAL (
            SELECT report FROM location_attempts
            WHERE capability = 'crm' AND location_id = client.location_id AND state = 'succeeded'
              AND report @> '{"mode": "full", "dry_run": false}'
            ORDER BY id DESC LIMIT 1
        ) AS latest ON true
        ORDER BY client.id
    """)
    return [
        LocationShare(location_id, int(report["unclassified"]), int(report["ghl_contacts_fetched"]))
        for location_id, report in connection.execute(query)
    ]
