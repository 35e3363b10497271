"""Which field is which, and what its value says."""

import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.crm.custom_fields import FieldIds, FieldKeys, FieldName, opportunity_ids_of
from ghl_pipeline.crm.field_values import UNREADABLE, items, moment, number, one_text, percentage, texts, yes_or_no
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.ghl.contact_details import ContactDetails
from ghl_pipeline.ghl.location_payloads import CustomField
from ghl_pipeline_tests.crm.contacts import FIELDS, holding

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["value", "name"]), inner),
    max_leaves=8,
)


def test_fields_are_found_by_their_keys_whatever_their_ids() -> None:
    here = FieldIds.find(FieldKeys.of(), [CustomField("r4nd0m", "contact.taking_new_work", "Busy?", "RADIO")])
    assert (
        here.value(ContactDetails(custom_fields={"r4nd0m": "Yes", "other": "No"}), FieldName.TAKING_NEW_WORK) == "Yes"
    )
    assert here.value(ContactDetails(custom_fields={"r4nd0m": "Yes"}), FieldName.SERVICE_ZIP_CODES) is None
    assert FieldName.SERVICE_ZIP_CODES in here.missing
    assert FieldName.TAKING_NEW_WORK not in here.missing


@pytest.mark.parametrize("written", ["contact.zips", "zips", " ZIPS ", "{{contact.zips}}", "{{ Contact.Zips }}"])
@pytest.mark.parametrize("ours", ["service_zip_codes", "Service-Zip-Codes", "service zip codes"])
def test_a_client_may_name_another_key(ours: str, written: str) -> None:
    keys = FieldKeys.of({ours: written})
    here = FieldIds.find(
        keys, [CustomField("a", "contact.service_zip_codes", None, None), CustomField("b", "contact.zips", None, None)]
    )
    assert here.ids == {FieldName.SERVICE_ZIP_CODES: "b"}


def test_the_same_key_of_an_opportunity_is_another_field() -> None:
    fields = [CustomField("deal", "opportunity.ghl_user_id", None, None)]
    assert FieldIds.find(FieldKeys.of(), fields).ids == {}


def test_a_name_that_is_not_ours_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(InvalidInput, match=r"'service_zips'.*service_zip_codes.*opportunity_id"):
        FieldKeys.of({"service_zips": "contact.zips"})
    with pytest.raises(InvalidInput, match="service_zip_codes is blank"):
        FieldKeys.of({"service_zip_codes": " contact. "})


