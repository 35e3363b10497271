"""A list that names no total and lacks most accounts is believed only when it says so again, an hour later."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from ghl_pipeline.emailbison import client as emailbison
from ghl_pipeline.emailbison.payloads import Page, read_page
from ghl_pipeline.emailbison.sender_lists import SenderEmail, SenderList
from ghl_pipeline.senders.doubt import is_doubtful
from ghl_pipeline.senders.report import SendersReport
from ghl_pipeline_tests.senders.conftest import Agency, Client


@pytest.fixture
def listed(agency: Agency) -> Client:
    return agency.add_client(mailboxes=4)


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Makes EmailBison name no total, and leave out all but the first so many accounts."""

    def answer(rows: int | None) -> None:
        def read(body: bytes, url: str) -> Page:
            page = read_page(body, url)
            return page if rows is None else replace(page, rows=page.rows[:rows], total=None)

        monkeypatch.setattr(emailbison, "read_page", read)

    return answer


async def synced(agency: Agency, client: Client) -> SendersReport:
    """As a run does it, so that it is on record."""
    return (await agency.sync(client)).reports[client.location_id]


def an_hour_later(agency: Agency) -> None:
    with agency.engine.begin() as connection:
        connection.execute(
            text("""
                UPDATE location_attempts SET report = report || jsonb_build_object(
                    'doubted_since', CAST(report ->> 'doubted_since' AS timestamptz) - interval '1 hour')
                WHERE report ? 'doubted_since'
            """)
        )


def gone(client: Client) -> list[int]:
    return [id_ for id_, account in client.accounts().items() if account["gone_at"] is not None]


@pytest.mark.parametrize("rows", [0, 1])
async def test_nobody_is_gone_by_one_short_list_and_by_a_second_an_hour_later(
    agency: Agency, listed: Client, uncounted: Callable[[int | None], None], rows: int
) -> None:
    lead = listed.lead(4)
    await synced(agency, listed)
    uncounted(rows)

    for _ in range(2):  # one right after it proves nothing more
        report = await synced(agency, listed)
        assert (report.accounts, report.gone, report.counts()["listing_doubtful"]) == (rows, 0, 1)
        assert (gone(listed), listed.sender_of(lead)) == ([], 4)
    an_hour_later(agency)
    report = await synced(agency, listed)

    assert (report.gone, report.counts()["listing_doubtful"]) == (4 - rows, 0)
    assert len(gone(listed)) == 4 - rows
    assert report.told().values["listing_doubtful"] == 0


@pytest.mark.parametrize("breaks_off", ["a whole list", "a failure"])
async def test_whatever_comes_in_between_begins_the_hour_anew(
    agency: Agency, listed: Client, uncounted: Callable[[int | None], None], breaks_off: str
) -> None:
    await synced(agency, listed)
    uncounted(1)
    await synced(agency, listed)
    an_hour_later(agency)
    if breaks_off == "a failure":
        agency.sandbox.faults(listed.workspace.faults_key, garbage_rate=1.0)
        assert (await agency.sync(listed)).failures
        agency.sandbox.faults()
    else:
        uncounted(None)
        await synced(agency, listed)
        uncounted(1)

    assert (await synced(agency, listed)).gone == 0


async def test_a_short_list_that_names_its_total_is_believed_at_once(agency: Agency, listed: Client) -> None:
    await synced(agency, listed)
    for number in (1, 2, 3, 4):
        listed.workspace.mailboxes.remove(number)

    report = await synced(agency, listed)

    assert (report.accounts, report.gone, report.doubted_since) == (0, 4, None)


async def test_half_of_those_that_can_send_is_enough(
    agency: Agency, listed: Client, uncounted: Callable[[int | None], None]
) -> None:
    await synced(agency, listed)
    uncounted(2)

    assert (await synced(agency, listed)).gone == 2


IDS = st.sets(st.integers(1, 12))


@given(listed=IDS, known=IDS, able=IDS, is_counted=st.booleans())
def test_only_an_uncounted_list_is_doubted_and_never_one_with_everybody_in_it(
    listed: set[int], known: set[int], able: set[int], is_counted: bool
) -> None:
    accounts = SenderList(tuple(SenderEmail(id_) for id_ in listed), is_counted)
    doubtful = is_doubtful(accounts, known, known & able)
    assert not (doubtful and is_counted)
    if known and not is_counted:
        assert doubtful or listed
        assert not (doubtful and listed and listed >= known)
