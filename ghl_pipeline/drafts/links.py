"""What in a text can be taken for a way to somewhere else: links, e-mail addresses, phone numbers. Pure.

A phone makes a link of anything that has a dot in it and looks like a host, and there are 1,400 endings and more every
year, so that no list of them is kept: two labels with a dot between them are a link unless they are one of the few
ordinary things that look so.
"""

import re
import unicodedata
from functools import cache
from itertools import pairwise
from typing import Final

import phonenumbers

# Letters that nobody sees, besides those of Unicode's category Cf; some of them are category Mn, some Lo.
_UNSEEN: Final = frozenset(
    (
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
        *range(0x180B, 0x1810),
        0x034F,
        0x115F,
        0x1160,
        0x17B4,
        0x17B5,
        0x2800,
        0x3164,
        0xFFA0,
    )
)
# In place of a mark that is no part of a letter: a label with it stays one label, and equals no other.
_MARK: Final = "\u02d1"
# Browsers take it for a dot in a host. Chinese and Japanese sentences end with it and go on without a space.
_FULL_STOP: Final = "\u3002"
_CJK_ENDINGS: Final = (
    "\u4e2d\u56fd", "\u4e2d\u570b", "\u516c\u53f8", "\u7f51\u7edc", "\u7db2\u8def", "\u7f51\u5740", "\u7f51\u5e97",
    "\u5728\u7ebf", "\u5546\u57ce", "\u96c6\u56e2", "\u624b\u673a", "\u9999\u6e2f", "\u53f0\u6e7e", "\u53f0\u7063",
    "\u30b3\u30e0", "\u307f\u3093\u306a", "\u30c9\u30c3\u30c8\u30b3\u30e0", "\u30b9\u30c8\u30a2",
)  # fmt: skip
_DOT_IN_HOST: Final = re.compile(rf"{_FULL_STOP}(?=[a-zA-Z0-9]|{'|'.join(_CJK_ENDINGS)})")

ADDRESS: Final = re.compile(r"[^\s<>\"'(),;:]{1,200}@[^\s@<>\"'(),;:]{1,200}\.[^\s@<>\"'(),;:]{1,200}")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{1,20}://\S+|\bwww\.\S+", re.IGNORECASE)
_HOST: Final = re.compile(r"(?<![\w-])([\w-]+(?:\.[\w-]+)+)((?::\d{1,5})?(?:[/?#]\S*)?)")
_IP_ADDRESS: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
# "evil .com", "evil. com": the second only for endings that are no word.
_APART: Final = re.compile(r"\s\.[^\W\d_]{2,}|\w\.\s+(?:com|net|org|info|biz|io)\b", re.IGNORECASE)
# Two letters and more at the start of a label; a digit behind them makes it no ending ("30am" starts with one).
_ENDING: Final = re.compile(r"(?:[^\W\d_]{2,}(?=[-_]|$)|xn--)", re.IGNORECASE)
# What begins a sentence whose space is missing, "tomorrow.Would". Words that are endings of hosts are left out, however
# common ("It", "In", "So", "To", "Is", "My", "You", "How", "Now", "Here", "Call"): a host does not mind its capitals.
_SENTENCE_STARTS: Final = frozenset(
    (
        "We",
        "Let",
        "The",
        "This",
        "That",
        "These",
        "Those",
        "There",
        "Then",
        "They",
        "Would",
        "Could",
        "Should",
        "Can",
        "Will",
        "Shall",
        "Does",
        "Did",
        "Have",
        "Has",
        "What",
        "When",
        "Where",
        "Which",
        "Who",
        "Why",
        "With",
        "Your",
        "Our",
        "And",
        "But",
        "Or",
        "If",
        "From",
        "Please",
        "Thanks",
        "Thank",
        "Yes",
        "Sure",
        "Sorry",
        "Also",
        "After",
        "Before",
        "Any",
        "All",
        "Some",
        "Each",
        "Either",
        "Just",
        "Looking",
        "Feel",
        "Once",
        "Since",
        "While",
        "Until",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    )
)
_ABBREVIATIONS: Final = frozenset({"sq.ft", "sq.yd", "lin.ft", "cu.ft", "cu.yd"})
_AROUND: Final = ".,;:!?\"'()[]<>*_"
# As people dial abroad. The matcher knows them for some regions only.
_DIALLED_ABROAD: Final = re.compile(r"(?<!\d)(?<!\d[.,:])(?<![$+])(?:00|011)[\s.-]{0,2}(?=[1-9])")


def plain(text: str) -> str:
    """Without letters that are not seen, and with one of all that look the same by Unicode's own account (NFKC)."""
    seen = _seen(unicodedata.normalize("NFKC", _seen(text)))
    seen = _DOT_IN_HOST.sub(".", seen).replace(_FULL_STOP, ". ")
    return "".join(_MARK if unicodedata.category(letter)[0] == "M" else letter for letter in seen)


def addresses(text: str) -> set[str]:
    """E-mail addresses in a plain text, for comparing."""
    return {target(found) for found in ADDRESS.findall(text)}


def links(text: str) -> set[str]:
    """Links in a plain text without addresses, for comparing: with a scheme, or anything that looks like a host."""
    found = set(_SCHEME.findall(text))
    rest = _SCHEME.sub(" ", text)
    found.update(host + path for host, path in _HOST.findall(rest) if path or _is_host(host))
    found.update(_APART.findall(rest))
    return {target(each) for each in found}


def target(found: str) -> str:
    """Where a link leads, for comparing: case of the host, a slash at the end and what surrounds it left out."""
    bare = found.strip(_AROUND).rstrip("/")
    head, slash, path = bare.partition("://")
    host, middle, rest = (path if slash else head).partition("/")
    return f"{host.lower()}{middle}{rest}"


def numbers(text: str, region: str) -> set[str]:
    """Valid phone numbers in a plain text, as E.164. Prices, dates and times are none."""
    found: set[str] = set()
    for said in {text, _DIALLED_ABROAD.sub("+", text)}:
        matches = phonenumbers.PhoneNumberMatcher(said, region, leniency=phonenumbers.Leniency.VALID)
        found.update(phonenumbers.format_number(each.number, phonenumbers.PhoneNumberFormat.E164) for each in matches)
    return found


def _is_host(host: str) -> bool:
    """Whether labels with dots between them are a host, and not a number, a time, an abbreviation or two sentences."""
    if _IP_ADDRESS.fullmatch(host):
        return True
    if host.lower() in _ABBREVIATIONS:
        return False
    labels = host.split(".")
    return any(
        _ENDING.match(label) and not (label in _SENTENCE_STARTS and before[-1].islower())
        for before, label in pairwise(labels)
    )


def _seen(text: str) -> str:
    return "".join(letter for letter in text if not _is_unseen(letter))


@cache
def _is_unseen(letter: str) -> bool:
    return ord(letter) in _UNSEEN or unicodedata.category(letter) == "Cf"
