"""Charts of days, as a person sees them."""

import re
from datetime import date, timedelta
from urllib.parse import unquote
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.operations.charts import BARS, MOST_CHARACTERS, by_day, sparkline

FIRST = date(2026, 3, 2)


def bars(chart: str) -> list[tuple[int, int]]:
    """Of each bar in the picture, where it stands, from the left, and how high it is."""
    found = re.search(r"\(data:image/svg\+xml,([^ ()<>\"]+)\)", chart)
    assert found is not None, "a link in Markdown ends at a space or a bracket"
    path = ElementTree.fromstring(unquote(found[1])).find("{http://www.w3.org/2000/svg}path")
    assert path is not None
    return [(int(x), int(height)) for x, height in re.findall(r"M(\d+),76v-(\d+)", path.attrib["d"])]


def test_days_are_drawn_to_scale_and_the_last_ones_told_in_numbers_the_newest_first() -> None:
    counts = {FIRST + timedelta(days=n): count for n, count in enumerate([0, 0, 1200, 0, 600, 1, 0, 0, 0, 300])}
    chart = by_day(counts, unit="leads repaired")
    assert bars(chart) == [(90, 60), (162, 30), (198, 1), (342, 15)]
    assert chart.splitlines()[2:5] == ["|UTC|leads repaired|", "|---|--:|", "|Wed 03-11|300|"]
    assert "|Sat 03-07|1|" in chart
    assert "03-06|" not in chart
    assert by_day(dict.fromkeys(counts, 0), unit="leads") == "_nothing yet_"


@given(st.lists(st.integers(0, 10**8), min_size=30, max_size=30))
def test_a_chart_of_thirty_days_is_short_enough_to_be_shown_at_once(numbers: list[int]) -> None:
    counts = {FIRST + timedelta(days=place): number for place, number in enumerate(numbers)}
    assert len(by_day(counts, unit="% of its day, busiest location")) <= MOST_CHARACTERS


def test_a_share_is_drawn_against_the_whole_and_not_against_the_largest() -> None:
    assert bars(by_day({FIRST: 50}, unit="%", whole=100)) == [(180, 30)]
    assert sparkline([0, 1, 50, 100], 100) == "·▁▄█"
    assert sparkline([]) == ""


@given(st.lists(st.integers(0, 10**9), max_size=40))
def test_only_nothing_looks_like_nothing(numbers: list[int]) -> None:
    line = sparkline(numbers)
    assert len(line) == len(numbers)
    assert [bar == "·" for bar in line] == [number == 0 for number in numbers]
    assert all(
        BARS.index(line[a]) <= BARS.index(line[b])
        for a in range(len(line))
        for b in range(len(line))
        if numbers[a] <= numbers[b]
    )
