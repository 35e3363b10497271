"""The one rule for "empty", for Python and for SQL: null, or nothing but white space.

Whoever asks whether a text of a table is there asks here, so that what is counted is what is worked on.
"""

# What `str.strip` takes for white space; PostgreSQL's own classes depend on the database's locale.
WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_WHITE_SPACE_SQL = "".join(f"\\u{ord(character):04X}" for character in WHITE_SPACE)


def is_blank(value: str | None) -> bool:
    """Whether a field counts as empty: null, or nothing but white space."""
    return value is None or not value.strip()


def blank_sql(column: str) -> str:
    """The same rule as an SQL condition, never null.

    Args:
        column: a text column as the statement names it, such as `lead.email`. Goes into the statement as it is.
    """
    return f"coalesce(btrim({column}, E'{_WHITE_SPACE_SQL}'), '') = ''"
