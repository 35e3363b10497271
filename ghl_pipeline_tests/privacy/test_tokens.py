"""Tokens at rest: which key is used, what happens without the right one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from ghl_pipeline.errors import ConfigurationError
from ghl_pipeline.privacy.tokens import TokenCipher, TokenUnreadable
from ghl_pipeline.settings import Settings

TOKEN = "pit-6f1f2b1e-7c2d-4b7a-9a53-0123456789ab"


def new_key() -> str:
    return Fernet.generate_key().decode()


def cipher_with(*keys: str) -> TokenCipher:
    return TokenCipher.from_settings(Settings(token_keys=SecretStr(",".join(keys)), database_url=None))


def cipher_in(home: Path) -> TokenCipher:
    return TokenCipher.from_settings(Settings(home=home, token_keys=None, database_url=None))


def test_a_token_comes_back_and_is_never_in_a_repr() -> None:
    key = new_key()
    cipher = cipher_with(key)
    stored = cipher.encrypt(TOKEN)
    secret = cipher.decrypt(stored)
    assert TOKEN not in stored
    assert secret.get_secret_value() == TOKEN
    assert TOKEN not in f"{secret!r} {secret}"
    assert key not in repr(cipher)


def test_a_key_is_rotated_without_losing_a_token() -> None:
    old, new = new_key(), new_key()
    stored = cipher_with(old).encrypt(TOKEN)
    both = cipher_with(new, f" {old} ", "")
    assert both.decrypt(stored).get_secret_value() == TOKEN
    assert cipher_with(new).decrypt(both.rotate(stored)).get_secret_value() == TOKEN


@pytest.mark.parametrize("damaged", [None, "", "not base64 é", TOKEN])
def test_a_token_of_another_key_is_an_error_that_says_what_to_do(damaged: str | None) -> None:
    stored = cipher_with(new_key()).encrypt(TOKEN) if damaged is None else damaged
    for read in (cipher_with(new_key()).decrypt, cipher_with(new_key()).rotate):
        with pytest.raises(TokenUnreadable, match=r"GHL_PIPELINE_TOKEN_KEYS.*clients set-token") as raised:
            read(stored)
        assert raised.value.exit_code == ConfigurationError.exit_code
        assert not stored or stored not in str(raised.value)


@pytest.mark.parametrize("keys", [" , ", "abc", f"{new_key()},{new_key()[:-2]}"], ids=["none", "short", "cut"])
def test_a_malformed_key_is_named_by_its_position_only(keys: str) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no key|Entry [12] of [12]") as raised:
        cipher_with(keys)
    assert "abc" not in str(raised.value)


def test_a_shared_database_needs_a_shared_key(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=SecretStr("postgresql://db/leads"), token_keys=None)
    with pytest.raises(ConfigurationError, match=r"TOKEN_KEYS is not.*generate_key"):
        TokenCipher.from_settings(settings)
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_database_gets_a_key_file_that_only_the_owner_reads(tmp_path: Path) -> None:
    home = tmp_path / "home"
    stored = cipher_in(home).encrypt(TOKEN)
    assert cipher_in(home).decrypt(stored).get_secret_value() == TOKEN
    assert [path.name for path in home.iterdir()] == ["token.key"]
    assert (home / "token.key").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700


def test_processes_that_race_for_the_first_key_end_with_one(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ghl_pipeline.settings import Settings\n"
        "from ghl_pipeline.privacy.tokens import TokenCipher\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(TokenCipher.from_settings(Settings(home=Path(sys.argv[1]))).encrypt('t'))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GHL_")}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "home")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for _ in range(4)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        stored, _ = racer.communicate(timeout=60)
        assert cipher_in(tmp_path / "home").decrypt(stored.strip()).get_secret_value() == "t"
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["token.key"]


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [("junk", 0o600, "is damaged"), (new_key(), 0o644, "chmod 600")],
    ids=["damaged", "open"],
)
def test_a_key_file_that_cannot_be_trusted_is_refused(tmp_path: Path, content: str, mode: int, reason: str) -> None:
    (tmp_path / "token.key").write_text(content)
    (tmp_path / "token.key").chmod(mode)
    with pytest.raises(ConfigurationError, match=reason) as raised:
        cipher_in(tmp_path)
    assert content not in str(raised.value)


def test_a_home_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be read or made"):
        cipher_in(tmp_path / "file" / "home")
