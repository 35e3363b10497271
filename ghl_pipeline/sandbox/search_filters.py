"""The filter grammar of the contact search: from JSON to a tree that selects contacts.

Fields, operators and the 75-character rule are those of HighLevel's page "Contacts Search API"; the texts of refusals
are those seen live where one is known. Paging and sorting are `search.py`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from ghl_pipeline.sandbox.contacts import DATES, Contact, ContactTable, email_key
from ghl_pipeline.sandbox.responses import Refusal, bad_request, unprocessable
from ghl_pipeline.sandbox.search_fields import (
    CUSTOM_OPERATORS,
    FIELDS,
    TEXT,
    Value,
    Values,
    custom_values,
    day_start,
    since_epoch,
)

MAX_VALUE_LENGTH: Final = 75
MIN_CONTAINS_LENGTH: Final = 3


@dataclass(frozen=True)
class FilterRules:
    """What GHL leaves open or may change: see the faults of the same names."""

    time_zone: ZoneInfo
    case_sensitive_email: bool = False
    primary_email_only: bool = False
    max_or_leaves: int | None = None
    or_refusal_status: int = 400
    or_answers_first_leaves: int | None = None
    custom_kinds: Mapping[str, str] = field(default_factory=dict)  # of the location's custom fields, by id


@dataclass(frozen=True)
class Span:
    """Contacts whose `field` lies in `low <= value < high`, epoch milliseconds."""

    field: str
    low: int
    high: int

    def bounds(self, order: list[Contact]) -> tuple[int, int]:
        """First and past-the-end position in the contacts ordered by the span's field."""
        value = DATES[self.field]
        return bisect_left(order, self.low, key=value), bisect_left(order, self.high, key=value)


@dataclass(frozen=True)
class Leaf:
    """One condition. `find`, where an index can answer it, returns exactly the contacts that `test` accepts."""

    field: str
    operator: str
    value: Value | None
    test: Callable[[Contact], bool]
    find: Callable[[ContactTable], list[Contact]] | None = None
    span: Span | None = None


@dataclass(frozen=True)
class Group:
    """Conditions of which all must hold, or any."""

    any_of: bool
    members: "tuple[Leaf | Group, ...]" = field(default=())


Filter = Leaf | Group


def matches(condition: Filter, contact: Contact) -> bool:
    """Whether the contact fulfils the condition."""
    if isinstance(condition, Leaf):
        return condition.test(contact)
    held = (matches(member, contact) for member in condition.members)
    return any(held) if condition.any_of else all(held)


def select(condition: Filter, table: ContactTable) -> list[Contact] | None:
    """Exactly the contacts that fulfil the condition, without order; None when no index can tell."""
    if isinstance(condition, Leaf):
        return condition.find(table) if condition.find else None
    if condition.any_of:
        found: dict[str, Contact] = {}
        for member in condition.members:
            selected = select(member, table)
            if selected is None:
                return None
            found.update((contact.id, contact) for contact in selected)
        return list(found.values())
    for position, member in enumerate(condition.members):
        selected = select(member, table)
        if selected is not None:
            others = condition.members[:position] + condition.members[position + 1 :]
            return [contact for contact in selected if all(matches(other, contact) for other in others)]
    return None


def leaves(condition: Filter) -> Iterator[Leaf]:
    """Every leaf of the tree, left to right."""
    if isinstance(condition, Leaf):
        yield condition
    else:
        for member in condition.members:
            yield from leaves(member)


def parse_filters(filters: object, rules: FilterRules) -> Group:
    """The tree of a body's `filters`, whose top level is ANDed.

    Raises:
        Refusal: 422 for what the validation would not take, 400 for unknown fields and operators.
    """
    if not isinstance(filters, list):
        raise unprocessable("filters must be an array")
    return Group(any_of=False, members=tuple(_parse(node, rules) for node in filters))


def _parse(node: object, rules: FilterRules) -> Filter:
    if not isinstance(node, dict):
        raise unprocessable("each value in filters must be an object")
    return _parse_group(node, rules) if "group" in node else _parse_leaf(node, rules)


def _parse_group(node: Mapping[str, object], rules: FilterRules) -> Group:
    _refuse_unknown(node, {"group", "filters"})
    if node["group"] not in {"AND", "OR"}:
        raise bad_request("Invalid group passed in filters")
    any_of = node["group"] == "OR"
    group = Group(any_of=any_of, members=parse_filters(node.get("filters"), rules).members)
    if not group.members:
        raise unprocessable("filters should not be empty")
    if any_of and rules.max_or_leaves is not None and sum(1 for _ in leaves(group)) > rules.max_or_leaves:
        raise Refusal(rules.or_refusal_status, "Too many filters passed in group OR")
    if any_of and rules.or_answers_first_leaves is not None:
        return Group(any_of=True, members=group.members[: rules.or_answers_first_leaves])
    return group


