"""The states of the US, by name and by code: what a text must say to mean one. Pure."""

import re
from types import MappingProxyType

# With the capital district and the territories that have ZIP codes. The codes of military post (AA, AE, AP) are in
# addresses alone; nobody offers services there.
STATES = MappingProxyType(
    {
        "AL": "Alabama", "AK": "Alaska", "AZ": "Arizona", "AR": "Arkansas", "CA": "California", "CO": "Colorado",
        "CT": "Connecticut", "DE": "Delaware", "DC": "District of Columbia", "FL": "Florida", "GA": "Georgia",
        "HI": "Hawaii", "ID": "Idaho", "IL": "Illinois", "IN": "Indiana", "IA": "Iowa", "KS": "Kansas",
        "KY": "Kentucky", "LA": "Louisiana", "ME": "Maine", "MD": "Maryland", "MA": "Massachusetts", "MI": "Michigan",
        "MN": "Minnesota", "MS": "Mississippi", "MO": "Missouri", "MT": "Montana", "NE": "Nebraska", "NV": "Nevada",
        "NH": "New Hampshire", "NJ": "New Jersey", "NM": "New Mexico", "NY": "New York", "NC": "North Carolina",
        "ND": "North Dakota", "OH": "Ohio", "OK": "Oklahoma", "OR": "Oregon", "PA": "Pennsylvania",
        "RI": "Rhode Island", "SC": "South Carolina", "SD": "South Dakota", "TN": "Tennessee", "TX": "Texas",
        "UT": "Utah", "VT": "Vermont", "VA": "Virginia", "WA": "Washington", "WV": "West Virginia", "WI": "Wisconsin",
        "WY": "Wyoming", "PR": "Puerto Rico", "VI": "Virgin Islands", "GU": "Guam", "AS": "American Samoa",
        "MP": "Northern Mariana Islands",
    }
)  # fmt: skip

_CODES = MappingProxyType(
    {name.lower(): code for code, name in STATES.items()}
    | {"washington dc": "DC", "washington district of columbia": "DC", "us virgin islands": "VI"}
)
# "All of Florida", "State of Georgia", "Washington state", "Texas only" mean the state; "South Florida" does not.
_AROUND = re.compile(
    r"(?:(?:in|all|of|the|entire|whole|anywhere|throughout|across|state|commonwealth|statewide)\s+)*+"
    r"(?P<state>.+?)"
    r"(?:\s+(?:state|statewide|only|all|wide))*+"
)
_BETWEEN = re.compile(r"[\s\-\u2013\u2014()]+")


def state_code(text: str) -> str | None:
    """The two-letter code of the state that the whole text means, in any letter case; None for anything else.

    Names, codes, a name beside its own code ("FL - Florida"), and words that only say that all of it is meant. Two
    letters count when they are the whole text alone: "in" is Indiana, "in Miami" is not.
    """
    code = text.strip().replace(".", "").upper()
    if code in STATES:
        return code
    words = " ".join(_BETWEEN.sub(" ", text.replace(".", "").lower()).split())
    inner = _AROUND.fullmatch(words)
    return _named(words) or (_named(inner["state"]) if inner else None)


def _named(words: str) -> str | None:
    if words in _CODES:
        return _CODES[words]
    first, _, rest = words.partition(" ")
    before, _, last = words.rpartition(" ")
    for code, name in ((first, rest), (last, before)):
        if code.upper() in STATES and _CODES.get(name) == code.upper():
            return code.upper()
    return None
