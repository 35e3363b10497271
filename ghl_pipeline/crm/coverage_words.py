"""The words of a vendor's coverage: what one part of the text, between commas, means by itself. Pure.

What several parts mean together ("Broward, Palm Beach, FL") is in `coverage.py`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from ghl_pipeline.crm.gazetteer import CountyName, Place, county_name, gazetteer
from ghl_pipeline.crm.states import STATES, state_code


@dataclass(frozen=True, slots=True)
class Scope:
    """The whole world, or the whole country; `is_country` when it is the country's name ("USA")."""

    is_global: bool
    is_country: bool = False


@dataclass(frozen=True, slots=True)
class States:
    """One state, or several codes in a row ("FL GA")."""

    codes: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class County:
    """A county that the part itself places in a state ("Broward County FL")."""

    place: Place


@dataclass(frozen=True, slots=True)
class ZipCodes:
    """ZIP codes, what stands between them and exists not, and the words beside them, if any."""

    codes: tuple[str, ...]
    unread: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Name:
    """Anything else: a county, if a state follows or there is only one of the name; or no place at all."""

    text: str
    county: CountyName

    @staticmethod
    def of(text: str) -> "Name":
        """The name that the text may be."""
        return Name(text, county_name(text[:_LONGEST_NAME]))

    def as_county(self) -> "Name":
        """The same name, said to be a county's; that of a city stays."""
        return self if self.county.is_city else replace(self, county=self.county.as_county())


Part: TypeAlias = Scope | States | County | ZipCodes | Name

# "International" is global: who works abroad is not kept to the US. That "national" is a part of the word has misled
# before, so words are compared whole.
_GLOBAL = frozenset(
    {
        "global", "globally", "worldwide", "world wide", "international", "internationally", "world",
        "all over the world", "all countries", "countries",
    }
)  # fmt: skip
_NATIONAL = frozenset(
    {
        "national", "nationally", "nationwide", "nation wide", "country wide", "countrywide", "entire country",
        "entire nation", "coast to coast", "states", "50 states", "fifty states",
    }
)  # fmt: skip
_COUNTRY = frozenset({"us", "usa", "united states", "united states of america", "u s", "u s a"})
_AROUND = re.compile(
    r"(?:(?:in|all|of|the|entire|whole|anywhere|throughout|across|within|we|are|is|serve|service|services|serving)\s+)*+"
    r"(?P<words>.+?)"
    r"(?:\s+(?:only|coverage|service|services|wide))*+"
)

# More is a mistake, or a state: Rhode Island has 91 ZIP codes, Texas 2,662.
MOST_ZIP_CODES_OF_A_RANGE = 1_000
_ZIP = re.compile(
    r"(?<!\w)(?P<first>\d{5})\s*(?:[-\u2013\u2014]|to|thru|through)\s*(?P<last>\d{5})(?!\w)"
    r"|(?<!\w)(?P<zip>\d{5})(?:[-\u2013]?\d{4})?(?!\w)",
    re.IGNORECASE | re.ASCII,
)
_ZIP_LABEL = re.compile(r"^(?:and\s+)?(?:us\s+)?(?:zip|postal)s?(?:\s*codes?|\s*areas?)?\b\s*[:#.-]?\s*", re.IGNORECASE)
_LABELS = frozenset(
    {
        "states", "state", "zip codes", "zip code", "zips", "zip", "zipcodes", "zipcode", "areas", "area",
        "areas served", "area served", "coverage", "service area", "service areas", "service zip codes", "we serve",
        "serving", "locations", "regions",
    }
)  # fmt: skip
_COUNTY_LABELS = frozenset({"county", "counties", "parish", "parishes"})
_BETWEEN_COMMAS = re.compile(r"(?:[^,()]|\([^()]*\)|[()])+")
_AND = re.compile(r"\s+and\s+|\s*&\s*|\s*/\s*|\s*\+\s*", re.IGNORECASE)
_LEADING_AND = re.compile(r"^(?:and|&)\s+", re.IGNORECASE)
_IN_PARENTHESES = re.compile(r"(?P<outer>[^()]+)\((?P<inner>[^()]*)\)")
# A part that is longer can be a list of ZIP codes, but names no place; the rules for names would take long to say so.
_LONGEST_NAME = 200
_CODES_IN_A_ROW = re.compile(r"[A-Z]{2}(?:\s+[A-Z]{2})+")


def state_and_rest(segment: str) -> tuple[str | None, bool, str]:
    """Takes a heading off a line: "Florida: Broward, Palm Beach".

    Returns:
        The state's code if the heading is a state, whether it says that counties follow, and the rest of the line.
    """
    head, colon, rest = segment.partition(":")
    head = " ".join(head.split())
    label = head.lower()
    if not colon or not rest.strip() or len(head) > _LONGEST_NAME:
        return None, False, segment
    if label in _LABELS or label in _COUNTY_LABELS:
        return None, label in _COUNTY_LABELS, rest
    state = state_code(_without_counties(head))
    return (state, False, rest) if state else (None, False, segment)


def _without_counties(head: str) -> str:
    return re.sub(r" (?:counties|parishes)$", "", head, flags=re.IGNORECASE)


def read_parts(text: str) -> Iterator[Part]:
    """What each part of a line means by itself, in order."""
    texts = [part for raw in _BETWEEN_COMMAS.findall(text) if (part := _clean(raw))]
    if len(texts) == 2 and (county := _county_of_a_states_name(*texts)):
        yield county
        return
    for part, following in pairwise([*texts, ""]):
        # "Maryland, Washington, DC" is one state and the capital.
        if part.lower() != "washington" or state_code(following) != "DC":
            yield from _read(part)


