"""The mailboxes that a workspace sends from, its campaigns, and which mailbox writes to whom.

A lead keeps its sender within a campaign, as EmailBison's documents say, also when the mailbox can no longer send or is
gone: that is what a refused reply comes from.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.records import record
from ghl_pipeline.sandbox.sender_payloads import Campaign, SenderEmail

FIRST_CAMPAIGN: Final = 1


class Mailboxes:
    """The mailboxes and campaigns of one workspace. `now` is when the first ones were made, in epoch milliseconds."""

    def __init__(self, now: int) -> None:
        self._now = now
        self.senders: list[SenderEmail] = []
        """Those that there are, in the order of the API's list."""
        self._gone: dict[int, SenderEmail] = {}
        self.campaigns: dict[int, Campaign] = {}
        self._campaign_of: dict[int, int] = {}
        self._sender_of: dict[tuple[int, int], int] = {}
        for _ in range(3):
            self.add()
        self.add_campaign(FIRST_CAMPAIGN, "Spring Outreach")

    def add(self, **fields: object) -> SenderEmail:
        """Adds a mailbox with the given fields of `SenderEmail`; what is not given is made.

        Campaigns do not send by it before `add_campaign` says so, save those that send by all.

        Raises:
            InvalidInput: a field that a mailbox does not have, a value of the wrong type, or an id that is taken.
        """
        number = max([*self._gone, *(each.id for each in self.senders)], default=0) + 1
        number = int(str(fields.get("id", number)))
        made = {"name": f"Sam Sender {number}", "email": f"sam.{number}@example.net", "created_at": self._now}
        sender = record(SenderEmail, {**made, **fields, "id": number}, "a mailbox")
        if self.with_id(sender.id) is not None:
            raise InvalidInput(f"The workspace has a mailbox {sender.id} already.")
        self.senders.append(sender)
        return sender

    def change(self, sender_id: int, **fields: object) -> SenderEmail:
        """Changes a mailbox, such as `status="Disconnected"`.

        Raises:
            InvalidInput: no such mailbox, or fields as in `add`.
        """
        before = self.with_id(sender_id)
        if before is None:
            raise InvalidInput(f"The workspace has no mailbox {sender_id}.")
        after = record(SenderEmail, {**msgspec.structs.asdict(before), **fields, "id": sender_id}, "a mailbox")
        self.senders[self.senders.index(before)] = after
        return after

    def remove(self, sender_id: int) -> bool:
        """Takes a mailbox out of the workspace; False when there was none. Leads that it wrote to keep its id."""
        sender = self.with_id(sender_id)
        if sender is None:
            return False
        self.senders.remove(sender)
        self._gone[sender_id] = sender
        return True

    def with_id(self, sender_id: int) -> SenderEmail | None:
        """The mailbox, if the workspace has it."""
        return next((each for each in self.senders if each.id == sender_id), None)

    def add_campaign(self, campaign_id: int, name: str, sender_ids: tuple[int, ...] | None = None) -> Campaign:
        """Adds a campaign, or replaces the one with this id; without ids it sends by all mailboxes."""
        self.campaigns[campaign_id] = Campaign(id=campaign_id, name=name, sender_ids=sender_ids)
        return self.campaigns[campaign_id]

    def of_campaign(self, campaign: Campaign) -> list[SenderEmail]:
        """The mailboxes that a campaign sends by, in the order of the list."""
        return [each for each in self.senders if campaign.sender_ids is None or each.id in campaign.sender_ids]

    def enroll(self, lead_id: int, campaign_id: int, sender_id: int | None = None) -> None:
        """Puts a lead into a campaign, and says which mailbox writes to it; None leaves that to the campaign.

        Raises:
            InvalidInput: there is no such campaign.
        """
        if campaign_id not in self.campaigns:
            raise InvalidInput(f"The workspace has no campaign {campaign_id}.")
        self._campaign_of[lead_id] = campaign_id
        if sender_id is not None:
            self._sender_of[lead_id, campaign_id] = sender_id

    def campaign_for(self, lead_id: int) -> Campaign:
        """The lead's campaign; the first one unless it was put into another."""
        return self.campaigns[self._campaign_of.get(lead_id, FIRST_CAMPAIGN)]

    def sender_for(self, lead_id: int) -> SenderEmail:
        """The mailbox that writes to the lead: always the same within its campaign."""
        campaign = self.campaign_for(lead_id)
        chosen = self._sender_of.get((lead_id, campaign.id))
        if chosen is None:
            able = self.of_campaign(campaign) or self.senders or list(self._gone.values())
            if not able:
                raise InvalidInput("The workspace never had a mailbox that could have written to the lead.")
            chosen = self._sender_of[lead_id, campaign.id] = able[lead_id % len(able)].id
        found = self.with_id(chosen) or self._gone.get(chosen)
        return found or SenderEmail(id=chosen, name="Unknown", email=f"sam.{chosen}@example.net", status="Disconnected")


def refusal_of(mailboxes: Mailboxes, body: Mapping[str, object]) -> tuple[int, str] | SenderEmail:
    """Who would send a reply of this body; else the status and the text with which EmailBison refuses it."""
    sender_id = body.get("sender_email_id")
    sender = mailboxes.with_id(sender_id) if isinstance(sender_id, int) else None
    if sender is None or not sender.selectable:
        return 422, "The selected sender email id is invalid."
    if sender.broken or sender.status.lower() != "connected":
        return 400, (
            "Error sending email. Please re-connect this email account: "
            "Message from provider: SMTP Error: Could not authenticate."
        )
    return sender
