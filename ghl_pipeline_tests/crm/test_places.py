"""Where a contact is, from a postal code or a street address."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghl_pipeline.crm.places import place_of, zip_of
from ghl_pipeline.ghl.contact_details import ContactDetails

TEXTS = st.none() | st.text() | st.from_regex(r"\d{3,6}(-\d{4})?", fullmatch=True)


@pytest.mark.parametrize(
    ("postal_code", "country", "expected"),
    [
        ("33101", None, "33101"),
        ("33101", "US", "33101"),
        ("33101-1234", "United States", "33101"),
        ("331011234", "usa", "33101"),
        ("33101 1234", "U.S.", "33101"),
        ("33101.0", "US", "33101"),
        ("2134", "US", "02134"),
        ("2134", None, "02134"),
        ("2134-1000", None, "02134"),
        ("501", "US", "00501"),
        ("00901", "PR", "00901"),
        ("09012", "US", "09012"),
        ("99999", "US", "99999"),
        ("99999", None, None),
        ("00000", "US", None),
        ("9999", "US", None),
        ("33101", "CA", None),
        ("33101", "Germany", None),
        ("K1A 0B1", None, None),
        ("331", "US", None),
        ("", "US", None),
        (None, None, None),
    ],
)
def test_the_zip_code_of_a_postal_code(postal_code: str | None, country: str | None, expected: str | None) -> None:
    assert zip_of(ContactDetails(postal_code=postal_code, country=country)) == expected


@pytest.mark.parametrize(
    ("address", "state", "expected"),
    [
        ("1 Main St, Miami, FL 33125", None, "33125"),
        ("1 Main St, Miami, FL 33125-4567, USA", None, "33125"),
        ("10001 Main St, Miami, FL 33125", None, "33125"),
        ("10001 Main St", None, None),
        ("33125", None, "33125"),
        ("1 Main St Apt 10001", None, None),
        ("1 Main St #10001", None, None),
        ("PO Box 33125, Miami", None, None),
        ("1 Main St 99999", None, None),
        ("1 Main St 33125", "FL", "33125"),
        ("1 Main St 33125", "florida", "33125"),
        ("1 Main St 33125", "NY", None),
        ("1 Main St 10001 33125", "NY", "10001"),
        ("1 Main St, phone 3055550123", None, None),
        (None, None, None),
    ],
)
def test_the_zip_code_of_a_street_address(address: str | None, state: str | None, expected: str | None) -> None:
    assert zip_of(ContactDetails(address=address, state=state)) == expected


def test_a_postal_code_that_exists_comes_before_the_address_and_one_that_does_not_comes_after() -> None:
    address = "1 Main St, Miami, FL 33125"
    assert zip_of(ContactDetails(postal_code="33101", address=address)) == "33101"
    assert zip_of(ContactDetails(postal_code="99999", country="US", address=address)) == "33125"


@pytest.mark.parametrize(
    ("zip_code", "county", "state"),
    [
        ("33125", "Miami-Dade County", "FL"),
        ("70112", "Orleans Parish", "LA"),
        ("21201", "Baltimore City", "MD"),
        ("20001", "District of Columbia", "DC"),
        ("99501", "Anchorage Municipality", "AK"),
        ("09012", None, "AE"),
        ("00604", None, "PR"),
    ],
)
def test_county_and_state_of_a_zip_code(zip_code: str, county: str | None, state: str) -> None:
    place = place_of(zip_code)
    assert place is not None
    assert (place.county, place.state) == (county, state)


@pytest.mark.parametrize("zip_code", ["99999", "", "abcde", None])
def test_no_such_zip_code_is_no_place(zip_code: str | None) -> None:
    assert place_of(zip_code) is None


@settings(deadline=None)  # the first example waits for the ZIP codes
@given(TEXTS, TEXTS, st.sampled_from([None, "US", "CA"]))
def test_a_zip_code_has_five_digits_or_there_is_none(
    postal: str | None, address: str | None, country: str | None
) -> None:
    found = zip_of(ContactDetails(postal_code=postal, address=address, country=country))
    assert found is None or (len(found) == 5 and found.isascii() and found.isdecimal() and country != "CA")


@pytest.mark.parametrize(
    ("address", "expected"),
    [("1 " + "99999 " * 10_000, None), ("1 box" + " " * 100_000 + "x 33125", "33125"), ("1 box #" * 20_000, None),
     ("1 " + "33125 " * 10_000 + "box 33101", "33125")],
)  # fmt: skip
def test_an_address_of_many_numbers_is_read_at_once(address: str, expected: str | None) -> None:
    # Where the whole text before each number was looked at, 10,000 of them took 40 s.
    began = time.perf_counter()
    assert zip_of(ContactDetails(address=address)) == expected
    assert time.perf_counter() - began < 2
