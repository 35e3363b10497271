"""The guard around Dagster's real webserver, over real HTTP: what gets through to it, and what it answers."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from ghl_pipeline.orchestration.webserver import webserver
from ghl_pipeline.settings import Settings, project_root
from ghl_pipeline.ui.guard import MOST_BODY_BYTES
from ghl_pipeline_tests.ui.server import SMALL_DEFINITIONS, RunningUi, running_ui

SET_LIMIT = 'mutation {{ setConcurrencyLimit(concurrencyKey: "{0}", limit: 3) }}'
LIMITS = "{ instance { concurrencyLimits { concurrencyKey } } }"
GRAPHQL_WS = [Subprotocol("graphql-ws")]


def limits(ui: RunningUi) -> list[str]:
    """What the attacks of this module would set."""
    return [each["concurrencyKey"] for each in ui.ask(LIMITS)["data"]["instance"]["concurrencyLimits"]]


WEBSOCKET = (
    "GET /graphql HTTP/1.1\nHost: {}\nOrigin: http://evil.example\nUpgrade: websocket\nConnection: Upgrade\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-WebSocket-Version: 13"
)
ATTACKS = {
    "a name of a stranger's": ("GET / HTTP/1.1\nHost: evil.example", 421),
    "a stranger's name with the port (rebinding)": ("GET / HTTP/1.1\nHost: evil.example:3000", 421),
    "two hosts": ("GET / HTTP/1.1\nHost: HERE\nHost: evil.example", 400),
    "no host": ("GET / HTTP/1.0", 400),
    "an absolute URI": ("GET http://evil.example/ HTTP/1.1\nHost: HERE", 400),
    "an absolute URI of its own": ("GET http://HERE/ HTTP/1.1\nHost: HERE", 400),
    "a dot at the end": ("GET / HTTP/1.1\nHost: localhost.:3000", 421),
    "a way out of the logs": ("GET /logs/..%2f..%2f..%2fetc/passwd HTTP/1.1\nHost: HERE", 400),
    "GraphQL under another spelling": ("GET /graph%71l?query=%7Bversion%7D HTTP/1.1\nHost: HERE", 405),
    "a form": (
        "POST /graphql HTTP/1.1\nHost: HERE\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 0", 415,
    ),
    "JSON by name only": (
        "POST /graphql HTTP/1.1\nHost: HERE\nContent-Type: text/plain; application/json\nContent-Length: 0", 415,
    ),
    "a preflight": (
        "OPTIONS /graphql HTTP/1.1\nHost: HERE\nOrigin: http://evil.example\nAccess-Control-Request-Method: POST", 403,
    ),
    "an event that nobody reported": (
        "POST /report_asset_materialization/figures?partition=one HTTP/1.1\nHost: HERE\nContent-Length: 0", 403,
    ),
    "a body that is announced too large": (
        f"POST /graphql HTTP/1.1\nHost: HERE\nContent-Type: application/json\nContent-Length: {MOST_BODY_BYTES + 1}",
        413,
    ),
    "a websocket of a stranger's page": (
        WEBSOCKET.format("HERE"), 403,
    ),
    "a websocket under a stranger's name": (
        WEBSOCKET.format("evil.example"), 421,
    ),
}  # fmt: skip


@pytest.mark.slow
def test_no_attack_reaches_the_webserver_and_everything_of_its_own_does(project: Settings, tmp_path: Path) -> None:
    del project
    with running_ui(tmp_path, "--access-log") as ui, httpx.Client(base_url=ui.url, timeout=60) as client:
        answers = {name: ui.raw(request) for name, (request, _) in ATTACKS.items()}
        assert answers == {name: status for name, (_, status) in ATTACKS.items()}
        own = {"origin": ui.url, "sec-fetch-site": "same-origin"}

        # mutations, in every way in which the webserver would take them
        by_get = client.get("/graphql", params={"query": SET_LIMIT.format("by_get")})
        by_page = client.post(
            "/graphql", json={"query": SET_LIMIT.format("by_page")}, headers={"origin": "http://evil.example"}
        )
        batch = client.post("/graphql", json=[{"query": SET_LIMIT.format("batch")}])
        chunked = client.post(
            "/graphql",
            content=iter([b"{", *[b" " * 1_000_000] * 6, b"}"]),
            headers={"content-type": "application/json"},
        )
        assert [by_get.status_code, by_page.status_code, batch.status_code, chunked.status_code] == [405, 403, 400, 413]
        with connect(f"ws://{ui.name}/graphql", origin=Origin(ui.url), subprotocols=GRAPHQL_WS) as websocket:
            websocket.send(json.dumps({"type": "connection_init"}))
            assert json.loads(websocket.recv(30))["type"] == "connection_ack"
            start = {"type": "start", "id": "1", "payload": {"query": SET_LIMIT.format("by_websocket")}}
            websocket.send(json.dumps(start))
            assert json.loads(websocket.recv(30))["type"] == "error"
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://{ui.name}/graphql", subprotocols=GRAPHQL_WS)
        assert limits(ui) == []

        # the same by the UI itself, or by a program
        assert ui.ask(SET_LIMIT.format("by_the_ui"), own)["data"] == {"setConcurrencyLimit": True}
        assert ui.ask(SET_LIMIT.format("by_a_program"))["data"] == {"setConcurrencyLimit": True}
        assert sorted(limits(ui)) == ["by_a_program", "by_the_ui"]
        page, static = client.get("/overview?token=Zyxwinda"), client.get("/favicon.svg")
        playground = client.get("/graphql", headers={"accept": "text/html"})
        question = client.post("/graphql", json={"query": "{ version }"})
        lost = client.get("/logs/no/such/file.out")
        assert [each.status_code for each in (page, static, playground, question, lost)] == [200, 200, 200, 200, 404]
        for answer in (page, static, playground, question, lost, by_get):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert "server" not in answer.headers
        assert [each.headers["cache-control"] for each in (page, playground, question, lost)] == ["no-store"] * 4
        assert httpx.get(f"{ui.url}/healthz", headers={"host": "10.1.2.3"}).text == "ok"
    told = (tmp_path / "log").read_text()
    assert "GET /overview 200" in told
    assert "refused with 421: GET /" in told
    assert "Zyxwinda" not in told
    assert "query=" not in told


def test_without_the_guard_a_link_would_change_the_instance(
    project: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is used of Dagster's inside is still there, and the guard is still needed."""
    del project
    monkeypatch.setenv("DAGSTER_HOME", str(project_root()))
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("load_from: []")
    with webserver(workspace, read_only=False) as application:
        client = TestClient(application, base_url="http://evil.example:3000")
        link = client.get("/graphql", params={"query": SET_LIMIT.format("by_a_link")})
        assert link.json() == {"data": {"setConcurrencyLimit": True}}
        smuggled = client.post(
            "/graphql",
            content=json.dumps({"query": SET_LIMIT.format("smuggled")}),
            headers={"content-type": "text/plain; application/json", "origin": "http://evil.example"},
        )
        assert smuggled.json() == {"data": {"setConcurrencyLimit": True}}


