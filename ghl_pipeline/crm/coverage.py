"""Where a vendor works: the service-zip-codes field, which people fill with anything from "nationwide" to ZIP lists.

What is named is read; what is not understood is kept as text and never widens what is covered. "Miami, FL" is not
Florida, "South Florida" neither, and a field that excludes something ("all states except California") is not read.
"""

import re
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
    them that exist. A name before a state's code or name is a county of that state ("Broward, FL") or nothing.
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
        """Reads one line of the field: parts with commas between, and names that a state after them explains."""
        state, are_counties, rest = state_and_rest(segment)
        names: list[Name] = []
        came_before = False
        for part in read_parts(rest):
            if isinstance(part, Name):
                names.append(part)
                continue
            if state is None:
                explained = self._explain(names, part, are_counties=are_counties)
            else:
                self._counties(names, state, are_counties=are_counties)
                explained = False
            # "Florida, USA" is Florida; a country after a place only says where that is.
            is_address = isinstance(part, Scope) and part.is_country and (came_before or names)
            if not explained and not is_address:
                self._take(part)
            names.clear()
            came_before = True
        self._counties(names, state, are_counties=are_counties)

    def _explain(self, names: list[Name], part: Part, *, are_counties: bool) -> bool:
        """Reads the names before a part; returns whether it only said in which state they are."""
        if not names:
            return False
        if isinstance(part, County):
            self._counties(names, part.place.state, are_counties=are_counties)
            return False
        if not isinstance(part, States) or len(part.codes) != 1:
            self._counties(names, None, are_counties=are_counties)
            return False
        state = part.codes[0]
        known = gazetteer()
        if all(known.county(each.county, state) is None and known.county(each.county, None) for each in names):
            # "Palm Beach County, Georgia": the county can only be Florida's, so Georgia stands for itself.
            self._counties(names, None, are_counties=are_counties)
            return False
        self._counties(names, state, are_counties=are_counties, state_text=part.text)
        return True

    def _counties(
        self, names: list[Name], state: str | None, *, are_counties: bool, state_text: str | None = None
    ) -> None:
        are_counties = are_counties or any(name.county.is_plural for name in names)
        for name in names:
            county = name.county.as_county() if are_counties and not name.county.is_city else name.county
            place = gazetteer().county(county, state)
            if place is not None and place.county_in_state:
                self.counties.add(place.county_in_state)
            else:
                self.unread[f"{name.text}, {state_text}" if state_text else name.text] = None

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
