"""A person's way through the UI, in a browser, against `ghl-pipeline dev` and its guard.

With the variable `SCREENSHOTS` naming a folder, what was seen is kept there; `make screenshots` renews docs/images/.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from sqlalchemy import URL, Connection, text

from ghl_pipeline.settings import Settings

PROGRAM = str(Path(sys.executable).with_name("ghl-pipeline"))
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
LOCATION_ID_LENGTH = 20
WIDTH, HEIGHT = 1440, 900
# Two cores that other tests use too: the code loads, then the daemon looks every 30 s and a run takes some seconds.
UP_WITHIN_SECONDS = 180
SHOWN_WITHIN_MS = 60_000
DONE_WITHIN_MS = 180_000


def chromium() -> str:
    """The browser, or a skip that says what is missing."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium, or name one in CHROMIUM")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def serving(log: Path) -> Iterator[str]:
    """`ghl-pipeline dev --demo` with its databases on the tests' server; the UI's URL when its code is loaded."""
    port = free_port()
    # The only one to start work is who walks: every few minutes a schedule would do locations that nobody did yet.
    command = [PROGRAM, "dev", "--demo", "--no-automation", "--port", str(port), "--webhook-port", str(free_port())]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        give_up_at = time.monotonic() + UP_WITHIN_SECONDS
        while not is_loaded(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up_at, log.read_text()
            time.sleep(0.5)
        yield url
    finally:
        # Told, not killed, also after a failure: its programs would outlive it.
        process.send_signal(signal.SIGINT)
        ended = process.wait(timeout=90)
    assert ended == 0


def is_loaded(url: str) -> bool:
    question = {"query": "{ assetNodes { id } }"}
    try:
        answer = httpx.post(f"{url}/graphql", json=question, timeout=30)
        return bool(answer.json()["data"]["assetNodes"])
    except (httpx.TransportError, ValueError, KeyError):
        return False


class Walk:
    """A page, what went wrong on it, and where pictures of it are kept."""

    def __init__(self, page: Page, url: str, pictures: Path) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        self._pictures = pictures
        page.set_default_timeout(SHOWN_WITHIN_MS)
        page.on("console", lambda message: self._note(message.type in {"error", "warning"}, message.text))
        page.on("pageerror", lambda error: self._note(True, str(error)))
        page.on("response", lambda answer: self._note(answer.status >= 400, f"{answer.status} {answer.url}"))
        page.on("request", lambda asked: self._note(not self._is_ours(asked.url), f"asked elsewhere: {asked.url}"))

    def _is_ours(self, url: str) -> bool:
        return url.startswith((f"{self.url}/", "data:", "blob:"))

    def _note(self, wrong: bool, what: str) -> None:
        # What a page says of its websocket when the walk goes on to the next page before it is open.
        if wrong and "closed before the connection is established" not in what:
            self.wrong.append(what)

    def go(self, path: str) -> None:
        self.page.goto(f"{self.url}{path}", wait_until="domcontentloaded")

    def keep(self, name: str) -> None:
        """Keeps a picture; what is still moving (spinners, boxes that open) comes to rest first."""
        self.page.mouse.move(WIDTH - 5, HEIGHT - 5)
        self.page.wait_for_timeout(1500)
        self.page.screenshot(path=self._pictures / f"{name}.png")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where the pictures go."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def _demo_databases(project: Settings, database_url: URL, administration: Connection) -> Iterator[None]:
    """Removes what the demo makes beside the test's databases."""
    del project
    yield
    for name in (f"{database_url.database}_demo", f"{database_url.database}_demo_dagster"):
        administration.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


@pytest.mark.slow
@pytest.mark.usefixtures("_demo_databases")
def test_a_backfill_of_three_locations_is_started_and_read_in_a_browser(pictures: Path, tmp_path: Path) -> None:
    browser = chromium()
    expect.set_options(timeout=SHOWN_WITHIN_MS)
    with serving(tmp_path / "dev.log") as url, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=browser,
            args=FLAGS,
            headless=True,
            viewport={"width": WIDTH, "height": HEIGHT},
        )
        walk = Walk(context.new_page(), url, pictures)
        try:
            locations = first_locations(walk)
            launch_backfill(walk, locations[:3])
            see_it_done(walk)
            read_materialization(walk, locations[0])
        except BaseException:
            walk.keep("failed")
            raise
        context.close()
    assert walk.wrong == []


