"""Who may send: secrets in the database, and how soon the receiver's memory follows it."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ghl_pipeline.errors import DatabaseUnavailable
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.receiving.known_senders import (
    READ_WITHIN_SECONDS,
    RENEW_AFTER_SECONDS,
    USE_UP_TO_SECONDS,
    KnownSenders,
)
from ghl_pipeline.webhooks.receiving.senders import (
    Sender,
    admits,
    create_secret,
    digest_of,
    read_senders,
    secrets_made_at,
)
from ghl_pipeline_tests.fixtures.receiver import add_receiver_client

WORKFLOW, EMAILBISON = Provider.GHL_WORKFLOW, Provider.EMAILBISON


def test_a_secret_is_long_and_only_its_hash_is_kept(engine: Engine) -> None:
    client = add_receiver_client(engine)
    assert len(client.workflow_secret) == 43
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT digest FROM webhook_secrets WHERE provider = 'ghl_workflow'")).scalar()
        everything = connection.execute(text("SELECT s::text FROM webhook_secrets s")).scalars().all()
    assert kept == hashlib.sha256(client.workflow_secret.encode()).digest()
    assert client.workflow_secret not in "".join(everything)


def test_secrets_open_their_own_clients_own_route_and_are_shown_by_no_repr(engine: Engine) -> None:
    one, two = add_receiver_client(engine), add_receiver_client(engine, active=False)
    with engine.connect() as connection:
        senders = read_senders(connection)
    first, second = senders[one.location_id], senders[two.location_id]
    assert (first.is_active, second.is_active) == (True, False)
    assert (first.workspace_id, second.workspace_id) == (one.workspace_id, two.workspace_id)
    assert admits(first, WORKFLOW, one.workflow_secret)
    assert admits(first, EMAILBISON, one.emailbison_secret)
    assert admits(second, WORKFLOW, two.workflow_secret)
    for provider, secret in (
        (WORKFLOW, two.workflow_secret),
        (WORKFLOW, one.emailbison_secret),
        (EMAILBISON, one.workflow_secret),
        (Provider.GHL, one.workflow_secret),
        (WORKFLOW, ""),
        (WORKFLOW, one.workflow_secret[:-1]),
    ):
        assert not admits(first, provider, secret)
    assert not admits(None, WORKFLOW, one.workflow_secret)
    assert "digests" not in repr(first)


def test_old_and_new_secrets_count_until_the_old_ones_are_revoked(engine: Engine) -> None:
    client = add_receiver_client(engine)
    with engine.begin() as connection:
        second = create_secret(connection, client.id, WORKFLOW).get_secret_value()
    with engine.connect() as connection:
        sender = read_senders(connection)[client.location_id]
        assert len(secrets_made_at(connection, client.id, WORKFLOW)) == 2
    assert admits(sender, WORKFLOW, client.workflow_secret)
    assert admits(sender, WORKFLOW, second)
    with engine.begin() as connection:
        third = create_secret(connection, client.id, WORKFLOW, revoke_others=True).get_secret_value()
        sender = read_senders(connection)[client.location_id]
    assert [admits(sender, WORKFLOW, each) for each in (client.workflow_secret, second, third)] == [False, False, True]
    assert admits(sender, EMAILBISON, client.emailbison_secret), "the other provider's secrets are left alone"


@given(secret=st.text(st.characters(exclude_categories=())), given_secret=st.text(st.characters(exclude_categories=())))
def test_only_the_secret_itself_is_admitted(secret: str, given_secret: str) -> None:
    sender = Sender(1, "LocationNumberOne001", True, {WORKFLOW: (digest_of("another"), digest_of(secret))})
    assert admits(sender, WORKFLOW, secret)
    assert admits(sender, WORKFLOW, given_secret) == (given_secret in {secret, "another"})
    assert not admits(Sender(2, "LocationNumberTwo002", True), WORKFLOW, given_secret)


# --- in memory


@dataclass
class Book:
    """The database's senders by hand, a clock by hand, and how often they were read."""

    senders: Mapping[str, Sender] = field(default_factory=dict)
    is_down: bool = False
    now: float = 1000.0
    reads: int = 0

    def read(self) -> Mapping[str, Sender]:
        self.reads += 1
        if self.is_down:
            raise DatabaseUnavailable("down")
        return self.senders

    def clock(self) -> float:
        return self.now


def sender(location_id: str, *secrets: str) -> Sender:
    return Sender(1, location_id, True, {WORKFLOW: tuple(map(digest_of, secrets))})


@pytest.fixture
def book() -> Book:
    return Book({"known": sender("known", "right")})


@pytest.fixture
def known(book: Book) -> KnownSenders:
    return KnownSenders(book.read, clock=book.clock)


