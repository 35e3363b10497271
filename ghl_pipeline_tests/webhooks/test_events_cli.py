"""`ghl-pipeline events` and the inbox in `status`, as an operator meets them."""

from pathlib import Path

import pytest

from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline_tests.cli.conftest import Cli
from ghl_pipeline_tests.cli.conftest import cli as cli  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.cli.conftest import own_environment as own_environment  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.handling_tools import Inbox, contact_deleted, sms


@pytest.fixture
def place(agency: Agency, own_environment: object, project: Settings) -> Place:
    agency.cipher = agency.cipher.from_settings(project)
    return agency.place()


@pytest.fixture
def inbox(agency: Agency) -> Inbox:
    return Inbox(agency)


def test_dead_letters_are_seen_shown_replayed_and_handled(agency: Agency, place: Place, inbox: Inbox, cli: Cli) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    dead, _fine = inbox.deliver(
        place, sms(place, contact.id, "call me at 305-555-0123"), contact_deleted(place, "D" * 20)
    )
    agency.sql(
        """UPDATE webhook_events SET state = 'dead', attempts = 8, error_class = 'Odd', error_text = 'why'
           WHERE id = :id""",
        id=dead,
    )
    (listed,) = cli("events", "list", "--state", "dead", "--json").document()["events"]
    assert (listed["id"], listed["error"], listed["state"]) == (dead, "why", "dead")
    shown = cli("events", "show", dead)
    assert "attempts: 8" in shown.out
    assert "555" not in shown.out + shown.err
    assert cli("events", "replay", dead, "--json").document() == {"replayed": 1, "left_alone": []}
    handled = cli("events", "handle", "--json").document()
    assert (handled["events_handled"], handled["lead_updated"], handled["no_lead"]) == (2, 1, 1)
    assert handled["failed"] == []
    assert agency.rows()[0]["first_name"] == "Ada"
    assert "No event is due" in cli("events", "handle").out


def test_a_body_is_printed_only_when_asked_for(place: Place, inbox: Inbox, cli: Cli) -> None:
    (event_id,) = inbox.deliver(
        place, {"contact_id": "A" * 20, "message": "Brindlemoth"}, provider=Provider.GHL_WORKFLOW
    )
    for words in (["list"], ["list", "--json"], ["show", event_id], ["show", event_id, "--json"]):
        ended = cli("events", *words)
        assert "Brindlemoth" not in ended.out + ended.err
    ended = cli("events", "show", event_id, "--body")
    assert "Brindlemoth" in ended.out
    assert "person's data" in ended.err


def test_replay_wants_to_know_which_and_unknown_ones_are_named(place: Place, cli: Cli) -> None:
    assert cli("events", "replay").code == 2
    assert (cli("events", "show", 4711).code, "4711" in cli("events", "show", 4711).err) == (2, True)
    assert cli("events", "list", "--state", "lost").code == 2
    assert cli("events", "replay", "--location", "nowhere").code == 2
    assert cli("events", "replay", "--all", "--json").document() == {"replayed": 0, "left_alone": []}


def test_replay_says_which_numbers_are_done_and_refuses_unknown_ones(
    agency: Agency, place: Place, inbox: Inbox, cli: Cli
) -> None:
    done, dead, ignored = (inbox.deliver(place, contact_deleted(place, name * 20))[0] for name in "ABC")
    agency.sql("UPDATE webhook_events SET state = 'done' WHERE id = :id", id=done)
    agency.sql("UPDATE webhook_events SET state = 'dead' WHERE id = :id", id=dead)
    agency.sql("UPDATE webhook_events SET state = 'ignored', body = NULL WHERE id = :id", id=ignored)
    refused = cli("events", "replay", dead, 4711, done, 2**64)
    assert refused.code == 2
    assert f"no event 4711, {2**64}, so none was replayed. Done already: {done}." in refused.err
    assert inbox.events([dead])[0]["state"] == "dead"
    said = cli("events", "replay", dead, done, ignored)
    assert said.code == 0
    assert "1 events are due now" in said.out
    assert f"done already: {done}\n" in said.out
    assert f"deactivated: {ignored}\n" in said.out
    assert cli("events", "replay", dead, done, "--json").document() == {
        "replayed": 0, "left_alone": [{"id": done, "state": "done"}, {"id": dead, "state": "pending"}]
    }  # fmt: skip


