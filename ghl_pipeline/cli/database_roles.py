"""`ghl-pipeline db roles` and the logins: who may do what in the databases, and which client's rows a viewer sees."""

import sys
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import SecretStr
from sqlalchemy import Engine

from ghl_pipeline.cli.clients import Json
from ghl_pipeline.cli.output import err, out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.database.connection import database_urls, describe
from ghl_pipeline.database.granting import Plan, apply_roles, as_script, plan_roles
from ghl_pipeline.database.logins import add_login, give_clients, new_password, remove_viewer, viewers
from ghl_pipeline.database.roles import RECEIVER, VIEWER, WORKER
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import find_client
from ghl_pipeline.orchestration.dagster_tables import make_dagster_tables
from ghl_pipeline.settings import load_settings

Name = Annotated[str, typer.Argument(help="The login: small letters, digits and _.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from stdin instead of making one.")
]


class WorkingRole(StrEnum):
    """What a process of ours may be."""

    RECEIVER = "receiver"
    WORKER = "worker"


def roles(
    apply: Annotated[bool, typer.Option("--apply", help="Give the rights now, instead of printing them.")] = False,
    json: Json = False,
) -> None:
    """Print, or give, the rights of receiver, worker and viewers. Run it again after every upgrade.

    GHL_PIPELINE_DATABASE_URL has to be of the tables' owner, who may create roles, or of a superuser.
    """
    settings = load_settings()
    urls = database_urls(settings)
    with database(settings):
        pass  # said here, once: that it is missing, or not migrated
    if apply:
        make_dagster_tables(urls.dagster)
    plan = plan_roles(urls)
    if apply:
        apply_roles(plan)
    if json:
        document = {"applied": apply, "others": list(plan.others), "locks_are_public": plan.locks_are_public}
        print_json(document | {"statements": [each for step in plan.steps for each in step.statements]})
    elif apply:
        out.print(
            f"Gave {RECEIVER}, {WORKER} and {VIEWER} their rights in {describe(urls.app)} and Dagster's database."
        )
    else:
        out.print(as_script(plan), markup=False)
    _warn(plan)


def _warn(plan: Plan) -> None:
    if plan.others:
        err.print(
            f"Row-level security hides all rows from {', '.join(plan.others)}, who have rights on these tables. For "
            f"one that has to see them: GRANT {WORKER} TO it, or a policy of its own.",
            soft_wrap=True,
            markup=False,
        )
    if plan.locks_are_public:
        err.print(
            "Only a superuser can keep viewers from taking advisory locks, with which one could hold up the work.",
            soft_wrap=True,
        )


def add_login_command(
    name: Name,
    role: Annotated[WorkingRole, typer.Option(help="What the process that logs in is.")],
    password_stdin: PasswordStdin = False,
    json: Json = False,
) -> None:
    """Make a login for a receiver or a worker; for one that exists, a new password. The password is shown once."""
    password, is_new = _password(password_stdin)
    with database(load_settings()) as engine, engine.begin() as connection:
        add_login(connection, name, RECEIVER if role is WorkingRole.RECEIVER else WORKER, password)
    _tell(name, password if is_new else None, json=json, of=role.value)


def add_viewer(
    name: Name,
    client: Annotated[list[str], typer.Option(help="Client whose rows it sees: name, id or location id; repeatable.")],
    password_stdin: PasswordStdin = False,
    keep_password: Annotated[
        bool, typer.Option("--keep-password", help="Only give it more clients; the login is there already.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a login that reads the rows of these clients and no others. The password is shown once."""
    password, is_new = (None, False) if keep_password else _password(password_stdin)
    with database(load_settings()) as engine, engine.begin() as connection:
        ids = [find_client(connection, which).id for which in client]
        if password is not None:
            add_login(connection, name, VIEWER, password)
        seen = give_clients(connection, name, ids)
    _tell(name, password if is_new else None, json=json, of="viewer", locations=seen)


def list_viewers(json: Json = False) -> None:
    """List the viewers' logins and the locations of the clients that each may see."""
    with database(load_settings()) as engine:
        found = _viewers(engine)
    if json:
        print_json({"viewers": [{"name": name, "locations": seen} for name, seen in found.items()]})
    else:
        print_table("Viewers", ["login", "locations"], [[name, ", ".join(seen)] for name, seen in found.items()])


def remove_viewer_command(name: Name, json: Json = False) -> None:
    """Take a viewer's clients and its login away, and end its sessions."""
    with database(load_settings()) as engine, engine.begin() as connection:
        clients = remove_viewer(connection, name)
    if json:
        print_json({"name": name, "clients": clients})
    else:
        out.print(f"Removed the login {name}, which saw {clients} clients.", markup=False)


def _viewers(engine: Engine) -> dict[str, list[str]]:
    with engine.connect() as connection:
        return viewers(connection)


def _password(from_stdin: bool) -> tuple[SecretStr, bool]:
    """The password, and whether it was made here, so that it has to be shown."""
    if not from_stdin:
        return new_password(), True
    given = sys.stdin.readline().rstrip("\n")
    if not given:
        raise InvalidInput("No password was given. Pipe it in: ... --password-stdin < password.txt")
    return SecretStr(given), False


def _tell(name: str, shown: SecretStr | None, *, json: bool, of: str, locations: list[str] | None = None) -> None:
    password = shown.get_secret_value() if shown is not None else None
    if json:
        document: dict[str, object] = {"name": name, "role": of, "password": password}
        print_json(document if locations is None else document | {"locations": locations})
        return
    sees = "" if locations is None else f" It sees {', '.join(locations)}."
    out.print(f"The login {name} is a {of}.{sees}", markup=False)
    if password is not None:
        err.print("Its password, which is shown this once:", soft_wrap=True)
        out.print(password, markup=False)
