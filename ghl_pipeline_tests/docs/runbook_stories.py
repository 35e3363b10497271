"""What has happened when a section of the runbook is opened, and what must be true when it was followed.

A story is a generator. Up to its first `yield` it makes the trouble; a `yield` of words goes on before the first
command that has these words in it; after the last one it looks whether all is well.
"""

from collections.abc import Callable, Iterator

from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent
from ghl_pipeline_tests.docs.runbook_world import ACME, NUMBER, OTHER, PEOPLE, VENDOR, World, replied
from ghl_pipeline_tests.docs.serving import served

Story = Callable[[World], Iterator[str | None]]
STORIES: dict[str, Story] = {}

LEADS = "SELECT id, client_id, email, phone, first_name, last_name, company_name, ghl_contact_id, status FROM leads"


def story(title: str) -> Callable[[Story], Story]:
    """Names the section that the story is of."""

    def keep(told: Story) -> Story:
        STORIES[title] = told
        return told

    return keep


def repaired(world: World, location_id: str = ACME) -> int:
    """Leads of a client that have their contact's phone and link."""
    return int(
        world.value(
            "SELECT count(*) FROM leads AS lead JOIN clients AS client ON client.id = lead.client_id "
            "WHERE client.location_id = :id AND lead.phone <> '' AND lead.ghl_contact_id <> ''",
            id=location_id,
        )
    )


@story("First roll-out")
def first_roll_out(world: World) -> Iterator[str | None]:
    yield '--client "Acme Roofing" --max-leads'
    assert repaired(world) == 0, "what only looks has written"
    yield 'backfill --client "Acme Roofing"'
    assert repaired(world) == 10
    yield "ghl-pipeline status"
    assert repaired(world) == PEOPLE
    yield None


@story("Verification")
def verification(world: World) -> Iterator[str | None]:
    world.type("ghl-pipeline events replay 4711 && ghl-pipeline events handle")
    world.type("ghl-pipeline backfill")
    with world.receiver():
        yield None


@story("Monitoring")
def monitoring(world: World) -> Iterator[str | None]:
    world.environment["METRICS_TOKEN"] = "a-token-of-sixteen-letters"
    with world.receiver():
        yield None
    assert "ghl_pipeline_" in (world.folder / "ghl-pipeline.prom").read_text()


@story("GHL is down")
def ghl_is_down(world: World) -> Iterator[str | None]:
    world.environment |= {"GHL_MAX_ATTEMPTS": "2", "GHL_CALL_DEADLINE_SECONDS": "5"}
    world.sandbox.faults(error_rate=1.0, error_status=503)
    yield "when it is well again"
    assert repaired(world) == 0
    world.sandbox.faults()
    yield None
    assert repaired(world) == PEOPLE


@story("A revoked or wrong token")
def a_revoked_token(world: World) -> Iterator[str | None]:
    old = world.acme.token
    new = world.sandbox.world.rotate_token(ACME)
    world.sandbox.world.revoke_token(old)
    refused = world.type("ghl-pipeline backfill", exits=1)
    assert "TokenRejected" in refused
    assert repaired(world) == 0
    (world.folder / "token.txt").write_text(new)
    yield None
    assert repaired(world) == PEOPLE


@story("The daily quota")
def the_daily_quota(world: World) -> Iterator[str | None]:
    world.environment["GHL_REQUESTS_PER_DAY"] = "2"
    yield "export"
    assert repaired(world) < PEOPLE
    yield None
    assert repaired(world) == PEOPLE


@story("Dead letters")
def dead_letters(world: World) -> Iterator[str | None]:
    yield None
    assert world.value("SELECT state FROM webhook_events WHERE id = :id", id=NUMBER) == "done"