def test_the_list_of_a_location_is_its_own_and_an_unknown_location_is_an_error(
    agency: Agency, place: Place, inbox: Inbox, cli: Cli
) -> None:
    other, idle = agency.place("Other"), agency.place("Idle")
    (ours,) = inbox.deliver(place, contact_deleted(place, "A" * 20))
    (theirs,) = inbox.deliver(other, contact_deleted(other, "B" * 20))
    agency.sql(
        """INSERT INTO webhook_events (provider, dedupe_key, event_type, location_id, state)
           VALUES ('ghl', 'of nobody', 'ContactDelete', 'LocationOfNoClientYet', 'ignored')"""
    )

    def listed(*words: object) -> list[int]:
        return [event["id"] for event in cli("events", "list", "--json", *words).document()["events"]]

    assert len(listed()) == 3
    assert (listed("--location", place.id), listed("--location", other.id)) == ([ours], [theirs])
    assert listed("--location", idle.id) == []
    assert len(listed("--location", "LocationOfNoClientYet")) == 1
    for state, expected in {"pending": [theirs], "done": [], "ignored": [], "dead": []}.items():
        assert listed("--location", other.id, "--state", state) == expected
    agency.sql("UPDATE webhook_events SET state = 'dead' WHERE id = :id", id=theirs)
    assert listed("--state", "dead", "--location", other.id) == [theirs]
    agency.sql("UPDATE webhook_events SET state = 'done' WHERE id = :id", id=theirs)
    assert listed("--state", "done", "--location", other.id) == listed("--state", "done") == [theirs]
    assert cli("clients", "deactivate", other.id).code == 0
    assert listed("--location", other.id) == [theirs]
    unknown = cli("events", "list", "--location", "NoSuchLocation12345", "--json")
    assert (unknown.code, unknown.out) == (2, "")
    assert "NoSuchLocation12345" in unknown.err
    assert "clients list" in unknown.err


@pytest.mark.parametrize("how", ["reactivate", "import"])
def test_a_reactivated_client_gets_the_events_that_waited_for_it(
    agency: Agency, place: Place, inbox: Inbox, cli: Cli, tmp_path: Path, how: str
) -> None:
    (event_id,) = inbox.deliver(place, sms(place, "A" * 20))
    assert cli("clients", "deactivate", place.id).code == 0
    assert inbox.outcomes() == ["ignored"]
    if how == "reactivate":
        document = cli("clients", "reactivate", place.id, "--json").document()
        assert (document["active"], document["events_due"]) == (True, 1)
    else:
        (client,) = cli("clients", "list", "--json").document()["clients"]
        file = tmp_path / "clients.csv"
        file.write_text(f"name,location_id,token,active\n{client['name']},{place.id},,yes\n")
        assert cli("clients", "import", file).code == 0
    assert [event["state"] for event in inbox.events([event_id])] == ["pending"]


def test_a_failing_location_ends_the_command_with_its_reason(
    agency: Agency, place: Place, inbox: Inbox, cli: Cli
) -> None:
    inbox.deliver(place, sms(place, "A" * 20))
    agency.sandbox.faults(place.id, token_revoked=True)
    ended = cli("events", "handle", "--location", place.id)
    assert (ended.code, "set-token" in ended.err) == (1, True)


def test_old_bodies_are_purged_on_request(agency: Agency, place: Place, inbox: Inbox, cli: Cli) -> None:
    inbox.deliver(place, contact_deleted(place, "D" * 20))
    assert cli("events", "purge", "--days", 0, "--json").document() == {"bodies_dropped": 0}
    agency.sql("UPDATE webhook_events SET state = 'done'")
    assert cli("events", "purge", "--json").document() == {"bodies_dropped": 0}
    assert cli("events", "purge", "--days", 0, "--json").document() == {"bodies_dropped": 1}


def test_status_tells_of_the_inbox(agency: Agency, place: Place, inbox: Inbox, cli: Cli) -> None:
    assert "Events" not in cli("status").out
    first, _second, _third = inbox.deliver(place, *(contact_deleted(place, f"{n:020}") for n in range(3)))
    agency.sql("UPDATE webhook_events SET state = 'dead' WHERE id = :id", id=first)
    agency.sql("UPDATE webhook_events SET received_at = now() - interval '90 seconds'")
    (status,) = cli("status", "--json").document()["locations"]
    assert (status["events_pending"], status["events_dead"], status["events_last_day"]) == (2, 1, 3)
    assert 89 < status["oldest_pending_seconds"] < 200
    assert "events replay" in cli("status").words()
