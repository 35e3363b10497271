"""`ghl-pipeline ui`: Dagster's UI behind the guard, in the foreground."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from ghl_pipeline.cli.output import err, out
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.listening import listen, log_like_a_server
from ghl_pipeline.settings import load_settings, project_root
from ghl_pipeline.ui.access import Access
from ghl_pipeline.ui.addresses import Address, served_addresses
from ghl_pipeline.ui.guard import Guard
from ghl_pipeline.ui.serving import (
    DEFAULT_PORT,
    ends_on_signals,
    require_guarded,
    serve,
    url_of,
)


def ui(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = DEFAULT_PORT,
    workspace: Annotated[Path | None, typer.Option(help="Which code to show. Default: the project's own.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name under which browsers ask for it, with the port if any; may be given again."),
    ] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy that logs people in stands in front of it.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="For viewers: nothing can be started or changed.")
    ] = False,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request, without query strings.")] = False,
) -> None:
    """Serve the UI until stopped; the first line on stdout is its URL. Refuses what other web pages ask of it."""
    settings = load_settings()
    access = Access.from_settings(settings)
    where = workspace or project_root() / "workspace.yaml"
    if not where.is_file():
        raise InvalidInput(f"There is no {where}. Give a workspace.yaml with --workspace.")
    with contextlib.closing(listen(host, port, server="The UI")) as listener:
        require_guarded(listener, has_password=access.password is not None, behind_proxy=behind_proxy)
        served = served_addresses(listener.getsockname()[1], [*_names(settings.ui_allowed_hosts), *(allow_host or [])])
        # As Dagster's own programs find the instance; a deployment has one elsewhere.
        os.environ.setdefault("DAGSTER_HOME", str(project_root()))
        with ends_on_signals():
            # Takes seconds to import, which the other commands need not wait for.
            from ghl_pipeline.orchestration.webserver import webserver  # noqa: PLC0415

            verbose = logging.getLogger().isEnabledFor(logging.INFO)
            log_like_a_server(logging.DEBUG if verbose else logging.INFO)
            for line in _about(served, access, behind_proxy=behind_proxy, read_only=read_only):
                err.print(line, soft_wrap=True, markup=False)
            with webserver(where.resolve(), read_only=read_only) as application:
                out.print(url_of(listener), markup=False)
                serve(Guard(application, served=served, access=access, access_log=access_log), listener)


def _names(setting: str) -> list[str]:
    return [name for name in setting.split(",") if name.strip()]


def _about(served: frozenset[Address], access: Access, *, behind_proxy: bool, read_only: bool) -> list[str]:
    lines = [f"Served as {', '.join(sorted(str(address) for address in served))}."]
    if access.password is not None:
        lines.append("It asks for UI_PASSWORD; without TLS in front of it, who listens on the way reads it.")
    if behind_proxy and access.proxy_secret is None and access.password is None:
        lines.append("Whoever reaches this address past the proxy is let in: set UI_PROXY_SECRET, or close the way.")
    if read_only:
        lines.append("Read-only: nothing can be started or changed here.")
    return lines
