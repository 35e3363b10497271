"""A calendar's time zone as a zone."""

from zoneinfo import ZoneInfo


def zone_or_utc(name: str | None) -> ZoneInfo:
    """The IANA zone of this name; UTC where there is none such, so that times are never told in a zone made up."""
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")
