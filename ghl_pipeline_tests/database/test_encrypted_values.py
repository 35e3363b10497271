"""Stored tokens are moved from one key to the next while everything goes on: counted, resumed, and never lost."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import BigInteger, Engine, text

from ghl_pipeline.database import encrypted_values
from ghl_pipeline.database.encrypted_values import count_by_key, encrypt_anew, encrypted_columns
from ghl_pipeline.database.tables import metadata
from ghl_pipeline.errors import ConfigurationError
from ghl_pipeline.privacy.key_file import add_key, keys_in_file, retire_keys
from ghl_pipeline.privacy.tokens import TokenCipher

OLD, NEW = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
OLD_ONLY = TokenCipher([OLD], "this test")
BOTH = TokenCipher([NEW, OLD], "this test")
NEW_ONLY = TokenCipher([NEW], "this test")

CLIENTS = 30


@pytest.fixture
def stored(engine: Engine) -> Engine:
    """Clients with a value in every encrypted column, all under the old key."""
    with engine.begin() as connection:
        for number in range(CLIENTS):
            values = {"number": number, "name": f"Client {number}"}
            values |= {name: OLD_ONLY.encrypt(f"{name}-{number}") for name in ("token", "before", "bison", "calendly")}
            client = connection.execute(
                text("""
                    INSERT INTO clients (name, location_id, ghl_token_encrypted, previous_token_encrypted,
                        previous_token_until)
                    VALUES (:name, :name, :token, :before, now() + interval '7 days') RETURNING id
                """),
                values,
            ).scalar_one()
            values["client"] = client
            connection.execute(
                text("""
                    INSERT INTO emailbison_workspaces (client_id, base_url, workspace_id, token_encrypted)
                    VALUES (:client, 'https://bison.example.com', :number, :bison)
                """),
                values,
            )
            connection.execute(
                text("INSERT INTO booking_calendars (client_id, calendly_token_encrypted) VALUES (:client, :calendly)"),
                values,
            )
    return engine


def totals(engine: Engine, cipher: TokenCipher) -> tuple[dict[int, int], int]:
    """Values by position of their key, and those that no key reads."""
    counts = count_by_key(engine, cipher)
    positions = {position for each in counts for position in each.by_key}
    by_key = {position: sum(each.by_key[position] for each in counts) for position in positions}
    return by_key, sum(each.unreadable for each in counts)


def test_every_encrypted_column_is_found_and_can_be_moved() -> None:
    names = [f"{column.table.name}.{column.name}" for column in encrypted_columns()]
    assert names == [
        "booking_calendars.calendly_token_encrypted",
        "clients.ghl_token_encrypted",
        "clients.previous_token_encrypted",
        "emailbison_workspaces.token_encrypted",
    ]
    for column in encrypted_columns():
        (key,) = column.table.primary_key.columns
        assert isinstance(key.type, BigInteger)
    said = {f"{table.name}.{column.name}" for table in metadata.sorted_tables for column in table.columns
            if "Fernet" in (column.comment or "")}  # fmt: skip
    assert said == set(names)


def test_a_rotation_moves_every_value_and_changes_none(stored: Engine) -> None:
    assert totals(stored, BOTH) == ({2: 4 * CLIENTS}, 0)
    assert encrypt_anew(stored, BOTH, batch=7) == 4 * CLIENTS
    assert totals(stored, BOTH) == ({1: 4 * CLIENTS}, 0)
    assert totals(stored, NEW_ONLY) == ({1: 4 * CLIENTS}, 0)
    assert totals(stored, OLD_ONLY) == ({}, 4 * CLIENTS)
    with stored.connect() as connection:
        rows = connection.execute(text("SELECT name, ghl_token_encrypted AS token FROM clients")).all()
    assert {NEW_ONLY.decrypt(row.token).get_secret_value() for row in rows} == {f"token-{n}" for n in range(CLIENTS)}
    assert encrypt_anew(stored, BOTH) == 0


def test_a_rotation_is_no_change_of_a_client(stored: Engine) -> None:
    """What waits for a person is tried again when its client changes; 10,000 at once would be a storm."""
    times = """
        SELECT updated_at FROM clients UNION ALL SELECT updated_at FROM emailbison_workspaces
        UNION ALL SELECT updated_at FROM booking_calendars
    """
    with stored.connect() as connection:
        before = sorted(connection.execute(text(times)).scalars())
    encrypt_anew(stored, BOTH)
    with stored.begin() as connection:
        assert sorted(connection.execute(text(times)).scalars()) == before
        connection.execute(text("UPDATE clients SET time_zone = 'Asia/Tokyo'"))
        assert connection.execute(text("SELECT bool_and(updated_at = now()) FROM clients")).scalar() is True


def test_an_interrupted_rotation_goes_on_where_it_was(stored: Engine) -> None:
    """Cut off after each batch in turn: nothing is lost, nothing moved twice, and both ways to read it work between."""

    class Cut(Exception):
        pass

    moved = 0
    for _ in range(100):
        steps: list[int] = []

        def cut_after_one(count: int, steps: list[int] = steps) -> None:
            steps.append(count)
            raise Cut

        try:
            encrypt_anew(stored, BOTH, batch=11, moved=cut_after_one)
        except Cut:
            moved += steps[0]
            by_key, unreadable = totals(stored, BOTH)
            assert unreadable == 0
            assert by_key.get(1, 0) == moved
        else:
            break
    assert moved == 4 * CLIENTS


@pytest.mark.slow
def test_a_rotation_that_was_killed_is_finished_by_the_next(stored: Engine, tmp_path: Path) -> None:
    """`kill -9` in the middle of a transaction: that batch is as it was, the ones before are moved."""
    program = (
        "import os, sys, signal\n"
        "from cryptography.fernet import Fernet\n"
        "from sqlalchemy import event, make_url\n"
        "from ghl_pipeline.database.connection import create_engine\n"
        "from ghl_pipeline.database.encrypted_values import encrypt_anew\n"
        "from ghl_pipeline.privacy.tokens import TokenCipher\n"
        "url, new, old = sys.stdin.read().split()\n"
        "engine = create_engine(make_url(url))\n"
        "updates = []\n"
        "def kill(*words):\n"
        "    if 'UPDATE' in words[2]:\n"
        "        updates.append(1)\n"
        "        if len(updates) == 4:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "event.listen(engine, 'after_cursor_execute', kill)\n"
        "encrypt_anew(engine, TokenCipher([Fernet(new), Fernet(old)], 'a child'), batch=10)\n"
    )
    new, old = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    cipher = TokenCipher([Fernet(new), Fernet(old), OLD], "this test")
    with stored.begin() as connection:
        for row in connection.execute(text("SELECT id, ghl_token_encrypted AS token FROM clients")).all():
            values = {"id": row.id, "token": TokenCipher([Fernet(old), OLD], "").rotate(row.token)}
            connection.execute(text("UPDATE clients SET ghl_token_encrypted = :token WHERE id = :id"), values)
        connection.execute(text("UPDATE clients SET previous_token_encrypted = NULL, previous_token_until = NULL"))
        connection.execute(text("DELETE FROM booking_calendars"))
        connection.execute(text("UPDATE emailbison_workspaces SET token_encrypted = NULL"))
        connection.execute(text("INSERT INTO clients (name, location_id, ghl_token_encrypted) "
                                "SELECT 'More ' || n, 'More' || n, (SELECT min(ghl_token_encrypted) FROM clients) "
                                "FROM generate_series(1, 20) AS n"))  # fmt: skip
    given = f"{stored.url.render_as_string(hide_password=False)}\n{new}\n{old}\n"
    done = subprocess.run([sys.executable, "-c", program], input=given, text=True, check=False, timeout=120)
    assert done.returncode == -9
    assert totals(stored, cipher) == ({1: 30, 2: 20}, 0)
    assert encrypt_anew(stored, cipher) == 20
    assert totals(stored, cipher) == ({1: 50}, 0)


def test_a_token_that_is_stored_meanwhile_wins(stored: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading a page and writing it, a process that knows the old key only stores another token."""
    theirs = OLD_ONLY.encrypt("theirs")
    move = encrypted_values._move

    def somebody_is_faster(connection, column, cipher, page):  # type: ignore[no-untyped-def]
        with stored.begin() as other:
            other.execute(text("UPDATE clients SET ghl_token_encrypted = :token WHERE name = 'Client 3'"),
                          {"token": theirs})  # fmt: skip
        return move(connection, column, cipher, page)

    monkeypatch.setattr(encrypted_values, "_move", somebody_is_faster)
    encrypt_anew(stored, BOTH)
    monkeypatch.undo()
    with stored.connect() as connection:
        kept = connection.execute(text("SELECT ghl_token_encrypted FROM clients WHERE name = 'Client 3'")).scalar()
    assert kept == theirs
    assert totals(stored, BOTH) == ({1: 4 * CLIENTS - 1, 2: 1}, 0)
    assert encrypt_anew(stored, BOTH) == 1


