"""The guard's rules as tables: which requests are attacks, which are the UI's own, and what names mean the same."""

import base64
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.ui.access import PROXY_HEADER, Access
from ghl_pipeline.ui.addresses import Address, read_address, read_origin, served_addresses
from ghl_pipeline.ui.rules import Asked, refusal

SERVED = served_addresses(3000, ["ops.example.com", "10.0.0.5:8080", "[fd00::5]:3000"])
HERE = "127.0.0.1:3000"
OWN = {"origin": f"http://{HERE}", "sec-fetch-site": "same-origin"}
JSON = {"content-type": "application/json"}
NAVIGATION = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def asked(
    method: str, url: str, headers: Mapping[str, str | list[str]] | None = None, *, websocket: bool = False
) -> Asked:
    """A request to loopback unless its headers say otherwise."""
    path, _, query = url.partition("?")
    given_headers = {"host": HERE} | dict(headers or {})
    lists = {name: [value] if isinstance(value, str) else value for name, value in given_headers.items()}
    return Asked(method, path, query, lists, websocket)


def status(request: Asked) -> int | None:
    refused = refusal(request, SERVED)
    return refused.status if refused else None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:3000", "127.0.0.1.evil.example:3000", "localhost.evil.example:3000",
        "localhost:3000.evil.example", "localhost", "127.0.0.1", "localhost:3001", "127.0.0.2:3000", "127.1:3000",
        "2130706433:3000", "0x7f000001:3000", "0.0.0.0:3000", "[::]:3000", "[::ffff:127.0.0.1]:3000", "[::1]:3001",
        "[::1", "::1:3000", "localhost.:3000", "ops.example.com.", "ops.example.com:8443", "user@localhost:3000",
        "localhost:3000@evil.example", "localhost:3000/", "localhost:3000#", "localhost:3000 ", " localhost:3000",
        "localhost:", "localhost:+3000", "localhost:03000000", "localhost:99999", "loca\u217chost:3000",
        "\u212aelvin:3000", "localhost:\uff13000",
        "", "*", "null", "10.0.0.5",
    ],
)  # fmt: skip
def test_a_name_that_is_not_served_is_misdirected(host: str) -> None:
    assert status(asked("GET", "/", {"host": host})) == 421


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:3000", "localhost:3000", "LocalHost:3000", "[::1]:3000", "[0:0:0:0:0:0:0:1]:3000", "[0::0001]:3000",
        "ops.example.com", "OPS.example.com:443", "ops.example.com:80", "10.0.0.5:8080", "[FD00::5]:3000",
    ],
)  # fmt: skip
def test_a_name_that_is_served_is_taken_however_it_is_written(host: str) -> None:
    assert status(asked("GET", "/", {"host": host})) is None


