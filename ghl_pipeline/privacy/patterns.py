"""What a person's value or a secret looks like in text, and what merely looks like one.

Pure text to text: `redact` replaces e-mail addresses, phone numbers, tokens, passwords in URLs, and values that stand
beside a telling key (`email=`, `"firstName": "..."`). It is the last net; the first is that errors and log lines are
written without such values. Logging belongs in `redaction.py`.

Numbers are the hard part, because a log is full of them. Left alone on purpose: UUIDs, ISO dates and times, IP
addresses, decimals, ids that mix letters and digits, whole numbers of up to 9 digits, ten digits that start with 1 and
thirteen that start with 1 (epoch seconds and milliseconds until 2033; no North American number starts with 1), 16
digits or more, and any number with a unit or a telling name (`size=4294967296`, `4294967296 bytes`).
"""

import re
from functools import partial

EMAIL, PHONE, TOKEN, PASSWORD, NAME, TEXT = "[email]", "[phone]", "[token]", "[password]", "[name]", "[text]"

_TOKENS = re.compile(
    r"eyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?"  # JSON Web Token, with or without its signature
    r"|(?<![A-Za-z0-9])pit-[A-Za-z0-9-]{8,}"  # GHL private integration token
    r"|(?<![A-Za-z0-9])gAAAA[\w-]{20,}={0,2}"  # Fernet: a stored token
    r"|(?i:(?<=bearer\s)|(?<=bearer%20))[\w.~+/=-]{8,}"
)
# The password ends at the last @ of the word, as urllib reads it. A port with a path behind it is not a password.
_URL_PASSWORD = re.compile(r"""(://[^\s:/@?#"'<>]*):(?!\d{1,5}/)[^\s"'<>]{1,300}@""")

