"""A CSV of clients: all of it or nothing, every fault in one answer, no value of it repeated."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Engine

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.errors import DatabaseUnavailable, InvalidInput
from ghl_pipeline.locations.clients import Client, add_client, deactivate_client, list_clients, location_access
from ghl_pipeline.locations.csv_import import CsvProblem, ImportReport, InvalidCsv, import_clients
from ghl_pipeline.privacy.tokens import TokenCipher

ACME, BETA, GAMMA = "ve9EPM428h8vShlRW1KT", "betaLocation00000001", "gammaLocation0000001"
CIPHER = TokenCipher([Fernet(Fernet.generate_key())], "this test")


def load(engine: Engine, text: str) -> ImportReport:
    return import_clients(engine, CIPHER, io.StringIO(text))


def stored(engine: Engine) -> dict[str, Client]:
    with engine.connect() as connection:
        return {client.name: client for client in list_clients(connection)}


def token_of(engine: Engine, location_id: str) -> str:
    with engine.connect() as connection:
        return location_access(connection, CIPHER, location_id).token.get_secret_value()


def problems_of(engine: Engine, source: Path | io.StringIO) -> list[CsvProblem]:
    with pytest.raises(InvalidCsv) as refused:
        import_clients(engine, CIPHER, source)
    assert "nothing was imported" in str(refused.value)
    assert "\n" not in str(refused.value)
    return refused.value.problems


def test_a_file_is_imported_and_importing_it_again_changes_nothing(engine: Engine) -> None:
    text = (
        "name,location_id,token,default_region,time_zone,active\n"
        f"Acme,{ACME},tokenA,us,America/New_York,\n"
        f'"Beta, ""B"" & Co",{BETA},tokenB,GB,Europe/London,no\n'
    )
    assert load(engine, text) == ImportReport(added=2, updated=0, unchanged=0)
    assert load(engine, text) == ImportReport(added=0, updated=0, unchanged=2)
    acme, beta = stored(engine)["Acme"], stored(engine)['Beta, "B" & Co']
    assert (acme.default_region, acme.time_zone, acme.active) == ("US", "America/New_York", True)
    assert (beta.default_region, beta.active) == ("GB", False)
    assert beta.deactivated_at is not None
    assert token_of(engine, ACME) == "tokenA"


def test_a_known_client_is_updated_by_what_the_file_says_and_only_by_that(engine: Engine) -> None:
    load(engine, f"name,location_id,token,default_region\nAcme,{ACME},tokenA,GB\n")
    with engine.begin() as connection:
        deactivate_client(connection, "Acme")
    assert load(engine, f"name,location_id,token,default_region,active\nACME,{ACME},,,\n").updated == 1
    acme = stored(engine)["ACME"]
    assert (acme.default_region, acme.active, acme.has_token) == ("GB", False, True)
    assert load(engine, f"name,location_id,token,active\nACME,{ACME},tokenNew,Yes\n").updated == 1
    acme = stored(engine)["ACME"]
    assert (acme.default_region, acme.active, acme.deactivated_at) == ("GB", True, None)
    assert token_of(engine, ACME) == "tokenNew"


def test_a_token_whose_key_was_lost_is_replaced(engine: Engine) -> None:
    lost = TokenCipher([Fernet(Fernet.generate_key())], "lost")
    with engine.begin() as connection:
        add_client(connection, lost, name="Acme", location_id=ACME, token=SecretStr("tokenA"))
    assert load(engine, f"name,location_id,token\nAcme,{ACME},tokenA\n").updated == 1
    assert token_of(engine, ACME) == "tokenA"


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeffName ; Location ID ;TOKEN; Default-Region\r\n Acme ;{ACME}; tokenA ;us\r\n\r\n".encode(),
        f"token\tLOCATIONID\tname\nTOKEN\t{ACME}\tAcme\n".replace("TOKEN", "tokenA").encode(),
        f"\n\nname,location_id,token,,\nAcme,{ACME},tokenA,,\n,,,,\n".encode(),
        f"name,location_id,token\rAcme,{ACME},tokenA".encode(),
        f'"name","location_id","token"\n"Acme","{ACME}","tokenA"'.encode(),
    ],
    ids=["excel-europe", "tabs", "blank-columns-and-lines", "old-mac", "quoted"],
)
def test_a_file_as_spreadsheets_write_it_is_understood(engine: Engine, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clients.csv"
    path.write_bytes(content)
    assert import_clients(engine, CIPHER, path) == ImportReport(1, 0, 0)
    assert stored(engine)["Acme"].location_id == ACME
    assert token_of(engine, ACME) == "tokenA"


def test_all_bad_rows_are_reported_with_their_lines_and_no_row_is_imported(engine: Engine) -> None:
    with engine.begin() as connection:
        gamma = add_client(connection, CIPHER, name="Gamma", location_id=GAMMA)
    text = (
        "name,location_id,token,default_region,time_zone,active\n"
        f"Acme,{ACME},secretOne,US,UTC,yes\n"  # 2: right in itself
        ",short,secret two,XX,Mars/Olympus,maybe\n"  # 3: wrong in everything
        f'"Two\nlines",{BETA},secretThree\n'  # 4-5: a name with a line break
        f"Acme,{BETA},secretFour\n"  # 6: the name of line 2
        f"Delta,{ACME},secretFive\n"  # 7: the location of line 2
        f"Epsilon,{GAMMA},secretSix\n"  # 8: Gamma's location
        "gamma,gammaLocation0000002,secretSeven\n"  # 9: Gamma's name
        "Zeta,zetaLocation00000001,\n"  # 10: new, without a token
        "Eta,etaLocation000000001,secretEight,US,UTC,yes,extra\n"  # 11: one cell too many
        "Theta\x00,thetaLocation0000001,secret\x00Nine\n"  # 12
        f"{'x' * 201},iotaLocation00000001,{'y' * 4001}\n"  # 13
        "Kappa\n"  # 14: too few
    )
    problems = problems_of(engine, io.StringIO(text))
    assert [(problem.line, problem.column) for problem in problems] == [
        (3, "active"), (3, "default_region"), (3, "location_id"), (3, "name"), (3, "time_zone"), (3, "token"),
        (4, "name"), (6, "name"), (7, "location_id"), (8, "location_id"), (9, "name"), (10, "token"), (11, ""),
        (12, "name"), (12, "token"), (13, "name"), (13, "token"), (14, "location_id"),
    ]  # fmt: skip
    reasons = {(problem.line, problem.column): problem.reason for problem in problems}
    assert reasons[6, "name"] == reasons[7, "location_id"] == "is the same as in line 2"
    assert reasons[8, "location_id"].startswith(f'belongs to client {gamma.id} ("Gamma")')
    assert reasons[9, "name"].startswith(f"is the name of client {gamma.id}, location {GAMMA}")
    said = str(InvalidCsv("CSV", problems))
    for value in ("secret", "Mars", "maybe", "short", "Epsilon", "Theta", "Kappa", "extra", "\x00", "yyy", "xxx"):
        assert value not in said
    assert list(stored(engine)) == ["Gamma"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", CsvProblem(1, "", "is empty; it needs name, location_id, token")),
        (b"\xef\xbb\xbf\r\n \r\n", CsvProblem(1, "", "is empty; it needs name, location_id, token")),
        (b"name,location_id,token\n\n", CsvProblem(1, "", "the file has no row below its header")),
        (b"name,location_id\nAcme,x\n", CsvProblem(1, "token", "the column is missing")),
        (b"name,location_id,token,Name\na,b,c,d\n", CsvProblem(1, "name", "the column is there twice")),
        (b"name,location_id,token\nA,b,c\nM\xfc,b,c\n", CsvProblem(3, "", 'is not UTF-8; save it as "CSV UTF-8"')),
        ("name,location_id,token\n".encode("utf-16"), CsvProblem(1, "", 'is UTF-16; save it as "CSV UTF-8"')),
    ],
    ids=["empty", "blank", "header-only", "column-missing", "column-twice", "latin-1", "utf-16"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_as_clients_is_refused(
    engine: Engine, tmp_path: Path, content: bytes, problem: CsvProblem
) -> None:
    path = tmp_path / "clients.csv"
    path.write_bytes(content)
    assert problem in problems_of(engine, path)
    assert stored(engine) == {}


def test_a_file_without_header_does_not_have_its_first_row_repeated(engine: Engine) -> None:
    with pytest.raises(InvalidCsv) as refused:
        load(engine, f"Acme,{ACME},pit-secret\n")
    assert "column 3 is not known; known are name" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert ACME not in str(refused.value)


@pytest.mark.parametrize(
    "row", [f'"Acme,{BETA},secretB\nDelta,{GAMMA},secretC\n', f'"Ac"me,{BETA},secretB\n', "x" * 140_000]
)
def test_a_stray_quote_or_an_endless_cell_is_reported_where_it_begins(engine: Engine, row: str) -> None:
    problems = problems_of(engine, io.StringIO(f"name,location_id,token\nAcme,{ACME},secretA\n{row}"))
    assert [(problem.line, problem.column) for problem in problems] == [(3, "")]
    assert "quote that is not closed" in problems[0].reason
    assert stored(engine) == {}


def test_a_long_list_of_faults_is_cut_in_the_text_and_whole_in_the_error(engine: Engine) -> None:
    with pytest.raises(InvalidCsv, match=r"30 problem\(s\).*and 10 more") as refused:
        load(engine, "name,location_id,token\n" + "Acme,short,token\n" * 30)
    assert len(refused.value.problems) == 30


def test_a_missing_file_is_named(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.csv cannot be read: No such file"):
        import_clients(engine, CIPHER, tmp_path / "nowhere.csv")


def test_two_imports_at_once_end_as_one_after_the_other(engine: Engine) -> None:
    text = "name,location_id,token\n" + "".join(f"Client {n},location{n:012},token{n}\n" for n in range(30))
    barrier = threading.Barrier(4)

    def run() -> ImportReport:
        barrier.wait(10)
        return load(engine, text)

    with ThreadPoolExecutor(4) as pool:
        reports = [future.result(30) for future in [pool.submit(run) for _ in range(4)]]
    assert sorted(report.added for report in reports) == [0, 0, 0, 30]
    assert sum(report.unchanged for report in reports) == 90


def test_an_unreachable_database_is_said_to_be_so(engine: Engine) -> None:
    nowhere = create_engine(engine.url.set(port=1))
    with pytest.raises(DatabaseUnavailable, match=":1 cannot be reached"):
        load(nowhere, f"name,location_id,token\nAcme,{ACME},tokenA\n")
    nowhere.dispose()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from(list('abA1é,;\t"\n\r \x00=')) | st.characters(exclude_categories=["Cs"])))
def test_whatever_the_file_holds_it_is_imported_or_refused_and_never_crashes(engine: Engine, text: str) -> None:
    for content in (text, f"name,location_id,token\n{text}"):
        with pytest.raises(InvalidInput):
            load(engine, content)
    assert stored(engine) == {}
