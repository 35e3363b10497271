"""`ghl-pipeline sandbox`: the local GHL, in the foreground."""

from typing import Annotated

import typer

from ghl_pipeline.cli.output import err
from ghl_pipeline.sandbox.process import serve_sample_agency


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 for any free one.")] = 8787,
    locations: Annotated[int, typer.Option(min=1, max=1000, help="Locations of the sample agency.")] = 5,
    leads: Annotated[int, typer.Option(min=0, max=500_000, help="Leads per location.")] = 2000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same people.")] = 7,
) -> None:
    """Serve a local GHL with a sample agency until Ctrl-C; the first line on stdout is its URL."""
    err.print(
        "Point GHL_API_URL at the URL below. Statistics: GET /_sandbox/stats; faults: POST /_sandbox/faults.",
        soft_wrap=True,
    )
    serve_sample_agency(port, locations=locations, leads=leads, seed=seed)
