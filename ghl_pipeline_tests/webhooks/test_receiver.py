"""The receiver over HTTP: what it takes, what it refuses and with which status, and what it never says."""

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import URL, Engine, text

from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.receiving import receiver as routes
from ghl_pipeline.webhooks.receiving.group_commit import GroupCommit
from ghl_pipeline.webhooks.receiving.senders import create_secret
from ghl_pipeline_tests.fixtures.receiver import (
    Answer,
    ReceiverClient,
    RunningReceiver,
    SenderKeys,
    inbound_sms,
    iso,
    lead_replied,
    running_receiver,
    workflow_reply,
)

MIB = 1024 * 1024
SENDERS_LOGGERS = ("httpx", "httpcore")
PERSON = ("zyxwinda", "brindlemoth", "3055550187", "example.com")

Send = Callable[[RunningReceiver, ReceiverClient], Answer]


# --- what is taken


def test_an_inbound_message_is_answered_when_event_lead_and_message_are_there(receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    body = inbound_sms(client.location_id)
    assert receiver.app(body) == (200, "stored")
    assert [receiver.count(table) for table in ("webhook_events", "leads", "messages")] == [1, 1, 1]
    (event,) = receiver.events()
    assert (event["client_id"], event["provider"], event["state"]) == (client.id, "ghl", "pending")
    assert json.loads(event["body"]) == body, "the body is kept as it was sent"


def test_the_same_event_again_is_a_duplicate(receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    sms, reply, words = inbound_sms(client.location_id), lead_replied(client.workspace_id), workflow_reply()
    senders: list[Callable[[], Answer]] = [
        lambda: receiver.app(sms),
        lambda: receiver.emailbison(client, reply),
        lambda: receiver.workflow(client, words),
    ]
    answers = [send() for send in senders for _ in range(3)]
    assert answers == [(200, "stored"), (200, "duplicate"), (200, "duplicate")] * 3
    assert [receiver.count(table) for table in ("webhook_events", "leads", "messages")] == [3, 3, 3]


def test_each_way_to_prove_oneself_is_enough(receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    sms = json.dumps(inbound_sms(client.location_id)).encode()
    older = receiver.keys.older(sms)
    assert receiver.app(sms, x_wh_signature=older) == (200, "stored")
    assert receiver.app(sms, x_wh_signature=older, x_ghl_signature="N/A") == (200, "duplicate")
    assert receiver.app(sms) == (200, "duplicate")
    for path, secret, body in (
        ("ghl/workflow", client.workflow_secret, workflow_reply()),
        ("emailbison", client.emailbison_secret, lead_replied(client.workspace_id)),
    ):
        content = json.dumps(body).encode()
        place = f"/webhooks/{path}/{client.location_id}"
        assert receiver.post(place, content, x_webhook_secret=secret) == (200, "stored")
        assert receiver.post(f"{place}/{secret}", content) == (200, "duplicate")


def test_events_of_types_nobody_knows_are_kept(receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    unknown = {"type": "MoonLanding", "locationId": client.location_id, "webhookId": "moon-1", "timestamp": iso()}
    assert receiver.app(unknown) == (200, "stored")
    event = {"event": {"type": "MOON_LANDING", "workspace_id": client.workspace_id}, "data": {}}
    assert receiver.emailbison(client, event) == (200, "stored")
    assert [row["state"] for row in receiver.events()] == ["ignored", "ignored"]


def test_an_app_event_of_a_location_that_is_no_clients_is_noted_without_its_content(receiver: RunningReceiver) -> None:
    assert receiver.app(inbound_sms("SomebodyElsesLocation1")) == (200, "stored")
    (event,) = receiver.events()
    assert (event["client_id"], event["body"], event["state"]) == (None, None, "ignored")
    assert receiver.count("leads") == 0


def test_events_of_a_deactivated_client_are_kept_and_ignored(receiver: RunningReceiver) -> None:
    client = receiver.add_client(active=False)
    assert receiver.app(inbound_sms(client.location_id)) == (200, "stored")
    assert receiver.workflow(client, workflow_reply()) == (200, "stored")
    assert [row["state"] for row in receiver.events()] == ["ignored", "ignored"]
    assert receiver.count("leads") == 0


def test_a_secret_counts_at_once_and_not_long_after_it_was_revoked(receiver: RunningReceiver, engine: Engine) -> None:
    client = receiver.add_client()
    assert receiver.workflow(client, workflow_reply()) == (200, "stored")
    with engine.begin() as connection:
        # As if time had passed: a list that was just read is not read again for a stranger.
        second = create_secret(connection, client.id, Provider.GHL_WORKFLOW).get_secret_value()
    both = client, client._replace(workflow_secret=second)
    assert wait_for(lambda: receiver.workflow(both[1], workflow_reply()), (200, "stored"), seconds=3)
    assert receiver.workflow(both[0], workflow_reply()) == (200, "stored")
    with engine.begin() as connection:
        third = create_secret(connection, client.id, Provider.GHL_WORKFLOW, revoke_others=True).get_secret_value()
    newest = client._replace(workflow_secret=third)
    assert wait_for(lambda: receiver.workflow(newest, workflow_reply()), (200, "stored"), seconds=3)
    for revoked in both:
        assert receiver.workflow(revoked, workflow_reply()) == (401, "wrong_secret")


def wait_for(send: Callable[[], Answer], answer: tuple[int, str], *, seconds: float) -> bool:
    give_up_at = datetime.now(UTC) + timedelta(seconds=seconds)
    while datetime.now(UTC) < give_up_at:
        if send() == answer:
            return True
    return False


# --- what is refused


def sms_of(client: ReceiverClient, **changes: object) -> bytes:
    return json.dumps(inbound_sms(client.location_id, **changes)).encode()


def at(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def large(client: ReceiverClient, size: int) -> bytes:
    return sms_of(client, body="x" * size)


def in_chunks(body: bytes, size: int = 65_536) -> Iterator[bytes]:
    """Sent without a Content-Length."""
    return (body[start : start + size] for start in range(0, len(body), size))


def nested(location_id: str, depth: int) -> bytes:
    return f'{{"type": "X", "locationId": "{location_id}", "data": {"[" * depth}{"]" * depth}}}'.encode()


def dated(client: ReceiverClient, depth: int) -> bytes:
    """A message whose time is lists in lists."""
    return sms_of(client, timestamp="AT").replace(b'"AT"', b"[" * depth + b"]" * depth)


def quoted(location_id: str, text: str) -> bytes:
    """An inbound message whose text is put in as it is."""
    raw = json.dumps(inbound_sms(location_id, body="TEXT"))
    return raw.replace("TEXT", text).encode("utf-8", "surrogatepass")


UNDATED_SMS = json.dumps(inbound_sms("SomebodyElsesLocation1", timestamp=None)).encode()

SIGNED: dict[str, tuple[Send, int, str]] = {
    "no signature": (lambda r, c: r.post("/webhooks/ghl", sms_of(c)), 401, "wrong_signature"),
    "signature of other bytes": (
        lambda r, c: r.app(sms_of(c), x_ghl_signature=r.keys.newer(b"{}")), 401, "wrong_signature",
    ),
    "older signature of other bytes": (
        lambda r, c: r.app(sms_of(c), x_wh_signature=r.keys.older(b"{}")), 401, "wrong_signature",
    ),
    "signature that is no base64": (lambda r, c: r.app(sms_of(c), x_ghl_signature="&&&&"), 401, "wrong_signature"),
    "signature that is too short": (lambda r, c: r.app(sms_of(c), x_ghl_signature="AAAA"), 401, "wrong_signature"),
    "signature twice": (
        lambda r, c: r.app(sms_of(c), x_ghl_signature=f"{r.keys.newer(sms_of(c))}, AAAA"), 401, "wrong_signature",
    ),
    "both absent in words": (
        lambda r, c: r.app(sms_of(c), x_ghl_signature="N/A", x_wh_signature="N/A"), 401, "wrong_signature",
    ),
    "wrong newer signature beside a right older one": (
        lambda r, c: r.app(UNDATED_SMS, x_ghl_signature="AAAA", x_wh_signature=r.keys.older(UNDATED_SMS)),
        401,
        "wrong_signature",
    ),
    "signature in the secret's place": (
        lambda r, c: r.post(f"/webhooks/ghl/workflow/{c.location_id}", sms_of(c), x_ghl_signature=r.keys.newer(b"{}")),
        401,
        "wrong_secret",
    ),
    "replayed": (lambda r, c: r.app(sms_of(c, timestamp=iso(at(-301)))), 401, "stale_timestamp"),
    "replayed, epoch": (lambda r, c: r.app(sms_of(c, timestamp=int(at(-600).timestamp()))), 401, "stale_timestamp"),
    "from the future": (lambda r, c: r.app(sms_of(c, timestamp=iso(at(360)))), 401, "stale_timestamp"),
    "of no time": (lambda r, c: r.app(sms_of(c, timestamp="today")), 401, "stale_timestamp"),
    "form": (
        lambda r, c: r.app(sms_of(c), content_type="application/x-www-form-urlencoded"), 415, "not_json",
    ),
    "text": (lambda r, c: r.app(sms_of(c), content_type="text/plain; charset=utf-8"), 415, "not_json"),
    "broken JSON": (lambda r, c: r.app(sms_of(c)[:-1]), 400, "unreadable"),
    "empty": (lambda r, c: r.app(b""), 400, "unreadable"),
    "a list": (lambda r, c: r.app(b"[" + sms_of(c) + b"]"), 400, "unreadable"),
    "a word": (lambda r, c: r.app(b'"zyxwinda"'), 400, "unreadable"),
    "no location": (lambda r, c: r.app(sms_of(c, locationId=None)), 400, "unreadable"),
    "no type": (lambda r, c: r.app(sms_of(c, type=None)), 400, "unreadable"),
    "NUL byte": (lambda r, c: r.app(quoted(c.location_id, "zyx\x00winda")), 400, "unreadable"),
    "NUL byte behind the object": (lambda r, c: r.app(sms_of(c) + b"\x00"), 400, "unreadable"),
    "not UTF-8": (lambda r, c: r.app(sms_of(c).replace(b"says", b"s\xe4ys")), 400, "unreadable"),
    "raw lone surrogate": (lambda r, c: r.app(quoted(c.location_id, "\ud83d")), 400, "unreadable"),
    "UTF-16": (lambda r, c: r.app(sms_of(c).decode().encode("utf-16")), 400, "unreadable"),
    "nested 100,000 deep": (lambda r, c: r.app(nested(c.location_id, 100_000)), 400, "unreadable"),
    "time nested 100 deep": (lambda r, c: r.app(dated(c, 100)), 401, "stale_timestamp"),
    "time nested 800 deep": (lambda r, c: r.app(dated(c, 800)), 400, "unreadable"),
    "time nested 100,000 deep": (lambda r, c: r.app(dated(c, 100_000)), 400, "unreadable"),
    "10 MB": (lambda r, c: r.app(large(c, 10 * MIB)), 413, "too_large"),
    "10 MB of unknown length": (
        lambda r, c: r.post("/webhooks/ghl", in_chunks(large(c, 10 * MIB)), x_ghl_signature="AAAA"), 413, "too_large",
    ),
}  # fmt: skip

WITH_SECRET: dict[str, tuple[Send, int, str]] = {
    "wrong secret": (
        lambda r, c: r.workflow(c._replace(workflow_secret="guess"), workflow_reply()), 401, "wrong_secret",
    ),
    "no secret": (
        lambda r, c: r.post(f"/webhooks/ghl/workflow/{c.location_id}", b"{}"), 401, "wrong_secret",
    ),
    "secret with more behind it": (
        lambda r, c: r.workflow(c._replace(workflow_secret=c.workflow_secret + "x"), workflow_reply()),
        401,
        "wrong_secret",
    ),
    "another client's secret": (
        lambda r, c: r.workflow(c._replace(workflow_secret=r.add_client().workflow_secret), workflow_reply()),
        401,
        "wrong_secret",
    ),
    "the secret of the other provider": (
        lambda r, c: r.workflow(c._replace(workflow_secret=c.emailbison_secret), workflow_reply()),
        401,
        "wrong_secret",
    ),
    "unknown location": (
        lambda r, c: r.workflow(c._replace(location_id="NobodysLocation000001"), workflow_reply()), 401, "wrong_secret",
    ),
    "secret that is no text": (
        lambda r, c: r.post(f"/webhooks/emailbison/{c.location_id}/%ff%00%ed%a0%80", b"{}"), 401, "wrong_secret",
    ),
    "wrong secret of a body that is never read": (
        lambda r, c: r.workflow(c._replace(workflow_secret="guess"), b"\x00" * MIB), 401, "wrong_secret",
    ),
    "another location in the body": (
        lambda r, c: r.workflow(c, workflow_reply(location={"id": r.add_client().location_id})), 403, "other_location",
    ),
    "another location in the body, custom": (
        lambda r, c: r.workflow(c, workflow_reply(location_id="SomebodyElsesLocation1")), 403, "other_location",
    ),
    "another workspace": (
        lambda r, c: r.emailbison(c, lead_replied(r.add_client().workspace_id)), 403, "other_workspace",
    ),
    "no workspace": (lambda r, c: r.emailbison(c, lead_replied(None)), 403, "other_workspace"),
    "workspace in words": (lambda r, c: r.emailbison(c, lead_replied("all")), 403, "other_workspace"),
    "a form from EmailBison": (
        lambda r, c: r.emailbison(c, lead_replied(c.workspace_id), content_type="multipart/form-data"), 415, "not_json",
    ),
    "broken JSON from EmailBison": (lambda r, c: r.emailbison(c, b'{"event": {'), 400, "unreadable"),
    "broken JSON about nobody": (lambda r, c: r.workflow(c, b'{"first_name": "Zyxwinda'), 400, "unreadable"),
    "NUL in a workflow's JSON": (
        lambda r, c: r.workflow(c, b'{"contact_id": "ContactNumber0000001", "message": "a\x00b"}'), 400, "unreadable",
    ),
    "nested 100,000 deep, with secret": (lambda r, c: r.workflow(c, nested(c.location_id, 100_000)), 400, "unreadable"),
    "a number of 100,000 digits": (
        lambda r, c: r.emailbison(c, b'{"event": {"workspace_id": ' + b"9" * 100_000 + b"}}"), 400, "unreadable",
    ),
    "10 MB with a secret": (lambda r, c: r.emailbison(c, b" " * (10 * MIB)), 413, "too_large"),
    "10 MB of unknown length with a secret": (
        lambda r, c: r.post(
            f"/webhooks/emailbison/{c.location_id}/{c.emailbison_secret}", in_chunks(b" " * (10 * MIB))
        ),
        413,
        "too_large",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", [*SIGNED, *WITH_SECRET])
def test_what_is_refused_leaves_no_row_and_says_nothing_of_a_person_or_a_secret(
    case: str, receiver: RunningReceiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    send, status, word = (SIGNED | WITH_SECRET)[case]
    client = receiver.add_client()
    with caplog.at_level(logging.DEBUG):
        assert send(receiver, client) == (status, word)
        assert [receiver.count(table) for table in ("webhook_events", "leads", "messages")] == [0, 0, 0]
        assert receiver.app(inbound_sms(client.location_id)) == (200, "stored"), "it goes on as if nothing had been"
    logged = [logging.Formatter().format(each) for each in caplog.records if not each.name.startswith(SENDERS_LOGGERS)]
    said = "".join([*logged, *capfd.readouterr()]).lower()
    hidden = [*PERSON, client.workflow_secret.lower(), client.emailbison_secret.lower(), "guess"]
    assert [value for value in hidden if value in said] == []


TAKEN: dict[str, Callable[[ReceiverClient], bytes]] = {
    "escaped NUL": lambda c: quoted(c.location_id, r"zyx\u0000winda"),
    "escaped lone surrogate": lambda c: quoted(c.location_id, r"zyx\ud83dwinda"),
    "duplicate keys": lambda c: sms_of(c)[:-1] + b', "body": "the last one counts"}',
    "huge numbers": lambda c: sms_of(c)[:-1] + b', "n": 1e308, "m": ' + b"9" * 300 + b"}",
    "no timestamp": lambda c: sms_of(c, timestamp=None),
    "nearly too old": lambda c: sms_of(c, timestamp=iso(at(-290))),
    "emoji": lambda c: quoted(c.location_id, "\N{THUMBS UP SIGN}"),
    "4 MB": lambda c: large(c, 4 * MIB),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_odd_and_signed_is_taken(case: str, receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    body = TAKEN[case](client)
    assert receiver.app(body) == (200, "stored")
    (event,) = receiver.events()
    assert bytes(event["body"]) == body
    assert [receiver.count(table) for table in ("leads", "messages")] == [1, 1]
    with receiver.engine.connect() as connection:
        stored = connection.execute(text("SELECT body FROM messages")).scalar_one()
    assert {"\x00", "\ud83d"} & set(stored) == set()


@pytest.mark.parametrize("kind", ["", "application/json; charset=utf-8", "APPLICATION/JSON", "application/hal+json"])
def test_content_types_that_mean_json(kind: str, receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    assert receiver.app(inbound_sms(client.location_id), content_type=kind) == (200, "stored")


def test_merge_fields_that_break_the_json_do_not_lose_who_it_is_about(receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    broken = b'{"contact_id": "ContactNumber0000001", "message": "she said "yes", twice"}'
    assert receiver.workflow(client, broken) == (200, "stored")
    assert [row["state"] for row in receiver.events()] == ["pending"]


def test_a_client_without_a_workspace_gets_nothing_from_emailbison(receiver: RunningReceiver, engine: Engine) -> None:
    client = receiver.add_client()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM emailbison_workspaces"))
    assert receiver.emailbison(client, lead_replied(client.workspace_id)) == (403, "other_workspace")
    assert receiver.events() == []


def test_every_other_path_or_method_is_refused(receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    with_secret = f"/webhooks/ghl/workflow/{client.location_id}/{client.workflow_secret}"
    for path in ("/", "/webhooks", "/webhooks/ghl/", f"{with_secret}/", "/webhooks/stripe", "/docs", "/healthz/x"):
        refused = receiver.request("POST", path)
        assert (refused.status_code, refused.json()) == (404, {"error": "no_such_path"}), path
    for method, path in itertools.product(("GET", "PUT", "DELETE"), ("/webhooks/ghl", with_secret)):
        refused = receiver.request(method, path)
        assert (refused.status_code, refused.json(), refused.headers["allow"]) == (
            405,
            {"error": "wrong_method"},
            "POST",
        )
    assert receiver.request("POST", "/healthz").status_code == 405


def test_it_says_that_it_is_well(receiver: RunningReceiver) -> None:
    answer = receiver.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"ok": True})


def test_it_tells_counts_and_no_more(
    database_url: URL, engine: Engine, sender_keys: SenderKeys, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), running_receiver(Settings(), database_url, engine, sender_keys) as receiver:
        client = receiver.add_client()
        for _ in range(3):
            receiver.app(inbound_sms(client.location_id))
        receiver.workflow(client._replace(workflow_secret="guess"), workflow_reply())
        receiver.workflow(client._replace(location_id="NobodysLocation000001"), workflow_reply())
        receiver.get("/nowhere")
    told = {record.levelno: record.getMessage() for record in caplog.records if "receiver" in record.getMessage()}
    assert told == {
        logging.INFO: "receiver: ghl 200 x 3, ghl_workflow 401 x 2, other 404 x 1",
        logging.WARNING: (
            f"receiver refused: ghl_workflow wrong_secret x 1, ghl_workflow wrong_secret {client.location_id} x 1"
        ),
    }


@pytest.mark.parametrize("broken", ["reading", "storing"])
def test_a_bug_is_answered_counted_and_placed_in_the_log_without_what_it_says(
    broken: str,
    database_url: URL,
    engine: Engine,
    sender_keys: SenderKeys,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def bug(*_: object, **__: object) -> None:
        raise KeyError("Zyxwinda Brindlemoth", PERSON)

    place = {"reading": (routes, "read_event"), "storing": (GroupCommit, "add")}[broken]
    with caplog.at_level(logging.INFO), running_receiver(Settings(), database_url, engine, sender_keys) as receiver:
        client = receiver.add_client()
        with monkeypatch.context() as patch:
            patch.setattr(*place, bug)
            answer = httpx.post(
                f"{receiver.url}/webhooks/ghl/workflow/{client.location_id}/{client.workflow_secret}",
                json=workflow_reply(),
            )
        assert (answer.status_code, answer.json()) == (500, {"error": "failed"})
        assert answer.headers["retry-after"] == "10"
        assert receiver.workflow(client, workflow_reply()) == (200, "stored"), "it goes on"
    said = [each for each in caplog.records if not each.name.startswith(SENDERS_LOGGERS)]
    (told,) = [each.getMessage() for each in said if each.levelno >= logging.ERROR]
    assert told.startswith("a bug in the route ghl_workflow: KeyError at ")
    assert "receiver.py" in told
    assert told.endswith(" bug")
    assert "ghl_workflow 200 x 1, ghl_workflow 500 x 1" in caplog.text
    everything = "".join(logging.Formatter().format(each) for each in said).lower()
    assert [value for value in (*PERSON, client.workflow_secret.lower()) if value in everything] == []


def test_a_quarter_hour_of_tolerance_takes_a_quarter_hour(
    database_url: URL, engine: Engine, sender_keys: SenderKeys
) -> None:
    settings = Settings(webhook_tolerance_seconds=900, webhook_max_bytes=2048)
    with running_receiver(settings, database_url, engine, sender_keys) as receiver:
        client = receiver.add_client()
        assert receiver.app(sms_of(client, timestamp=iso(at(-890)))) == (200, "stored")
        assert receiver.app(sms_of(client, timestamp=iso(at(-910)))) == (401, "stale_timestamp")
        assert receiver.app(large(client, 2048)) == (413, "too_large")
