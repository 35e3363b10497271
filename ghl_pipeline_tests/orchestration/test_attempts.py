"""Who is left alone for a while because it refused us as a whole."""

from collections.abc import Callable

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.locations.clients import add_client, set_token
from ghl_pipeline.orchestration.attempts import held_back, record_refusal
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings

LOCATION = "C6HxU0gdMY76stvsY7nT"
Fail = Callable[[str], None]


@pytest.fixture
def fail(engine: Engine, project: Settings) -> Fail:
    with engine.begin() as connection:
        cipher = TokenCipher.from_settings(project)
        add_client(connection, cipher, name="Acme", location_id=LOCATION, token=SecretStr("pit-1"))

    def record(error_class: str) -> None:
        record_refusal(engine, FailedLocation(LOCATION, error_class, "a text", permanent=True), None, "conversations")

    return record


def held(engine: Engine, capability: str = "conversations") -> set[str]:
    with engine.connect() as connection:
        return held_back(connection, capability)


def test_a_location_whose_token_was_refused_is_left_alone_at_that_work(engine: Engine, fail: Fail) -> None:
    assert held(engine) == set()
    fail("TokenRejected")
    assert held(engine) == {LOCATION}
    assert held(engine, "hydration") == set()


def test_a_new_token_takes_it_up_again_at_once(engine: Engine, project: Settings, fail: Fail) -> None:
    fail("TokenRejected")
    with engine.begin() as connection:
        set_token(connection, TokenCipher.from_settings(project), LOCATION, SecretStr("pit-2"))
    assert held(engine) == set()


def test_after_a_day_it_is_tried_once_more(engine: Engine, fail: Fail) -> None:
    fail("ScopeMissing")
    with engine.begin() as connection:
        # The trigger would set it to now.
        connection.execute(text("ALTER TABLE clients DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE clients SET updated_at = now() - interval '9 days' WHERE true"))
        connection.execute(text("ALTER TABLE clients ENABLE TRIGGER USER"))
        connection.execute(text("UPDATE location_standings SET ended_at = now() - interval '23 hours'"))
    assert held(engine) == {LOCATION}
    with engine.begin() as connection:
        connection.execute(text("UPDATE location_standings SET ended_at = now() - interval '25 hours'"))
    assert held(engine) == set()


@pytest.mark.parametrize("error_class", ["LookupsFailed", "GhlUnreachable", "DailyQuotaReached"])
def test_what_may_pass_or_is_one_leads_problem_holds_nothing_back(engine: Engine, fail: Fail, error_class: str) -> None:
    fail(error_class)
    assert held(engine) == set()


def test_who_found_it_busy_says_nothing(engine: Engine, fail: Fail) -> None:
    fail("TokenRejected")
    fail("LocationBusy")
    assert held(engine) == {LOCATION}


@pytest.mark.parametrize(("error_class", "is_held"), [("EmailBisonAccessDenied", False), ("TokenRejected", True)])
def test_a_change_of_the_workspace_matters_where_emailbison_refused(
    engine: Engine, fail: Fail, error_class: str, is_held: bool
) -> None:
    fail(error_class)
    assert held(engine) == {LOCATION}
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO emailbison_workspaces (client_id, base_url, workspace_id) "
                "SELECT id, 'https://bison.example.com', 7 FROM clients"
            )
        )
    assert held(engine) == ({LOCATION} if is_held else set())
