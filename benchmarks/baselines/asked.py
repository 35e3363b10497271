"""What a baseline is told: where GHL is, whose contacts, and how large a slice of the leads or contacts it works on."""

import os
from dataclasses import dataclass, field
from typing import Final, Self

VERSION: Final = "2021-07-28"


@dataclass(frozen=True, slots=True)
class Asked:
    """What `benchmarks/backfill.py` gives a baseline in its environment."""

    url: str
    location: str
    token: str = field(repr=False)
    slice: int

    @classmethod
    def from_environment(cls) -> Self:
        """From the variables that `as_environment` names."""
        given = os.environ
        return cls(given["ASKED_URL"], given["ASKED_LOCATION"], given["ASKED_TOKEN"], int(given["ASKED_SLICE"]))

    def as_environment(self) -> dict[str, str]:
        """The variables for the baseline's process."""
        return {
            "ASKED_URL": self.url,
            "ASKED_LOCATION": self.location,
            "ASKED_TOKEN": self.token,
            "ASKED_SLICE": str(self.slice),
        }

    @property
    def headers(self) -> dict[str, str]:
        """What GHL wants with every request."""
        return {"Authorization": f"Bearer {self.token}", "Version": VERSION, "Accept": "application/json"}
