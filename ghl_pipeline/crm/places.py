"""Where a contact is: its ZIP code, from the postal code or the street address, and the county and state of that."""

import re

from ghl_pipeline.crm.gazetteer import Place, gazetteer
from ghl_pipeline.crm.states import STATES, state_code
from ghl_pipeline.ghl.contact_details import ContactDetails

# GHL writes the ISO code, imports and forms write the name. Territories have ZIP codes and country codes of their own.
_US = frozenset({"us", "usa", "united states", "united states of america", "pr", "vi", "gu", "as", "mp"})
# A ZIP+4, or a number that lost its zeros; ".0" is an import's.
_POSTAL_CODE = re.compile(r"(?:(?P<zip>\d{5})(?:[-\s]?\d{4})?|(?P<short>\d{3,4})(?:-\d{4})?)(?:\.0)?", re.ASCII)
_NO_ZIP_BEFORE = re.compile(
    r"(?:\b(?:box|apt|apartment|unit|suite|ste|room|rm|lot|no|hwy|highway|route|rte|rt|road|cr|fm|sr)\b\.?\s*#?|#)\s*$",
    re.IGNORECASE,
)
# No address is longer; forms take whole letters, and each number in them would be looked at.
_LONGEST_ADDRESS = 400
# More than the words that say what is no ZIP code take up, with what stands around them.
_BEFORE = 30
_FIVE_DIGITS = re.compile(r"(?<![\w-])(\d{5})(?:-\d{4})?(?![\w-])", re.ASCII)


def zip_of(details: ContactDetails) -> str | None:
    """The five-digit ZIP code of a contact in the US, or of one without a country; None when it has none.

    From the postal code, without the last four digits of a ZIP+4. A number loses its leading zeros ("2134" is 02134 in
    Boston); they are put back when the result exists. A postal code that does not exist counts only where GHL says that
    the contact is in the US, because a country's name is often left out. Otherwise from the street address: its
    last five digits that are a ZIP code, of the contact's own state if that is known; never the house number.
    """
    country = (details.country or "").replace(".", "").strip().lower()
    if country and country not in _US:
        return None
    postal = _POSTAL_CODE.fullmatch((details.postal_code or "").strip())
    zip_code = (postal["zip"] or postal["short"].zfill(5)) if postal else None
    if place_of(zip_code):
        return zip_code
    # One that does not exist may be newer than the package's data, but says less than an address with one that does.
    is_believed = postal is not None and postal["zip"] is not None and country and zip_code != "00000"
    return _zip_of_address(details) or (zip_code if is_believed else None)


def place_of(zip_code: str | None) -> Place | None:
    """County and state of a ZIP code; None when there is no such code."""
    return gazetteer().place(zip_code) if zip_code else None


def _zip_of_address(details: ContactDetails) -> str | None:
    address = _end_of(" ".join((details.address or "").split()))
    own_state = state_code(details.state or "")
    for found in reversed(list(_FIVE_DIGITS.finditer(address))):
        is_house_number = found.start() == 0 and found.end() < len(address)
        if is_house_number or _NO_ZIP_BEFORE.search(address[max(0, found.start() - _BEFORE) : found.start()]):
            continue
        place = gazetteer().place(found[1])
        if place and (own_state is None or place.state not in STATES or place.state == own_state):
            return found[1]
    return None


def _end_of(address: str) -> str:
    """The last words of an address: a ZIP code is at its end. The first that is left may be a half."""
    return address if len(address) <= _LONGEST_ADDRESS else address[-_LONGEST_ADDRESS:].partition(" ")[2]
