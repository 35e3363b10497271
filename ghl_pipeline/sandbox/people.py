"""People who do not exist: names, reserved e-mail addresses, fictitious phones, ids, all drawn from a seed.

Only example.com, example.org and example.net (RFC 2606) and the 555-0100 to 555-0199 lines that the North American
plan keeps for fiction appear, so nothing made here can reach anybody. Equal seeds give equal people in every process.
"""

import random
import string
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ghl_pipeline.sandbox.contacts import Contact

EPOCH_OF_SAMPLES: Final = int(datetime(2024, 12, 1, tzinfo=UTC).timestamp() * 1000)
"""Sample contacts were added from then on, so that they are the same whenever they are made."""
_SPAN_OF_SAMPLES: Final = 540 * 86_400_000


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST_NAMES: Final = _words(
    "Ada Ben Carla Dmitri Elena Farid Grace Hugo Imani Jonas Keiko Liam Mara Nils Olga Priya Quentin Rosa Samir Tessa "
    "Umar Vera Wanda Xavier Yusuf Zoë José Søren Anaïs Łukasz Nguyễn Þóra 美咲 Алексей Jean-Luc Mary-Jane"
)
_LAST_NAMES: Final = _words(
    "Abbott Brandt Castillo Dubois Eriksen Fischer García Haddad Ito Jansen Kowalski Larsen Moreau Novak O'Brien Park "
    "Quist Rossi Schmidt Tanaka Usman Vargas Weber Xu Yüksel Zimmermann D'Angelo Smith-Jones Müller Åberg 山田 Петров"
)
# What people and imports put into name fields: quotes, markup, formulas, invisible characters, endless names.
_ODD_NAMES: Final = (
    ('Robert "Bobby"', "O'Neil, Jr."),
    ("Wolfeschlegelsteinhausenbergerdorff" * 3, "Featherstonehaugh-Cholmondeley " * 3),
    ("Anne; DROP TABLE leads;--", "Null"),
    ("=SUM(A1)", "<b>Bold</b>"),
    ("\u202eevaluate", "Zero\u200bWidth"),
    ("👩‍🔬 Marie", "Back\\slash"),
)
_COMPANIES: Final = _words("Acme Borealis Cobalt Delta Evergreen Fjord Granite Harbor Indigo Juniper Keystone Lumen")
_TRADES: Final = ("Roofing", "Dental", "Solar", "Fitness", "Legal & Co.", "Landscaping", "Real Estate")
_CITIES: Final = (
    ("Springfield", "IL", "62701"),
    ("Portland", "OR", "97201"),
    ("Austin", "TX", "73301"),
    ("Tampa", "FL", "33601"),
    ("Dayton", "OH", "45401"),
)
_TAGS: Final = ("cold outreach", "newsletter", "webinar", "interested", "do not call", "vip")
_SOURCES: Final = ("csv import", "public api", "landing page", "instantly", None)
_DOMAINS: Final = ("example.com", "example.org", "example.net")
# Area codes in use in the USA; +1 NPA 555 01XX is a valid number in each of them.
_AREA_CODES: Final = _words(
    "201 202 203 205 206 207 208 209 210 212 213 214 215 216 217 218 219 224 225 228 229 231 234 239 240 248 251 252 "
    "253 254 256 260 262 267 269 270 276 281 301 302 303 304 305 307 308 309 310 312 313 314 315 316 317 318 319 320 "
    "321 323 325 330 331 334 336 337 339 347 351 352 360 361 386 401 402 404 405 406 407 408 409 410 412 413 414 415 "
    "417 419 423 424 425 430 432 434 435 440 443 469 478 479 480 484 602 603 605 606 607 608 609 610 612 614 615 616"
)
_ALPHANUMERIC: Final = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Person:
    """What one person would type into a form. The phone is E.164."""

    first_name: str
    last_name: str
    email: str
    phone: str
    company_name: str


def seeded(*parts: str | int) -> random.Random:
    """A generator that gives the same in every process for the same parts."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - repeatable, not secret


def ghl_id(rng: random.Random) -> str:
    """An id as GHL gives contacts and locations: 20 letters and digits."""
    return "".join(rng.choices(_ALPHANUMERIC, k=20))


def private_token(rng: random.Random) -> str:
    """A token in the form of a private integration's; it opens nothing but a sandbox."""
    groups = ("".join(rng.choices("0123456789abcdef", k=length)) for length in (8, 4, 4, 4, 12))
    return "pit-" + "-".join(groups)


def phone_number(number: int) -> str:
    """The `number`th fictitious phone in E.164; they repeat after some 11,000."""
    area = _AREA_CODES[number % len(_AREA_CODES)]
    return f"+1{area}55501{number // len(_AREA_CODES) % 100:02d}"


def person(rng: random.Random, number: int) -> Person:
    """The `number`th person of a crowd: no two have the same e-mail."""
    first, last = rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)
    if number % 97 == 13:
        first, last = rng.choice(_ODD_NAMES)
    words = [word for word in (_ascii(first), _ascii(last)) if word] or ["contact"]
    return Person(
        first_name=first,
        last_name=last,
        email=f"{'.'.join(words)}.{number}@{rng.choice(_DOMAINS)}",
        phone=phone_number(number),
        company_name=f"{rng.choice(_COMPANIES)} {rng.choice(_TRADES)}",
    )


def contact_of(person: Person, rng: random.Random, *, time_zone: str = "America/New_York") -> Contact:
    """A complete contact of the person; `msgspec.structs.replace` makes it lack what it should lack."""
    added = EPOCH_OF_SAMPLES + rng.randrange(_SPAN_OF_SAMPLES)
    city, state, postal_code = rng.choice(_CITIES)
    return Contact(
        id=ghl_id(rng),
        date_added=added,
        date_updated=added + rng.randrange(10 * 86_400_000),
        first_name=person.first_name,
        last_name=person.last_name,
        email=person.email,
        phone=person.phone,
        company_name=person.company_name,
        tags=tuple(sorted(rng.sample(_TAGS, k=rng.randrange(3)))),
        source=rng.choice(_SOURCES),
        city=city,
        state=state,
        postal_code=postal_code,
        country="US",
        time_zone=time_zone if rng.random() < 0.5 else None,
        date_of_birth="1980-02-29" if rng.random() < 0.05 else None,
    )


def crowd(size: int, seed: int | str) -> list[Contact]:
    """Many complete contacts, for a location of a given size."""
    rng = seeded("crowd", seed)
    return [contact_of(person(rng, number), rng) for number in range(size)]


def _ascii(name: str) -> str:
    return "".join(char for char in name.lower() if char in string.ascii_lowercase)[:20]
