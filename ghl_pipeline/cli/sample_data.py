"""Puts the sandbox's sample agency into a dashboard database: its clients with their tokens, and their leads."""

from dataclasses import asdict

from pydantic import SecretStr
from sqlalchemy import Connection, insert

from ghl_pipeline.database.tables import leads
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.agency import SampleAgency, SampleLead

_COLUMNS = frozenset(leads.c.keys())


def load_sample_agency(connection: Connection, cipher: TokenCipher, agency: SampleAgency) -> None:
    """Adds the agency's clients and leads, in the caller's transaction.

    Raises:
        InvalidInput: a client or location of the sample is in the database already.
    """
    for location in agency.locations:
        client = add_client(
            connection,
            cipher,
            name=location.name,
            location_id=location.id,
            token=SecretStr(location.token),
            default_region=location.default_region,
            time_zone=location.time_zone,
        )
        rows = [_row(client.id, lead) for lead in location.leads]
        if rows:
            connection.execute(insert(leads), rows)


def _row(client_id: int, lead: SampleLead) -> dict[str, object]:
    return {"client_id": client_id, **{k: v for k, v in asdict(lead).items() if k in _COLUMNS}}
