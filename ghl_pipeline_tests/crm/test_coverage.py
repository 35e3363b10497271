"""Where a vendor works, in the words that people use for it."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghl_pipeline.crm.coverage import Coverage, CoverageKind, read_coverage
from ghl_pipeline.crm.gazetteer import gazetteer
from ghl_pipeline.crm.places import place_of
from ghl_pipeline.crm.states import STATES
from ghl_pipeline_tests.crm.test_custom_fields import ANY_JSON

K = CoverageKind
Read = tuple[CoverageKind, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def short(coverage: Coverage) -> Read:
    return coverage.kind, coverage.states, coverage.counties, coverage.zip_codes


@pytest.mark.parametrize("text", ["global", "Worldwide", "world-wide", "INTERNATIONAL", "Internationally", "globally"])
def test_who_works_abroad_works_everywhere(text: str) -> None:
    assert read_coverage(text) == Coverage(K.GLOBAL, text=text)


@pytest.mark.parametrize(
    "text",
    [
        "national", "Nationwide", "NATION-WIDE", "nation wide", "all states", "All 50 states", "United States", "USA",
        "U.S.A.", "us", "the entire United States", "all of the US", "Nationwide coverage", "United States of America",
    ],
)  # fmt: skip
def test_the_whole_country_is_national(text: str) -> None:
    assert read_coverage(text) == Coverage(K.NATIONAL, text=text)


@pytest.mark.parametrize(
    ("value", "states"),
    [
        ("Florida", "FL"), ("florida", "FL"), ("FLORIDA", "FL"), ("FL", "FL"), ("fl", "FL"), ("FL, GA", "FL GA"),
        ("fl,ga", "FL GA"), ("FL GA AL", "AL FL GA"), ("FL/GA", "FL GA"), ("FL; GA\nAL", "AL FL GA"), ("Fl.", "FL"),
        ("Florida and Georgia", "FL GA"), ("Florida, Georgia, and Alabama", "AL FL GA"), ("FL & GA", "FL GA"),
        (["FL", "georgia"], "FL GA"), ('["FL","GA"]', "FL GA"), ({"0": "FL", "1": "GA"}, "FL GA"),
        ("State of Texas", "TX"),
        ("All of Florida", "FL"), ("Florida only", "FL"), ("statewide Florida", "FL"), ("Florida (statewide)", "FL"),
        ("FL - Florida", "FL"), ("Florida (FL)", "FL"), ("Georgia", "GA"),
        ("Washington", "WA"), ("washington state", "WA"),
        ("Washington DC", "DC"), ("Washington, D.C.", "DC"), ("district of columbia", "DC"),
        ("Maryland, Washington, DC", "DC MD"), ("Washington and Oregon", "OR WA"),
        (["Washington", "DC"], "DC WA"), ("Texas, Oklahoma", "OK TX"), ("Washington, Oregon", "OR WA"),
        ("New York, NJ, CT", "CT NJ NY"), ("Florida, USA", "FL"), ("States: FL, GA", "FL GA"), ("Puerto Rico", "PR"),
        ("OR", "OR"), ("or", "OR"), ("in, me", "IN ME"), ("West Virginia", "WV"),
    ],
)  # fmt: skip
def test_states_by_code_and_by_name(value: object, states: str) -> None:
    assert short(read_coverage(value)) == (K.STATES, tuple(states.split()), (), ())
    assert read_coverage(value).unread == ()


@pytest.mark.parametrize(
    ("value", "counties"),
    [
        ("Miami-Dade County, FL", ["Miami-Dade, FL"]),
        ("miami dade county, florida", ["Miami-Dade, FL"]),
        ("broward county florida", ["Broward, FL"]),
        ("broward county fl", ["Broward, FL"]),
        ("Broward FL", ["Broward, FL"]),
        ("Broward, FL", ["Broward, FL"]),
        ("Broward County", ["Broward, FL"]),
        ("County of Broward", ["Broward, FL"]),
        ("Orange County, CA", ["Orange, CA"]),
        ("Broward, Palm Beach, FL", ["Broward, FL", "Palm Beach, FL"]),
        ("Broward, Palm Beach and Miami-Dade Counties, FL", ["Broward, FL", "Miami-Dade, FL", "Palm Beach, FL"]),
        ("Broward and Palm Beach Counties", ["Broward, FL", "Palm Beach, FL"]),
        ("Counties: Broward, Palm Beach", ["Broward, FL", "Palm Beach, FL"]),
        ("Florida: Broward, Orange", ["Broward, FL", "Orange, FL"]),
        ("Florida counties: Lee, Collier", ["Collier, FL", "Lee, FL"]),
        (["Broward County, FL", "Cook County, IL"], ["Broward, FL", "Cook, IL"]),
        ("Lake County, IN and Cook County, IL", ["Cook, IL", "Lake, IN"]),
        ("King and Queen County, VA", ["King and Queen, VA"]),
        ("St Johns County, FL; Saint Lucie County, FL", ["St. Johns, FL", "St. Lucie, FL"]),
        ("DeKalb County, Georgia", ["DeKalb, GA"]),
        ("dekalb county georgia", ["DeKalb, GA"]),
        ("Doña Ana County, NM", ["Dona Ana, NM"]),
        ("Orleans Parish, LA", ["Orleans, LA"]),
        ("Anchorage, AK", ["Anchorage, AK"]),
        ("Baltimore City, MD", ["Baltimore City, MD"]),
        ("Baltimore County, MD", ["Baltimore County, MD"]),
        ("Virginia Beach, VA", ["Virginia Beach City, VA"]),
        ("New York, NY", ["New York, NY"]),
        ("Broward County, FL, USA", ["Broward, FL"]),
        ("Lake | FL", ["Lake, FL"]),
        ("Broward;Palm Beach;FL", ["Broward, FL", "Palm Beach, FL"]),
        ("Counties: Lake, Orange; FL", ["Lake, FL", "Orange, FL"]),
        ("Lake and Orange counties\nFlorida\nUSA", ["Lake, FL", "Orange, FL"]),
        (["Broward County", "Florida"], ["Broward, FL"]),
    ],
)
def test_counties_with_their_state_or_of_the_only_one(value: object, counties: list[str]) -> None:
    assert short(read_coverage(value)) == (K.COUNTIES, (), tuple(counties), ())
    assert read_coverage(value).unread == ()


@pytest.mark.parametrize(
    ("value", "zip_codes"),
    [
        ("33101", ["33101"]),
        ("33101, 33125", ["33101", "33125"]),
        ("33125 33101", ["33101", "33125"]),
        ("33101;33125\n33126", ["33101", "33125", "33126"]),
        ("33101-1234", ["33101"]),
        ("33101-33102", ["33101", "33102"]),
        ("33125 to 33128", ["33125", "33126", "33127", "33128"]),
        ("Zip codes: 33101, 33125", ["33101", "33125"]),
        ("ZIP 33101 and 33125", ["33101", "33125"]),
        ("FL 33101", ["33101"]),
        (["33101", "33125"], ["33101", "33125"]),
        (33101, ["33101"]),
        (33101.0, ["33101"]),
        (2134, ["02134"]),
        ('["33101"]', ["33101"]),
    ],
)
def test_lists_and_ranges_of_zip_codes(value: object, zip_codes: list[str]) -> None:
    assert short(read_coverage(value)) == (K.ZIP_CODES, (), (), tuple(zip_codes))
    assert read_coverage(value).unread == ()


@pytest.mark.parametrize(
    ("value", "expected", "unread"),
    [
        ("FL, 33101", (K.STATES, ("FL",), (), ("33101",)), ()),
        ("Georgia; Broward County, FL; 33101", (K.STATES, ("GA",), ("Broward, FL",), ("33101",)), ()),
        ("Nationwide, especially Florida", (K.NATIONAL, (), (), ()), ("especially Florida",)),
        ("National and international", (K.GLOBAL, (), (), ()), ()),
        ("FL, Atlantis", (K.STATES, ("FL",), (), ()), ("Atlantis",)),
        ("33101, 00000", (K.ZIP_CODES, (), (), ("33101",)), ("00000",)),
        ("10001 NW 5th St, Miami, FL 33101", (K.ZIP_CODES, (), (), ("33101",)), ("10001 NW 5th St", "Miami")),
        ("Palm Beach County, Georgia", (K.STATES, ("GA",), ("Palm Beach, FL",), ()), ()),
        ("Broward County and 33101", (K.COUNTIES, (), ("Broward, FL",), ("33101",)), ()),
        ("33101 - Miami", (K.ZIP_CODES, (), (), ("33101",)), ("Miami",)),
        ("33101 - Miami; FL", (K.ZIP_CODES, (), (), ("33101",)), ("Miami, FL",)),
        ("Miami\nFL, 33101\nUSA", (K.ZIP_CODES, (), (), ("33101",)), ("Miami, FL",)),
        ("Miami\nFL 33101\nUSA", (K.ZIP_CODES, (), (), ("33101",)), ("Miami",)),
        ("Miami; FL; GA", (K.STATES, ("GA",), (), ()), ("Miami, FL",)),
        ("Miami; FL, GA", (K.STATES, ("FL", "GA"), (), ()), ("Miami",)),
        ("Miami; Lake County, FL", (K.COUNTIES, (), ("Lake, FL",), ()), ("Miami",)),
        ("Palm Beach County; Georgia", (K.STATES, ("GA",), ("Palm Beach, FL",), ()), ()),
        ("zip 33101; FL", (K.STATES, ("FL",), (), ("33101",)), ()),
    ],
)
def test_of_a_mixture_everything_is_kept_and_the_widest_is_its_kind(
    value: str, expected: Read, unread: tuple[str, ...]
) -> None:
    assert short(read_coverage(value)) == expected
    assert read_coverage(value).unread == unread
    assert read_coverage(value).text == value


@pytest.mark.parametrize(
    "text",
    [
        "in or near Miami", "call me", "Miami", "Miami, FL", "Miami, Florida", "South Florida", "Northern California",
        "Orange County", "Washington County", "Orange County, Georgia", "Baltimore, MD", "Broward, Palm Beach", "fl ga",
        "all states except California", "All states, but not CA", "FL, not GA", "tri-state area", "statewide", "yes",
        "Florida and me", "50 miles around Tampa", "10001 NW 5th St", "99999", "33101-33999", "00501-99950",
        "305, 786, 954", "New York City", "Kansas City", "union in", "states", "Miami, USA",
        "Miami; FL", "Miami\nFL", "Miami\n\nFlorida\nUSA", '["Miami", "FL"]', "Miami, Orlando; FL",
        "Tampa Bay area | FL", "Miami; USA", "....", "[[", "true",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_kept_as_text_and_covers_nothing(text: str) -> None:
    coverage = read_coverage(text)
    assert short(coverage) == (K.UNREADABLE, (), (), ())
    assert coverage.text == text
    assert coverage.unread


@pytest.mark.parametrize("value", [None, "", "  ", [], {}, "n/a", "None", [""], "[]", "-"])
def test_an_empty_field_is_none_and_not_unreadable(value: object) -> None:
    assert read_coverage(value) == Coverage(K.NONE)


def test_every_county_of_the_country_is_read_as_it_is_written() -> None:
    counties = {place for place in gazetteer().places if place.county and place.state != "DC"}
    assert len(counties) > 3_200
    for place in counties:
        name = place.county_in_state or ""
        assert short(read_coverage(name)) == (K.COUNTIES, (), (name,), ()), name
        assert read_coverage(f"{place.county}, {STATES[place.state]}".lower()).counties == (name,)


def test_a_lead_is_in_the_county_that_a_vendor_names() -> None:
    home = place_of("33125")
    assert home is not None
    assert home.county_in_state in read_coverage("miami-dade county, florida").counties


WORDS = st.sampled_from(
    [*STATES, *STATES.values(), "Broward County", "Lee County, FL", "Orange", "33101", "33125-33130", "national",
     "global",
     "near Miami", "and", ",", ";", "USA", "(all)", "Washington, DC", "Union", "Counties:", "zip"]
)  # fmt: skip


@settings(deadline=None)  # the first example waits for the ZIP codes
@given(st.lists(WORDS, max_size=6), st.sampled_from([", ", "; ", " ", " and ", "\n", "/"]))
def test_what_was_read_reads_the_same_again(words: list[str], between: str) -> None:
    read = read_coverage(between.join(words))
    again = read_coverage(read.normal_text)
    assert (again.states, again.counties, again.zip_codes) == (read.states, read.counties, read.zip_codes)
    assert again.kind is read.kind or read.kind in {K.NONE, K.UNREADABLE}
    assert again.unread == ()


@settings(deadline=None)  # the first example waits for the ZIP codes
@given(ANY_JSON | st.lists(WORDS))
def test_reading_never_raises_and_a_text_is_never_lost(value: object) -> None:
    read = read_coverage(value)
    assert (read.text is None) == (read.kind is K.NONE)
    assert not (read.kind is K.UNREADABLE and not read.unread)


@settings(deadline=None)  # the first example waits for the ZIP codes
@given(st.lists(st.sampled_from([*STATES.values(), "Broward County", "national"]), min_size=1))
def test_letter_case_does_not_matter_for_names(names: list[str]) -> None:
    text = "; ".join(names)
    assert short(read_coverage(text.upper())) == short(read_coverage(text.lower())) == short(read_coverage(text))


@pytest.mark.parametrize(
    "part",
    [
        "33101,",
        "Lee, ",
        "in ",
        "all ",
        " and Lee",
        "(a",
        "[",
        "33101-33125 ",
        "FL ",
        "&",
        "12345-",
        "wide ",
        "33101 wide ",
    ],
)
def test_a_field_of_a_hundred_thousand_letters_is_read_at_once(part: str) -> None:
    # A rule that looks ahead to the end at every step takes minutes; the slowest of these takes half a second.
    text = part * (100_000 // len(part))
    began = time.perf_counter()
    assert read_coverage(text).text == text.strip()
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("text", ["a{}b: x", "{0}a{0}b", "all{}", "33101{}x", "Lee{}and Lake", "Lee, FL{}(x", "zip{}x"])
def test_a_hundred_thousand_spaces_are_read_at_once(text: str) -> None:
    # Where each space was taken for the first of its run, they took more than two minutes.
    began = time.perf_counter()
    read_coverage(text.format(" " * 100_000))
    assert time.perf_counter() - began < 10
