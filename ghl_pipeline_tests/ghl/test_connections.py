"""What a client makes of its connections: broken ones, foreign ones, slow ones; and that it keeps the good ones."""

import asyncio
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ghl_pipeline.ghl.calls import MAX_CONNECTIONS
from ghl_pipeline.ghl.connections import ConnectionsClient, Sent, watch_sending
from ghl_pipeline.ghl.errors import GhlTimeout, GhlUnreachable, RequestRejected
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.search import ContactSearch
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import SLOW_NAME, SLOW_NAME_SECONDS, Connector

EVERYBODY = ContactSearch()
NOBODY = b'{"contacts":[]}'
OK = b"HTTP/1.1 200 OK\r\n"
ONCE = RetryPolicy(max_attempts=1)


@dataclass
class _Listener:
    """A server of bare bytes, for what no web server would say."""

    url: str
    requests: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def saying(answer: bytes, *, then_close: bool = True) -> AsyncIterator[_Listener]:
    """Answers every request with these bytes and hangs up, or goes on listening."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.read(65_536):
                listener.requests.append(request)
                writer.write(answer)
                await writer.drain()
                if then_close:
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    listener = _Listener(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        yield listener


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 \xff\r\nContent-Length: 15\r\n\r\n" + NOBODY,
        OK + b"Content-Length: x\r\n\r\n" + NOBODY,
        OK + b"Content-Length: 50\r\n\r\n" + NOBODY,
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n50\r\n{}",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        OK + b"X-Long: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=[
        "nothing", "no HTTP", "half a head", "reason that is no text", "senseless length", "half a body",
        "senseless chunk", "half a chunk", "no gzip", "endless header", "redirect to nowhere",
    ],
)  # fmt: skip
async def test_an_answer_that_is_no_http_means_unreachable_and_shows_no_token(
    location: Location, connect: Connector, answer: bytes
) -> None:
    async with saying(answer) as listener:
        client = await connect(location, url=listener.url, policy=ONCE)
        with pytest.raises(GhlUnreachable) as raised:
            await client.search_contacts(EVERYBODY)
    assert len(listener.requests) == client.usage.calls == 1
    assert raised.value.__cause__ is raised.value.__context__ is None
    assert location.token not in repr(raised.value)


async def test_a_token_that_no_header_can_hold_is_unreachable_and_not_shown(
    location: Location, connect: Connector
) -> None:
    client = await connect(location, token="pit-secret\nHost: example.com", policy=ONCE)
    with pytest.raises(GhlUnreachable) as raised:
        await client.search_contacts(EVERYBODY)
    assert raised.value.__context__ is None
    assert "pit-secret" not in str(raised.value)


async def test_a_redirect_is_not_followed(location: Location, connect: Connector) -> None:
    """The token would go where GHL's answer points."""
    async with saying(OK + b"Content-Length: 15\r\n\r\n" + NOBODY) as elsewhere:
        head = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n"
        async with saying(head.encode()) as listener:
            client = await connect(location, url=listener.url, policy=ONCE)
            with pytest.raises(RequestRejected):
                await client.search_contacts(EVERYBODY)
    assert (len(listener.requests), len(elsewhere.requests)) == (1, 0)


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    location: Location, connect: Connector, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = await connect(location, url=url, policy=ONCE)
        with pytest.raises(GhlUnreachable):
            await client.search_contacts(EVERYBODY)
    assert asked == []


