"""How the failure of a location's work is described: as it may be shown, and whether a rerun alone can help."""

from dataclasses import dataclass

from ghl_pipeline.calendly.errors import CalendlyAccessDenied
from ghl_pipeline.errors import ConfigurationError, InvalidInput, PipelineError, UnknownClient
from ghl_pipeline.ghl.errors import DailyQuotaReached, GhlError, PermanentGhlError
from ghl_pipeline.orchestration.rerun_rules import Cause, cause_of_failure
from ghl_pipeline.privacy.redaction import safe_error_text


@dataclass(frozen=True, slots=True)
class FailedLocation:
    """A location that ended with an error: its class, a text safe to show, and whether a rerun alone cannot help.

    `why` is what the pause before a rerun goes by; None where class and `permanent` say it all.
    """

    location_id: str
    error_class: str
    text: str
    permanent: bool
    why: Cause | None = None

    @property
    def cause(self) -> Cause:
        """Why it failed, as far as it matters for trying again."""
        return self.why or cause_of_failure(self.error_class, permanent=self.permanent)


class PartlyFailed(PipelineError):
    """Part of a location's work failed, the rest is done. `error` is the reason that says whether a rerun can help."""

    error: GhlError | None = None


def describe_failure(location_id: str, error: BaseException) -> FailedLocation:
    """An error as it may be shown: its class, a text without values of a person, whether it is permanent."""
    cause = error.error if isinstance(error, PartlyFailed) and error.error else error
    # The daily quota comes back by itself.
    permanent = (
        isinstance(cause, PermanentGhlError | CalendlyAccessDenied | UnknownClient | InvalidInput | ConfigurationError)
        and not isinstance(cause, DailyQuotaReached)
    ) or (isinstance(cause, PipelineError) and cause.waits_for_person)
    what = safe_error_text(error)
    if not isinstance(error, PipelineError):
        what = f"{what}: location {location_id}: a bug. Its stack is in the log (--verbose at the command line)."
    elif location_id not in what:
        what = f"Location {location_id}: {what}"
    return FailedLocation(location_id, type(error).__name__, what, permanent, _why(cause, permanent=permanent))


def _why(cause: BaseException, *, permanent: bool) -> Cause:
    if not isinstance(cause, PipelineError):
        return Cause.BROKEN
    return Cause.DECISION if cause.waits_for_person else cause_of_failure(type(cause).__name__, permanent=permanent)
