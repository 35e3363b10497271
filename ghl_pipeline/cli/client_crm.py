"""`ghl-pipeline clients set-crm`: whether a client's vendors and leads are kept in step with GHL, by which fields."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from ghl_pipeline.cli.clients import Json, Which
from ghl_pipeline.cli.output import out, print_json
from ghl_pipeline.cli.session import database
from ghl_pipeline.crm.client_settings import CrmClient, find_crm_client, set_crm
from ghl_pipeline.crm.custom_fields import normal_key
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import find_client
from ghl_pipeline.settings import load_settings


def set_crm_command(
    which: Which,
    on: Annotated[
        bool | None, typer.Option("--on/--off", help="Whether it is done at all. On, unless it was off.")
    ] = None,
    discover: Annotated[
        bool | None,
        typer.Option(
            "--discover/--no-discover",
            help="Whether vendors and new leads that only GHL knows are created. Default: yes.",
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            help="Which custom field holds what: service_zip_codes=contact.zips; may be given several times. Nothing "
            "after the sign: the field of our own name again."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Keep a client's vendors and leads in step with GHL, or stop that. What is not given stays as it is."""
    changes = _changes(field or [])
    with database(load_settings()) as engine, engine.begin() as connection:
        client = find_client(connection, which)
        before = find_crm_client(connection, client.location_id)
        keys = _merged(before.field_keys if before else {}, changes) if changes else None
        stored = set_crm(connection, client.location_id, enabled=on, discover=discover, field_keys=keys)
    if json:
        print_json(_document(stored))
        return
    if not stored.enabled:
        out.print(f"Vendors and leads of client {stored.client_id} are left alone from now on; what is stored stays.")
        return
    named = ", ".join(f"{name} in {key}" for name, key in stored.field_keys.items())
    out.print(
        f"Vendors and leads of client {stored.client_id} are kept in step"
        f"{'' if stored.discover else ', without looking for new ones'}{f'; {named}' if named else ''}. Next: "
        f"ghl-pipeline crm-sync --location {stored.location_id} --dry-run",
        markup=False,
    )


def _changes(words: Sequence[str]) -> dict[str, str]:
    """Our name to the key, as `--field` gives them; an empty key takes one back."""
    changes = {}
    for word in words:
        name, sign, key = word.partition("=")
        if not sign:
            raise InvalidInput(
                f"--field {word[:60]!r} names no field. Write our name, =, and the field's key: "
                "--field service_zip_codes=contact.zips"
            )
        changes[normal_key(name)] = key.strip()
    return changes


def _merged(before: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    return {name: key for name, key in {**before, **changes}.items() if key}


def _document(stored: CrmClient) -> dict[str, object]:
    return {
        "client": stored.client_id,
        "location": stored.location_id,
        "enabled": stored.enabled,
        "discover": stored.discover,
        "field_keys": dict(stored.field_keys),
        "full_pass_at": stored.full_pass_at,
    }
