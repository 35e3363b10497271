"""What the project's servers, the UI and the receiver, have in common: the socket they listen at, and their log."""

import logging
import os
import socket

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.privacy import redaction

# Connections queue up from the start, so that an URL that was told is as good as served.
WAITING_CONNECTIONS = 2048


def listen(host: str, port: int, *, server: str) -> socket.socket:
    """A socket at exactly this address and port; another port would not be found by whoever looks for the server.

    Args:
        host: a name or an address, of IPv4 or IPv6.
        port: 0 for any free one.
        server: who listens, as the error calls it.

    Raises:
        InvalidInput: there is no such address here, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidInput(f"{host} is no address of this machine ({error.strerror}). Give another --host.") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        # Of two that start at the same moment both can bind; only one can listen.
        listener.listen(WAITING_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"{server} cannot listen at {host} port {port} ({os.strerror(error.errno or 0)}). Stop what listens there "
            "(another `ghl-pipeline`?), or give another --host or --port."
        ) from None
    return listener


def log_like_a_server(level: int) -> None:
    """Lines with the time, for a log file; of the libraries only what went wrong."""
    redaction.install()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("ghl_pipeline").setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
