"""All benchmarks, one after the other and each in a process of its own; `make bench` and `make bench-full`."""

import subprocess
import sys
from typing import Final

from benchmarks.harness import ROOT

SCRIPTS: Final = (
    "backfill",
    "memory",
    "cpu",
    "kills",
    "throttle",
    "transport",
    "webhooks",
    "answers",
    "crm",
    "operating",
)


def main() -> int:
    """Runs them with the options given (`--full`, `--write`); the number of those that failed."""
    failed = []
    for name in SCRIPTS:
        command = [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
