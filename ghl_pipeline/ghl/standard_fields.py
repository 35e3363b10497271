"""The fields of a contact that this project may write: the person's own, never tags, custom fields or anything else."""

from dataclasses import dataclass, field

from ghl_pipeline.ghl.payloads import clean_text


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardFields:
    """What a contact is given. A blank one is not sent, so that nothing is ever emptied. Its `repr` shows none."""

    first_name: str | None = field(default=None, repr=False)
    last_name: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    company_name: str | None = field(default=None, repr=False)

    def as_body(self) -> dict[str, str]:
        """The fields that are not blank, by GHL's names."""
        values = {
            "firstName": self.first_name,
            "lastName": self.last_name,
            "email": self.email,
            "phone": self.phone,
            "companyName": self.company_name,
        }
        return {name: text for name, value in values.items() if (text := clean_text(value))}
