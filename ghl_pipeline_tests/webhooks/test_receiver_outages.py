"""The receiver when the database goes away, when it is told to stop, and when it is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.database.embedded import EmbeddedPostgres
from ghl_pipeline.database.migrate import upgrade
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.receiving.group_commit import PATIENCE_SECONDS
from ghl_pipeline.webhooks.receiving.health import HEALTHY_WITHIN_SECONDS
from ghl_pipeline.webhooks.receiving.known_senders import READ_WITHIN_SECONDS
from ghl_pipeline_tests.fixtures.receiver import (
    PROGRAM,
    Answer,
    RunningReceiver,
    SenderKeys,
    add_receiver_client,
    inbound_sms,
    receiver_process,
    receiver_settings,
    running_receiver,
    workflow_reply,
)


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A database server of this test's own, which may be stopped."""
    folder = Path(tempfile.mkdtemp(prefix="ghl-pipeline-test-"))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder / "home", durable=False)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def own_database(server: EmbeddedPostgres) -> Iterator[tuple[URL, Engine]]:
    url = server.attach().url("postgres")
    engine = create_engine(url)
    upgrade(engine)
    yield url, engine
    engine.dispose()


@pytest.fixture
def settings(database_url: URL, sender_keys: SenderKeys, tmp_path: Path) -> Settings:
    """For a receiver in a process of its own, on the test's database."""
    given = Settings(
        home=tmp_path,
        database_url=SecretStr(database_url.render_as_string(hide_password=False)),
        token_keys=SecretStr(Fernet.generate_key().decode()),
    )
    return receiver_settings(given, sender_keys)


def counts(receiver: RunningReceiver) -> list[int]:
    return [receiver.count(table) for table in ("webhook_events", "leads", "messages")]


def eventually(answer: Callable[[], int], status: int, *, seconds: float) -> float:
    """The seconds until the answer had this status."""
    began = time.monotonic()
    while answer() != status:
        assert time.monotonic() - began < seconds, f"no {status} within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_stopped_database_gives_503_and_nothing_half_stored_and_then_all_is_well_again(
    server: EmbeddedPostgres, own_database: tuple[URL, Engine], sender_keys: SenderKeys
) -> None:
    url, engine = own_database
    with running_receiver(Settings(), url, engine, sender_keys) as receiver:
        client = receiver.add_client()
        assert receiver.app(inbound_sms(client.location_id)) == (200, "stored")
        lost = inbound_sms(client.location_id)

        server.stop()
        refused: list[tuple[Callable[[], Answer], tuple[int, str]]] = [
            (lambda: receiver.app(lost), (503, "unavailable")),
            (lambda: receiver.workflow(client, workflow_reply()), (503, "unavailable")),
            # Who may send is remembered, so a stranger is not asked to come back.
            (lambda: receiver.workflow(client._replace(workflow_secret="guess"), b"{}"), (401, "wrong_secret")),
        ]
        for send, expected in refused:
            began = time.monotonic()
            assert send() == expected
            assert time.monotonic() - began < 3.5
        health = receiver.get("/healthz")
        assert (health.status_code, health.json()) == (503, {"ok": False})

        assert server.attach().url("postgres") == url, "a server that comes back is where it was"
        eventually(lambda: receiver.get("/healthz").status_code, 200, seconds=10)
        assert counts(receiver) == [1, 1, 1]
        eventually(lambda: receiver.app(lost).status, 200, seconds=10)
        assert receiver.app(lost) == (200, "duplicate")
        assert counts(receiver) == [2, 2, 2]


def test_a_receiver_that_never_saw_its_database_sends_everybody_away_to_come_back(
    server: EmbeddedPostgres, own_database: tuple[URL, Engine], sender_keys: SenderKeys
) -> None:
    url, engine = own_database
    client = add_receiver_client(engine)
    server.stop()
    with running_receiver(Settings(), url, engine, sender_keys) as receiver:
        for _ in range(3):
            assert receiver.workflow(client, workflow_reply()) == (503, "unavailable")
            assert receiver.app(inbound_sms(client.location_id)) == (503, "unavailable")
            assert receiver.app(inbound_sms(client.location_id), x_ghl_signature="AAAA") == (401, "wrong_signature")
        server.attach()
        eventually(lambda: receiver.workflow(client, workflow_reply()).status, 200, seconds=10)


