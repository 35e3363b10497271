"""The sandbox's contact record and the table that holds a location's contacts, with the indexes that keep it cheap.

What a contact looks like on the wire is `responses.py`; which contacts a search selects is `search_filters.py`.
Records never change in place: a change is a new record, so a table can be copied by reference to show an older state.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable

import msgspec

SortValue = str | int
FieldValue = str | int | float | bool | tuple[object, ...] | dict[str, object] | None
"""A custom field's value: text, a number, a list of options, or an object, as files are."""


class Contact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One contact as the location stores it. Times are epoch milliseconds (UTC), tags are lower-case."""

    id: str
    date_added: int
    date_updated: int
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None  # as typed: letter case and spaces are kept
    phone: str | None = None
    company_name: str | None = None
    additional_emails: tuple[str, ...] = ()
    additional_phones: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    type: str = "lead"
    source: str | None = None
    assigned_to: str | None = None
    address1: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None
    website: str | None = None
    time_zone: str | None = None
    date_of_birth: str | None = None  # yyyy-mm-dd
    dnd: bool = False
    valid_email: bool | None = None
    custom_fields: tuple[tuple[str, FieldValue], ...] = ()

    @property
    def name(self) -> str:
        """First and last name as one text, empty when there is neither."""
        return " ".join(part for part in (self.first_name, self.last_name) if part)


def email_key(email: str) -> str:
    """The form under which e-mails are compared: trimmed, lower-case."""
    return email.strip().lower()


DATES: dict[str, Callable[[Contact], int]] = {
    "dateAdded": lambda contact: contact.date_added,
    "dateUpdated": lambda contact: contact.date_updated,
}

SORT_VALUES: dict[str, Callable[[Contact], SortValue]] = {
    **DATES,
    "email": lambda contact: email_key(contact.email or ""),
    "firstNameLowerCase": lambda contact: (contact.first_name or "").lower(),
    "lastNameLowerCase": lambda contact: (contact.last_name or "").lower(),
    "businessName": lambda contact: contact.company_name or "",
    "dnd": lambda contact: int(contact.dnd),
    "source": lambda contact: contact.source or "",
}
"""What a search may sort by, and the value it sorts on; an absent text sorts as an empty one."""


def order_key(field: str) -> Callable[[Contact], tuple[SortValue, str]]:
    """The key of a contact in the order of `field`: its value, then its id, so that no two are equal."""
    value = SORT_VALUES[field]
    return lambda contact: (value(contact), contact.id)


class ContactTable:
    """A location's contacts by id, e-mail, phone and in sorted order. Point look-ups cost a hash, order a bisection.

    The orders are built when first asked for and kept up to date afterwards.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, Contact] = {}
        # Tuples of ids: a copy of the dict is then a copy of the index.
        self._emails: dict[str, tuple[str, ...]] = {}
        self._additional_emails: dict[str, tuple[str, ...]] = {}
        self._phones: dict[str, tuple[str, ...]] = {}
        self._orders: dict[str, list[Contact]] = {}

    def __len__(self) -> int:
        return len(self.by_id)

    def copy(self) -> "ContactTable":
        """A table that stays as this one is now."""
        twin = ContactTable()
        twin.by_id = self.by_id.copy()
        twin._emails = self._emails.copy()
        twin._additional_emails = self._additional_emails.copy()
        twin._phones = self._phones.copy()
        twin._orders = {field: order.copy() for field, order in self._orders.items()}
        return twin

    def without(self, ids: Iterable[str]) -> "ContactTable":
        """A table that holds all but these, as it is now."""
        twin = self.copy()
        for contact_id in ids:
            twin.drop(contact_id)
        return twin

    def load(self, contacts: Iterable[Contact]) -> None:
        """Adds many new contacts at once; cheaper than `put`, for ids the table does not hold."""
        self._orders.clear()
        for contact in contacts:
            self.by_id[contact.id] = contact
            self._enter(contact)

    def put(self, contact: Contact) -> None:
        """Adds the contact, or replaces the one with its id."""
        self.drop(contact.id)
        self.by_id[contact.id] = contact
        self._enter(contact)
        for field, order in self._orders.items():
            key = order_key(field)
            order.insert(bisect_left(order, key(contact), key=key), contact)

    def drop(self, contact_id: str) -> None:
        """Removes the contact if it is there."""
        contact = self.by_id.pop(contact_id, None)
        if contact is None:
            return
        for index, value in self._entries(contact):
            left = tuple(other for other in index[value] if other != contact_id)
            if left:
                index[value] = left
            else:
                del index[value]
        for field, order in self._orders.items():
            key = order_key(field)
            del order[bisect_left(order, key(contact), key=key)]

    def with_email(self, email: str, *, additional: bool = False) -> list[Contact]:
        """Contacts whose e-mail is `email` but for letter case and outer spaces; `additional` ones come last."""
        key = email_key(email)
        ids = self._emails.get(key, ())
        if additional:
            ids = (*ids, *(other for other in self._additional_emails.get(key, ()) if other not in ids))
        return [self.by_id[contact_id] for contact_id in ids]

    def with_phone(self, phone: str) -> list[Contact]:
        """Contacts stored with exactly this phone."""
        return [self.by_id[contact_id] for contact_id in self._phones.get(phone, ())]

    def ordered(self, field: str) -> list[Contact]:
        """All contacts ascending by `field` of `SORT_VALUES`, then id. The caller must not change it."""
        order = self._orders.get(field)
        if order is None:
            order = self._orders[field] = sorted(self.by_id.values(), key=order_key(field))
        return order

    def _entries(self, contact: Contact) -> list[tuple[dict[str, tuple[str, ...]], str]]:
        entries = [(self._additional_emails, key) for key in {email_key(email) for email in contact.additional_emails}]
        if contact.email:
            entries.append((self._emails, email_key(contact.email)))
        if contact.phone:
            entries.append((self._phones, contact.phone))
        return entries

    def _enter(self, contact: Contact) -> None:
        for index, value in self._entries(contact):
            index[value] = (*index.get(value, ()), contact.id)
