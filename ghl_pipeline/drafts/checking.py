"""What a model wrote, looked at before anybody is offered it. Pure.

A lead's message may ask the model for anything. What would do harm in an operator's hands is a way to somewhere else: a
link, an e-mail address, a phone number. A draft may hold those that the client itself gave (the booking link, or what
stands in its name or tone), and no other. What the rules cannot see ("evil dot com"), the operator can.
"""

from typing import Final

from ghl_pipeline.database.storable import storable_text
from ghl_pipeline.drafts.links import ADDRESS, addresses, links, numbers, plain
from ghl_pipeline.drafts.outcomes import Channel, DraftFailure
from ghl_pipeline.drafts.prompting import Offer

# Four parts of a text message; and what is an article, not a reply.
LONGEST: Final = {Channel.SMS: 640, Channel.EMAIL: 6_000}


def unusable(text: str, channel: Channel, offer: Offer) -> DraftFailure | None:
    """Why a text cannot be offered; None when it can."""
    if not text.strip():
        return DraftFailure.EMPTY
    if len(text) > LONGEST[channel]:
        return DraftFailure.TOO_LONG
    return DraftFailure.UNWANTED_LINK if _leads_elsewhere(text, offer) else None


def tidy(text: str) -> str:
    """The text as it is stored: no surrounding space, nothing that PostgreSQL cannot hold."""
    return storable_text(text).strip()


def _leads_elsewhere(text: str, offer: Offer) -> bool:
    said = plain(text)
    own = plain(f"{offer.client_name}\n{offer.tone or ''}\n{offer.booking_link or ''}")
    if not addresses(said) <= addresses(own):
        return True
    # An address has a host in it, which would be taken for a link.
    if not links(ADDRESS.sub(" ", said)) <= links(ADDRESS.sub(" ", own)):
        return True
    return not numbers(said, offer.region) <= numbers(own, offer.region)
