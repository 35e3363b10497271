"""Custom field definitions and opportunities of a location, as typed values."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ghl_pipeline.ghl.json_text import read_json
from ghl_pipeline.ghl.payloads import Scalar, clean_text, whole_number

CUSTOM_FIELDS_ROUTE = "/locations/{locationId}/customFields"
OPPORTUNITIES_ROUTE = "/opportunities/search"
# More is answered with 400.
MOST_OPPORTUNITIES = 100


@dataclass(frozen=True, slots=True)
class CustomField:
    """A field that the location defined. Contacts carry its id, people know its key, such as `contact.zip_codes`."""

    id: str
    key: str
    name: str | None
    data_type: str | None


@dataclass(frozen=True, slots=True)
class Opportunity:
    """A deal in a pipeline, and whose it is."""

    id: str
    contact_id: str


@dataclass(frozen=True, slots=True)
class OpportunityPage:
    """One answer of the opportunities search. `next_cursor` is None at the end; `total` is None when GHL is silent."""

    opportunities: tuple[Opportunity, ...]
    total: int | None
    next_cursor: Mapping[str, str] | None


class _WireField(msgspec.Struct, rename="camel"):
    id: Scalar = None
    field_key: Scalar = None
    name: Scalar = None
    data_type: Scalar = None


class _WireFields(msgspec.Struct, rename="camel"):
    custom_fields: list[_WireField]


class _WireOpportunityContact(msgspec.Struct):
    id: Scalar = None


class _WireOpportunity(msgspec.Struct, rename="camel"):
    id: Scalar = None
    contact_id: Scalar = None
    contact: _WireOpportunityContact | None = None


class _WireMeta(msgspec.Struct, rename="camel"):
    total: Scalar = None
    start_after: Scalar = None
    start_after_id: Scalar = None


class _WireOpportunities(msgspec.Struct):
    opportunities: list[_WireOpportunity]
    meta: _WireMeta | None = None


_fields_decoder = msgspec.json.Decoder(_WireFields)
_opportunities_decoder = msgspec.json.Decoder(_WireOpportunities)


def decode_custom_fields(body: bytes) -> tuple[CustomField, ...]:
    """Reads an answer of `GET /locations/{id}/customFields`. Raises msgspec.DecodeError when it is something else."""
    wire = read_json(_fields_decoder, body).custom_fields
    read = ((clean_text(f.id), clean_text(f.field_key), clean_text(f.name), clean_text(f.data_type)) for f in wire)
    return tuple(CustomField(id_, key, name, kind) for id_, key, name, kind in read if id_ and key)


def decode_opportunities(body: bytes) -> OpportunityPage:
    """Reads an answer of `GET /opportunities/search`. Raises msgspec.DecodeError when it is something else."""
    wire = read_json(_opportunities_decoder, body)
    found = []
    for each in wire.opportunities:
        id_ = clean_text(each.id)
        contact_id = clean_text(each.contact_id) or clean_text(each.contact.id if each.contact else None)
        if id_ and contact_id:
            found.append(Opportunity(id_, contact_id))
    meta = wire.meta or _WireMeta()
    after, after_id = clean_text(meta.start_after), clean_text(meta.start_after_id)
    cursor = {"startAfter": after, "startAfterId": after_id} if after and after_id and wire.opportunities else None
    return OpportunityPage(tuple(found), whole_number(meta.total), cursor)
