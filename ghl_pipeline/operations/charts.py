"""Charts of days for Dagster's page of a materialization: Markdown with a picture, which it shows from a data: URL.

Markdown of 1,000 characters and more the UI hides behind "[Show Markdown]", so that a chart has to be shorter.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from urllib.parse import quote

BARS = "·▁▂▃▄▅▆▇█"
MOST_CHARACTERS = 999
# The column of values on the asset's overview shows 400 pixels on a screen of 1,440; what is wider is cut off there.
WIDTH, HEIGHT, FLOOR = 360, 60, 76
BLUE, GRAY = "#4f43dd", "#888"
BARS_WIDE = 12
DAYS_IN_WORDS = 5
_SAFE_IN_A_LINK = "/:=',-."


def sparkline(numbers: Sequence[int], whole: int | None = None) -> str:
    """Numbers as one line of bars; zero is a dot, and whatever is more is a bar.

    Args:
        numbers: not negative.
        whole: what a full bar stands for; the largest of them if not given.
    """
    largest = max(whole or 0, *numbers, 0) or 1
    return "".join(BARS[0 if number == 0 else max(1, round(number / largest * (len(BARS) - 1)))] for number in numbers)


def by_day(counts: Mapping[date, int], *, unit: str, whole: int | None = None) -> str:
    """Counts of days as a picture, with the last days in numbers below it, the newest first.

    Thirty days fit into what the UI shows without a click.

    Args:
        counts: by day, ascending.
        unit: of the counts.
        whole: what the full height stands for; the largest count if not given.
    """
    if not any(counts.values()):
        return "_nothing yet_"
    # Base64 would be a third longer.
    picture = quote(_svg(counts, whole), safe=_SAFE_IN_A_LINK)
    rows = [f"|{day:%a %m-%d}|{counts[day]:,}|" for day in reversed(list(counts)[-DAYS_IN_WORDS:])]
    return "\n".join([f"![by day](data:image/svg+xml,{picture})", "", f"|UTC|{unit}|", "|---|--:|", *rows])


def _svg(counts: Mapping[date, int], whole: int | None) -> str:
    """A bar for each day, with the top of the scale, and the first and last day."""
    days = list(counts)
    largest = max(whole or 0, *counts.values())
    step = WIDTH // len(days)
    heights = {place: max(1, round(HEIGHT * counts[day] / largest)) for place, day in enumerate(days) if counts[day]}
    bars = "".join(f"M{place * step + step // 2},{FLOOR}v-{height}" for place, height in heights.items())
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{FLOOR + 18}' "
        f"font-family='Arial' font-size='11' fill='{GRAY}'>"
        f"<text y='11'>{largest:,}</text><text y='{FLOOR + 14}'>{days[0]:%m-%d}</text>"
        f"<text x='{WIDTH}' y='{FLOOR + 14}' text-anchor='end'>{days[-1]:%m-%d}</text>"
        f"<path stroke='{BLUE}' stroke-width='{max(1, step - 3)}' d='{bars}'/>"
        f"<path stroke='{GRAY}' d='M0,{FLOOR}h{WIDTH}'/></svg>"
    )
