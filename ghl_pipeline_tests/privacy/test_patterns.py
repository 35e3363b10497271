"""What `redact` hides and what it leaves alone, as tables and as properties."""

import re
import string
import time
from datetime import UTC, datetime
from uuid import UUID

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghl_pipeline.privacy.patterns import redact

# Numbers below 7 digits cannot be told from a count, and four small countries have no longer ones.
REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
NATIONALLY_WRITTEN = [
    "US",
    "CA",
    "PR",
    "GB",
    "DE",
    "FR",
    "ES",
    "IT",
    "AU",
    "BR",
    "MX",
    "NL",
    "SE",
    "ZA",
    "IE",
    "TR",
    "PL",
]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("no lead for bob@example.com.", "no lead for [email]."),
        ('to "John Doe"@example.com', "to [email]"),
        ("JÖRG@bücher.example", "[email]"),
        ("x%40example.com", "[email]"),
        ("Key (client_id, lower(email))=(1, bob@example.com)", "Key (client_id, lower(email))=(1, [email])"),
        ("/search/duplicate?locationId=abc&email=x%2By%40example.com&number=%2B13055550123",
         "/search/duplicate?locationId=abc&email=[email]&number=[phone]"),
        ("/contacts/?query=Zaphod&limit=2", "/contacts/?query=[text]&limit=2"),
        ("call +1 (305) 555-0123 now", "call [phone] now"),
        ("phone=+1 (305) 555-0123 phone=(305) 555-0123 phone=412", "phone=[phone] phone=[phone] phone=412"),
        ("3055550123, 1-305-555-0123 x12, 555-0123", "[phone], [phone], [phone]"),
        ("12 leads 3055550123, 12 34 305-555-0123", "12 leads [phone], 12 34 [phone]"),
        ("305.555 0123 or 1.305 555 0123 or 1.305-555.0123", "[phone] or [phone] or [phone]"),
        ("0044 20 7946 0958 / 030/1234567", "[phone] / [phone]"),
        ("postgresql://app:p@ss/w@db:5432/leads", "postgresql://app:[password]@db:5432/leads"),
        ("host=db password=hunter22 user=app", "host=db password=[password] user=app"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer [token]"),
        ("pit-6f1f2b1e-7c2d-4b7a-9a53-0123456789ab", "[token]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_x", "[token]"),
        ("gAAAAABnP9" + "x" * 90 + "==", "[token]"),
        ("""{"firstName": "Ford", 'phone': '5', "n": 2}""", """{"firstName": "[name]", 'phone': '[phone]', "n": 2}"""),
        (r"""Row(first_name='O\'Neil', company_name="A & B")""", """Row(first_name='[name]', company_name="[name]")"""),
    ],
)  # fmt: skip
def test_what_is_of_a_person_or_a_secret_is_replaced_by_its_kind(text: str, safe: str) -> None:
    assert redact(text) == safe


@pytest.mark.parametrize(
    "text",
    [
        "run 6f1f2b1e-7c2d-4b7a-9a53-012345678901 of 12345678",
        "abcd1234-5678-4012-9456-789012345678",
        "2026-11-21T23:10:12.123456+00:00, 2026-11-21 23:10:12 +0000, 2026-11-21, 20261121T231012Z, 20261121231012",
        "epoch 1763766612, 1763766612.123456, 1763766612123, 1763766612123456789",
        "location ve9EPM428h8vShlRW1KT, 5Dpx0123456789012345",
        "filled 1234567 rows, 104857600 bytes, 4294967296 bytes in 12.345678 s or 0.0555550123 s",
        "size=4294967296 heap_bytes: 12345678901",
        "127.0.0.1:54321, 192.168.100.200 port 5432",
        "phone=412 email=31 {'phone': 412, 'first_name': 7}",
        "postgresql+psycopg://ghl@127.0.0.1:5432/ghl_pipeline",
        "GET https://services.leadconnectorhq.com/locations/ve9EPM428h8vShlRW1KT?limit=100&page=2",
        "(7) 12 leads, (12) 345, 12 34 56, 100 of 2000, page 3 (of 40) 20",
        "dagster 1.13.27, 2 of 5 locations, lead 1234567, pid 31234, [1, 2, 3], 12.34 56.78 90.12",
        "@dg.asset, name@, WAL 000000010000000000000042",
    ],
)
def test_what_an_operator_needs_is_left_alone(text: str) -> None:
    assert redact(text) == text.replace("name@", "[email]")


