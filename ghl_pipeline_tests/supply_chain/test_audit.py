"""The audit of the dependencies fails when it should, and never passes for one that did not take place."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ghl_pipeline_tests.supply_chain.audit import (
    ACCEPTED,
    FOUND,
    NO_ANSWER,
    UNREADABLE,
    UV,
    Acceptance,
    Unreadable,
    Vulnerability,
    judged,
    main,
    read_accepted,
    vulnerabilities,
)

TODAY = date(2026, 11, 1)
HOLE = Vulnerability("urllib3", "2.0", frozenset({"GHSA-test-0001", "CVE-2026-0001"}), "A made-up hole", ("2.1",))
REASON = "we never call the function in question"

needs_uv = pytest.mark.skipif(not UV.exists(), reason="uv is not in .tools/, where `make setup` puts it")


@contextmanager
def vulnerability_service(*, status: int = 200, hole_in: str | None = None) -> Iterator[str]:
    """A service that answers as OSV does, and knows one vulnerability at most."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["content-length"])))["queries"]
            known = {"vulns": [{"id": "GHSA-test-0001", "modified": "2026-01-01T00:00:00Z"}]}
            self._answer({"results": [known if each["package"]["name"] == hole_in else {} for each in queries]})

        def do_GET(self) -> None:
            ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.0"}]}]
            affected = [{"package": {"name": hole_in, "ecosystem": "PyPI"}, "ranges": ranges}]
            times = {"modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z"}
            names = {"id": "GHSA-test-0001", "aliases": ["CVE-2026-0001"], "summary": "A made-up hole"}
            self._answer({**names, **times, "affected": affected})

        def _answer(self, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def accepting(folder: Path, until: date, name: str = "GHSA-test-0001") -> Path:
    path = folder / "audit.toml"
    path.write_text(f'[[accepted]]\nid = "{name}"\nreason = "{REASON}"\nuntil = {until}\n', encoding="utf-8")
    return path


@needs_uv
def test_dependencies_without_a_known_vulnerability_pass(capsys: pytest.CaptureFixture[str]) -> None:
    with vulnerability_service() as url:
        assert main(["--service-url", url, "--accepted", str(ACCEPTED)]) == 0
    assert "No known vulnerability" in capsys.readouterr().out


@needs_uv
def test_a_known_vulnerability_fails_unless_it_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soon = datetime.now(UTC).date() + timedelta(days=30)
    with vulnerability_service(hole_in="cryptography") as url:
        assert main(["--service-url", url, "--may-be-offline"]) == FOUND
        said = capsys.readouterr().err
        assert "cryptography" in said
        assert "fixed in 999.0" in said
        for name in ("GHSA-test-0001", "CVE-2026-0001"):
            assert main(["--service-url", url, "--accepted", str(accepting(tmp_path, soon, name))]) == 0
        over = accepting(tmp_path, soon - timedelta(days=60))
        assert main(["--service-url", url, "--accepted", str(over)]) == FOUND


@needs_uv
def test_a_service_that_does_not_answer_is_said_loudly_and_is_no_pass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    nobody = "http://127.0.0.1:9"
    assert main(["--service-url", nobody]) == NO_ANSWER
    assert "!!! NOT AUDITED" in capsys.readouterr().err
    assert main(["--service-url", nobody, "--may-be-offline"]) == 0
    assert "!!! NOT AUDITED" in capsys.readouterr().err
    with vulnerability_service(status=500) as url:
        assert main(["--service-url", url]) == NO_ANSWER


def test_a_mistake_of_ours_never_passes_for_a_service_that_is_away(tmp_path: Path) -> None:
    broken = tmp_path / "uv"
    broken.write_text("#!/bin/sh\necho 'error: unexpected argument --locked' >&2\nexit 2\n", encoding="utf-8")
    broken.chmod(0o755)
    assert main(["--uv", str(broken), "--may-be-offline"]) == UNREADABLE
    broken.write_text("#!/bin/sh\necho 'Found 1 vulnerability'\n", encoding="utf-8")
    assert main(["--uv", str(broken), "--may-be-offline"]) == UNREADABLE


@pytest.mark.parametrize(
    ("acceptance", "complaint"),
    [
        (Acceptance("GHSA-test-0001", REASON, TODAY + timedelta(days=1)), None),
        (Acceptance("CVE-2026-0001", REASON, TODAY + timedelta(days=90)), None),
        (Acceptance("GHSA-test-0001", REASON, TODAY), "look at it again"),
        (Acceptance("GHSA-test-0001", REASON, TODAY + timedelta(days=91)), "more than 90 days"),
        (Acceptance("GHSA-test-0001", "because", TODAY + timedelta(days=1)), "without a reason"),
        (Acceptance("GHSA-other", REASON, TODAY + timedelta(days=1)), "was not found"),
    ],
)
def test_an_acceptance_holds_for_its_time_and_with_its_reason(acceptance: Acceptance, complaint: str | None) -> None:
    wrong = judged([HOLE], [acceptance], TODAY)
    assert (wrong == []) if complaint is None else any(complaint in line for line in wrong)


def test_nothing_accepted_and_nothing_found_is_well() -> None:
    assert judged([], [], TODAY) == []
    assert judged([HOLE], [], TODAY) == [str(HOLE)]


@pytest.mark.parametrize("text", ["accepted = 1", "[[accepted]]\nid = 'x'", "not toml", ""])
def test_a_list_that_cannot_be_read_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Unreadable):
        read_accepted(path)


@pytest.mark.parametrize("report", [{}, {"vulnerabilities": [{}]}, {"vulnerabilities": [], "summary": {}}])
def test_a_report_of_another_form_is_no_pass(report: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        vulnerabilities(report)


def test_the_projects_own_list_can_be_read() -> None:
    assert [each.id for each in read_accepted(ACCEPTED) if each.until <= datetime.now(UTC).date()] == []
