"""The keys with which the sandbox signs webhooks as GHL does: Ed25519 over the raw body, and the older RSA signature.

A receiver under test is given the public halves, which `GET /_sandbox/webhook-keys` tells.
"""

import base64
import hashlib
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ED25519_HEADER = "x-ghl-signature"
RSA_HEADER = "x-wh-signature"


class WebhookKeys:
    """One key pair of each kind. The Ed25519 pair follows from the seed, the RSA pair is new in every process."""

    def __init__(self, seed: int = 0) -> None:
        secret = hashlib.sha256(f"sandbox webhooks/{seed}".encode()).digest()
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(secret)

    def __repr__(self) -> str:
        return "WebhookKeys()"

    def public(self) -> dict[str, str]:
        """`ed25519` and `rsa`: the public keys in base64 of their DER SubjectPublicKeyInfo, as GHL publishes its."""
        der = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {
            "ed25519": _base64(self._ed25519.public_key().public_bytes(*der)),
            "rsa": _base64(_rsa_key().public_key().public_bytes(*der)),
        }

    def sign(self, body: bytes, *, ed25519: bool = True, rsa: bool = True) -> dict[str, str]:
        """The signature headers for exactly these bytes.

        Args:
            body: the raw body, as it will be sent.
            ed25519: with `x-ghl-signature`, the present form.
            rsa: with `x-wh-signature`, RSA-SHA256 with PKCS#1 v1.5 padding, the older form. It costs a millisecond.
        """
        headers = {}
        if ed25519:
            headers[ED25519_HEADER] = _base64(self._ed25519.sign(body))
        if rsa:
            headers[RSA_HEADER] = _base64(_rsa_key().sign(body, padding.PKCS1v15(), SHA256()))
        return headers


@lru_cache(maxsize=1)
def _rsa_key() -> RSAPrivateKey:
    # Once per process, when first needed: making one takes some 0.1 s, and each test has a world of its own.
    return generate_private_key(public_exponent=65537, key_size=2048)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
