"""The sandbox as a process: found when it is ready, stopped without a trace, gone with its starter."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline.sandbox.process import READY, SandboxFailed, bind_loopback, start_sandbox_process


def _is_running(pid: int) -> bool:
    """Whether the process does anything still; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while _is_running(pid):
        assert time.monotonic() < deadline, "the process lives on"
        time.sleep(0.02)


def test_it_serves_the_agency_that_its_starter_can_compute() -> None:
    (sample, _) = sample_agency(locations=2, leads=30, seed=11).locations
    headers = {"Authorization": f"Bearer {sample.token}", "Version": "2021-07-28"}
    with start_sandbox_process(locations=2, leads=30, seed=11) as sandbox:
        linked = next(lead for lead in sample.leads if lead.case == "complete")
        contact = httpx.get(f"{sandbox.url}/contacts/{linked.ghl_contact_id}", headers=headers).json()["contact"]
        assert (contact["email"], contact["phone"]) == (linked.email, linked.phone)
        search = {"locationId": sample.id, "pageLimit": 1}
        found = httpx.post(f"{sandbox.url}/contacts/search", json=search, headers=headers).json()
        assert found["total"] == len(sample.contacts)
        workspaces = httpx.get(f"{sandbox.url}/_sandbox/workspaces").json()["workspaces"]
        (workspace,) = (each for each in workspaces if each["location"] == sample.id)
        token = {"Authorization": f"Bearer {workspace['token']}"}
        row = next(lead for lead in sample.leads if lead.email and lead.emailbison_lead_id is not None)
        lead = httpx.get(f"{workspace['url']}/api/leads/{row.emailbison_lead_id}", headers=token).json()["data"]
        assert lead["email"] == (row.email or "").strip()
    assert not _is_running(sandbox.pid)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{sandbox.url}/_sandbox/health")
    sandbox.stop()  # once more does no harm


def test_it_stops_while_a_client_is_kept_waiting() -> None:
    with start_sandbox_process(locations=1, leads=1, seed=1) as sandbox:
        (sample,) = sample_agency(locations=1, leads=1, seed=1).locations
        httpx.post(f"{sandbox.url}/_sandbox/faults", json={"hang_rate": 1.0, "hang_seconds": 600})
        headers = {"Authorization": f"Bearer {sample.token}", "Version": "2021-07-28"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{sandbox.url}/locations/{sample.id}", headers=headers, timeout=0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 4


def test_a_taken_port_is_told_in_one_line() -> None:
    taken = bind_loopback()
    taken.listen()
    port = taken.getsockname()[1]
    try:
        with pytest.raises(SandboxFailed, match=f"Port {port} cannot be used"):
            start_sandbox_process(locations=1, leads=1, port=port)
    finally:
        taken.close()


_STARTER = """
import sys, time
from ghl_pipeline.sandbox.process import start_sandbox_process
sandbox = start_sandbox_process(locations=1, leads=1, seed=1)
print(sandbox.pid, flush=True)
time.sleep(600)
"""


def test_it_ends_when_its_starter_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        sandbox_pid = int(starter.stdout.readline())
        assert _is_running(sandbox_pid)
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    _wait_until_gone(sandbox_pid)


def test_run_by_hand_it_tells_its_url_and_ends_with_an_interrupt() -> None:
    command = [sys.executable, "-m", "ghl_pipeline.sandbox", "--locations", "1", "--leads", "3", "--seed", "1"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().removeprefix(READY).strip()
        (sample,) = sample_agency(locations=1, leads=3, seed=1).locations
        headers = {"Authorization": f"Bearer {sample.token}", "Version": "2021-07-28"}
        query = {"locationId": sample.id, "email": "canary.person@example.com"}
        httpx.get(f"{url}/contacts/search/duplicate", params=query, headers=headers).raise_for_status()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")  # no access log, no traceback
