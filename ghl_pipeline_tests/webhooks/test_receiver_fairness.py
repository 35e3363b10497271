"""What one client or a stranger does costs the others nothing: slow bodies, large ones, rows that somebody keeps."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine, text
from starlette.exceptions import HTTPException

from ghl_pipeline.database.leads import lock_clients
from ghl_pipeline.webhooks.reading.read_event import read_event
from ghl_pipeline.webhooks.receiving import receiver as routes
from ghl_pipeline.webhooks.receiving.bodies import Body, Room
from ghl_pipeline_tests.fixtures.receiver import (
    Answer,
    ReceiverClient,
    RunningReceiver,
    inbound_sms,
    lead_replied,
    workflow_reply,
)

MIB = 1024 * 1024
KIB = 1024


def timed_reply(receiver: RunningReceiver, client: ReceiverClient) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = receiver.workflow(client, workflow_reply())
    return answer, time.monotonic() - began


@contextmanager
def unfinished(receiver: RunningReceiver, path: str, size: int, count: int, header: str = "") -> Iterator[None]:
    """Requests whose bodies stop just before their end."""
    address = urlsplit(receiver.url)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size + 20}\r\n{header}\r\n".encode()

    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        connection.sendall(b" " * size)

    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        connections = [
            stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=10))
            for _ in range(count)
        ]
        for done in [pool.submit(send, connection) for connection in connections]:
            done.result(10)
        time.sleep(0.3)  # the receiver reads what is in its buffers
        yield


# --- slow to read


def test_bodies_that_are_slow_to_read_hold_up_neither_other_clients_nor_the_writer_nor_health(
    receiver: RunningReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = receiver.add_client(), receiver.add_client()
    assert receiver.workflow(other, workflow_reply()) == (200, "stored")
    let_go = threading.Event()

    def slow_if_large(*arguments: Any, **more: Any) -> Any:
        if len(arguments[1]) > 128 * KIB:
            let_go.wait(20)
        return read_event(*arguments, **more)

    monkeypatch.setattr(routes, "read_event", slow_if_large)
    with ThreadPoolExecutor(24) as pool:
        large = [pool.submit(receiver.workflow, one, workflow_reply(notes="x" * 200 * KIB)) for _ in range(24)]
        time.sleep(0.5)
        for _ in range(5):
            answer, seconds = timed_reply(receiver, other)
            assert answer == (200, "stored")
            assert seconds < 1
            assert receiver.get("/healthz").status_code == 200
        answers = [each.result(20) for each in large]
        assert set(answers) == {(503, "busy")}, "whoever would wait too long may come again"
        let_go.set()
    assert receiver.workflow(one, workflow_reply(notes="x" * 200 * KIB)) == (200, "stored")


# --- large


def test_strangers_who_hold_large_bodies_take_no_room_of_those_with_a_secret(receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    with unfinished(receiver, "/webhooks/ghl", 5_200_000, 8, "x-ghl-signature: AAAA\r\n"):
        assert receiver.workflow(client, workflow_reply(notes="x" * 4 * MIB)) == (200, "stored")
        assert receiver.emailbison(client, lead_replied(client.workspace_id)) == (200, "stored")
        large = inbound_sms(client.location_id, body="x" * 4 * MIB)
        assert receiver.app(large) == (503, "busy"), "they do take room of others whom only the body proves"
    time.sleep(0.3)
    assert receiver.app(large) == (200, "stored")


def test_without_any_signature_not_a_byte_of_the_body_is_waited_for(receiver: RunningReceiver) -> None:
    address = urlsplit(receiver.url)
    for header in (b"", b"x-ghl-signature: N/A\r\n"):
        with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
            connection.sendall(
                b"POST /webhooks/ghl HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n" + header + b"\r\n"
            )
            assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_a_client_with_many_large_bodies_leaves_room_for_the_others(receiver: RunningReceiver) -> None:
    one, other = receiver.add_client(), receiver.add_client()
    with unfinished(receiver, f"/webhooks/ghl/workflow/{one.location_id}/{one.workflow_secret}", 5_200_000, 6):
        large = workflow_reply(notes="x" * 4 * MIB)
        assert receiver.workflow(one, large) == (503, "busy")
        assert receiver.workflow(other, large) == (200, "stored")
        assert receiver.app(inbound_sms(other.location_id)) == (200, "stored")
    time.sleep(0.3)
    assert receiver.workflow(one, large) == (200, "stored")


def test_a_body_counts_in_one_room_until_it_is_let_go() -> None:
    strangers, apps = Room(100, 60), Room(50, 50)
    body, second = Body(strangers, ""), Body(strangers, "")
    body.grow(40)
    with pytest.raises(HTTPException):
        second.grow(21)
    body.is_of(apps, "")
    second.grow(60)
    with pytest.raises(HTTPException):
        second.is_of(apps, "")
    body.let_go()
    third = Body(strangers, "another")
    third.grow(40)
    for each in (second, third):
        each.let_go()
    for room, most in ((strangers, 60), (apps, 50)):
        room.take("", most)
        with pytest.raises(HTTPException):
            room.take("", 1)


# --- rows that somebody keeps


@contextmanager
def kept(engine: Engine, client: ReceiverClient, how: str) -> Iterator[None]:
    """Somebody keeps the client's lock, or its row, until the end of the block."""
    with engine.connect() as connection, connection.begin():
        if how == "lock":
            lock_clients(connection, [client.id])
        else:
            connection.execute(text("SELECT 1 FROM clients WHERE id = :id FOR UPDATE"), {"id": client.id})
        yield


@pytest.mark.parametrize("how", ["lock", "row"])
def test_a_client_whose_rows_somebody_keeps_is_sent_away_alone(
    how: str, receiver: RunningReceiver, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    one, others = receiver.add_client(), [receiver.add_client() for _ in range(5)]
    for client in others:
        assert receiver.app(inbound_sms(client.location_id)) == (200, "stored")
    lost = inbound_sms(one.location_id)
    with ThreadPoolExecutor(12) as pool, kept(engine, one, how):
        for _ in range(3):
            blocked = [pool.submit(receiver.app, each) for each in (lost, inbound_sms(one.location_id))]
            free = [pool.submit(timed_reply, receiver, client) for client in others]
            for answered in free:
                answer, seconds = answered.result(20)
                assert answer == (200, "stored")
                assert seconds < 3.5
            assert {each.result(20) for each in blocked} == {(503, "blocked")}
        began = time.monotonic()
        answer = receiver.app(lost)
        assert answer == (503, "blocked")
        assert time.monotonic() - began < 1, "known to be kept, it is not waited for as long again"
    assert receiver.app(lost) == (200, "stored")
    with engine.connect() as connection:
        query = text("SELECT client_id, count(*) FROM webhook_events GROUP BY client_id")
        assert dict(map(tuple, connection.execute(query))) == {one.id: 1} | {each.id: 4 for each in others}
    assert "somebody keeps its rows" in caplog.text
    assert str(lost["body"]) not in caplog.text
