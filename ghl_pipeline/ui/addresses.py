"""Under which names the UI is asked: `Host` headers, origins, and the list of those that are served.

A page of a stranger can reach a server on loopback under a name of the stranger's own that resolves to 127.0.0.1 (DNS
rebinding), and then counts as the same origin. It cannot choose the name that the browser sends: that is the page's.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ghl_pipeline.errors import InvalidInput

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")

_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_ORIGIN = re.compile(r"https?://(?P<authority>[^/?#@]+)", re.ASCII)
# Left out by browsers where they are their scheme's; behind a proxy only the proxy knows the scheme.
_DEFAULT_PORTS = (80, 443)


@dataclass(frozen=True, slots=True)
class Address:
    """A name or number and a port; None for the scheme's own. Only made by `read_address`, so equal means the same."""

    host: str
    port: int | None

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


def read_address(text: str) -> Address | None:
    """What a `Host` header says; None where it is no name or number with or without a port.

    Case and the many ways to write an IPv6 number make no difference. A dot at the end does, as for browsers.
    """
    found = _AUTHORITY.fullmatch(text.lower()) if text.isascii() else None
    if found is None:
        return None
    host = found["name"]
    if host is None:
        try:
            host = f"[{ipaddress.IPv6Address(found['six'])}]"
        except ValueError:
            return None
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > 65535:
        return None
    return Address(host, None if port in _DEFAULT_PORTS else port)


def read_origin(text: str) -> Address | None:
    """What an `Origin` header says; None for `null` and for anything that is not a web page's."""
    found = _ORIGIN.fullmatch(text.lower()) if text.isascii() else None
    return read_address(found["authority"]) if found else None


def served_addresses(port: int, also: Iterable[str] = ()) -> frozenset[Address]:
    """The names of loopback with the port, and further ones as a person gives them (`ops.example.com`, `host:8080`).

    Raises:
        InvalidInput: one of them is no name.
    """
    served = {read_address(f"{name}:{port}") for name in LOOPBACK_NAMES}
    for text in also:
        address = read_address(text.strip())
        if address is None:
            raise InvalidInput(
                f"{text.strip()!r} is no name under which the UI could be asked. Give names or numbers, with the port "
                "where it is not 80 or 443: ops.example.com, 10.0.0.5:3000, [fd00::5]:3000."
            )
        served.add(address)
    return frozenset(address for address in served if address)