def test_opportunities_are_those_listed_and_those_in_the_field() -> None:
    details = ContactDetails(
        opportunity_ids=("deal1", "deal2"), custom_fields={FIELDS.ids[FieldName.OPPORTUNITY_ID]: "deal2, deal3"}
    )
    assert opportunity_ids_of(details, FIELDS) == ("deal1", "deal2", "deal3")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["Plumbing", "Roofing"], ("Plumbing", "Roofing")),
        ("Plumbing, Roofing", ("Plumbing", "Roofing")),
        ("Plumbing; Roofing\nHeating", ("Plumbing", "Roofing", "Heating")),
        (["Heating, Ventilation", "Roofing"], ("Heating, Ventilation", "Roofing")),
        ('["Heating, Ventilation", "Roofing"]', ("Heating, Ventilation", "Roofing")),
        ({"0": "Plumbing", "1": "Roofing"}, ("Plumbing", "Roofing")),
        ([{"label": "Plumbing"}, {"value": "Roofing", "id": "x"}], ("Plumbing", "Roofing")),
        ("Roofing, plumbing, ROOFING,, ", ("Roofing", "plumbing")),
        ("[Roofing", ("[Roofing",)),
        (7, ("7",)),
        ("n/a", ()),
        ("", ()),
        ([], ()),
        (None, ()),
    ],
)
def test_categories_come_in_many_forms(value: object, expected: tuple[str, ...]) -> None:
    assert texts(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" Roofing ", "Roofing"), (["Roofing", "Heating"], "Roofing, Heating"), (12.0, "12"), ({"value": "x"}, "x"),
        ("a, b", "a, b"), ("  ", None), ("a\x00b", "ab"), (None, None),
    ],
)  # fmt: skip
def test_one_text_is_what_the_field_says(value: object, expected: str | None) -> None:
    assert one_text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((yes, True) for yes in ("Yes", "YES.", "y", "true", "True", "1", 1, 1.0, True, "on", ["Yes"], '["yes"]')),
        *((no, False) for no in ("No", "no", "N", "false", "0", 0, False, "off", ["No"], {"value": "no"})),
        *((other, UNREADABLE) for other in ("maybe", "Yes, but later", 2, ["Yes", "No"], "yesterday")),
        *((empty, None) for empty in ("", " ", None, list[str](), dict[str, str](), "n/a")),
    ],
)
def test_yes_and_no_in_their_usual_spellings(value: object, expected: object) -> None:
    assert yes_or_no(value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((same, Decimal(45)) for same in (45, 45.0, "45", "45%", " 45 % ", "45.0", "45 percent", ["45"])),
        ("0.45", Decimal("0.45")),
        (0.45, Decimal("0.45")),
        (0, Decimal(0)),
        (100, Decimal(100)),
        ("33.335", Decimal("33.34")),
        *(
            (bad, UNREADABLE)
            for bad in ("101", -1, "45,5", "half", "1e2", True, float("nan"), float("inf"), [1, 2], "%")
        ),
        (None, None),
        ("", None),
    ],
)
def test_a_percentage_is_taken_as_written(value: object, expected: object) -> None:
    assert percentage(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("12", 12), (-3.5, Decimal("-3.5")), ("twelve", UNREADABLE), ([], None), ("1,000", UNREADABLE)],
)
def test_a_number_may_be_written_as_text(value: object, expected: object) -> None:
    assert number(value) == expected


NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(
            (same, NOON)
            for same in (
                "2026-03-04T12:00:00Z", "2026-03-04T12:00:00.000Z", "2026-03-04 12:00", "2026-03-04T07:00:00-05:00",
                1772625600000, "1772625600000", 1772625600, ["2026-03-04T12:00Z"],
            )
        ),
        ("2026-03-04", datetime(2026, 3, 4, tzinfo=UTC)),
        *(
            (bad, UNREADABLE)
            for bad in ("03/04/2026", "soon", 12, "0001-01-01T00:00+14:00", "1969-12-31", 10**14, "2100-01-01", True)
        ),
        (None, None), ("", None),
    ],
)  # fmt: skip
def test_a_moment_is_utc_unless_it_says_otherwise(value: object, expected: object) -> None:
    assert moment(value) == expected


@given(ANY_JSON)
def test_reading_never_raises_and_what_is_empty_is_nothing_to_every_reader(value: object) -> None:
    read = [yes_or_no(value), percentage(value), moment(value), number(value)]
    is_empty = not items(value)
    assert is_empty == (one_text(value) is None)
    assert all((each is None) == is_empty for each in read)
    assert not is_empty or texts(value) == ()


@given(st.lists(st.sampled_from(["Roofing", "roofing", "Heating, cooling", "x"])))
def test_what_was_read_reads_the_same_again(value: list[str]) -> None:
    assert texts(list(texts(value))) == texts(value)


def test_values_are_read_of_the_right_field() -> None:
    details = holding({FieldName.TAKING_NEW_WORK: "No", FieldName.GHL_USER_ID: "user1"})
    assert FIELDS.value(details, FieldName.GHL_USER_ID) == "user1"


def test_a_hundred_thousand_spaces_are_no_percentage_at_once() -> None:
    # Where each space was taken for the first of its run, they took more than a minute.
    began = time.perf_counter()
    assert percentage("1" + " " * 100_000 + "x") is UNREADABLE
    assert percentage("45" + " " * 100_000 + "%") == Decimal(45)
    assert time.perf_counter() - began < 2