def _clean(part: str) -> str:
    return _LEADING_AND.sub("", " ".join(part.strip(" \t'\"[]").rstrip(".").split()))


def _county_of_a_states_name(name: str, code: str) -> County | None:
    """New York, NY: the county. New York, New Jersey: two states, although there may be a county of the name."""
    is_code = code.upper() in STATES
    if not is_code or name.upper() in STATES or not state_code(name):
        return None
    place = gazetteer().county(county_name(name), code.upper())
    return County(place) if place else None


def _read(part: str) -> Iterator[Part]:
    whole = _meaning(part)
    if _is_clear(whole) or len(part) > _LONGEST_NAME:
        yield whole
        return
    if _CODES_IN_A_ROW.fullmatch(part) and all(code in STATES for code in part.split()):
        yield States(tuple(part.split()), part)
        return
    # "Broward and Palm Beach", but not "in Miami and around": only when every piece could be a place by itself.
    pieces = [_clean(piece) for piece in _AND.split(part)]
    if len(pieces) > 1 and all(map(_could_be_a_place, pieces)):
        yield from map(_meaning, pieces)
        return
    yield whole


def _could_be_a_place(piece: str) -> bool:
    # "Florida and me": in a sentence two small letters are a word.
    return bool(piece) and (len(piece) != 2 or piece.isupper()) and _is_clear(_meaning(piece))


def _is_clear(meaning: Part) -> bool:
    """Whether nothing of the part is left over; a name could at least be a county's."""
    if isinstance(meaning, Name):
        return gazetteer().is_county(meaning.county)
    return not (isinstance(meaning, ZipCodes) and (meaning.unread or meaning.words))


def _meaning(part: str) -> Part:
    """What a part means by itself."""
    if zip_codes := _zip_codes(part):
        return zip_codes
    name = Name.of(part)
    if len(part) > _LONGEST_NAME:
        return name
    if scope := _scope(part):
        return scope
    if state := state_code(part):
        county = _county_with_state(part) if " " in part and part.replace(" ", "").isalpha() else None
        return county or States((state,), part)
    if county := _county_with_state(part):
        return county
    return _in_parentheses(part) or name


def _scope(part: str) -> Scope | None:
    words = " ".join(part.lower().replace(".", "").replace("-", " ").split())
    inner = _AROUND.fullmatch(words)
    for said in (words, inner["words"] if inner else ""):
        if said in _GLOBAL:
            return Scope(is_global=True)
        if said in _COUNTRY:
            return Scope(is_global=False, is_country=True)
        if said in _NATIONAL and words != "states":
            return Scope(is_global=False)
    return None


def _county_with_state(part: str) -> County | None:
    """A county and its state without a comma between: "broward county florida", "Broward FL"."""
    words = part.replace("(", " ").replace(")", " ").split()
    for count in range(1, min(4, len(words))):
        before, after = " ".join(words[:-count]), " ".join(words[-count:])
        name, state = county_name(before), state_code(after)
        # "Union in" is no county of Indiana: small letters are a code only after a word that says county.
        is_word = len(after) == 2 and not after.isupper() and not name.is_explicit
        place = gazetteer().county(name, state) if state and not is_word else None
        if place is not None and place.county_in_state:
            return County(place)
    return None


def _in_parentheses(part: str) -> Part | None:
    """A state that is there as a whole: "Florida (statewide)". Other things in parentheses could mean anything."""
    found = _IN_PARENTHESES.fullmatch(part)
    if found is None:
        return None
    outer = _meaning(found["outer"].strip())
    return outer if isinstance(outer, States) and found["inner"].strip().lower() in {"all", "statewide", ""} else None


def _zip_codes(part: str) -> ZipCodes | None:
    part = _ZIP_LABEL.sub("", part)
    known = gazetteer()
    codes: list[str] = []
    unread: list[str] = []
    matches = list(_ZIP.finditer(part))
    for found in matches:
        if found["zip"]:
            exist = [found["zip"]] if known.place(found["zip"]) else []
        else:
            ends_exist = known.place(found["first"]) and known.place(found["last"])
            exist = list(known.zip_codes_between(found["first"], found["last"])) if ends_exist else []
        if not exist or len(exist) > MOST_ZIP_CODES_OF_A_RANGE:
            unread.append(found[0])
        else:
            codes += exist
    if re.fullmatch(r"\d{4}", part, re.ASCII) and known.place(part.zfill(5)):
        return ZipCodes((part.zfill(5),))  # a number that lost its zero
    rest = " ".join(_ZIP.sub(" ", part).split()).strip(" -\u2013\u2014:.#()")
    if not matches or not _is_no_house_number(part, rest, matches):
        return None
    state = state_code(rest) if len(rest) <= _LONGEST_NAME else None
    says_where = state and all((place := known.place(code)) and place.state == state for code in codes)
    return ZipCodes(tuple(codes), tuple(unread), () if not rest or says_where else (rest,))


def _is_no_house_number(part: str, rest: str, matches: list[re.Match[str]]) -> bool:
    """Digits with words around them are a ZIP code at the end ("Miami 33101") or apart ("33101 - Miami")."""
    after_first = part[matches[0].end() :].lstrip()
    is_apart = matches[0].start() == 0 and after_first.startswith(("-", "\u2013", "\u2014", ":", "("))
    return not rest or matches[-1].end() == len(part) or is_apart