@pytest.mark.parametrize("hosts", [[], [HERE, HERE], [HERE, "evil.example"], ["evil.example", HERE]])
def test_a_request_names_its_host_once(hosts: list[str]) -> None:
    assert status(asked("GET", "/", {"host": hosts})) == 400


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        # a mutation hidden in a link or an image
        (asked("GET", "/graphql?query=mutation%7B...%7D"), 405),
        (asked("GET", "/graphql?query=mutation", {"accept": "text/html"}), 405),
        (asked("HEAD", "/graphql?query=mutation"), 405),
        (asked("GET", "/graphql?variables=%7B%7D"), 405),
        (asked("PUT", "/graphql", JSON), 405),
        (asked("DELETE", "/graphql", JSON), 405),
        (asked("OPTIONS", "/graphql", {"access-control-request-method": "POST"}), 405),
        # what a form, or a fetch without a preflight, can send
        (asked("POST", "/graphql?query=mutation"), 415),
        (asked("POST", "/graphql", {"content-type": "application/x-www-form-urlencoded"}), 415),
        (asked("POST", "/graphql", {"content-type": "multipart/form-data; boundary=x"}), 415),
        (asked("POST", "/graphql", {"content-type": "text/plain"}), 415),
        (asked("POST", "/graphql", {"content-type": "text/plain; application/json"}), 415),
        (asked("POST", "/graphql", {"content-type": "text/plain, application/json"}), 415),
        (asked("POST", "/graphql", {"content-type": "application/graphql"}), 415),
        (asked("POST", "/graphql", {"content-type": "application/json-patch+json"}), 415),
        (asked("POST", "/graphql", {"content-type": ["application/json", "text/plain"]}), 415),
        # a page of another origin
        (asked("POST", "/graphql", JSON | {"origin": "http://evil.example"}), 403),
        (asked("POST", "/graphql", JSON | {"origin": "null"}), 403),
        (asked("POST", "/graphql", JSON | {"origin": ""}), 403),
        (asked("POST", "/graphql", JSON | {"origin": "http://127.0.0.1:3001"}), 403),
        (asked("POST", "/graphql", JSON | {"origin": "http://localhost:3000"}), 403),
        (asked("POST", "/graphql", JSON | {"origin": f"http://{HERE}.evil.example"}), 403),
        (asked("POST", "/graphql", JSON | {"origin": f"http://evil.example@{HERE}"}), 403),
        (asked("POST", "/graphql", JSON | {"origin": f"chrome-extension://{HERE}"}), 403),
        (asked("POST", "/graphql", JSON | {"origin": [f"http://{HERE}", "http://evil.example"]}), 403),
        (asked("POST", "/graphql", JSON | {"sec-fetch-site": "cross-site"}), 403),
        (asked("POST", "/graphql", JSON | {"sec-fetch-site": "same-site"}), 403),
        (asked("POST", "/graphql", JSON | NAVIGATION), 403),
        (asked("GET", "/graphql", NAVIGATION), 403),
        (asked("GET", "/logs/run/step.out", NAVIGATION), 403),
        (asked("GET", "/download_debug/run", NAVIGATION), 403),
        (asked("GET", "/_next/x.js", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}), 403),
        (asked("GET", "/overview", NAVIGATION | {"sec-fetch-dest": "iframe"}), 403),
        (asked("GET", "/overview", NAVIGATION | {"origin": "http://evil.example"}), 403),
        (asked("POST", "/overview", NAVIGATION), 403),
        # what reports events without any token, and reads files that the asker names
        (asked("POST", "/report_asset_materialization/eligible_leads"), 403),
        (asked("POST", "/report_asset_check/eligible_leads", JSON | OWN), 403),
        (asked("POST", "/report_asset_observation/", JSON), 403),
        (asked("GET", "/notebook?path=/etc/secret.ipynb&repoLocName=x", OWN), 403),
        (asked("GET", "/dagit/notebook?path=x.ipynb&repoLocName=x"), 403),
        # methods that nothing of the UI uses
        (asked("POST", "/"), 405),
        (asked("POST", "/graphql/", JSON), 405),
        (asked("POST", "/GraphQL", JSON), 405),
        (asked("TRACE", "/overview"), 405),
        (asked("CONNECT", "/overview"), 405),
        (asked("DELETE", "/logs/run/step.out"), 405),
        # paths that are none
        (asked("GET", "/logs/../../../etc/passwd"), 400),
        (asked("GET", "/logs/..\\..\\secret"), 400),
        (asked("GET", "/_next/x\r\nset-cookie: a=b"), 400),
        (asked("GET", "http://evil.example/"), 400),
        (asked("GET", "*"), 400),
        # websockets
        (asked("GET", "/graphql", websocket=True), 403),
        (asked("GET", "/graphql", {"origin": "http://evil.example"}, websocket=True), 403),
        (asked("GET", "/graphql", {"origin": "null"}, websocket=True), 403),
        (asked("GET", "/graphql", OWN | {"sec-fetch-site": "cross-site"}, websocket=True), 403),
        (asked("GET", "/graphql", {"origin": "http://evil.example", "host": "evil.example"}, websocket=True), 421),
        (asked("GET", "/overview", OWN, websocket=True), 404),
    ],
)
def test_an_attack_is_refused(request_: Asked, expected: int) -> None:
    assert status(request_) == expected