@story("Too many missing")
def too_many_missing(world: World) -> Iterator[str | None]:
    world.type("ghl-pipeline crm-sync --full --yes")
    linked = world.sql("SELECT ghl_contact_id FROM leads WHERE client_id = 1 AND ghl_contact_id <> '' ORDER BY id")
    with world.sandbox.world.lock:
        for row in linked[: len(linked) // 2]:
            world.acme.remove(row["ghl_contact_id"])
    yield "--accept-missing"
    assert "TooManyMissing" in world.type(f"ghl-pipeline crm-sync --location {ACME} --full --yes", exits=1)
    yield "UPDATE"
    marked = "SELECT count(*) FROM leads WHERE status = 'inactive_ghl_deleted'"
    assert world.value(marked) == len(linked) // 2
    yield None
    assert world.value("SELECT status FROM vendors WHERE id = :id", id=VENDOR) == "active"


@story("Accounts that send")
def accounts_that_send(world: World) -> Iterator[str | None]:
    world.type("ghl-pipeline senders sync")
    yield None


@story("Run workers")
def run_workers(world: World) -> Iterator[str | None]:
    with served(["worker"], world.folder, world.environment) as serving:
        assert serving.is_well
        world.environment |= serving.environment
        yield None


@story("The database was restored from a backup")
def restored_from_a_backup(world: World) -> Iterator[str | None]:
    """Half of the leads are repaired, then the backup is made. All that comes later is lost, and found again."""
    world.type('ghl-pipeline backfill --client "Acme Roofing" --max-leads 12')
    contact = next(iter(world.acme.indexed_contacts.ordered("email")))
    world.acme.add_message(contact.id, "Before the backup")
    before = replied(world)
    world.type("ghl-pipeline events reconcile && ghl-pipeline import-messages && ghl-pipeline events handle")
    world.type('pg_dump --format=custom --file=history.dump "$GHL_PIPELINE_DAGSTER_DATABASE_URL"')
    world.type('pg_dump --format=custom --file=dashboard.dump "$GHL_PIPELINE_DATABASE_URL"')

    stranger = replied(world)
    leaver = world.workspace.leads[1].email
    replied_to = replied(world, BisonEvent.LEAD_REPLIED, "Not now.")
    world.acme.add_message(contact.id, "After the backup")
    world.acme.add_message(contact.id, "STOP")
    world.type("ghl-pipeline events reconcile && ghl-pipeline import-messages && ghl-pipeline events handle")
    world.type("ghl-pipeline backfill && ghl-pipeline import-messages --from-start")
    known = "SELECT email, phone, first_name, last_name, ghl_contact_id, status, opted_out_at FROM leads ORDER BY email"
    stored = "SELECT provider, external_id, count(*) FROM messages GROUP BY 1, 2 ORDER BY 1, 2"
    leads, messages = world.sql(known), world.sql(stored)
    created = world.sandbox.stats(ACME)["creates"]
    assert created == 2, "the two who are interested got a contact"
    assert repaired(world) >= PEOPLE
    world.engine.dispose()
    yield "events reconcile"
    assert repaired(world) < PEOPLE, "nothing was lost, so nothing is shown"
    assert world.value("SELECT count(*) FROM leads WHERE email = :email", email=stranger) == 0
    yield None
    assert world.sql(known) == leads
    assert world.sql(stored) == messages
    assert all(row["count"] == 1 for row in messages)
    assert {before, stranger, replied_to, leaver} <= {row["email"] for row in leads}
    assert world.sandbox.stats(ACME)["creates"] == created, "somebody was created a second time"


@story("Pause a client")
def a_paused_client(world: World) -> Iterator[str | None]:
    yield None
    assert repaired(world) == PEOPLE


@story("Rotate a client's token")
def a_rotated_token(world: World) -> Iterator[str | None]:
    (world.folder / "new-token.txt").write_text(world.sandbox.world.rotate_token(ACME))
    yield "clients list"
    assert world.value("SELECT previous_token_until > now() FROM clients WHERE location_id = :id", id=ACME) is True
    yield "clients set-token"
    world.sandbox.world.revoke_token(world.acme.token)
    yield None
    world.type("ghl-pipeline backfill")
    assert repaired(world) == PEOPLE


@story("Rotate the keys")
def rotated_keys(world: World) -> Iterator[str | None]:
    old = world.environment["GHL_PIPELINE_TOKEN_KEYS"]
    yield None
    assert old not in world.environment["GHL_PIPELINE_TOKEN_KEYS"]
    world.type("ghl-pipeline backfill")
    assert repaired(world) == PEOPLE


@story("Who may see what")
def roles_and_logins(world: World) -> Iterator[str | None]:
    world.use_embedded_database()  # roles belong to a whole server, which other tests use, too
    world.type("ghl-pipeline db upgrade && ghl-pipeline clients import clients.csv && ghl-pipeline backfill")
    yield "db remove-viewer"
    assert f"acme_reports {ACME}" in " ".join(world.type("ghl-pipeline db viewers").split())
    yield None
    assert "acme_reports" not in world.type("ghl-pipeline db viewers")
    # The way back takes policies along that hang on the tables of newer revisions.
    world.type("ghl-pipeline db downgrade 0005 --yes && ghl-pipeline db upgrade && ghl-pipeline db roles --apply")


@story("Back up")
def a_backup(world: World) -> Iterator[str | None]:
    yield "export PGPASSWORD"
    world.use_embedded_database()
    world.type("ghl-pipeline db upgrade")
    world.type("ghl-pipeline clients add --name Fresh --location FreshLocation000001 < token.txt")
    with world.receiver():  # somebody has to use the server, or it stops
        yield None
    assert (world.folder / "dashboard.dump").stat().st_size > 1000
    assert (world.folder / "token.key.backup").stat().st_size > 10


@story("Upgrade and roll back")
def upgrade_and_roll_back(world: World) -> Iterator[str | None]:
    world.type("ghl-pipeline backfill && ghl-pipeline events replay --all && ghl-pipeline events handle")
    world.type("ghl-pipeline db downgrade 0005 --yes")
    before = kept(world)
    yield "db downgrade 0005"
    assert kept(world) == before
    yield None
    assert kept(world) == before
    world.type("ghl-pipeline db upgrade && ghl-pipeline backfill && ghl-pipeline status")


def kept(world: World) -> dict[str, list[dict[str, object]]]:
    """Rows that no upgrade and no way back may touch."""
    columns = {
        "clients": "id, name, location_id, ghl_token_encrypted, updated_at",
        "leads": "*",
        "messages": "*",
        "webhook_events": "*",
        "vendors": "*",
        "reply_drafts": "*",
        "lead_lookups": "*",
        "location_attempts": "*",
    }
    found = {table: world.sql(f"SELECT {names} FROM {table} ORDER BY 1") for table, names in columns.items()}
    # The doctor, which the section asks, notes that it was there.
    found["location_attempts"] = [row for row in found["location_attempts"] if row["capability"] != "doctor"]
    return found


@story("The embedded server")
def the_embedded_server(world: World) -> Iterator[str | None]:
    world.use_embedded_database()
    world.type("ghl-pipeline db upgrade")
    yield None
    assert not (world.folder / ".ghl_pipeline" / "postgres").exists()


@story("README.md: With a real GHL account")
def a_first_client(world: World) -> Iterator[str | None]:
    world.sql("DELETE FROM clients WHERE location_id = :id", id=ACME)
    yield None
    assert repaired(world, OTHER) == PEOPLE - 1
