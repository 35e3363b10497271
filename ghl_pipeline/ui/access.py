"""Who may use the UI: everybody who reaches it, or those who know a password, or those whom a proxy lets through.

Dagster has no log-in. On loopback that is the machine's own matter; beyond it one of these is required by `serving.py`.
"""

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from typing import Final

from ghl_pipeline.settings import Settings
from ghl_pipeline.ui.rules import Asked, Refusal

PROXY_HEADER: Final = "x-ghl-pipeline-proxy"


@dataclass(frozen=True, slots=True)
class Access:
    """The secrets that a request has to know; None for one that is not asked for. Both are asked where both are set."""

    password: bytes | None = field(default=None, repr=False)
    proxy_secret: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Access":
        """`UI_PASSWORD` and `UI_PROXY_SECRET`."""
        password, secret = settings.ui_password, settings.ui_proxy_secret
        return cls(
            password.get_secret_value().encode() if password else None,
            secret.get_secret_value().encode() if secret else None,
        )

    def refusal(self, asked: Asked) -> Refusal | None:
        """403 for what did not come through the proxy, 401 for who does not know the password, else None."""
        if self.proxy_secret is not None:
            given = (asked.header(PROXY_HEADER) or "").encode("latin-1")
            if not hmac.compare_digest(given, self.proxy_secret):
                return Refusal(403, "The UI is behind a proxy that logs people in. Go there.")
        if self.password is not None and not hmac.compare_digest(_basic_password(asked), self.password):
            return Refusal(401, "The UI asks for a password; any user name will do.")
        return None


def _basic_password(asked: Asked) -> bytes:
    """The password of an `Authorization: Basic` header (RFC 7617); empty where there is none."""
    scheme, _, credentials = (asked.header("authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return decoded.partition(b":")[2]
