"""What a request costs the client: httpx's own transport against aiohttp's, plain and over TLS, 1 to 100 locations.

Both are used as the pipeline uses them: `open_client`, a client for each location, every answer decoded. There is no
limit and no database in it. CPU time is that of the measuring process alone; the sandbox, and what packs its answers in
TLS, have processes of their own. Of several rounds, taken in turn, the best counts.
"""

import asyncio
import contextlib
import multiprocessing
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from httpx_aiohttp import AiohttpTransport
from pydantic import SecretStr

from benchmarks.harness import Options, Results, read_options
from benchmarks.sandbox import SandboxLocation, started_sandbox
from ghl_pipeline.ghl.calls import MAX_CONNECTIONS
from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.errors import CallFacts
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.search import ContactSearch, equals

LOCATIONS: Final = (1, 20, 100)
CONTACTS: Final = 500
ANSWERS: Final = {
    "empty": (ContactSearch((equals("email", "nobody@example.com"),)), 1_000),
    "500 contacts": (ContactSearch(page_limit=CONTACTS), 100),
}
"""What is asked, and how many requests a round has."""
ROUNDS, MORE_ROUNDS = 3, 10
_AT_ONCE: Final = {1: 10, 20: 2, 100: 1}
_LIMITS: Final = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)

Transport = Callable[[ssl.SSLContext], httpx.AsyncBaseTransport]
TRANSPORTS: Final[dict[str, Transport]] = {
    "httpx": lambda context: httpx.AsyncHTTPTransport(verify=context, limits=_LIMITS),
    "aiohttp": lambda context: AiohttpTransport(verify=context, limits=_LIMITS),
}


class _Unlimited:
    async def sent(self, at: float) -> None:
        """Has no slot to move."""

    async def acquire(self, facts: CallFacts) -> float:
        return 0.0

    async def refused(self, pause_seconds: float | None) -> None:
        """Does not pause."""

    async def learn(self, max_requests: int, interval_seconds: float) -> None:
        """Has no limit to learn."""


def main(options: Options) -> None:
    """Measures and prints."""
    places = [
        SandboxLocation.named(f"transport{n}", contacts=CONTACTS, requests=10_000_000, requests_per_day=10**9)
        for n in range(max(LOCATIONS))
    ]
    results = Results("What a request costs the client", options)
    with started_sandbox(places) as sandbox, _tls_in_front_of(sandbox.url) as (secure_url, context):
        for title, url in (("Plain HTTP", sandbox.url), ("TLS", secure_url)):
            rows = [
                _row(url, context, places[:locations], answer, MORE_ROUNDS if options.full else ROUNDS)
                for answer in ANSWERS
                for locations in LOCATIONS
            ]
            columns = ["answer", "locations"]
            columns += [f"{name}: µs CPU / request" for name in TRANSPORTS] + ["ratio"]
            columns += [f"{name}: requests/s" for name in TRANSPORTS] + ["ratio"]
            results.table(title, columns, rows)
    results.close()


def _row(
    url: str, context: ssl.SSLContext, places: Sequence[SandboxLocation], answer: str, rounds: int
) -> list[object]:
    cpu: dict[str, float] = {}
    rate: dict[str, float] = {}
    for _ in range(rounds):
        for name, transport in TRANSPORTS.items():
            seconds, per_second = asyncio.run(_measure(url, lambda t=transport: t(context), places, answer))  # type: ignore[misc]
            cpu[name] = min(seconds * 1e6, cpu.get(name, seconds * 1e6))
            rate[name] = max(per_second, rate.get(name, 0.0))
    return [
        answer, len(places),
        *cpu.values(), cpu["httpx"] / cpu["aiohttp"],
        *rate.values(), rate["aiohttp"] / rate["httpx"],
    ]  # fmt: skip


async def _measure(
    url: str, transport: Callable[[], httpx.AsyncBaseTransport], places: Sequence[SandboxLocation], answer: str
) -> tuple[float, float]:
    """CPU seconds per request, and requests per second. Connections are open before the clock starts."""
    search, requests = ANSWERS[answer]
    at_once = _AT_ONCE[len(places)]
    each = max(1, requests // len(places) // at_once)

    async def ask(client: LocationClient) -> None:
        for _ in range(each):
            await client.search_contacts(search)

    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(url, place, transport())) for place in places]
        await asyncio.gather(*(client.location() for client in clients for _ in range(at_once)))
        began, cpu_began = time.perf_counter(), time.process_time()
        await asyncio.gather(*(ask(client) for client in clients for _ in range(at_once)))
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    sent = each * at_once * len(places)
    return cpu_seconds / sent, sent / seconds


@contextlib.asynccontextmanager
async def _client(
    url: str, place: SandboxLocation, transport: httpx.AsyncBaseTransport
) -> AsyncIterator[LocationClient]:
    async with open_client(
        base_url=url,
        location_id=place.id,
        token=SecretStr(place.token),
        throttle=_Unlimited(),
        policy=RetryPolicy(),
        timeout_seconds=60.0,
        transport=transport,
    ) as client:
        yield client


# --- TLS


@contextlib.contextmanager
def _tls_in_front_of(url: str) -> Iterator[tuple[str, ssl.SSLContext]]:
    """A process that speaks TLS and hands on to `url`; its own URL, and a context that trusts it."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        certificate = _self_signed(Path(folder))
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve_tls, args=(httpx.URL(url).port, certificate, theirs), daemon=True)
        process.start()
        port = ours.recv()
        try:
            yield f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=certificate)
        finally:
            process.terminate()
            process.join()


def _serve_tls(port: int, certificate: Path, parent: "Connection[int, int]") -> None:
    async def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

        async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))

        server = await asyncio.start_server(hand_on, "127.0.0.1", 0, ssl=context)
        parent.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(262_144):
            writer.write(chunk)
            await writer.drain()
    writer.close()


def _self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "self-signed.pem"
    path.write_bytes(private + certificate.public_bytes(encoding))
    return path


if __name__ == "__main__":
    main(read_options("transport", "What does a request cost the client, by httpx's transport and by aiohttp's?"))