async def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one(
    sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    first, second = location.add(email="ada@example.com"), location.add(email="bob@example.com")
    client = await connect(location, policy=ONCE, timeout=0.3)
    sandbox.faults(location.id, hang_rate=1.0, hang_seconds=0.6, times=1)
    with pytest.raises(GhlTimeout):
        await client.contact(first.id)
    await asyncio.sleep(0.5)
    assert (await client.contact(second.id)).id == second.id


async def test_connections_are_used_again_and_never_more_than_the_pool_has(
    location: Location, connect: Connector
) -> None:
    opened: set[object] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.add(writer.get_extra_info("peername"))
        while await reader.read(65_536):
            await asyncio.sleep(0.01)
            writer.write(OK + b"Content-Length: 15\r\n\r\n" + NOBODY)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        client = await connect(location, url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await asyncio.gather(*(client.search_contacts(EVERYBODY) for _ in range(5 * MAX_CONNECTIONS)))
        assert len(opened) == MAX_CONNECTIONS


async def test_a_proxy_of_the_environment_is_used(
    location: Location, connect: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = OK + b"Content-Length: 15\r\n\r\n" + NOBODY
    async with saying(answer, then_close=False) as proxy, saying(answer, then_close=False) as direct:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        await (await connect(location, url=direct.url)).search_contacts(EVERYBODY)
        assert (len(direct.requests), len(proxy.requests)) == (1, 0)
        await (await connect(location, url="http://ghl.example")).search_contacts(EVERYBODY)
        assert proxy.requests[0].startswith(b"POST http://ghl.example/contacts/search HTTP/1.1\r\n")


async def test_a_small_answer_may_come_packed(location: Location, connect: Connector) -> None:
    packed = gzip.compress(NOBODY)
    head = OK + f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    async with saying(head + packed) as listener:
        client = await connect(location, url=listener.url)
        assert (await client.search_contacts(EVERYBODY)).contacts == ()
    assert b"gzip" in listener.requests[0]


# --- when a request left


async def sent_by(http: ConnectionsClient, url: str) -> Sent:
    with watch_sending() as sent:
        await http.get(url)
    return sent


async def test_a_request_leaves_when_its_connection_is_there_and_not_when_it_is_answered(
    slow_names: Sequence[str],
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        await asyncio.sleep(0.5)
        writer.write(OK + b"Content-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, ConnectionsClient() as http:
        began = time.monotonic()
        sent = await sent_by(http, f"http://{SLOW_NAME}:{server.sockets[0].getsockname()[1]}")
        answered = time.monotonic()
    assert slow_names == [SLOW_NAME]
    assert sent.at is not None
    assert began + SLOW_NAME_SECONDS <= sent.at <= answered - 0.5


async def test_requests_side_by_side_have_each_a_time_of_its_own(slow_names: Sequence[str]) -> None:
    async with saying(OK + b"Content-Length: 0\r\n\r\n", then_close=False) as listener, ConnectionsClient() as http:
        slow_url = listener.url.replace("127.0.0.1", SLOW_NAME)
        began = time.monotonic()
        late = asyncio.create_task(sent_by(http, slow_url))
        await asyncio.sleep(0)
        early = await sent_by(http, listener.url)
        early_ended = time.monotonic()
        slow = await late
    assert early.at is not None
    assert slow.at is not None
    assert began <= early.at <= early_ended
    assert slow.at >= began + SLOW_NAME_SECONDS


async def test_a_request_that_nobody_watches_any_more_changes_nothing() -> None:
    async with saying(OK + b"Content-Length: 0\r\n\r\n", then_close=False) as listener, ConnectionsClient() as http:
        first = await sent_by(http, listener.url)
        first_at = first.at
        await http.get(listener.url)
        second = await sent_by(http, listener.url)
        assert first.at == first_at is not None
        assert second.at is not None
        assert second.at > first_at


async def test_a_request_that_never_left_has_no_time() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with ConnectionsClient() as http:
        with watch_sending() as sent, pytest.raises(httpx.TransportError):
            await http.get(f"http://127.0.0.1:{port}")
    assert sent.at is None


async def test_a_request_through_a_proxy_has_its_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with saying(OK + b"Content-Length: 0\r\n\r\n", then_close=False) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with ConnectionsClient() as http:
            began = time.monotonic()
            sent = await sent_by(http, "http://ghl.example")
    assert len(proxy.requests) == 1
    assert sent.at is not None
    assert sent.at >= began


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    kind = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    path = folder / "self-signed.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