def test_two_rotations_at_the_same_time_move_each_value_once(stored: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        moved = [pool.submit(encrypt_anew, stored, BOTH, batch=5) for _ in range(4)]
        assert sum(each.result() for each in moved) == 4 * CLIENTS
    assert totals(stored, BOTH) == ({1: 4 * CLIENTS}, 0)


def test_what_no_key_reads_is_counted_and_left_alone(stored: Engine) -> None:
    stranger = TokenCipher([Fernet(Fernet.generate_key())], "somebody else").encrypt("lost")
    with stored.begin() as connection:
        connection.execute(text("UPDATE clients SET ghl_token_encrypted = :text WHERE name = 'Client 1'"),
                           {"text": stranger})  # fmt: skip
    assert encrypt_anew(stored, BOTH) == 4 * CLIENTS - 1
    assert totals(stored, BOTH) == ({1: 4 * CLIENTS - 1}, 1)


# --- the key file of the embedded database


def test_a_new_key_is_in_front_and_the_old_ones_stay_until_they_are_retired(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    first = TokenCipher(keys_in_file(path), "the file").encrypt("pit-1")
    assert add_key(path) == 2
    both = TokenCipher(keys_in_file(path), "the file")
    assert both.position(first) == 2
    assert both.position(both.encrypt("pit-2")) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    moved = both.rotate(first)
    assert retire_keys(path, expected=2) == 1
    newest = TokenCipher(keys_in_file(path), "the file")
    assert newest.position(moved) == 1
    assert newest.position(first) is None
    assert retire_keys(path, expected=1) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["token.key"]


def test_a_key_that_is_added_while_the_old_ones_are_retired_loses_no_token(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    stored = TokenCipher(keys_in_file(path), "the file").encrypt("pit-1")
    seen = len(keys_in_file(path))
    add_key(path)  # by somebody else, after it was seen that everything is under the newest key
    with pytest.raises(ConfigurationError, match="was changed meanwhile"):
        retire_keys(path, expected=seen)
    assert TokenCipher(keys_in_file(path), "the file").decrypt(stored).get_secret_value() == "pit-1"


def test_keys_that_are_added_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    with ThreadPoolExecutor(8) as pool:
        counts = sorted(each.result() for each in [pool.submit(add_key, path) for _ in range(8)])
    assert counts == list(range(2, 10))
    assert len(set(path.read_bytes().split())) == 9
