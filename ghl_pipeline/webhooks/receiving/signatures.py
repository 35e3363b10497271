"""Whether a body is GHL's: its signatures over the raw bytes, and how old the event says it is.

Pure: bytes, header values and a time in, a yes or no out. Secrets, which prove the senders that do not sign, are in
`senders.py`.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ghl_pipeline.errors import ConfigurationError
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.reading.json_values import fields, moment, read_object

ED25519_HEADER, RSA_HEADER = "x-ghl-signature", "x-wh-signature"
# GHL sends it for a signature that it did not make.
_ABSENT = "N/A"

Key = TypeVar("Key", Ed25519PublicKey, RSAPublicKey)


@dataclass(frozen=True, slots=True)
class Signatures:
    """The public keys that count.

    The newer signature alone decides where there is one: whoever could forge the older one gains nothing by adding a
    broken newer one.
    """

    ed25519: tuple[Ed25519PublicKey, ...]
    rsa: tuple[RSAPublicKey, ...]

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The keys of the settings; those of the older signature only while it is accepted.

        Raises:
            ConfigurationError: an entry is no such key; names the variable.
        """
        ed25519, rsa = settings.webhook_ed25519_keys, settings.webhook_rsa_keys
        # The classes are abstract and only compared with.
        newer = _keys("GHL_WEBHOOK_ED25519_KEYS", ed25519, Ed25519PublicKey)  # type: ignore[type-abstract]
        if not settings.webhook_accept_rsa:
            return cls(newer, ())
        return cls(newer, _keys("GHL_WEBHOOK_RSA_KEYS", rsa, RSAPublicKey))  # type: ignore[type-abstract]

    def are_valid(self, body: bytes, ed25519: Sequence[str], rsa: Sequence[str]) -> bool:
        """Whether the body was signed with one of the keys.

        Args:
            body: as it came.
            ed25519: values of the header `x-ghl-signature`, base64.
            rsa: values of the header `x-wh-signature`: RSA, PKCS #1 v1.5, SHA-256, base64.
        """
        newer = _there(ed25519)
        if newer:
            return _is_signed(newer, self.ed25519, lambda key, signature: key.verify(signature, body))
        older = _there(rsa)
        return _is_signed(older, self.rsa, lambda key, signature: key.verify(signature, body, PKCS1v15(), SHA256()))


def is_any_there(*headers: Sequence[str]) -> bool:
    """Whether one of the headers holds a signature, right or wrong: without one a body need not be read."""
    return any(map(_there, headers))


def _there(values: Sequence[str]) -> list[str]:
    return [value for value in values if value.strip() != _ABSENT]


def _keys(variable: str, text: str, kind: type[Key]) -> tuple[Key, ...]:
    entries = ["".join(entry.split()) for entry in text.split(",") if entry.strip()]
    if not entries:
        raise ConfigurationError(f"{variable} holds no key. Remove it to use GHL's own.")
    keys = []
    for position, entry in enumerate(entries, start=1):
        try:
            key = load_der_public_key(base64.b64decode(entry, validate=True))
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, kind):
            raise ConfigurationError(
                f"Entry {position} of {len(entries)} in {variable} is not a public key of that kind (base64 of its "
                "DER, what stands between the BEGIN and END lines). Correct it, or remove it to use GHL's own."
            )
        keys.append(key)
    return tuple(keys)


def _is_signed(values: Sequence[str], keys: Sequence[Key], verify: Callable[[Key, bytes], None]) -> bool:
    """Whether there is one value, and one of the keys made it."""
    if len(values) != 1:
        return False
    try:
        # The text of a header is Latin-1; anything beyond ASCII is a ValueError here.
        signature = base64.b64decode(values[0].strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    for key in keys:
        try:
            verify(key, signature)
        except InvalidSignature:
            continue
        return True
    return False


def is_fresh(body: bytes, *, now: datetime, tolerance_seconds: float) -> bool:
    """Whether the event's own `timestamp` is near enough to now, before or after; true when it has none.

    A timestamp that cannot be read counts as too old: it was signed, so it is nobody's typing error.

    Raises:
        msgspec.DecodeError: the body is no JSON object.
    """
    said = read_object(body)
    # Live events are flat; the samples of GHL's guide nest fields under `data`.
    for stamp in (said.get("timestamp"), fields(said.get("data")).get("timestamp")):
        if stamp is not None and stamp != "":
            at = moment(stamp)
            return at is not None and abs((at - now).total_seconds()) <= tolerance_seconds
    return True
