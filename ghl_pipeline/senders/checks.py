"""Asset checks of the accounts: clients that cannot send at all, leads without an account that can.

They are evaluated by the op after each run, over all clients whose workspace can be asked, so that they also speak
after a run that failed. Their tables name locations by id.
"""

from collections.abc import Iterator, Sequence

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.senders.shares import ClientAccounts, clients_accounts

MANY_WITHOUT = 0.01
MOST_LISTED = 50

CLIENTS_CAN_SEND = dg.AssetCheckSpec(
    "clients_can_send",
    asset="sender_accounts",
    description="Clients with a workspace of which no account can send, or none was ever listed: an error.",
)
LEADS_HAVE_SENDERS = dg.AssetCheckSpec(
    "leads_have_senders",
    asset="sender_accounts",
    description="Leads without an account, or with one that cannot send, of all leads of the client, where the client "
    f"has one to give: a warning from {MANY_WITHOUT:.0%}. New leads are given one within the hour.",
)
CHECKS = (CLIENTS_CAN_SEND, LEADS_HAVE_SENDERS)


def evaluate(engine: Engine) -> Iterator[dg.AssetCheckResult]:
    """The result of every check, as the database stands now."""
    with engine.connect() as connection:
        clients = clients_accounts(connection)
    silent = [each for each in clients if each.able == 0]
    yield _result(
        CLIENTS_CAN_SEND,
        clients,
        silent,
        dg.AssetCheckSeverity.ERROR,
        "have no account that can send. Connect their mailboxes in EmailBison again, then: ghl-pipeline senders sync",
    )
    without = sorted(
        (each for each in clients if each.able and each.share_without >= MANY_WITHOUT),
        key=lambda each: each.share_without,
        reverse=True,
    )
    yield _result(
        LEADS_HAVE_SENDERS,
        clients,
        without,
        dg.AssetCheckSeverity.WARN,
        "have leads without an account that can send, though there is one to give. The next run gives it; if it does "
        "not, see why it fails",
    )


def _result(
    spec: dg.AssetCheckSpec,
    clients: Sequence[ClientAccounts],
    amiss: Sequence[ClientAccounts],
    severity: dg.AssetCheckSeverity,
    what: str,
) -> dg.AssetCheckResult:
    first = f", first {amiss[0].location_id}" if amiss else ""
    return dg.AssetCheckResult(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=not amiss,
        severity=severity,
        description=f"{len(amiss)} of {len(clients)} locations{first}, {what}."
        if amiss
        else f"{len(clients)} locations are well.",
        metadata={
            "locations": len(clients),
            "locations_amiss": len(amiss),
            "leads_without": sum(each.leads_without for each in clients),
            **({"worst": dg.MetadataValue.table(_records(amiss[:MOST_LISTED]))} if amiss else {}),
        },
    )


def _records(clients: Sequence[ClientAccounts]) -> list[dg.TableRecord]:
    return [
        dg.TableRecord(
            {
                "location": each.location_id,
                "accounts": each.accounts,
                "can_send": each.able,
                "leads": each.leads,
                "without": each.leads_without,
            }
        )
        for each in clients
    ]
