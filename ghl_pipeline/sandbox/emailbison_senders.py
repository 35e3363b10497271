"""EmailBison's mailboxes and the reply that is sent by one: two lists, a single one, and `POST .../reply`."""

import msgspec

from ghl_pipeline.sandbox.emailbison_calls import BisonCall, by_id, not_found, numbered, unprocessable
from ghl_pipeline.sandbox.emailbison_payloads import Reply, api_reply
from ghl_pipeline.sandbox.mailboxes import refusal_of
from ghl_pipeline.sandbox.responses import Answer
from ghl_pipeline.sandbox.sender_payloads import sender_object


def list_sender_emails(call: BisonCall) -> Answer:
    """The mailboxes of the workspace, page by page."""
    return numbered(call, call.workspace.senders, sender_object)


def get_sender_email(call: BisonCall) -> Answer:
    """One mailbox."""
    sender = by_id(call, {sender.id: sender for sender in call.workspace.senders})
    return not_found() if sender is None else Answer({"data": sender_object(sender)})


def list_campaign_senders(call: BisonCall) -> Answer:
    """The mailboxes that a campaign sends by, page by page.

    Seen to answer with 15 rows and a `meta`, although the OpenAPI document shows the rows alone.
    """
    mailboxes = call.workspace.mailboxes
    campaign = by_id(call, mailboxes.campaigns)
    return not_found() if campaign is None else numbered(call, mailboxes.of_campaign(campaign), sender_object)


def post_reply(call: BisonCall) -> Answer:
    """Sends a reply by the mailbox that is named; with `reply_all` and without a name by the one that was written to.

    The form of the 400 is not documented; it is that of the 200 with `success` false.
    """
    workspace = call.workspace
    reply = by_id(call, workspace.replies)
    if reply is None:
        return not_found()
    try:
        body = msgspec.json.decode(call.content, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = {}
    errors = _missing(body)
    if errors:
        return unprocessable(errors)
    if body.get("reply_all") is True:
        body = {"sender_email_id": reply.sender_email_id, **body}
    sender = refusal_of(workspace.mailboxes, body)
    if not isinstance(sender, tuple):
        sent = workspace.answered(
            reply, sender, str(body["message"]), _first_address(body, reply), int(call.now * 1000)
        )
        shown = api_reply(sent, None) | {"parent_id": reply.id}
        return Answer({"data": {"success": True, "message": "Successfully sent email", "reply": shown}})
    status, message = sender
    if status == 422:
        return unprocessable({"sender_email_id": [message]})
    return Answer({"data": {"success": False, "message": message}}, status)


def _missing(body: dict[str, object]) -> dict[str, list[str]]:
    errors = {}
    if not isinstance(body.get("message"), str) or not body["message"]:
        errors["message"] = ["The message field is required."]
    if body.get("reply_all") is not True:
        if not isinstance(body.get("sender_email_id"), int):
            errors["sender_email_id"] = ["The sender email id field is required."]
        if not isinstance(body.get("to_emails"), list) or not body["to_emails"]:
            errors["to_emails"] = ["The to emails field is required."]
    return errors


def _first_address(body: dict[str, object], reply: Reply) -> str:
    people = body.get("to_emails")
    first = people[0] if isinstance(people, list) and people else None
    address = first.get("email_address") if isinstance(first, dict) else None
    return address if isinstance(address, str) else reply.from_email
