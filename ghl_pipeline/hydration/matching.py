"""Which contact belongs to an address, when a search answers several. Pure.

A search is trusted to narrow down, not to decide: whatever it answers is matched again here by the trimmed, lower-cased
address, so that a filter that GHL ignores or reads differently cannot link a stranger.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from ghl_pipeline.ghl.payloads import Contact

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several contacts have an equal claim to the address; nobody but a person can choose."""

    contacts: int


def normal_address(email: str | None) -> str | None:
    """An e-mail address as it is compared: without NUL bytes and surrounding space, lower-cased; None when blank."""
    if email is None:
        return None
    return email.replace("\x00", "").strip().lower() or None


def match_addresses(addresses: Collection[str], contacts: Iterable[Contact]) -> dict[str, Contact | Ambiguous]:
    """The contact of each address, for the addresses that have one.

    Args:
        addresses: normalised addresses, as `normal_address` gives them.
        contacts: whatever a search answered.

    Returns:
        One entry per address that any contact has. A contact's own e-mail beats its additional e-mails; then a contact
        with a phone beats one without; then the one updated last wins; still equal is `Ambiguous`.
    """
    by_id = {contact.id: contact for contact in contacts}
    wanted = set(addresses)
    claims = pd.DataFrame(
        [
            (address, contact.id, is_additional, contact.phone is None, contact.date_updated or _NEVER)
            for contact in by_id.values()
            for address, is_additional in addresses_of(contact)
            if address in wanted
        ],
        columns=["address", "contact_id", "is_additional", "has_no_phone", "updated"],
    )
    if claims.empty:
        return {}
    rank = ["is_additional", "has_no_phone", "updated"]
    claims = claims.sort_values([*rank, "contact_id"], ascending=[True, True, False, True], kind="stable")
    claims = claims.drop_duplicates(["address", "contact_id"])
    # Equal rank to the best claim of the same address, itself included; more than one means nobody can choose.
    best = claims.groupby("address", sort=False)[rank].transform("first")
    finalists = claims[(claims[rank] == best).all(axis=1)]
    counts = finalists.groupby("address", sort=False)["contact_id"].agg(["first", "size"])
    return {
        str(address): by_id[contact_id] if size == 1 else Ambiguous(int(size))
        for address, contact_id, size in counts.itertuples(name=None)
    }


def addresses_of(contact: Contact) -> Iterable[tuple[str, bool]]:
    """The contact's normalised addresses, each with whether it is an additional one."""
    if own := normal_address(contact.email):
        yield own, False
    for email in contact.additional_emails:
        if address := normal_address(email):
            yield address, True