# An @ in the same word hides the beginning of a phone together with itself.
around = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="0123456789@"), max_size=30)
separators = st.sampled_from([" ", ", ", ": ", "=", "(", "'", '"', "\n", "<", "[", "/", " - ", "\t"])


@settings(deadline=None)
@given(around, separators, st.emails(), separators, around)
def test_no_address_survives_in_any_text(before: str, left: str, address: str, right: str, after: str) -> None:
    safe = redact(f"{before}{left}{address}{right}{after}")
    assert address not in safe
    assert address.partition("@")[2] not in safe


@settings(deadline=None)
@given(around, separators, st.sampled_from(REGIONS), st.data(), separators, around)
def test_no_international_phone_survives_in_any_text(
    before: str, left: str, region: str, data: st.DataObject, right: str, after: str
) -> None:
    number = phonenumbers.example_number(region)
    assert number is not None
    form = data.draw(
        st.sampled_from([phonenumbers.PhoneNumberFormat.E164, phonenumbers.PhoneNumberFormat.INTERNATIONAL])
    )
    phone = phonenumbers.format_number(number, form)
    if sum(map(str.isdigit, phone)) < 7:
        return  # two islands with four digits behind the country code
    assert not re.search("[0-9]{4}", redact(f"{before}{left}{phone}{right}{after}"))


@settings(deadline=None)
@given(
    around,
    separators,
    st.from_regex(r"(1[ .-]?)?(\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-]?)[0-9]{3}[ .-]?[0-9]{4}", fullmatch=True),
    separators,
)
def test_no_north_american_phone_survives_however_it_is_written(before: str, left: str, phone: str, right: str) -> None:
    if not re.fullmatch(r"\d+\.\d+", phone):  # a decimal is a duration
        assert not re.search("[0-9]", redact(f"{before}{left}{phone}{right}"))


@pytest.mark.parametrize("region", NATIONALLY_WRITTEN)
@pytest.mark.parametrize("kind", [phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE])
def test_no_phone_survives_as_people_write_it_at_home(region: str, kind: int) -> None:
    number = phonenumbers.example_number_for_type(region, kind)
    assert number is not None
    national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    assert redact(f"phone of the lead: {national}, call") == "phone of the lead: [phone], call"


@settings(deadline=None)
@given(
    st.uuids(),
    st.integers(1_000_000_000_000_000, 1_999_999_999_999_999).map(lambda us: datetime.fromtimestamp(us / 1e6, UTC)),
    st.integers(0, 999_999_999),
)
def test_ids_times_and_counts_survive(run: UUID, at: datetime, count: int) -> None:
    text = f"run {run} at {at.isoformat()} ({at}), {at.timestamp()}, {int(at.timestamp() * 1000)}, {count} leads"
    assert redact(text) == text


@settings(deadline=None)
@given(st.text(string.ascii_letters + string.digits, min_size=20, max_size=20).filter(lambda text: not text.isdigit()))
def test_location_and_contact_ids_survive(location_id: str) -> None:
    text = f"location {location_id}: done, location_id={location_id}, /contacts/{location_id}?limit=2"
    assert redact(text) == text


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("+0123456789 ()-.@%4/=&?:'\"abphonemil[]"))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "unit", ["a", "1 ", "12 ", "+", "0", "%40", '"', "://a:", "phone='", "(1)", "1.1.", "2026-11-21 "]
)
def test_a_hostile_text_is_read_in_linear_time(unit: str) -> None:
    started = time.perf_counter()
    redact(unit * (100_000 // len(unit)) + "@")
    assert time.perf_counter() - started < 5
