"""`python -m ghl_pipeline.sandbox`: a sandbox with a sample agency, until interrupted."""

import argparse
import sys

from ghl_pipeline.errors import PipelineError
from ghl_pipeline.sandbox.process import serve_sample_agency


def main() -> int:
    """Reads the options and serves; the URL is printed when the server listens."""
    parser = argparse.ArgumentParser(prog="python -m ghl_pipeline.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 (default) takes a free one")
    parser.add_argument("--locations", type=int, default=5, help="how many locations (default: 5)")
    parser.add_argument("--leads", type=int, default=2000, help="leads per location (default: 2000)")
    parser.add_argument("--seed", type=int, default=7, help="equal seeds give equal people, ids and tokens")
    parser.add_argument("--stop-with-input", action="store_true", help="end when standard input ends")
    options = parser.parse_args()
    try:
        serve_sample_agency(
            options.port,
            locations=options.locations,
            leads=options.leads,
            seed=options.seed,
            stop_with_input=options.stop_with_input,
        )
    except PipelineError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
