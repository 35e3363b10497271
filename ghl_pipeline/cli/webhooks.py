"""`ghl-pipeline webhooks`: the receiver, in the foreground."""

import logging
from typing import Annotated

import typer

from ghl_pipeline.cli.output import err, out
from ghl_pipeline.cli.session import database
from ghl_pipeline.listening import listen
from ghl_pipeline.settings import Settings, load_settings
from ghl_pipeline.webhooks.receiving.receiver import GHL_PATH, HEALTH_PATH, SECRET_HEADER, SECRET_PATHS
from ghl_pipeline.webhooks.receiving.scraping import METRICS_PATH
from ghl_pipeline.webhooks.receiving.serving import DEFAULT_PORT, serve


def webhooks(
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = DEFAULT_PORT,
    processes: Annotated[int, typer.Option(min=1, max=32, help="Processes that share the port.")] = 1,
) -> None:
    """Receive webhooks of GHL and EmailBison until stopped; the first line on stdout is its URL."""
    settings = load_settings()
    with database(settings):
        pass  # said here, once: that it is missing, or not migrated
    listener = listen(host, port, server="The receiver")
    for line in _about(settings):
        err.print(line, soft_wrap=True, markup=False)
    name = f"[{host}]" if ":" in host else host
    out.print(f"http://{name}:{listener.getsockname()[1]}", markup=False)
    verbose = logging.getLogger().isEnabledFor(logging.INFO)
    serve(settings, listener, processes=processes, log_level=logging.DEBUG if verbose else logging.INFO)


def _about(settings: Settings) -> list[str]:
    limits = (
        f"Signed events may be {settings.webhook_tolerance_seconds:g} s old, bodies have up to "
        f"{settings.webhook_max_bytes:,} bytes. A client's URL: ghl-pipeline clients webhook-url LOCATION"
    )
    paths = [f"{path}/LOCATION/SECRET (or {SECRET_HEADER})" for path in SECRET_PATHS.values()]
    open_here = "this machine only" if settings.metrics_without_token else "closed: METRICS_TOKEN is not set"
    scraped = "with METRICS_TOKEN" if settings.metrics_token else open_here
    signed = "Ed25519 or RSA" if settings.webhook_accept_rsa else "Ed25519"
    posted = ", ".join(f"POST {path}" for path in paths)
    return [
        f"POST {GHL_PATH} (app webhooks, signed: {signed}), {posted}, GET {HEALTH_PATH}",
        f"GET {METRICS_PATH} ({scraped})",
        limits,
    ]
