"""`GET /metrics` of the receiver: for whom, what of, and how soon when the database is away."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine
from starlette.requests import Request

from ghl_pipeline.operations.metrics.exposition import exposed
from ghl_pipeline.operations.metrics.readings import Reading, read_metrics
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.receiving import scraping
from ghl_pipeline.webhooks.receiving.counts import Counts, Shared, added_up
from ghl_pipeline.webhooks.receiving.scraping import PROXY_HEADERS, may_read
from ghl_pipeline_tests.fixtures.metrics import Values, value, values_of
from ghl_pipeline_tests.fixtures.receiver import (
    RunningReceiver,
    SenderKeys,
    inbound_sms,
    receiver_process,
    running_receiver,
)

TOKEN = SecretStr("a-token-for-the-scrape")


def request(address: str, **headers: str) -> Request:
    named = {"host": "127.0.0.1:8788", **headers}
    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in named.items()]
    return Request({"type": "http", "method": "GET", "path": "/metrics", "headers": pairs, "client": (address, 4321)})


def test_a_scrape_tells_what_was_answered_and_stored(receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    for _ in range(3):
        assert receiver.app(inbound_sms(client.location_id)).status == 200
    assert receiver.app(inbound_sms(client.location_id), x_ghl_signature="bm9uZQ==").status == 401
    answer = receiver.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    values = values_of(answer.text)
    assert value(values, "receiver_answers_total", route="ghl", status="200") == 3
    assert value(values, "receiver_refusals_total", route="ghl", reason="wrong_signature") == 1
    assert value(values, "receiver_answer_seconds_count", route="ghl") == 4
    assert 1 <= value(values, "receiver_batches_total") <= 3
    assert value(values, "receiver_batch_events_total") == 3
    assert value(values, "receiver_batch_failures_total") == 0
    assert value(values, "receiver_waiting") == 0
    assert value(values, "database_up") == 1
    assert value(values, "events_pending") == 3
    assert value(values, "location_events_pending", location=client.location_id) == 3


def test_only_this_machine_may_ask_without_a_token_and_no_proxy_for_others() -> None:
    assert may_read(request("127.0.0.1"), None)
    assert may_read(request("::1"), None)
    assert may_read(request("::ffff:127.0.0.1"), None)
    assert not may_read(request("10.0.0.7"), None)
    assert not may_read(request("testclient"), None)
    for name in PROXY_HEADERS:
        assert not may_read(request("127.0.0.1", **{name.replace("-", "_"): "203.0.113.9"}), None)


def test_without_a_token_it_has_to_be_asked_by_a_name_of_loopback() -> None:
    """A page whose name was made to lead to 127.0.0.1, and a proxy that passes on the name that it was asked by."""
    for own in ("localhost:8788", "LOCALHOST", "127.0.0.1", "[::1]:8788"):
        assert may_read(request("127.0.0.1", host=own), None)
    for foreign in (
        "rebound.example.org:8788",
        "hooks.example.com",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "",
    ):
        assert not may_read(request("127.0.0.1", host=foreign), None)


def test_without_a_token_nobody_is_let_in_unless_it_is_said(
    database_url: URL, engine: Engine, sender_keys: SenderKeys
) -> None:
    """A proxy on this machine that adds no header would ask for the whole internet."""
    with running_receiver(Settings(), database_url, engine, sender_keys, metrics_without_token=False) as receiver:
        assert receiver.get("/metrics").status_code == 404
    with running_receiver(Settings(), database_url, engine, sender_keys) as receiver:
        assert receiver.get("/metrics").status_code == 200


def test_with_a_token_only_who_has_it() -> None:
    right = {"authorization": f"Bearer {TOKEN.get_secret_value()}"}
    assert may_read(request("203.0.113.9", **right), TOKEN)
    for wrong in ("", "Bearer ", TOKEN.get_secret_value(), right["authorization"] + "x", "Bearer ünknown"):
        assert not may_read(request("127.0.0.1", authorization=wrong), TOKEN)
    assert not may_read(request("127.0.0.1"), TOKEN)


def test_strangers_are_told_that_there_is_nothing(database_url: URL, engine: Engine, sender_keys: SenderKeys) -> None:
    settings = Settings(metrics_token=TOKEN)
    with running_receiver(settings, database_url, engine, sender_keys) as receiver:
        stranger, nowhere = receiver.get("/metrics"), receiver.get("/nowhere")
        assert (
            (stranger.status_code, stranger.content) == (nowhere.status_code, nowhere.content) == (404, nowhere.content)
        )
        bearer = {"authorization": f"Bearer {TOKEN.get_secret_value()}"}
        assert httpx.get(f"{receiver.url}/metrics", headers=bearer).status_code == 200


def test_a_database_that_hangs_costs_its_values_and_not_the_scrape(
    receiver: RunningReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scraping, "READ_WITHIN_SECONDS", 0.2)
    ends = threading.Event()
    monkeypatch.setattr(scraping, "read_metrics", lambda *_, **__: ends.wait(30))
    began = time.monotonic()
    values = values_of(receiver.get("/metrics").text)
    assert time.monotonic() - began < 10
    ends.set()
    assert value(values, "database_up") == 0
    assert value(values, "receiver_waiting") == 0
    assert not [name for name, _ in values if name == "ghl_pipeline_events_pending"]


def test_more_scrapes_than_can_be_written_at_once_are_told_to_come_back(
    receiver: RunningReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = threading.Event()

    def slow(*args: object) -> bytes:
        ends.wait(30)
        return b""

    assert receiver.get("/metrics").status_code == 200
    monkeypatch.setattr(scraping, "exposed", slow)
    with ThreadPoolExecutor(30) as pool:
        answers = [pool.submit(receiver.get, "/metrics") for _ in range(30)]
        refused = next(as_completed(answers)).result()
        ends.set()
        codes = {each.result().status_code for each in answers}
    assert refused.status_code == 503
    assert codes == {200, 503}


def test_scrapes_in_quick_succession_read_the_database_once(
    receiver: RunningReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(connection: Connection, *, per_location_up_to: int) -> Reading:
        calls.append(per_location_up_to)
        return read_metrics(connection, per_location_up_to=per_location_up_to)

    monkeypatch.setattr(scraping, "read_metrics", counted)
    for _ in range(5):
        assert value(values_of(receiver.get("/metrics").text), "database_up") == 1
    assert calls == [1000]


def test_a_reading_that_is_always_too_slow_for_a_scrape_is_told_by_the_next_one(
    receiver: RunningReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or thousands of locations on a busy database look like a database that is away, for ever."""

    def slow(connection: Connection, *, per_location_up_to: int) -> Reading:
        time.sleep(0.6)
        return read_metrics(connection, per_location_up_to=per_location_up_to)

    monkeypatch.setattr(scraping, "READ_WITHIN_SECONDS", 0.1)
    monkeypatch.setattr(scraping, "CACHED_SECONDS", 0.1)
    monkeypatch.setattr(scraping, "read_metrics", slow)
    assert value(values_of(receiver.get("/metrics").text), "database_up") == 0
    time.sleep(1.5)
    values = values_of(receiver.get("/metrics").text)
    assert value(values, "database_up") == 1
    assert 0.5 < value(values, "database_reading_age_seconds") < 60
    monkeypatch.setattr(scraping, "STALE_SECONDS", 0.1)
    assert value(values_of(receiver.get("/metrics").text), "database_up") == 0