def first_locations(walk: Walk) -> list[str]:
    """The graph of a group, then the partitions of its last asset, all of them missing; their names."""
    walk.go("/locations/ghl_pipeline/asset-groups/hydration")
    for asset in ("eligible_leads", "resolved_contacts", "hydrated_leads"):
        expect(walk.page.get_by_text(asset).first).to_be_visible()
    expect(walk.page.get_by_text("5 partitions").first).to_be_visible()
    walk.go("/assets/hydrated_leads?view=partitions")
    expect(walk.page.get_by_text("Missing (5)")).to_be_visible()
    walk.keep("partitions")
    titles = [each.get_attribute("title") or "" for each in walk.page.locator("[title]").all()]
    return [title for title in titles if len(title) == LOCATION_ID_LENGTH]


def launch_backfill(walk: Walk, locations: list[str]) -> None:
    """Materialize all, three partitions ticked in the list, Launch."""
    walk.go("/locations/ghl_pipeline/asset-groups/hydration")
    walk.page.get_by_role("button", name="Materialize all").click()
    dialog = walk.page.get_by_role("dialog").first
    dialog.get_by_text("Select a partition or create one").click()
    for location in locations:
        walk.page.get_by_role("menuitem").filter(has_text=location).locator("label").click()
    dialog.get_by_text("Launch runs to materialize").click()
    expect(dialog.get_by_text("3 partitions")).to_be_visible()
    walk.keep("backfill-dialog")
    dialog.get_by_role("button", name="Launch backfill").click()
    walk.page.get_by_text("View", exact=True).click()


def see_it_done(walk: Walk) -> None:
    """The backfill's page, until the daemon and its run have done all three locations in all three assets."""
    walk.page.wait_for_url("**/runs/b/*")
    expect(walk.page.get_by_text("100% completed")).to_have_count(3, timeout=DONE_WITHIN_MS)
    expect(walk.page.get_by_text("Succeeded", exact=True).first).to_be_visible()
    # The page asks every few seconds; the status is the last to change.
    expect(walk.page.get_by_text("In progress", exact=True)).to_have_count(1, timeout=DONE_WITHIN_MS)
    walk.page.reload(wait_until="domcontentloaded")  # without the note that it was created
    expect(walk.page.get_by_text("100% completed")).to_have_count(3)
    walk.keep("backfill-done")
    walk.go("/locations/ghl_pipeline/asset-groups/hydration")
    expect(walk.page.get_by_text("60% filled")).to_have_count(3)
    walk.keep("asset-graph")


def read_materialization(walk: Walk, location: str) -> None:
    """What was done in one location, in numbers that add up."""
    walk.go(f"/assets/hydrated_leads?view=partitions&partition={location}")
    expect(walk.page.get_by_text("Materialized (3)")).to_be_visible()
    expect(walk.page.get_by_text("Missing (2)")).to_be_visible()
    expect(walk.page.get_by_text("linked_and_hydrated").first).to_be_visible()
    walk.keep("materialization")
    rows: list[list[str]] = walk.page.locator("tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    told = {row[0]: row[1] for row in rows if len(row) > 1}
    numbers = {name: told[name] for name in ("leads", "repaired", "failed", "requests")}
    assert int(numbers["leads"]) == 1600
    assert 0 < int(numbers["repaired"]) < int(numbers["leads"])
    assert numbers["failed"] == "0"
    assert 0 < int(numbers["requests"]) <= 0.03 * int(numbers["leads"])