SENSOR = 'repositoryLocationName: "small", repositoryName: "__repository__"'
UNAUTHORIZED: dict[str, str] = {
    "launchRun": (f'(executionParams: {{selector: {{{SENSOR}, pipelineName: "__ASSET_JOB"}}, runConfigData: {{}}}})'),
    "launchPartitionBackfill": '(backfillParams: {assetSelection: [{path: ["figures"]}], partitionNames: ["one"]})',
    "terminateRun": '(runId: "a")',
    "deletePipelineRun": '(runId: "a")',
    "wipeAssets": '(assetPartitionRanges: [{assetKey: {path: ["figures"]}}])',
    "startSensor": f'(sensorSelector: {{{SENSOR}, sensorName: "watcher"}})',
    "startSchedule": f'(scheduleSelector: {{{SENSOR}, scheduleName: "nightly"}})',
    "setSensorCursor": f'(sensorSelector: {{{SENSOR}, sensorName: "watcher"}}, cursor: "x")',
    "addDynamicPartition": (f'(partitionKey: "x", partitionsDefName: "location", repositorySelector: {{{SENSOR}}})'),
    "reportRunlessAssetEvents": (
        '(eventParams: {eventType: ASSET_MATERIALIZATION, assetKey: {path: ["figures"]}, partitionKeys: ["one"]})'
    ),
    "reloadWorkspace": "",
    "reloadRepositoryLocation": '(repositoryLocationName: "small")',
    "shutdownRepositoryLocation": '(repositoryLocationName: "small")',
}


def refused_mutations(ui: RunningUi) -> dict[str, Any]:
    """Each mutation of the list with the type of what it answered."""
    kinds = {}
    for name, arguments in UNAUTHORIZED.items():
        document = ui.ask(f"mutation {{ {name}{arguments} {{ __typename }} }}")
        kinds[name] = document["data"][name]["__typename"] if document.get("data") else document["errors"][0]["message"]
    return kinds


@pytest.mark.slow
def test_viewers_see_everything_and_change_nothing(project: Settings, tmp_path: Path) -> None:
    del project
    with running_ui(tmp_path, "--read-only", code=SMALL_DEFINITIONS) as ui:
        assert ui.ask("{ assetNodes { assetKey { path } } }")["data"]["assetNodes"] == [
            {"assetKey": {"path": ["figures"]}}
        ]
        assert refused_mutations(ui) == dict.fromkeys(UNAUTHORIZED, "UnauthorizedError")
        assert "errors" in ui.ask(SET_LIMIT.format("viewer"))
        assert limits(ui) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_password_is_asked_of_everything_and_the_process_ends_soon_when_told(
    number: signal.Signals, project: Settings, tmp_path: Path
) -> None:
    del project
    password = "correct horse battery"
    with running_ui(tmp_path, "--host", "0.0.0.0", "--allow-host", "ops.example.com", UI_PASSWORD=password) as ui:
        port = int(ui.url.rpartition(":")[2])
        here = f"http://127.0.0.1:{port}"
        assert [httpx.get(f"{here}{path}", timeout=60).status_code for path in ("/", "/favicon.svg")] == [401, 401]
        assert httpx.get(f"{here}/healthz").status_code == 200
        for name in (f"127.0.0.1:{port}", "ops.example.com"):
            known = httpx.get(here, auth=("anybody", password), headers={"host": name}, timeout=60)
            assert known.status_code == 200
        origin = Origin(here)
        with pytest.raises(InvalidStatus, match="401"):
            connect(f"ws://127.0.0.1:{port}/graphql", origin=origin, subprotocols=GRAPHQL_WS)
        with connect(
            f"ws://anybody:{password.replace(' ', '%20')}@127.0.0.1:{port}/graphql",
            origin=origin, subprotocols=GRAPHQL_WS,
        ) as websocket:  # fmt: skip
            websocket.send(json.dumps({"type": "connection_init"}))
            assert json.loads(websocket.recv(30))["type"] == "connection_ack"
            told = time.monotonic()
            ui.process.send_signal(number)
            assert ui.process.wait(timeout=20) == 0
            assert time.monotonic() - told < 10
    assert password not in (tmp_path / "log").read_text()
