"""Webhook URLs and EmailBison workspaces through the command line."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.receiving.senders import admits, read_senders
from ghl_pipeline_tests.cli.conftest import AddClient, Agency, Cli

Admitted = Callable[[Provider, str], bool]


@pytest.fixture
def agency(add_client: AddClient) -> Agency:
    return add_client("Acme")


@pytest.fixture
def admitted(agency: Agency, engine: Engine) -> Admitted:
    """Whether the receiver would take a secret."""

    def ask(provider: Provider, url: str) -> bool:
        with engine.connect() as connection:
            return admits(read_senders(connection)[agency.location.id], provider, url.rpartition("/")[2])

    return ask


def test_the_first_url_holds_a_secret_that_is_not_shown_again(cli: Cli, agency: Agency, admitted: Admitted) -> None:
    first = cli("clients", "webhook-url", "Acme")
    url = first.out.strip()
    assert first.code == 0
    assert url.startswith(f"http://127.0.0.1:8788/webhooks/ghl/workflow/{agency.location.id}/")
    assert "WEBHOOK_PUBLIC_URL" in first.err
    assert admitted(Provider.GHL_WORKFLOW, url)
    secret = url.rpartition("/")[2]
    again = cli("clients", "webhook-url", "Acme")
    assert again.code == 0
    assert secret not in again.out + again.err + first.err
    assert "--new-secret" in again.err
    assert cli("clients", "webhook-url", "Acme", "--json").document()["url"] is None


def test_a_new_secret_stands_beside_the_old_one_until_that_is_revoked(
    cli: Cli, agency: Agency, admitted: Admitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_PUBLIC_URL", "https://hooks.example.com/")
    words = ("clients", "webhook-url", agency.location.id, "--provider", "emailbison", "--json")
    first = cli(*words).document()
    assert first["url"].startswith(f"https://hooks.example.com/webhooks/emailbison/{agency.location.id}/")
    assert first["url_without_secret"] == first["url"].rpartition("/")[0]
    second = cli(*words, "--new-secret").document()
    assert len(second["secrets_made_at"]) == 2
    assert admitted(Provider.EMAILBISON, first["url"])
    assert admitted(Provider.EMAILBISON, second["url"])
    third = cli(*words, "--new-secret", "--revoke-others").document()
    assert len(third["secrets_made_at"]) == 1
    answers = [admitted(Provider.EMAILBISON, each["url"]) for each in (first, second, third)]
    assert answers == [False, False, True]
    assert not admitted(Provider.GHL_WORKFLOW, third["url"])


def test_revoking_without_a_successor_and_unknown_clients_are_refused(cli: Cli, agency: Agency) -> None:
    refused = cli("clients", "webhook-url", "Acme", "--revoke-others")
    assert (refused.code, "--new-secret" in refused.err) == (2, True)
    assert cli("clients", "webhook-url", "Nobody").code == 2
    assert cli("clients", "webhook-url", "Acme", "--provider", "stripe").code == 2


def test_a_workspace_is_stored_with_its_token_which_is_shown_nowhere(
    cli: Cli, agency: Agency, project: Settings, engine: Engine
) -> None:
    words = ("clients", "set-emailbison", "Acme", "--url", "https://mail.example.com/api/", "--workspace", "12")
    stored = cli(*words, stdin="9|q8kSecretOfEmailBison\n")
    assert stored.code == 0, stored.err
    assert "--provider emailbison" in stored.out
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT base_url, workspace_id, token_encrypted FROM emailbison_workspaces")
        ).one()
    assert row[:2] == ("https://mail.example.com", 12)
    decrypted = TokenCipher.from_settings(project).decrypt(row.token_encrypted).get_secret_value()
    assert decrypted == "9|q8kSecretOfEmailBison"
    kept = cli(*words, "--without-token", "--json")
    assert kept.document() == {
        "client": agency.client_id,
        "location": agency.location.id,
        "url": "https://mail.example.com",
        "workspace": 12,
        "has_token": True,
    }
    other = cli(*words[:-1], "13", "--without-token", "--json")
    assert other.document()["has_token"] is False, "a token is never used for another workspace"
    for shown in (stored, kept, other):
        assert "q8kSecret" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--url", "mail.example.com", "--workspace", "12"), "EmailBison URL"),
        (("--url", "http://mail.example.com", "--workspace", "12"), "EmailBison URL"),
        (("--url", "https://mail.example.com", "--workspace", "0"), "workspace"),
    ],
)
def test_a_workspace_that_cannot_be_one_is_refused(
    options: tuple[str, ...], said: str, cli: Cli, agency: Agency, engine: Engine
) -> None:
    refused = cli("clients", "set-emailbison", "Acme", *options, stdin="9|token")
    assert refused.code == 2
    assert said in refused.words()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM emailbison_workspaces")).scalar() == 0