async def test_who_is_known_is_read_once_for_many_events(book: Book, known: KnownSenders) -> None:
    found = await asyncio.gather(*(known.with_secret("known", WORKFLOW, "right") for _ in range(100)))
    assert {each.location_id for each in found if each} == {"known"}
    assert book.reads == 1
    assert known.has("known")
    assert not known.has("stranger")


async def test_strangers_are_looked_for_again_but_cannot_hammer_the_database(book: Book, known: KnownSenders) -> None:
    for _ in range(50):
        assert await known.with_secret("known", WORKFLOW, "wrong") is None
        assert await known.of_location("stranger") is None
    assert book.reads == 1, "what was read this second is believed"
    for _ in range(10):
        book.now += 1.0
        await asyncio.gather(*(known.with_secret("known", WORKFLOW, f"guess {number}") for number in range(100)))
    assert book.reads == 11


async def test_a_client_of_just_now_is_found(book: Book, known: KnownSenders) -> None:
    assert await known.of_location("new") is None
    book.senders = {**book.senders, "new": sender("new", "secret")}
    book.now += 1.5
    assert await known.with_secret("new", WORKFLOW, "secret") is not None
    book.senders = {"new": sender("new", "secret", "another")}
    book.now += 1.5
    assert await known.with_secret("new", WORKFLOW, "another") is not None


async def test_a_list_is_renewed_beside_the_work_and_an_old_one_before_it(book: Book, known: KnownSenders) -> None:
    assert await known.with_secret("known", WORKFLOW, "right") is not None
    book.senders = {"known": sender("known")}
    book.now += RENEW_AFTER_SECONDS + 1
    assert await known.with_secret("known", WORKFLOW, "right") is not None, "nobody waits for the renewal"
    await known.close()
    assert await known.with_secret("known", WORKFLOW, "right") is None
    book.senders = {"known": sender("known", "right")}
    book.now += 1.5
    assert await known.with_secret("known", WORKFLOW, "right") is not None
    book.senders = {"known": sender("known")}
    book.now += USE_UP_TO_SECONDS + 1
    assert await known.with_secret("known", WORKFLOW, "right") is None, "a revoked secret after a quiet night"


async def test_without_a_database_the_last_list_counts(book: Book, known: KnownSenders) -> None:
    assert await known.with_secret("known", WORKFLOW, "right") is not None
    book.is_down = True
    for _ in range(5):
        book.now += 3600
        assert await known.with_secret("known", WORKFLOW, "right") is not None
        assert await known.with_secret("known", WORKFLOW, "wrong") is None


async def test_without_any_list_nobody_is_turned_away_for_good(book: Book, known: KnownSenders) -> None:
    book.is_down = True
    for _ in range(20):
        with pytest.raises(DatabaseUnavailable):
            await known.with_secret("known", WORKFLOW, "right")
    assert book.reads == 1, "a dead database is not asked by every request"
    book.is_down = False
    book.now += 1.5
    assert await known.with_secret("known", WORKFLOW, "right") is not None


# --- a database that hangs


async def test_nobody_waits_long_for_a_database_that_hangs_and_what_was_known_counts() -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    goes_on.set()

    def read() -> Mapping[str, Sender]:
        if not goes_on.is_set():
            hangs.set()
            assert goes_on.wait(30)
        return {"known": sender("known", "right")}

    now = 1000.0
    known = KnownSenders(read, clock=lambda: now + time.monotonic())
    assert await known.with_secret("known", WORKFLOW, "right") is not None
    goes_on.clear()
    now += USE_UP_TO_SECONDS + 1
    began = time.monotonic()
    secrets = ["right", "wrong"] * 20
    found = await asyncio.gather(*(known.with_secret("known", WORKFLOW, secret) for secret in secrets))
    assert [each is not None for each in found] == [True, False] * 20
    assert hangs.is_set()
    assert READ_WITHIN_SECONDS - 0.1 < time.monotonic() - began < READ_WITHIN_SECONDS + 1
    began = time.monotonic()
    assert await known.with_secret("known", WORKFLOW, "wrong") is None
    assert await known.of_location("stranger") is None
    assert time.monotonic() - began < 0.1, "that it hangs is found out once, not by each"
    goes_on.set()
    await known.close()


async def test_without_any_list_a_database_that_hangs_is_said_to_be_away() -> None:
    goes_on = threading.Event()

    def read() -> Mapping[str, Sender]:
        assert goes_on.wait(30)
        return {"known": sender("known", "right")}

    known = KnownSenders(read)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await known.with_secret("known", WORKFLOW, "right")
    assert time.monotonic() - began < READ_WITHIN_SECONDS + 1
    goes_on.set()
    await known.close()
    assert await known.with_secret("known", WORKFLOW, "right") is not None
