"""What a run says of a client's accounts: counts only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.reports import Report, bar_chart
from ghl_pipeline.senders.roster import Reason

CAPABILITY = "senders"
# Of a location that was asked for by name while another run was at its accounts.
LEFT_TO_ANOTHER = "another run is at these accounts"


@dataclass(frozen=True, slots=True)
class SendersReport:
    """What was listed and repaired at a location.

    Attributes:
        location: whose client it was.
        accounts: that EmailBison lists.
        able: those of them that can send.
        unknown_statuses: those of them whose status is no word that is known here.
        gone: accounts that it once listed and does not any more.
        doubted_since: since when its listings name no total and lack so much that nobody is taken for gone by them;
            None: they are believed.
        campaigns: that were asked which accounts they send by.
        campaigns_unknown: those of them that EmailBison does not know.
        healed: leads that were given another account, by what was wrong with theirs.
        left_without: leads that need another one, for which there is none.
        requests: to EmailBison.
        seconds: from the first question to the last lead.
        skipped: why nothing was asked; None when it was.
    """

    location: str
    accounts: int = 0
    able: int = 0
    unknown_statuses: int = 0
    gone: int = 0
    doubted_since: datetime | None = None
    campaigns: int = 0
    campaigns_unknown: int = 0
    healed: Mapping[Reason, int] = field(default_factory=dict)
    left_without: int = 0
    requests: int = 0
    seconds: float = 0.0
    skipped: str | None = None

    @property
    def leads_healed(self) -> int:
        """Leads that were given another account."""
        return sum(self.healed.values())

    def counts(self) -> dict[str, int]:
        """By name, the same names whatever was found."""
        return {
            "accounts": self.accounts,
            "can_send": self.able,
            "unknown_statuses": self.unknown_statuses,
            "gone": self.gone,
            "listing_doubtful": int(self.doubted_since is not None),
            "campaigns_asked": self.campaigns,
            "campaigns_unknown": self.campaigns_unknown,
            "leads_healed": self.leads_healed,
            **{f"healed_{reason}": self.healed.get(reason, 0) for reason in Reason},
            "left_without": self.left_without,
            "requests": self.requests,
        }

    def told(self) -> Report:
        """As the history of `sender_accounts` keeps it."""
        if self.skipped is not None:
            return Report({"skipped": self.skipped, "requests": 0})
        healed = {**{reason.value: self.healed.get(reason, 0) for reason in Reason}, "none to give": self.left_without}
        return Report({**self.counts(), "seconds": round(self.seconds, 3)}, charts={"leads": bar_chart(healed)})


@dataclass(frozen=True, slots=True)
class SendersResult:
    """What became of each location: its report, its failure, or (`busy`) that another run is at work there."""

    reports: Mapping[str, SendersReport]
    failures: tuple[FailedLocation, ...]
    busy: tuple[str, ...] = ()
