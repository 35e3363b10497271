"""How a phone number is stored: E.164 when it is a valid number, else its digits, else nothing."""

import re

import phonenumbers

# Fewer digits than this cannot be dialled anywhere and are usually an extension or a typing test; more than 15 is not
# one number (ITU-T E.164).
MIN_DIGITS = 7
MAX_DIGITS = 15
# No letter before it: the x of "fax 555-0123" announces no extension.
_EXTENSION = re.compile(r"(?<![^\W\d_])(?:ext(?:ension)?|x|#)[.:=]?\s*\d{1,7}\s*$", re.IGNORECASE)
# Letters are words around a number ("call 305-555-0123"). Left in, libphonenumber would dial them as a vanity number.
_LETTERS = re.compile(r"[^\W\d_]+")


def storable_phone(value: str | None, default_region: str) -> str | None:
    """The form in which a phone number goes into `leads.phone`.

    Args:
        value: the number as a person or GHL wrote it.
        default_region: ISO 3166 alpha-2; read for numbers without a country code.

    Returns:
        E.164 ("+13055550123") when libphonenumber calls it valid; else its digits when there are 7 to 15; else None.
        Extensions are dropped, because neither E.164 nor an SMS gateway has room for them.
    """
    if value is None:
        return None
    text = _LETTERS.sub(" ", _EXTENSION.sub("", value.replace("\x00", "").strip())).strip()
    if text.startswith("00"):
        # libphonenumber reads a leading 00 as international only in regions that dial it; the US dials 011.
        text = "+" + text[2:]
    try:
        number = phonenumbers.parse(text, default_region)
    except phonenumbers.NumberParseException:
        number = None
    if number is not None and phonenumbers.is_valid_number(number):
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    digits = "".join(c for c in text if c.isascii() and c.isdecimal())
    if not MIN_DIGITS <= len(digits) <= MAX_DIGITS:
        return None
    # Without its signs the text may read as a number after all; so what is stored is read the same way ever after.
    return digits if digits == text else storable_phone(digits, default_region)
