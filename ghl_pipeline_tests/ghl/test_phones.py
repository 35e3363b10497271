"""How a phone number is stored: E.164, else its digits, else nothing; and the same however often it is stored."""

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ghl_pipeline.ghl.phones import storable_phone

REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
EXAMPLES = {region: number for region in REGIONS if (number := phonenumbers.example_number(region)) is not None}


def e164(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


@pytest.mark.parametrize(
    ("written", "region", "stored"),
    [
        # Numbers of the client's own region, however they are written.
        ("305-555-0123", "US", "+13055550123"),
        ("(305) 555.0123", "US", "+13055550123"),
        ("1 305 555 0123", "US", "+13055550123"),
        ("  +1 305 555 0123 ", "US", "+13055550123"),
        ("020 7946 0958", "GB", "+442079460958"),
        ("٣٠٥٥٥٥٠١٢٣", "US", "+13055550123"),
        # A number with its country is what it is, wherever the client sits.
        ("+44 20 7946 0958", "US", "+442079460958"),
        ("0044 20 7946 0958", "US", "+442079460958"),
        ("0049 30 23125 000", "US", "+493023125000"),
        ("+13055550123", "GB", "+13055550123"),
        # Extensions have no place in a number that gets a text message.
        ("305-555-0123 x42", "US", "+13055550123"),
        ("305-555-0123 ext. 42", "US", "+13055550123"),
        ("305-555-0123, extension 42", "US", "+13055550123"),
        ("3055550123ext42", "US", "+13055550123"),
        ("305-555-0123 #42", "US", "+13055550123"),
        ("305-555-0123;ext=42", "US", "+13055550123"),
        # Letters are words around a number, never keys of a telephone.
        ("call 305-555-0123", "US", "+13055550123"),
        ("fax 5550123", "US", "5550123"),
        ("1-800-FLOWERS", "US", None),
        ("not a phone", "US", None),
        # What no telephone network knows is kept as digits when it could be dialled at all.
        ("555-0123", "US", "5550123"),
        ("+999 12345678", "US", "99912345678"),
        ("305-555-0123", "no region", "3055550123"),
        ("123456", "US", None),
        ("1234567", "US", "1234567"),
        ("999999999999999", "US", "999999999999999"),
        ("9999999999999999", "US", None),
        ("305-555-0123 / 305-555-0199", "US", None),
        # Nothing is nothing.
        ("+1305\x005550123", "US", "+13055550123"),
        ("\x00", "US", None),
        ("   ", "US", None),
        ("", "US", None),
        (None, "US", None),
    ],
)
def test_a_number_is_stored_as(written: str | None, region: str, stored: str | None) -> None:
    assert storable_phone(written, region) == stored


@pytest.mark.parametrize("region", ["US", "GB", "IT", "ZZ"])
def test_a_whole_number_of_any_country_is_kept_for_a_client_anywhere(region: str) -> None:
    for number in map(e164, EXAMPLES.values()):
        assert storable_phone(number, region) == number


def test_a_number_written_as_at_home_gets_its_country() -> None:
    for region, number in EXAMPLES.items():
        at_home = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
        assert storable_phone(at_home, region) == e164(number)


numberish = st.text(st.sampled_from("0123456789+()-. /x#٣abeEtT\x00\n"), max_size=40)


@settings(deadline=None)
@given(written=st.one_of(numberish, st.text(max_size=300)), region=st.sampled_from(REGIONS))
@example("+305 555 0123", "US")
@example("0000123456789", "US")
@example("00" * 200, "US")
def test_storing_a_stored_number_changes_nothing(written: str, region: str) -> None:
    stored = storable_phone(written, region)
    if stored is not None:
        assert storable_phone(stored, region) == stored
        digits = stored.removeprefix("+")
        assert digits.isascii()
        assert digits.isdecimal()
        assert 7 <= len(digits) <= 15 or stored.startswith("+")


@settings(deadline=None)
@given(written=st.text(max_size=2000), region=st.text(max_size=5))
def test_no_text_and_no_region_is_an_error(written: str, region: str) -> None:
    storable_phone(written, region)
