"""ZIP codes and counties of the US, from the offline package `zipcodes`, under one spelling for each county.

The package has some counties under two spellings ("DeSoto", "Desoto"; "St. Louis", "St Louis"). A county is recognised
by its letters; it is called as most of its ZIP codes call it.
"""

import functools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import zipcodes

from ghl_pipeline.crm.states import STATES

# Everything the package has: with military post and the freely associated states, which are no states of ours.
_REGIONS = (*STATES, "AA", "AE", "AP", "FM", "MH", "PW")

_SUFFIX = re.compile(
    r"\s+(?:city and borough|census area|county|parish|borough|municipality|municipio|co|cnty|(?P<city>city)"
    r"|(?P<plural>counties|parishes|boroughs))$"
)
_PREFIX = re.compile(r"^(?:city and borough|county|parish|borough|municipality) of\s+|^(?P<city>city) of\s+")


@dataclass(frozen=True, slots=True)
class CountyName:
    """A county's name as it is compared.

    Attributes:
        letters: without "County", spaces and signs.
        is_city: whether it calls itself a city, as Virginia's independent cities do.
        is_explicit: whether it says that it is a county at all ("Broward County", not "Broward").
        is_plural: "Broward and Palm Beach Counties": the word goes for all names before it.
    """

    letters: str
    is_city: bool
    is_explicit: bool
    is_plural: bool = False

    def as_county(self) -> "CountyName":
        """The same name with the word "County" of its own."""
        return replace(self, is_explicit=True, is_plural=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ZIP code is: the county's full name ("Miami-Dade County"), None for military post, and the state's code.

    Attributes:
        county: None where the package knows none: military post, some post office boxes.
        state: two-letter code.
        short_county: without "County", "Parish" and the like ("Miami-Dade"); whole where a city of the same name is
            beside it ("Baltimore County"), and for cities ("Baltimore City").
    """

    county: str | None
    state: str
    short_county: str | None

    @property
    def county_in_state(self) -> str | None:
        """The county as coverage names it: "Miami-Dade, FL"."""
        return f"{self.short_county}, {self.state}" if self.short_county else None


def county_name(text: str) -> CountyName:
    """Reads a county's name, whether or not there is such a county. Letter case, accents and signs do not matter."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    plain = " ".join(re.sub(r"[^a-z ]+", " ", plain.replace("'", "").replace("&", " and ")).split())
    prefix = _PREFIX.match(plain)
    rest = plain[prefix.end() :] if prefix else plain
    suffix = None if prefix else _SUFFIX.search(rest)
    rest = rest[: suffix.start()] if suffix else rest
    rest = re.sub(r"\bsaint\b", "st", re.sub(r"\bsainte\b", "ste", rest))
    found = prefix or suffix
    is_city = bool(found and found["city"])
    plural = bool(suffix and suffix["plural"])
    return CountyName(rest.replace(" ", ""), is_city, found is not None and not is_city, plural)


@dataclass(frozen=True, slots=True)
class Gazetteer:
    """What can be asked about ZIP codes and counties."""

    _places: Mapping[str, Place]
    # By state, the county's letters, and whether it is a city.
    _counties: Mapping[tuple[str, str, bool], Place]
    # By the letters: the states that have a county of the name, cities left out.
    _states: Mapping[str, frozenset[str]]
    _zip_codes: tuple[str, ...]

    def place(self, zip_code: str) -> Place | None:
        """Where a five-digit ZIP code is; None when there is no such code."""
        return self._places.get(zip_code)

    @property
    def places(self) -> frozenset[Place]:
        """Every county of every state, and the states themselves where ZIP codes have no county."""
        return frozenset(self._places.values())

    def zip_codes_between(self, first: str, last: str) -> Sequence[str]:
        """The ZIP codes that exist from `first` to `last`, both included, in order."""
        return self._zip_codes[bisect_left(self._zip_codes, first) : bisect_right(self._zip_codes, last)]

    def is_county(self, name: CountyName) -> bool:
        """Whether any state has a county of this name."""
        return name.letters in self._states

    def county(self, name: CountyName, state: str | None) -> Place | None:
        """The county of a name in a state, or the only one in the US when no state is given.

        None when there is none, or more than one: of many Orange Counties, and of Baltimore in Maryland, which is a
        county and a city beside it.
        """
        if state is None:
            states = self._states.get(name.letters, frozenset())
            return self.county(name, next(iter(states))) if name.is_explicit and len(states) == 1 else None
        county = self._counties.get((state, name.letters, False))
        city = self._counties.get((state, name.letters, True))
        if name.is_city:
            # "James City" is a city by its looks, and a county by law.
            return city or self._counties.get((state, name.letters + "city", False))
        if name.is_explicit:
            return county
        return None if county and city else county or city


@functools.cache
def gazetteer() -> Gazetteer:
    """The one gazetteer of the process. The first call reads the package's data: 1 s and 45 MB, so not at import."""
    places: dict[str, Place] = {}
    counties: dict[tuple[str, str, bool], Place] = {}
    states: defaultdict[str, set[str]] = defaultdict(set)
    for state in _REGIONS:
        rows = _zip_codes_of(state)
        names = _counties_of(state, [county for _, county in rows if county])
        for zip_code, county in rows:
            places[zip_code] = names[county] if county else Place(None, state, None)
        for spelling, place in names.items():
            name = county_name(spelling)
            counties[state, name.letters, name.is_city] = place
            if not name.is_city:
                states[name.letters].add(state)
    return Gazetteer(
        places, counties, {letters: frozenset(of) for letters, of in states.items()}, tuple(sorted(places))
    )


def _zip_codes_of(state: str) -> list[tuple[str, str]]:
    # By state, because the package's whole list is 100 MB of dictionaries, which it would keep.
    rows: list[dict[str, object]] = zipcodes.filter_by(state=state)  # type: ignore[no-untyped-call]
    return [(str(row["zip_code"]), str(row["county"] or "").strip()) for row in rows]


def _counties_of(state: str, spellings: list[str]) -> dict[str, Place]:
    """The county that each spelling means; spellings of one county share their place."""
    counts = Counter(spellings)
    groups: defaultdict[tuple[str, bool], list[str]] = defaultdict(list)
    for spelling in counts:
        name = county_name(spelling)
        groups[name.letters, name.is_city].append(spelling)
    # "James City" is James City County with a word missing.
    for letters, is_city in list(groups):
        if is_city and (letters + "city", False) in groups:
            groups[letters + "city", False] += groups.pop((letters, True))
    of_spelling: dict[str, Place] = {}
    for (letters, is_city), group in groups.items():
        full = min(group, key=lambda each: (-counts[each], each))
        full = re.sub(r" city$", " City", full) if is_city else full
        has_city = (letters, True) in groups
        short = full if is_city or has_city else _without_kind(full)
        place = Place(full, state, short)
        of_spelling |= dict.fromkeys(group, place)
    return of_spelling


def _without_kind(full: str) -> str:
    kinds = r"City and Borough|Census Area|County|Parish|Borough|Municipality|Municipio"
    return re.sub(rf"^(?:{kinds}) of\s+|\s+(?:{kinds})$", "", full)