def test_what_a_process_that_died_has_counted_stays_counted(tmp_path: Path) -> None:
    other, own = Counts(waiting=lambda: 7), Counts(waiting=lambda: 1)
    other.answered("ghl", 200, "", 0.004)
    own.answered("ghl", 200, "", 0.2)
    Shared(tmp_path).write(other.told())
    [left] = tmp_path.glob("*.json")
    left.rename(tmp_path / "1.json")
    (tmp_path / "2.json").write_text("{")  # being written as the machine went down
    content = _told(own, tmp_path)
    assert value(content, "receiver_answers_total", route="ghl", status="200") == 2
    assert value(content, "receiver_answer_seconds_bucket", route="ghl", le="0.005") == 1
    assert (value(content, "receiver_processes"), value(content, "receiver_waiting")) == (2, 8)
    long_ago = time.time() - 60
    os.utime(tmp_path / "1.json", (long_ago, long_ago))
    content = _told(own, tmp_path)
    assert value(content, "receiver_answers_total", route="ghl", status="200") == 2
    assert (value(content, "receiver_processes"), value(content, "receiver_waiting")) == (1, 1)


def _told(own: Counts, folder: Path) -> Values:
    return values_of(exposed(None, *added_up(own.told(), Shared(folder).others())).decode())


def test_a_process_with_the_number_of_one_that_died_does_not_take_its_place(tmp_path: Path) -> None:
    for _ in range(2):
        counts = Counts()
        counts.answered("ghl", 200, "", 0.004)
        Shared(tmp_path).write(counts.told())
    assert value(_told(Counts(), tmp_path), "receiver_answers_total", route="ghl", status="200") == 2


@pytest.mark.slow
def test_two_processes_are_told_as_one(project: Settings) -> None:
    project = project.model_copy(update={"metrics_without_token": True})
    with receiver_process(project, "--processes", "2") as (process, url):
        # Importing takes a child 2 s, and half a minute where every core is taken several times.
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            values = values_of(httpx.get(f"{url}/metrics", timeout=120).text)
            if value(values, "receiver_processes") == 2:
                break
            time.sleep(0.5)
        # A connection of its own for each, so that both processes get some.
        for _ in range(20):
            assert httpx.post(f"{url}/webhooks/ghl", content=b"{}", timeout=120).status_code == 401
        counted = []
        for _ in range(8):
            time.sleep(0.5)
            values = values_of(httpx.get(f"{url}/metrics", timeout=120).text)
            counted.append(value(values, "receiver_answers_total", route="ghl", status="401"))
        assert counted[-4:] == [20] * 4
        process.terminate()
        process.wait(30)