def _parse_leaf(node: Mapping[str, object], rules: FilterRules) -> Leaf:
    _refuse_unknown(node, {"field", "operator", "value"})
    name, operator = node.get("field"), node.get("operator")
    if not isinstance(name, str) or not isinstance(operator, str):
        raise unprocessable("field must be a string", "operator must be a string")
    operators, values_of = _field(name, rules.custom_kinds)
    if operator not in operators:
        raise bad_request(f"Invalid Operator passed for field {name}")
    if operator in {"exists", "not_exists"}:
        if "value" in node:
            raise unprocessable(f"value should not exist for operator {operator}")
        wanted = operator == "exists"
        return Leaf(name, operator, None, lambda contact: bool(values_of(contact)) is wanted)
    if operator == "range":
        return _range_leaf(name, values_of, node.get("value"), rules.time_zone)
    return _value_leaf(name, operator, values_of, _plain_value(node, operator), rules)


def _field(name: str, custom_kinds: Mapping[str, str]) -> tuple[frozenset[str], Callable[[Contact], Values]]:
    known = FIELDS.get(name)
    if known is not None:
        return known
    prefix, _, field_id = name.partition(".")
    if prefix == "customFields" and field_id:
        operators = CUSTOM_OPERATORS.get(custom_kinds.get(field_id, "TEXT"), TEXT)
        return operators, lambda contact: custom_values(contact, field_id)
    raise bad_request(f"Invalid field {name[:MAX_VALUE_LENGTH]}")


def _refuse_unknown(node: Mapping[str, object], known: set[str]) -> None:
    unknown = [key for key in node if key not in known]
    if unknown:
        raise unprocessable(*(f"property {key[:MAX_VALUE_LENGTH]} should not exist" for key in unknown))


def _plain_value(node: Mapping[str, object], operator: str) -> Value:
    value = node.get("value")
    if not isinstance(value, str | int | float | bool):
        raise unprocessable("value must be a string, number or boolean")
    if isinstance(value, str) and len(value) > MAX_VALUE_LENGTH:
        raise unprocessable(f"value must be shorter than or equal to {MAX_VALUE_LENGTH} characters")
    if operator in {"contains", "not_contains"} and len(str(value)) < MIN_CONTAINS_LENGTH:
        raise bad_request(f"Min. {MIN_CONTAINS_LENGTH} characters required for applying contains filter")
    return value


def _value_leaf(
    name: str, operator: str, values_of: Callable[[Contact], Values], value: Value, rules: FilterRules
) -> Leaf:
    if name == "email":
        return _email_leaf(operator, str(value), rules)
    if operator in {"contains", "not_contains"}:
        part, wanted = str(value).lower(), operator == "contains"
        return Leaf(name, operator, value, lambda c: any(part in str(v).lower() for v in values_of(c)) is wanted)
    if operator == "not_eq":
        return Leaf(name, operator, value, lambda contact: value not in values_of(contact))
    return Leaf(
        name, operator, value, lambda contact: value in values_of(contact), find=_point_lookup(name, str(value))
    )


def _point_lookup(name: str, value: str) -> Callable[[ContactTable], list[Contact]] | None:
    if name == "id":
        return lambda table: [table.by_id[value]] if value in table.by_id else []
    if name == "phone":
        return lambda table: table.with_phone(value)
    return None


def _email_leaf(operator: str, email: str, rules: FilterRules) -> Leaf:
    def same(stored: str) -> bool:
        return stored == email if rules.case_sensitive_email else email_key(stored) == email_key(email)

    def has_it(contact: Contact) -> bool:
        if contact.email and same(contact.email):
            return True
        return not rules.primary_email_only and any(same(stored) for stored in contact.additional_emails)

    def find(table: ContactTable) -> list[Contact]:
        found = table.with_email(email, additional=not rules.primary_email_only)
        return [contact for contact in found if has_it(contact)] if rules.case_sensitive_email else found

    if operator == "not_eq":
        return Leaf("email", operator, email, lambda contact: not has_it(contact))
    return Leaf("email", operator, email, has_it, find=find)


def _range_leaf(name: str, values_of: Callable[[Contact], Values], value: object, time_zone: ZoneInfo) -> Leaf:
    if not isinstance(value, dict) or not value or not value.keys() <= {"gt", "gte", "lt", "lte"}:
        raise unprocessable("value of a range must be an object of gt, gte, lt, lte")
    low, high = -(2**62), 2**62
    for bound, text in value.items():
        first, last = _instants(name, text, time_zone)
        match bound:
            case "gte":
                low = max(low, first)
            case "gt":
                low = max(low, last + 1)
            case "lte":
                high = min(high, last + 1)
            case _:
                high = min(high, first)
    test = lambda contact: any(low <= moment < high for moment in values_of(contact) if not isinstance(moment, str))  # noqa: E731
    if name not in DATES:
        return Leaf(name, "range", None, test)
    span = Span(name, low, high)

    def find(table: ContactTable) -> list[Contact]:
        order = table.ordered(name)
        first, end = span.bounds(order)
        return order[first:end]

    return Leaf(name, "range", None, test, find=find, span=span)


def _instants(name: str, value: object, time_zone: ZoneInfo) -> tuple[int, int]:
    """First and last millisecond a bound means: a date alone is the whole day in the location's zone."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    try:
        text = str(value)
        if len(text) == len("2026-01-31"):
            day = date.fromisoformat(text)
            return day_start(day, time_zone), day_start(day + timedelta(days=1), time_zone) - 1
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise bad_request(f"Invalid date passed for field {name}") from None
    milliseconds = since_epoch(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return milliseconds, milliseconds
