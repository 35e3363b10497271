"""Python and the database agree on which text is empty."""

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.database.blank import blank_sql, is_blank

# U+0000 and surrogates cannot be stored in a PostgreSQL text; Unicode has no white space beyond them.
STORABLE = [chr(code) for code in range(1, 0xD800)]
SPACES = [character for character in STORABLE if character.isspace()]


def blank_to_the_database(engine: Engine, values: list[str | None]) -> list[bool]:
    query = text(f"""
        SELECT {blank_sql("given.value")} FROM unnest(CAST(:values AS text[])) WITH ORDINALITY AS given (value, place)
        ORDER BY given.place
    """)
    with engine.connect() as connection:
        return list(connection.execute(query, {"values": values}).scalars())


def test_every_character_alone_is_blank_to_both_or_to_neither(engine: Engine) -> None:
    found = blank_to_the_database(engine, [*STORABLE])
    assert [c for c, blank in zip(STORABLE, found, strict=True) if blank] == SPACES
    assert [c for c in STORABLE if is_blank(c)] == SPACES


@pytest.mark.parametrize(
    "value",
    [None, "", "".join(SPACES), "".join(SPACES) + "x", "\u200b"],
    ids=["null", "nothing", "all spaces", "a letter behind them", "a space that is none"],
)
def test_null_nothing_and_mixtures_are_judged_alike(value: str | None, engine: Engine) -> None:
    assert blank_to_the_database(engine, [value]) == [is_blank(value)]
