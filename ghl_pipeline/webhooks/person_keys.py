"""What a person is known by, as hashes: so that an event about somebody who is no lead yet is found once they are one.

Hashes, because such an event may wait for weeks and its row is shown to whoever looks for what went wrong.
"""

from uuid import UUID, uuid5

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.storable import storable_text

# Stored on rows: another value of it makes what is stored unfindable.
_NAMESPACE = UUID("7a1f0c0e-5b0c-4c3b-9a41-0d9a7d1f6c52")


def person_keys(person: NewLead) -> tuple[UUID, ...]:
    """One key for each of contact id, EmailBison lead id and e-mail that the person has, in this order.

    Two persons have a key in common when they have the same contact id, the same EmailBison lead id, or the same e-mail
    without regard to case and surrounding space. The keys name no client: compare them within one only.
    """
    contact_id = storable_text(person.contact_id or "").strip()
    email = storable_text(person.email or "").strip().lower()
    named = (
        f"contact:{contact_id}" if contact_id else None,
        f"emailbison:{person.emailbison_lead_id}" if person.emailbison_lead_id is not None else None,
        f"email:{email}" if email else None,
    )
    return tuple(uuid5(_NAMESPACE, name) for name in named if name)
