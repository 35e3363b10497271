"""Encryption of the tokens that the database keeps (Fernet, with rotation by several keys).

Where keys come from and what to do when one is missing is decided here; who has which token is in `locations/`, and
`database/encrypted_values.py` moves what is stored from one key to the next.
"""

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from ghl_pipeline.errors import ConfigurationError
from ghl_pipeline.privacy.key_file import KEY_FILE_NAME, keys_in_file
from ghl_pipeline.settings import Settings

MAKE_A_KEY = 'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'


class TokenUnreadable(ConfigurationError):
    """A stored token was not encrypted with any of the keys at hand, or was damaged."""


class TokenCipher:
    """Encrypts with the first key, decrypts with any. Holds keys, so its `repr` says only how many."""

    def __init__(self, keys: list[Fernet], source: str) -> None:
        self._fernet = MultiFernet(keys)
        self._keys = keys
        self._count = len(keys)
        self.source = source

    def __repr__(self) -> str:
        return f"TokenCipher({self._count} keys from {self.source})"

    @classmethod
    def from_settings(cls, settings: Settings) -> "TokenCipher":
        """The cipher with the keys of `GHL_PIPELINE_TOKEN_KEYS`, else of the home folder's key file.

        The key file is made at first use, and only beside the embedded database: a database that several machines
        share needs a key that they share.

        Raises:
            ConfigurationError: a key is malformed, the key file cannot be read, made or is open to others, or a
                database URL is set without keys.
        """
        if settings.token_keys is not None:
            return cls(_keys_in(settings.token_keys.get_secret_value()), "GHL_PIPELINE_TOKEN_KEYS")
        if not settings.uses_embedded_database:
            raise ConfigurationError(
                "GHL_PIPELINE_DATABASE_URL is set, but GHL_PIPELINE_TOKEN_KEYS is not, so stored tokens cannot be "
                f"encrypted. Make a key, keep it safe, and set it for every process: {MAKE_A_KEY}"
            )
        path = settings.home / KEY_FILE_NAME
        return cls(keys_in_file(path), str(path))

    @property
    def keys(self) -> int:
        """How many keys there are."""
        return self._count

    def encrypt(self, token: str) -> str:
        """The token as text for the database, encrypted with the newest key."""
        return self._fernet.encrypt(token.encode()).decode("ascii")

    def decrypt(self, text: str) -> SecretStr:
        """The token that `encrypt` was given, as a `SecretStr`, which no repr, log or traceback shows.

        Raises:
            TokenUnreadable: none of the keys fits.
        """
        try:
            return SecretStr(self._fernet.decrypt(text).decode())
        except (InvalidToken, ValueError):
            raise self._unreadable() from None

    def position(self, text: str) -> int | None:
        """Under which key a value is: 1 for the newest, counted on; None when none of the keys fits."""
        for position, key in enumerate(self._keys, start=1):
            try:
                key.decrypt(text)
            except (InvalidToken, ValueError):
                continue
            return position
        return None

    def rotate(self, text: str) -> str:
        """The same token, encrypted with the newest key.

        Raises:
            TokenUnreadable: none of the keys fits.
        """
        try:
            return self._fernet.rotate(text).decode("ascii")
        except (InvalidToken, ValueError):
            raise self._unreadable() from None

    def _unreadable(self) -> TokenUnreadable:
        return TokenUnreadable(
            f"A stored token cannot be decrypted with the {self._count} key(s) of {self.source}. Add the key it was "
            "encrypted with after the newest one (comma-separated, in GHL_PIPELINE_TOKEN_KEYS), or store the "
            "client's token again: ghl-pipeline clients set-token LOCATION"
        )


def _keys_in(text: str) -> list[Fernet]:
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not entries:
        raise ConfigurationError(f"GHL_PIPELINE_TOKEN_KEYS holds no key. Make one: {MAKE_A_KEY}")
    keys = []
    for position, entry in enumerate(entries, start=1):
        try:
            keys.append(Fernet(entry))
        except ValueError:
            raise ConfigurationError(
                f"Entry {position} of {len(entries)} in GHL_PIPELINE_TOKEN_KEYS is not a Fernet key (32 bytes as "
                f"url-safe base64). Correct it, or make a new one: {MAKE_A_KEY}"
            ) from None
    return keys
