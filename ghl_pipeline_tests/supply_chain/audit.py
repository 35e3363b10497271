"""`make audit`: what we depend on, asked of the OSV database for known vulnerabilities, by `uv audit` on `uv.lock`.

Exit codes: 0 nothing known that is not accepted in `audit.toml`; 1 a vulnerability, or an entry of that file that no
longer holds; 2 `audit.toml` or the answer cannot be read; 75 OSV did not answer, so nothing is known. Where there is
no way out to OSV, `--may-be-offline` turns the last into a warning that nobody can overlook, and 0.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".tools" / "bin" / "uv"
ACCEPTED = ROOT / "audit.toml"

FOUND, UNREADABLE, NO_ANSWER = 1, 2, 75
LONGEST_ACCEPTANCE = timedelta(days=90)
AUDIT_SECONDS = 120
# How uv says that the service could not be asked; anything else is a mistake of ours and must not pass for it.
_NO_ANSWER = re.compile(r"error sending request|Request failed|HTTP status|timed out|connection", re.IGNORECASE)


class Unreadable(Exception):
    """`audit.toml`, or what uv printed, is not what this program knows."""


class NoAnswer(Exception):
    """The vulnerability database could not be asked."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A vulnerability that is accepted until a day, and why."""

    id: str
    reason: str
    until: date


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """One that is known of a dependency in use. `names` are its id and its other names."""

    package: str
    version: str
    names: frozenset[str]
    summary: str
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        """One line: which package, what, and what to do."""
        fixed = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fixed version is known"
        return f"{self.package} {self.version}: {', '.join(sorted(self.names))}: {self.summary} ({fixed})"


def read_accepted(path: Path) -> list[Acceptance]:
    """The entries of `audit.toml`. Raises Unreadable."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["accepted"]
        return [Acceptance(str(each["id"]), str(each["reason"]).strip(), _day(each["until"])) for each in entries]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise Unreadable(f"{path.name} cannot be read: {error!r}. Each entry needs id, reason and until") from None


def _day(value: object) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError("until has to be a day, such as 2027-01-31")
    return value


def vulnerabilities(report: Mapping[str, Any]) -> list[Vulnerability]:
    """What `uv audit --output-format json` says. Raises Unreadable when it is of another form than it was."""
    try:
        found = [
            Vulnerability(
                each["dependency"]["name"],
                each["dependency"]["version"],
                frozenset([each["id"], *each["aliases"]]),
                each["summary"] or "no summary",
                tuple(each["fix_versions"]),
            )
            for each in report["vulnerabilities"]
        ]
        if report["summary"]["audited_packages"] < 1 or report["summary"]["vulnerabilities"] != len(found):
            raise Unreadable("uv audit counts something else than it lists")
    except (KeyError, TypeError) as error:
        raise Unreadable(f"uv audit printed another form than this program knows: {error!r}") from None
    return found


def judged(found: Sequence[Vulnerability], accepted: Sequence[Acceptance], today: date) -> list[str]:
    """What is wrong, a line each; empty when all is well."""
    holds = {each.id for each in accepted if each.until > today}
    wrong = [str(each) for each in found if not each.names & holds]
    known = {name for each in found for name in each.names}
    for acceptance in accepted:
        if len(acceptance.reason) < 20:
            wrong.append(f"{acceptance.id} is accepted without a reason that somebody could check")
        if acceptance.until <= today:
            wrong.append(f"{acceptance.id} was accepted until {acceptance.until}: look at it again")
        elif acceptance.until > today + LONGEST_ACCEPTANCE:
            wrong.append(f"{acceptance.id} is accepted for more than {LONGEST_ACCEPTANCE.days} days")
        if acceptance.id not in known:
            wrong.append(f"{acceptance.id} is accepted and was not found: take the entry out")
    return wrong


def asked(uv: Path, service_url: str | None = None) -> Mapping[str, Any]:
    """uv's report on everything in `uv.lock`, development tools included. Raises NoAnswer or Unreadable."""
    preview = ["--preview-features", "audit-command,json-output"]
    service = ["--service-url", service_url] if service_url else []
    done = subprocess.run(
        [uv, "audit", "--locked", "--no-progress", "--output-format", "json", *preview, *service],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=AUDIT_SECONDS,
        check=False,
    )
    if done.returncode not in (0, 1):
        said = " ".join(done.stderr.split())
        raise NoAnswer(said) if _NO_ANSWER.search(said) else Unreadable(f"uv audit failed: {said}")
    try:
        report: Mapping[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise Unreadable(f"uv audit printed no JSON: {' '.join(done.stderr.split())}") from None
    if report.get("adverse_statuses"):
        raise Unreadable(f"a dependency was yanked or put under quarantine: {json.dumps(report['adverse_statuses'])}")
    return report


def main(words: Sequence[str] | None = None) -> int:
    """Runs the audit, tells what it found on stdout and stderr, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Ask OSV for known vulnerabilities of the dependencies in uv.lock.")
    parser.add_argument("--may-be-offline", action="store_true", help="warn instead of failing when OSV is away")
    parser.add_argument("--service-url", help="of another service that speaks as OSV does")
    parser.add_argument("--uv", type=Path, default=UV)
    parser.add_argument("--accepted", type=Path, default=ACCEPTED)
    options = parser.parse_args(words)
    try:
        accepted = read_accepted(options.accepted)
        found = vulnerabilities(asked(options.uv, options.service_url))
    except Unreadable as error:
        _complain(f"audit: {error}")
        return UNREADABLE
    except (NoAnswer, subprocess.TimeoutExpired) as error:
        _complain(f"!!! NOT AUDITED: the vulnerability database did not answer ({error}).")
        _complain(
            "!!! Whether the dependencies have known vulnerabilities is not known. Where OSV can be reached: make audit"
        )
        return 0 if options.may_be_offline else NO_ANSWER
    wrong = judged(found, accepted, datetime.now(UTC).date())
    for line in wrong:
        _complain(f"audit: {line}")
    if wrong:
        _complain("audit: update the package (uv lock --upgrade-package NAME), or accept it in audit.toml")
        return FOUND
    sys.stdout.write(f"No known vulnerability in the dependencies; {len(accepted)} accepted.\n")
    return 0


def _complain(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