@pytest.mark.parametrize(
    "request_",
    [
        asked("GET", "/"),
        asked("GET", "/", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}),
        asked("GET", "/runs/0a1b?logFileKey=x", NAVIGATION),  # a link in a message
        asked("GET", "/assets/hydrated_leads", {"sec-fetch-site": "same-origin"}),
        asked("HEAD", "/server_info"),
        asked("GET", "/_next/static/chunks/main.js", {"sec-fetch-site": "same-origin", "sec-fetch-dest": "script"}),
        asked("GET", "/logs/run/compute_logs/step.err", {"sec-fetch-site": "same-origin"}),
        asked("GET", "/graphql", {"accept": "text/html"}),
        asked("POST", "/graphql", JSON | OWN),
        asked("POST", "/graphql", JSON),  # a program
        asked("POST", "/graphql?op=Assets", {"content-type": "Application/JSON; charset=utf-8"}),
        asked("POST", "/graphql", JSON | {"host": "ops.example.com", "origin": "https://ops.example.com"}),
        asked("POST", "/graphql", JSON | {"host": "[::1]:3000", "origin": "http://[::1]:3000"}),
        asked("GET", "/graphql", {"origin": f"http://{HERE}"}, websocket=True),
    ],
)
def test_what_the_ui_and_programs_ask_is_taken(request_: Asked) -> None:
    assert status(request_) is None


@pytest.mark.parametrize(
    "name", ["http://ops.example.com", "ops.example.com/ui", "a b", "*.example.com", "ops:port", ""]
)
def test_a_name_that_is_none_is_told_when_it_is_given(name: str) -> None:
    with pytest.raises(InvalidInput, match="no name under which"):
        served_addresses(3000, [name])


@given(st.text())
def test_no_text_is_read_as_another_host(text: str) -> None:
    address = read_address(text)
    if address is not None:
        assert read_address(str(address)) == address
        assert str(address) == str(address).lower()
        assert not set(str(address)) & set("/@#?\\ \r\n")


@given(st.text(), st.sampled_from(["http://", "https://", "ws://", "file://", ""]))
def test_an_origin_is_its_host_or_nothing(text: str, scheme: str) -> None:
    origin = read_origin(scheme + text)
    assert origin is None or (scheme.startswith("http") or text.lower().startswith("http"))
    assert origin is None or isinstance(origin, Address)


@given(st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]), st.text(max_size=40), st.booleans())
def test_nothing_that_a_stranger_page_sends_gets_through_but_a_navigation(
    method: str, path: str, tells_where: bool
) -> None:
    elsewhere = {"origin": "https://evil.example"}
    if tells_where:
        elsewhere |= {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
    assert status(asked(method, f"/{path}", JSON | elsewhere)) in {400, 403}


def basic(user_and_password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(user_and_password.encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (basic("anybody:correct horse battery"), None),
        (basic(":correct horse battery"), None),
        ({"authorization": basic("a:correct horse battery")["authorization"].replace("Basic", "basic")}, None),
        ({}, 401),
        (basic("anybody:correct horse"), 401),
        (basic("correct horse battery"), 401),
        (basic("anybody:correct horse battery:"), 401),
        ({"authorization": "Basic ????"}, 401),
        ({"authorization": "Bearer correct horse battery"}, 401),
        ({"authorization": "Basic"}, 401),
    ],
)
def test_the_password_is_asked_of_everybody(headers: dict[str, str], expected: int | None) -> None:
    refused = Access(password=b"correct horse battery").refusal(asked("GET", "/", headers))
    assert (refused.status if refused else None) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [("of the proxy alone", None), ("", 403), ("of the proxy", 403), (["of the proxy alone", "x"], 403), ([], 403)],
)
def test_who_comes_past_the_proxy_is_sent_there(header: str | list[str], expected: int | None) -> None:
    access = Access(password=None, proxy_secret=b"of the proxy alone")
    refused = access.refusal(asked("GET", "/", {PROXY_HEADER: header}))
    assert (refused.status if refused else None) == expected
    assert "of the proxy alone" not in repr(access)