_LABEL_OF_KEY = {
    EMAIL: r"e-?mail(?:[_-]?address)?",
    PHONE: r"(?:mobile[_-]?)?phone(?:[_-]?number)?",
    NAME: r"(?:first|last|full|contact|company)[_-]?name(?:[_-]?lower[_-]?case)?",
    TOKEN: r"(?:(?:access|refresh|ghl|api)[_-]?)?token|api[_-]?key|(?:client[_-]?)?secret|authorization|signature",
    PASSWORD: r"password|passwd|pwd",
}
# Only inside a query string do these words say what their value is.
_LABEL_OF_QUERY_KEY = {PHONE: r"number", TEXT: r"query|q|body|message|search", NAME: r"name"}
# Cheap to look for, and without one of them the patterns below cannot match.
_KEY_HINTS = ("mail", "phone", "name", "token", "key", "secret", "authorization", "signature", "pass", "pwd", "?", "&")
_GAP = r"[ \t\u00a0\u2009\u2010-\u2015.()-]"  # what people put between the digits of a phone number
# `phone=412` is a count of filled phones, not a phone; a label is not redacted again.
_NOT_A_COUNT = r"(?!\d{1,6}(?![\w.-])|\[\w+\])"
# Up to the next space, and on through the groups of a phone number.
_BARE_VALUE = rf"=){_NOT_A_COUNT}[^&\s\"',;)\]}}<>]+(?:(?<=\d)(?:{_GAP}{{1,3}}\d+)+)?"
_QUOTED_VALUE = r"""['"]?\s?[:=]\s?)(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_KEYED_VALUES = (
    *(
        (re.compile(rf"(?i)(?P<bare>[?&](?:{keys}){_BARE_VALUE}(?P<quoted>)"), label)
        for label, keys in _LABEL_OF_QUERY_KEY.items()
    ),
    *(
        (
            re.compile(
                rf"(?i)(?<![\w-])(?:(?P<bare>(?:{keys}){_BARE_VALUE}|(?P<quoted>['\"]?(?:{keys}){_QUOTED_VALUE})"
            ),
            label,
        )
        for label, keys in _LABEL_OF_KEY.items()
    ),
)

# Everything that RFC 5321 allows unquoted before an @, any other letter of the world, and what surrounds it unspaced.
_WORD_WITH_AT = re.compile(r'[^\s<>()\[\]\\,;:"]+')
_QUOTED_LOCAL_PART = re.compile(r'"[^"\n]{1,64}"@[\w.-]+')
_POSTGRES_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?:$")

_START, _END = r"(?<![A-Za-z0-9])(?<!\d[.,])", r"(?![A-Za-z0-9])"
_ALL_OF_IT = r"(?![A-Za-z0-9]|[.-]\d)"
_UNIT = r"(?!\s?(?:[KMGT]i?B|B|bytes?|rows?|leads?|contacts?|calls?|requests?|ns|us|µs|ms|s|sec|seconds?)\b)"
_KEPT_NUMBERS = (
    rf"{_START}[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}{_END}"  # UUID: run ids, trace ids
    r"|(?<![\d-])(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d)"  # ISO date, time, offset
    r"(?:[T _-]\d\d[:-]?\d\d(?:[:-]?\d\d(?:[.,]\d{1,9})?)?(?!\d)(?:\s?(?:Z\b|[+-]\d\d:?\d\d(?!\d)))?)?"
    r"|(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d]|\.\d)(?::\d{1,5}(?!\d))?"
    # A decimal: seconds, ratios, epoch with fraction. Not 305.555 0123 or 1.305 555-0123.
    rf"|(?<![\d.])(?!(?:1\.?)?[2-9]\d\d(?:\.?\d{{3}}[ -]\d{{4}}|[ -]\d{{3}}{_GAP}?\d{{4}}){_END})\d+\.\d+(?!\d|[.-]\d)"
)
_PHONES = (
    rf"\+{_GAP}?\d(?:{_GAP}{{0,3}}\d){{5,14}}\d*"  # international: whatever follows a plus
    # North America, with or without punctuation and extension; ten bare digits from 2 on.
    rf"|{_START}(?:1{_GAP}?)?\(?[2-9]\d\d\)?{_GAP}{{0,2}}\d{{3}}{_GAP}?\d{{4}}(?:\s?(?:x|ext\.?)\s?\d{{1,6}})?{_END}{_UNIT}"
    rf"|{_START}\(?0[\d)](?:{_GAP}{{0,2}}\d){{5,13}}{_END}{_UNIT}"  # a leading zero is never a count
    rf"|{_START}0\d{{1,4}}/\d{{5,}}{_END}"  # German style 030/123456
    # An area code in brackets, if the whole has the length of a phone number.
    rf"|(?P<bracketed>{_START}\(\d{{1,5}}\){_GAP}{{0,2}}\d{{2,9}}(?:{_GAP}\d{{2,6}}){{0,4}}{_ALL_OF_IT}){_UNIT}"
    r"|(?<![A-Za-z0-9.-])[2-9]\d\d-\d{4}(?![A-Za-z0-9-])"  # 555-0123
    # Three or more groups with one kind of gap (612 34 56 78), if they add up to a phone number.
    rf"|(?P<groups>{_START}\d{{2,4}}(?P<gap>[ .-])\d{{2,5}}(?:(?P=gap)\d{{2,5}})+{_ALL_OF_IT}){_UNIT}"
    rf"|{_START}(?!1\d{{12}}{_END})(?!(?:19|20)\d{{12}}{_END})\d{{11,15}}{_END}{_UNIT}"
)
# The look-ahead spares the alternatives at most characters of a text; UUIDs may start with a letter.
_NUMBERS = re.compile(rf"(?=[0-9a-fA-F+(\d])(?:(?P<kept>{_KEPT_NUMBERS})|{_PHONES})")
_TELLING_NAME = re.compile(
    r"(?i)(?:bytes|size|count|total|offset|position|duration|elapsed|epoch|_(?:at|id|ns|us|ms))['\"]?\s?[:=]\s?$"
)


def redact(text: str) -> str:
    """The text with every e-mail, phone, token, password and keyed personal value replaced by a label in brackets.

    Doing it twice changes nothing more. Errs on the side of hiding: a word that holds an `@` goes as a whole.
    """
    text = _TOKENS.sub(TOKEN, text)
    if "://" in text and "@" in text:
        text = _URL_PASSWORD.sub(rf"\1:{PASSWORD}@", text)
    lowered = text.lower()
    if any(hint in lowered for hint in _KEY_HINTS):
        for pattern, label in _KEYED_VALUES:
            text = pattern.sub(partial(_keyed, label), text)
    if "%40" in text or "@" in text:
        text = _QUOTED_LOCAL_PART.sub(EMAIL, text)
        text = _WORD_WITH_AT.sub(_without_address, text)
    return _NUMBERS.sub(_without_phone, text)


def _keyed(label: str, match: re.Match[str]) -> str:
    if match.group("bare"):
        return match.group("bare") + label
    quote = match.group()[-1]
    return f"{match.group('quoted')}{quote}{label}{quote}"


def _without_address(match: re.Match[str]) -> str:
    word = match.group()
    if word.find("@") <= 0 and word.find("%40") <= 0:
        return word
    # A database URL without a password, as our own texts show it: postgresql://role@host:5432/name.
    if word.startswith("//") and _POSTGRES_SCHEME.search(match.string, max(0, match.start() - 30), match.start()):
        role, _, rest = word[2:].partition("@")
        if role.isidentifier() and "@" not in rest:
            return word
    return EMAIL + word[len(word.rstrip(".!?")) :]


def _without_phone(match: re.Match[str]) -> str:
    found = match.group()
    if match.group("kept") is not None:
        return found
    if found.isdigit() and _TELLING_NAME.search(match.string, max(0, match.start() - 20), match.start()):
        return found
    groups, bracketed = match.group("groups"), match.group("bracketed")
    if groups is not None:
        needed = 8 if groups.count(match.group("gap")) >= 3 else 9
    else:
        needed = 0 if bracketed is None else 8
    return PHONE if sum(map(str.isdigit, found)) >= needed else found
