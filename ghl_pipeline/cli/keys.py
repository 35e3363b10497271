"""`ghl-pipeline keys`: the keys with which stored tokens are encrypted, changed without a pause."""

from collections.abc import Sequence
from typing import Annotated

import typer
from cryptography.fernet import Fernet

from ghl_pipeline.cli.demo_profile import demo_profile
from ghl_pipeline.cli.output import err, out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.database.encrypted_values import KeysOfColumn, count_by_key, encrypt_anew
from ghl_pipeline.errors import ConfigurationError, InvalidInput
from ghl_pipeline.privacy.key_file import KEY_FILE_NAME, add_key, retire_keys
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings, load_settings

UNREADABLE = 1
_VARIABLE = "GHL_PIPELINE_TOKEN_KEYS"

app = typer.Typer(help="Change the keys with which stored tokens are encrypted.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@app.command()
def new() -> None:
    """Make a new key: in front of the embedded database's key file, or printed for GHL_PIPELINE_TOKEN_KEYS.

    In the file, the old ones stay until `keys retire`.
    """
    settings = load_settings()
    if not _has_file(settings):
        err.print(f"Put this in front of {_VARIABLE}, with a comma after it, for every process:", soft_wrap=True)
        out.print(Fernet.generate_key().decode(), markup=False)
        return
    count = add_key(settings.home / KEY_FILE_NAME)
    out.print(
        f"The key file has {count} keys now. Restart everything that runs, so that all of it can read what the new key "
        "encrypts; then run: ghl-pipeline keys rotate"
    )


@app.command()
def check(json: Json = False) -> None:
    """Count the stored tokens by the key they are under. Exit code 1 when some cannot be read."""
    settings = load_settings()
    cipher = TokenCipher.from_settings(settings)
    _tell(cipher, _counted(settings, cipher), json=json)


@app.command()
def rotate(json: Json = False) -> None:
    """Encrypt every stored token with the newest key. Everything may go on running; doing it again is harmless.

    Exit code 1 when some cannot be read with any of the keys.
    """
    settings = load_settings()
    cipher = TokenCipher.from_settings(settings)
    moved = 0
    for _, each in _databases(settings):
        with database(each) as engine:
            moved += encrypt_anew(engine, cipher)
    _tell(cipher, _counted(settings, cipher), json=json, moved=moved)


@app.command()
def retire() -> None:
    """Remove the older keys from the key file, once no stored token is under them."""
    settings = load_settings()
    if not _has_file(settings):
        raise ConfigurationError(
            f"The keys are those of {_VARIABLE}, and no file of this program. Take the older ones out of it, once "
            "`ghl-pipeline keys check` counts nothing under them"
        )
    path = settings.home / KEY_FILE_NAME
    cipher = TokenCipher.from_settings(settings)
    if behind := sum(each.behind for each in _counted(settings, cipher)):
        raise InvalidInput(
            f"{behind} stored tokens are under an older key still, so no key was removed. Run first: "
            "ghl-pipeline keys rotate"
        )
    removed = retire_keys(path, expected=cipher.keys)
    out.print(f"Removed {removed} older keys from {path}." if removed else f"{path} has only one key.")


def _has_file(settings: Settings) -> bool:
    return settings.token_keys is None and settings.uses_embedded_database


def _databases(settings: Settings) -> list[tuple[str, Settings]]:
    """The clients' database, and the demo's where there is one: both are under the same keys. Each with a prefix."""
    demo = demo_profile(settings)
    return [("", settings), *([("demo: ", demo.settings)] if demo.size() is not None else [])]


def _counted(settings: Settings, cipher: TokenCipher) -> list[KeysOfColumn]:
    found = []
    for prefix, each in _databases(settings):
        with database(each) as engine:
            counts = count_by_key(engine, cipher)
        for count in counts:
            count.column = f"{prefix}{count.column}"
        found += counts
    return found


def _tell(cipher: TokenCipher, counts: Sequence[KeysOfColumn], *, json: bool, moved: int | None = None) -> None:
    unreadable = sum(each.unreadable for each in counts)
    behind = sum(each.behind for each in counts)
    positions = range(1, cipher.keys + 1)
    if json:
        values = [
            {
                "column": each.column,
                "by_key": {str(position): each.by_key[position] for position in positions},
                "unreadable": each.unreadable,
            }
            for each in counts
        ]
        document = {"keys": cipher.keys, "values": values, "older_key": behind, "unreadable": unreadable}
        print_json(document if moved is None else document | {"moved": moved})
    else:
        heads = ["stored in", *(f"key {position}" for position in positions), "unreadable"]
        rows = [[each.column, *(each.by_key[position] for position in positions), each.unreadable] for each in counts]
        print_table("Stored tokens by key (1 is the newest)", heads, rows)
        if moved is not None:
            out.print(f"Moved to the newest key: {moved}")
    if behind:
        err.print("Some are under an older key. Run: ghl-pipeline keys rotate", soft_wrap=True)
    elif not unreadable and cipher.keys > 1:
        how = f"take them out of {_VARIABLE}" if cipher.source == _VARIABLE else "ghl-pipeline keys retire"
        err.print(f"Nothing is under the older keys any more. To remove them: {how}", soft_wrap=True)
    if unreadable:
        err.print(
            f"{unreadable} cannot be read with any key. Add the key they were encrypted with at the end of the keys, "
            "or store those tokens again",
            soft_wrap=True,
        )
        raise typer.Exit(UNREADABLE)
