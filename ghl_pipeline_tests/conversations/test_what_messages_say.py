"""An imported message says of its lead what its webhook would have said: a STOP opts out, a reply is a reply."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from ghl_pipeline.conversations.sms_import import import_messages, import_of_lead
from ghl_pipeline.database.messages import NewMessage, store_messages
from ghl_pipeline_tests.conversations.conftest import RULES, TELL, Agency, Place, ago, contact_ids

ADA, BEN, EVA = contact_ids(3)


def lead_row(place: Place, lead_id: int) -> Mapping[str, object]:
    with place.engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM leads WHERE id = :id"), {"id": lead_id}).one()
    return dict(row._mapping)


def status(place: Place, lead_id: int) -> tuple[object, bool]:
    """The lead's status, and whether it opted out."""
    row = lead_row(place, lead_id)
    return row["status"], row["opted_out_at"] is not None


async def test_a_stop_of_any_age_opts_out_when_it_was_sent(place: Place) -> None:
    ada, ben, eva = place.lead(ADA), place.lead(BEN, status="interested"), place.lead(EVA)
    sent = place.sms(ADA, "Stop.", at=ago(days=20))
    place.sms(EVA, "please stop by at noon", at=ago(days=20))
    await place.imported()
    place.sms(BEN, "STOP")
    await place.imported()
    assert [status(place, lead) for lead in (ada, ben, eva)] == [
        ("unsubscribed", True), ("unsubscribed", True), ("new", False),
    ]  # fmt: skip
    assert lead_row(place, ada)["opted_out_at"] == datetime.fromtimestamp(sent.date_added / 1000, UTC)


async def test_a_reply_after_the_first_import_makes_its_lead_replied_and_an_old_one_does_not(place: Place) -> None:
    ada, ben, eva = place.lead(ADA), place.lead(BEN), place.lead(EVA, status="do_not_contact")
    place.sms(ADA, "long ago", at=ago(days=20))
    await place.imported()
    place.sms(BEN, "yes?")
    place.sms(EVA, "yes?")
    place.sms(ADA, "we write to her", "outbound")
    await place.imported()
    assert [status(place, lead)[0] for lead in (ada, ben, eva)] == ["new", "replied", "do_not_contact"]


async def test_a_stranger_who_says_stop_becomes_a_lead_that_opted_out(place: Place) -> None:
    await place.imported()
    place.sms(ADA, "stop")
    assert (await place.imported()).leads_created == 1
    with place.engine.connect() as connection:
        (lead,) = connection.execute(text("SELECT id FROM leads")).scalars()
    assert status(place, lead) == ("unsubscribed", True)


async def test_messages_that_are_known_do_not_undo_what_a_person_set(place: Place) -> None:
    ada = place.lead(ADA)
    await place.imported()
    place.sms(ADA, "yes?")
    await place.imported()
    with place.engine.begin() as connection:
        connection.execute(text("UPDATE leads SET status = 'new' WHERE id = :id"), {"id": ada})
    await place.imported()
    assert status(place, ada)[0] == "new"


async def test_a_webhooks_message_that_gets_its_id_is_no_news_but_its_stop_is(place: Place) -> None:
    ada, ben = place.lead(ADA), place.lead(BEN)
    await place.imported()
    for contact, lead, body in ((ADA, ada, "yes?"), (BEN, ben, "STOP")):
        sent = place.sms(contact, body)
        at = datetime.fromtimestamp(sent.date_added / 1000, UTC) + timedelta(seconds=5)
        message = NewMessage(provider="ghl", channel="sms", direction="inbound", body=body, sent_at=at)
        with place.engine.begin() as connection:
            store_messages(connection, [(place.client_id, lead, message)])
    report = await place.imported()
    assert report.outcomes["healed"] == 2
    assert [status(place, lead) for lead in (ada, ben)] == [("new", False), ("unsubscribed", True)]


async def test_a_lead_that_is_caught_up_or_synced_alone_is_told_by_the_same_rule(agency: Agency, place: Place) -> None:
    place.sms(ADA, "stop", at=ago(days=20))
    place.sms(BEN, "stop", at=ago(days=20))
    place.lead(EVA)
    place.sms(EVA, "moves the mark", at=ago(minutes=0))
    assert not (await agency.conversations().import_messages([place.id])).failures
    ada, ben = place.lead(ADA), place.lead(BEN)
    async with place.client() as client:
        assert await import_of_lead(place.engine, place.access, client, ben, TELL) == 1
    assert (status(place, ada), status(place, ben)) == (("new", False), ("unsubscribed", True))
    assert not (await agency.conversations().import_messages([place.id])).failures
    assert status(place, ada) == ("unsubscribed", True)


async def test_a_lead_of_a_client_that_was_never_imported_is_told_of_opt_outs_only(place: Place) -> None:
    ada, ben = place.lead(ADA), place.lead(BEN)
    place.sms(ADA, "yes?")
    place.sms(BEN, "stop")
    async with place.client() as client:
        for lead in (ada, ben):
            assert await import_of_lead(place.engine, place.access, client, lead, TELL) == 1
    assert [status(place, lead) for lead in (ada, ben)] == [("new", False), ("unsubscribed", True)]


async def test_a_page_whose_news_cannot_be_told_is_not_stored_either(place: Place) -> None:
    """Else the STOP would be known, and so no news, the next time."""
    lead = place.lead(ADA)
    await place.imported()
    place.sms(ADA, "stop")

    class Broken(Exception):
        pass

    def broken(*_: object) -> None:
        raise Broken

    async with place.client() as client:
        with pytest.raises(Broken):
            await import_messages(place.engine, place.access, client, RULES, broken)
    assert place.rows() == []
    await place.imported()
    assert [row["body"] for row in place.rows()] == ["stop"]
    assert status(place, lead) == ("unsubscribed", True)
