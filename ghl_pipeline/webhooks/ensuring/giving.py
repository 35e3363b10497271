"""Giving a linked contact the lead's own values, without those that GHL refuses: the link is what counts."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from ghl_pipeline.ghl.errors import DuplicateContact, PhoneRejected, RequestRejected
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.ghl.standard_fields import StandardFields
from ghl_pipeline.webhooks.ensuring.ensure_records import EnsureRecords
from ghl_pipeline.webhooks.ensuring.own_fields import OwnLead, fields_to_change

log = logging.getLogger(__name__)

Update: TypeAlias = Callable[[str, StandardFields], Awaitable[object]]

NOTHING = StandardFields()
INVALID = (400, 422)


@dataclass(frozen=True, slots=True)
class Given:
    """What GHL refused of it: the phone; other values, or all."""

    phone_refused: bool = False
    values_refused: bool = False


NOTHING_REFUSED = Given()


async def give(
    update: Update, records: EnsureRecords, lead: OwnLead, contact: Contact, region: str, *, given: Given
) -> Given:
    """Gives a contact that the lead is linked to the lead's own values, by the rules of `own_fields`.

    What GHL does not take is left out and logged; the lead keeps it. Before each request the lead is asked whether it
    has opted out meanwhile.

    Args:
        update: changes fields of a contact.
        records: of the lead's client.
        lead: as it was before the contact gave it anything.
        contact: as GHL showed it just now.
        region: the client's, for phones without a country.
        given: what was refused before.

    Raises:
        GhlError: the request failed for another reason than its values.
    """
    fields = fields_to_change(lead, contact, region)
    if given.phone_refused:
        fields = replace(fields, phone=None)
    while fields.as_body() and not (await records.lead(lead.id)).opted_out:
        try:
            await update(contact.id, fields)
        except PhoneRejected:
            log.warning("%s: GHL does not take its phone, which stays ours", records.whose(lead))
            given, fields = replace(given, phone_refused=True), replace(fields, phone=None)
        except DuplicateContact:
            # Nothing to fail for: the lead is linked to its contact, and what clashes belongs to another one.
            log.warning("%s: another contact has its phone or e-mail already", records.whose(lead))
            fields = replace(fields, phone=None, email=None) if fields.phone or fields.email else NOTHING
        except RequestRejected as error:
            if error.facts.status not in INVALID:
                raise
            log.warning("%s: GHL does not take %s: %s", records.whose(lead), ", ".join(fields.as_body()), error)
            given, fields = replace(given, values_refused=True), _less(fields)
        else:
            break
    return given


def _less(fields: StandardFields) -> StandardFields:
    """What to try next. GHL does not document that an update takes a company; seen live, it does."""
    if fields.company_name:
        return replace(fields, company_name=None)
    return replace(fields, phone=None, email=None) if fields.phone or fields.email else NOTHING
