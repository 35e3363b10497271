"""Which row of a side has which contact and address, so that none is given to two.

A contact belongs to one row of a side and so does an address; the unique indexes say so, and would undo a whole page
for a single clash.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.hydration.matching import normal_address

CONTACT, EMAIL = "ghl_contact_id", "email"
_Key: TypeAlias = tuple[str, str]
Row: TypeAlias = Mapping[str, Any]


class KeyOwners:
    """Who has what in one client's table, as the database has it and as this object's changes will have it.

    `settle` is called for each row of a page after `read`; a row that gives an address up keeps it until the page is
    written, because a statement checks each row by itself.
    """

    def __init__(self, table: str, client_id: int) -> None:
        self._table = table
        self._client_id = client_id
        self._owners: dict[_Key, int] = {}

    def read(
        self, connection: Connection, rows: Sequence[tuple[Mapping[str, object] | None, Mapping[str, object]]]
    ) -> None:
        """Looks up who has the contacts and addresses that rows (as they are, as they are to be) will get."""
        wanted: dict[str, set[str]] = {CONTACT: set(), EMAIL: set()}
        for before, after in rows:
            for name in _new_keys(before, after):
                wanted[name].add(str(after[name]).strip())
        if not wanted[CONTACT] and not wanted[EMAIL]:
            return
        # Two lookups instead of one with OR, so that each uses its index. Addresses are compared as that index does.
        query = text(f"""
            SELECT id, ghl_contact_id AS value, '{CONTACT}' AS name FROM {self._table}
            WHERE client_id = :client_id AND ghl_contact_id <> ''
              AND ghl_contact_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:contacts AS json))))
            UNION ALL
            SELECT id, email, '{EMAIL}' FROM {self._table}
            WHERE client_id = :client_id AND btrim(email) <> ''
              AND lower(btrim(email)) = ANY(ARRAY(
                  SELECT lower(asked) FROM json_array_elements_text(CAST(:emails AS json)) AS asked))
        """)  # noqa: S608 - constants of ours
        values = {
            "client_id": self._client_id,
            "contacts": as_json_list(sorted(wanted[CONTACT])),
            "emails": as_json_list(sorted(wanted[EMAIL])),
        }
        for row in connection.execute(query, values):
            key = _key(row.name, row.value)
            if key is not None:
                self._owners[key] = row.id

    def settle(self, row_id: int, before: Row | None, after: Row) -> tuple[Row, bool]:
        """What the row can become, and whether it lacks a key that is another row's.

        Without its contact it stays as it is; without its address it gets everything else.
        """
        taken = _new_keys(before, after)
        lacking = {name for name, key in taken.items() if self._owners.get(key, row_id) != row_id}
        if CONTACT in lacking and before is not None:
            return {name: before[name] for name in after}, True
        for name, key in taken.items():
            if name not in lacking:
                self._owners[key] = row_id
        if EMAIL in lacking:
            after = {**after, EMAIL: before[EMAIL] if before is not None else None}
        return after, bool(lacking)


def _new_keys(before: Row | None, after: Row) -> dict[str, _Key]:
    """The keys that the row gets, by column."""
    return {
        name: key
        for name in (CONTACT, EMAIL)
        if (key := _key(name, after[name])) is not None and (before is None or _key(name, before[name]) != key)
    }


def _key(name: str, value: object) -> _Key | None:
    """A value as it is compared; None for none."""
    if not isinstance(value, str):
        return None
    plain = normal_address(value) if name == EMAIL else value.strip()
    return (name, plain) if plain else None
