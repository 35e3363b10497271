"""`ghl-pipeline ui`: where it refuses to listen, and what it says then."""

import socket
from pathlib import Path

import pytest

from ghl_pipeline_tests.cli.conftest import Cli


def test_a_taken_port_is_an_error_that_says_what_to_do(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = cli("ui", "--port", str(taken.getsockname()[1]))
    assert ended.code == 2
    assert "Address already in use" in ended.err
    assert "--port" in ended.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_loopback_somebody_has_to_ask_who_comes(host: str, cli: Cli) -> None:
    if host == "::" and not (socket.has_ipv6 and Path("/proc/net/if_inet6").exists()):
        pytest.skip("no IPv6 here")
    ended = cli("ui", "--host", host, "--port", "0")
    assert ended.code == 2
    assert "ssh -L" in ended.err
    assert "--behind-proxy" in ended.err


@pytest.mark.parametrize("variable", ["UI_PASSWORD", "UI_PROXY_SECRET"])
def test_a_secret_that_can_be_guessed_is_refused(variable: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "hunter2")
    ended = cli("ui", "--port", "0")
    assert ended.code == 3
    assert variable in ended.err
    assert "hunter2" not in ended.err
