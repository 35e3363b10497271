"""Where a vendor works: the service-zip-codes field, which people fill with anything from "nationwide" to ZIP lists.

What is named is read; what is not understood is kept as text and never widens what is covered. "Miami, FL" is not
Florida, "South Florida" neither, and a field that excludes something ("all states except California") is not read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ghl_pipeline.crm.coverage_words import County, Name, Part, Scope, States, ZipCodes, read_parts, state_and_rest
from ghl_pipeline.crm.field_values import items
from ghl_pipeline.crm.gazetteer import gazetteer


class CoverageKind(StrEnum):
    """The widest that a vendor's field names."""

    GLOBAL = "global"
    NATIONAL = "national"
    STATES = "states"
    COUNTIES = "counties"
    ZIP_CODES = "zip_codes"
    NONE = "none"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Where a vendor works, as far as its field could be read.

    Attributes:
        kind: the widest of what is named; `none` for an empty field, `unreadable` when nothing could be read.
        states: two-letter codes, sorted; also beside a wider or narrower kind, as are the next two.
        counties: such as "Miami-Dade, FL", sorted.
        zip_codes: five digits, sorted.
        text: the field's own text; None when empty.
        unread: the parts of it that were not understood, in order.
    """

    kind: CoverageKind
    states: tuple[str, ...] = ()
    counties: tuple[str, ...] = ()
    zip_codes: tuple[str, ...] = ()
    text: str | None = None
    unread: tuple[str, ...] = ()

    @property
    def normal_text(self) -> str:
        """What was read, written so that it reads the same again."""
        scope = [self.kind.value] if self.kind in {CoverageKind.GLOBAL, CoverageKind.NATIONAL} else []
        return "; ".join((*scope, *self.states, *self.counties, *self.zip_codes))


# "Not", "except": what follows is not covered, and what precedes only in part.
_EXCLUDES = re.compile(
    r"\b(?:except|excepting|exclud(?:e|es|ed|ing)|excl|not|no|without|outside|minus|but|other than)\b", re.IGNORECASE
)
_SEGMENTS = re.compile("[;|\n\r\t\u2022\u00b7]+")


def read_coverage(value: object) -> Coverage:
    """Reads the field's value: text, list, number, or a list written as JSON text. Never raises.

    "International" and "worldwide" are global; "national" and "USA" national. States by code or name, counties with
    their state or, when they say that they are counties, by a name that only one state has; ZIP codes and ranges of
    them that exist. A name before a state's code or name, in the same line or the one before, is a county of that state
    ("Broward, FL") or nothing.
    """
    found = items(value)
    if not found:
        return Coverage(CoverageKind.NONE)
    text = value.replace("\x00", "").strip() if isinstance(value, str) else "; ".join(found)
    if _EXCLUDES.search(text):
        return Coverage(CoverageKind.UNREADABLE, text=text, unread=tuple(dict.fromkeys(found)))
    reading = _Reading()
    for entry in found:
        for segment in _SEGMENTS.split(entry):
            reading.read(segment)
    reading.end()
    if reading == _Reading():
        reading.unread[text] = None  # nothing but signs
    return reading.coverage(text)


@dataclass(slots=True)
class _Reading:
    """What has been read of a field so far."""

    is_global: bool = False
    is_national: bool = False
    states: set[str] = field(default_factory=set)
    counties: set[str] = field(default_factory=set)
    zip_codes: set[str] = field(default_factory=set)
    unread: dict[str, None] = field(default_factory=dict)
    # Names that a state may still explain; whether one, or a ZIP code, just ended an address that a country may follow;
    # whether a place came before in the same line.
    _names: list[Name] = field(default_factory=list)
    _is_address: bool = False
    _came_before: bool = False

    def coverage(self, text: str) -> Coverage:
        """The result."""
        return Coverage(
            self._kind(),
            tuple(sorted(self.states)),
            tuple(sorted(self.counties)),
            tuple(sorted(self.zip_codes)),
            text,
            tuple(self.unread),
        )

    def _kind(self) -> CoverageKind:
        widest = (
            (self.is_global, CoverageKind.GLOBAL),
            (self.is_national, CoverageKind.NATIONAL),
            (self.states, CoverageKind.STATES),
            (self.counties, CoverageKind.COUNTIES),
            (self.zip_codes, CoverageKind.ZIP_CODES),
            (self.unread, CoverageKind.UNREADABLE),
        )
        return next((kind for named, kind in widest if named), CoverageKind.NONE)

    def read(self, segment: str) -> None:
        """Reads one line of the field: parts with commas between, and names that a state after them explains.

        Names at its end wait for the next line: "Miami" and below it "FL" is one place, and not Florida.
        """
        state, are_counties, rest = state_and_rest(segment)
        parts = list(read_parts(rest))
        if not parts:
            return
        if all(isinstance(part, Name) for part in parts) and state is None:
            self._is_address = False
        elif state is not None or not _only_says_where(parts):
            self.end()
        earlier = len(self._names)
        for part in parts:
            if isinstance(part, Name):
                self._names.append(part.as_county() if are_counties else part)
                continue
            self._read_place(part, state)
            earlier = 0
        of_this_line = self._names[earlier:]
        if any(name.county.is_plural for name in of_this_line):
            self._names[earlier:] = [name.as_county() for name in of_this_line]
        self._came_before = False
        if state is not None:
            self._counties(state)

    def end(self) -> None:
        """Reads the names that wait, as no state came after them."""
        self._counties(None)
        self._is_address = False

    def _read_place(self, part: Part, state: str | None) -> None:
        """Reads a part that is no mere name, with the names before it. `state`: the line's heading."""
        had_names = bool(self._names)
        explained = False
        if state is not None:
            self._counties(state)
        elif had_names:
            explained = self._explain(part)
        # "Florida, USA" is Florida; a country after a place only says where that is.
        is_country = _is_country(part)
        if not explained and not (is_country and (had_names or self._came_before or self._is_address)):
            self._take(part)
        goes_on = is_country or isinstance(part, ZipCodes)
        self._is_address = explained or (goes_on and (had_names or self._is_address))
        self._came_before = True

    def _explain(self, part: Part) -> bool:
        """Reads the names before a part; returns whether it only said in which state they are."""
        if isinstance(part, County):
            self._counties(part.place.state)
            return False
        if not isinstance(part, States) or len(part.codes) != 1:
            self._counties(None)
            return False
        state = part.codes[0]
        known = gazetteer()
        if all(known.county(each.county, state) is None and known.county(each.county, None) for each in self._names):
            # "Palm Beach County, Georgia": the county can only be Florida's, so Georgia stands for itself.
            self._counties(None)
            return False
        self._counties(state, state_text=part.text)
        return True

    def _counties(self, state: str | None, *, state_text: str | None = None) -> None:
        """Takes the names that wait as counties of a state, or of the only one that has them; empties them."""
        are_counties = any(name.county.is_plural for name in self._names)
        for name in self._names:
            place = gazetteer().county(name.as_county().county if are_counties else name.county, state)
            if place is not None and place.county_in_state:
                self.counties.add(place.county_in_state)
            else:
                self.unread[f"{name.text}, {state_text}" if state_text else name.text] = None
        self._names.clear()

    def _take(self, part: Part) -> None:
        if isinstance(part, Scope):
            self.is_global |= part.is_global
            self.is_national |= not part.is_global
        elif isinstance(part, States):
            self.states.update(part.codes)
        elif isinstance(part, County):
            self.counties.add(part.place.county_in_state or "")
        elif isinstance(part, ZipCodes):
            self.zip_codes.update(part.codes)
            self.unread |= dict.fromkeys(part.unread)
            # A state after them is where they are.
            self._names += [Name.of(words) for words in part.words]


def _only_says_where(parts: Sequence[Part]) -> bool:
    """Whether a line could be the end of an address that the line before began: a state, its ZIP code, the country."""
    first, *others = parts
    begins = isinstance(first, ZipCodes) or (isinstance(first, States) and len(first.codes) == 1)
    return all(isinstance(each, ZipCodes) or _is_country(each) for each in others) and (begins or _is_country(first))


def _is_country(part: Part) -> bool:
    return isinstance(part, Scope) and part.is_country