@contextmanager
def hanging(engine: Engine) -> Iterator[None]:
    """The server's processes are there, and the kernel takes what they are sent; but nothing answers."""
    with engine.connect() as connection:
        folder = Path(connection.execute(text("SHOW data_directory")).scalar_one())
        sessions = connection.execute(text("SELECT pid FROM pg_stat_activity")).scalars().all()
    processes = [int((folder / "postmaster.pid").read_text().splitlines()[0]), *sessions]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def test_a_database_that_hangs_is_told_to_everybody_in_time_and_then_all_is_well_again(
    own_database: tuple[URL, Engine], sender_keys: SenderKeys
) -> None:
    url, engine = own_database
    with running_receiver(Settings(), url, engine, sender_keys) as receiver:
        client = receiver.add_client()
        guess = client._replace(workflow_secret="guess")
        lost = inbound_sms(client.location_id)
        assert receiver.workflow(client, workflow_reply()) == (200, "stored")
        time.sleep(1.1)  # so that a stranger is looked for again
        expected: list[tuple[Callable[[], Answer], tuple[int, str], float]] = [
            (lambda: receiver.app(lost), (503, "unavailable"), PATIENCE_SECONDS + 1),
            (lambda: receiver.workflow(client, workflow_reply()), (503, "unavailable"), PATIENCE_SECONDS + 1),
            (lambda: receiver.workflow(guess, b"{}"), (401, "wrong_secret"), READ_WITHIN_SECONDS + 1),
            (lambda: Answer(receiver.get("/healthz").status_code, ""), (503, ""), HEALTHY_WITHIN_SECONDS + 1),
        ]

        def timed(send: Callable[[], Answer]) -> tuple[Answer, float]:
            began = time.monotonic()
            return send(), time.monotonic() - began

        with hanging(engine), ThreadPoolExecutor(20) as pool:
            for _ in range(2):
                sent = [(pool.submit(timed, send), answer, limit) for send, answer, limit in expected * 4]
                for done, answer, limit in sent:
                    assert done.result(30)[0] == answer
                    assert done.result()[1] < limit
        eventually(lambda: receiver.app(lost).status, 200, seconds=15)
        eventually(lambda: receiver.get("/healthz").status_code, 200, seconds=5)
        assert receiver.workflow(client, workflow_reply()) == (200, "stored")
        assert_every_event_is_whole(engine)


def test_told_to_stop_while_its_database_hangs_it_ends_within_10_seconds(
    own_database: tuple[URL, Engine], settings: Settings, sender_keys: SenderKeys
) -> None:
    url, engine = own_database
    client = add_receiver_client(engine)
    on_it = settings.model_copy(update={"database_url": SecretStr(url.render_as_string(hide_password=False))})
    with receiver_process(on_it) as (process, at), ThreadPoolExecutor(10) as pool, hanging(engine):

        def send() -> int:
            content = json.dumps(inbound_sms(client.location_id)).encode()
            headers = {"x-ghl-signature": sender_keys.newer(content)}
            try:
                return httpx.post(f"{at}/webhooks/ghl", content=content, headers=headers, timeout=30).status_code
            except httpx.HTTPError:
                return 0

        def health() -> int:
            return httpx.get(f"{at}/healthz", timeout=30).status_code

        eventually(health, 503, seconds=30)
        sent = [pool.submit(send) for _ in range(5)]
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
        assert {each.result(30) for each in sent} == {503}, "who waits is told to come back"
        assert "Traceback" not in said


