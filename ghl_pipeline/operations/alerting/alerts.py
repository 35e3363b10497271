"""An alert, and its words: counts, ids and what to do; no value of a person."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from ghl_pipeline.privacy.patterns import redact

# Of so many locations the ids are kept; the others are counted.
NAMED_LOCATIONS: Final = 5
RUN_DIED: Final = "RunDied"


class AlertKind(StrEnum):
    """What an alert is about."""

    FAILED = "failed"
    HELD = "held"
    DIED = "died"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Alert:
    """What somebody is told.

    Attributes:
        id: its number; 0 of one that is not stored.
        kind: what it is about.
        capability: the kind of work; of a run that died, its job.
        error_class: of the error.
        locations: ids of the first ones.
        location_count: of all.
        suppressed: failures of the same that were not told since the last alert.
        error_text: of the first location; sanitised.
        run_id: of the first location.
        made_at: when it was stored.
    """

    id: int
    kind: AlertKind
    capability: str
    error_class: str
    locations: Sequence[str]
    location_count: int
    suppressed: int
    error_text: str | None
    run_id: str | None
    made_at: datetime

    def title(self) -> str:
        """One line: what happened, where, how often."""
        places = f"{self.location_count} location{'s' * (self.location_count != 1)}"
        match self.kind:
            case AlertKind.FAILED:
                return f"{self.capability} failed at {places}: {self.error_class}"
            case AlertKind.HELD:
                return f"{self.capability} is held at {places} until somebody acts: {self.error_class}"
            case AlertKind.DIED:
                if self.location_count:
                    return f"A run of {self.capability} ended in the middle, with {places} not finished"
                return f"A run of {self.capability} failed and names no location"
            case AlertKind.TEST:
                return "This is a test of ghl-pipeline's alerts"

    def what_to_do(self) -> str:
        """What helps, with the command."""
        match self.kind:
            case AlertKind.FAILED:
                return "Nothing yet: it is tried again by itself, with growing pauses. To see it: ghl-pipeline status"
            case AlertKind.HELD:
                first = self.locations[0] if self.locations else "LOCATION"
                command = f"ghl-pipeline doctor --location {first}"
                return f"Remove the cause, then: {command}. To see all: ghl-pipeline status"
            case AlertKind.DIED:
                return (
                    "Look at the run in the UI. One whose process was killed is started again by itself and goes on "
                    "where it was; if it is killed again, look at the memory. How all stand: ghl-pipeline status"
                )
            case AlertKind.TEST:
                return "Nothing."

    def lines(self) -> list[str]:
        """The whole text, a line each, without the link to the run."""
        lines = [self.title()]
        if self.locations:
            more = self.location_count - len(self.locations)
            lines.append(f"Where: {', '.join(self.locations)}{f' and {more} more' if more > 0 else ''}")
        if self.error_text:
            # It is sanitised where it is stored; what leaves the house is looked through once more.
            lines.append(f"Why{', of the first' * (self.location_count > 1)}: {redact(self.error_text)}")
        lines.append(f"What to do: {self.what_to_do()}")
        if self.suppressed:
            lines.append(f"+{self.suppressed} suppressed since the last alert of it")
        return lines

    def run_url(self, ui_url: str | None) -> str | None:
        """Where the run is shown; None without a run or a UI."""
        return f"{ui_url}/runs/{self.run_id}" if ui_url and self.run_id else None