def test_a_thread_that_never_ends_does_not_keep_the_process(settings: Settings, engine: Engine) -> None:
    """What hangs for good is left behind, with a line that says so."""
    program = (
        "import sys, threading, time\n"
        "from ghl_pipeline.settings import load_settings\n"
        "from ghl_pipeline.listening import listen\n"
        "from ghl_pipeline.webhooks.receiving import serving\n"
        "listener = listen('127.0.0.1', 0, server='it')\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print(listener.getsockname()[1], flush=True)\n"
        "serving.serve(load_settings(), listener)\n"
    )
    environment = os.environ | settings.as_environment()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20).json() == {"ok": True}
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert time.monotonic() - began < 10
    assert "something still hangs" in said
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "files"),
    [(256, 512, 384, 512), (256, 2048, 1920, 2048), (1024, 6000, 4096, 6000), (60, 60, 1, 60)],
)
def test_it_takes_as_many_connections_as_it_may_have_files_open(
    soft: int, hard: int, connections: int, files: int
) -> None:
    program = (
        "import resource\n"
        "from ghl_pipeline.webhooks.receiving.serving import most_connections\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "print(most_connections(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(connections), str(files)]
    assert ("raise the limit" in done.stderr) == (connections < 1024)


@dataclass
class Load:
    """Senders that keep at it until the receiver is gone, and what they were answered."""

    url: str
    keys: SenderKeys
    location_id: str
    accepted: set[str] = field(default_factory=set)
    sent: dict[str, bytes] = field(default_factory=dict)
    statuses: set[int] = field(default_factory=set)
    broken: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, senders: int) -> None:
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(senders)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _send(self) -> None:
        with httpx.Client(timeout=20) as http:
            while True:
                body = inbound_sms(self.location_id)
                key, content = str(body["webhookId"]), json.dumps(body).encode()
                self.sent[key] = content
                headers = {"x-ghl-signature": self.keys.newer(content), "content-type": "application/json"}
                try:
                    answer = http.post(f"{self.url}/webhooks/ghl", content=content, headers=headers)
                except httpx.HTTPError:
                    self.broken += 1
                    return
                self.statuses.add(answer.status_code)
                if answer.is_success:
                    self.accepted.add(key)

    def wait_for(self, accepted: int) -> None:
        give_up_at = time.monotonic() + 60
        while len(self.accepted) < accepted:
            assert time.monotonic() < give_up_at, f"only {len(self.accepted)} were accepted"
            time.sleep(0.02)


def stored_keys(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        keys = connection.execute(text("SELECT dedupe_key FROM webhook_events")).scalars().all()
    assert len(keys) == len(set(keys))
    return {key.partition(":")[2] for key in keys}


def assert_every_event_is_whole(engine: Engine) -> None:
    with engine.connect() as connection:
        of = {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("webhook_events", "leads", "messages")
        }
    assert len(set(of.values())) == 1, of


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["one process", "two processes"])
def test_every_event_that_was_accepted_is_there_after_a_kill(
    options: tuple[str, ...], settings: Settings, engine: Engine, sender_keys: SenderKeys
) -> None:
    location_id = add_receiver_client(engine).location_id
    with receiver_process(settings, *options) as (process, url):
        load = Load(url, sender_keys, location_id)
        load.start(senders=12)
        load.wait_for(accepted=400)
        os.killpg(process.pid, signal.SIGKILL)
        load.join()
    assert load.accepted - stored_keys(engine) == set()
    assert load.broken == 12, "it was killed under load"
    assert_every_event_is_whole(engine)
    with receiver_process(settings) as (_, url), httpx.Client(timeout=20) as http:
        for content in list(load.sent.values())[-100:]:
            headers = {"x-ghl-signature": sender_keys.newer(content)}
            assert http.post(f"{url}/webhooks/ghl", content=content, headers=headers).is_success
    assert set(list(load.sent)[-100:]) <= stored_keys(engine)
    assert_every_event_is_whole(engine)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["one process", "two processes"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_under_load_it_answers_what_it_has_and_ends_well(
    sign: signal.Signals, options: tuple[str, ...], settings: Settings, engine: Engine, sender_keys: SenderKeys
) -> None:
    location_id = add_receiver_client(engine).location_id
    with receiver_process(settings, *options) as (process, url):
        load = Load(url, sender_keys, location_id)
        load.start(senders=12)
        load.wait_for(accepted=200)
        process.send_signal(sign)
        began = time.monotonic()
        _, said = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
        assert process.returncode == 0, said
        load.join()
    assert load.statuses <= {200, 503}
    assert load.accepted - stored_keys(engine) == set()
    assert_every_event_is_whole(engine)
    assert "Traceback" not in said
    assert f"ghl 200 x {len(load.accepted)}" in said or options, "the last counts are told"
    assert location_id not in said


@pytest.mark.slow
def test_the_processes_of_a_receiver_that_was_killed_let_go_of_the_port(settings: Settings, engine: Engine) -> None:
    with receiver_process(settings, "--processes", "2") as (process, url), httpx.Client(timeout=5) as http:

        def status() -> int:
            try:
                return http.get(f"{url}/healthz").status_code
            except httpx.HTTPError:
                return 0

        eventually(status, 200, seconds=30)
        process.kill()
        eventually(status, 0, seconds=15)


def test_it_says_where_it_listens_and_what_it_takes(settings: Settings, engine: Engine) -> None:
    with receiver_process(settings) as (process, url):
        assert httpx.get(f"{url}/healthz", timeout=20).json() == {"ok": True}
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    for word in ("/webhooks/ghl", "/webhooks/emailbison/LOCATION/SECRET", "300 s", "clients webhook-url"):
        assert word in said, said


def test_a_port_that_is_taken_and_a_key_that_is_none_end_it_with_the_reason(settings: Settings, engine: Engine) -> None:
    def ended(settings: Settings, *options: str) -> tuple[int, str]:
        program = [str(PROGRAM), "webhooks", *options]
        environment = os.environ | settings.as_environment()
        done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=60, check=False)
        return done.returncode, done.stderr

    with receiver_process(settings) as (_, url):
        code, said = ended(settings, "--port", url.rpartition(":")[2])
    assert (code, "--port" in said) == (2, True)
    code, said = ended(settings, "--host", "no.such.host.example.com", "--port", "0")
    assert (code, "--host" in said) == (2, True)
    broken = settings.model_copy(update={"webhook_ed25519_keys": "nonsense"})
    code, said = ended(broken, "--port", "0")
    assert (code, "GHL_WEBHOOK_ED25519_KEYS" in said) == (3, True)
