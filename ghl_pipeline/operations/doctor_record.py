"""What an examination leaves on record: an attempt of the doctor's, and locations taken up again that are well now."""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Engine

from ghl_pipeline.operations.findings import Check, Finding, Level
from ghl_pipeline.orchestration.attempts import begin_attempt, end_attempt
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.holds import release

DOCTOR: Final = "doctor"
# In place of an error's class: what the doctor finds is no error of a call.
PROBLEM_FOUND: Final = "ProblemFound"

_OF_GHL: Final = ("hydration", "crm", "conversations", "availability", "reconcile", "senders")
# Which errors a check tries the cause of, and at which work: the doctor asks GHL for contacts, the location and its
# users, and neither EmailBison nor Calendly nor GHL's messages and calendars.
_TRIED: Final[Mapping[Check, tuple[Sequence[str], Sequence[str]]]] = {
    Check.TOKEN: (("TokenRejected", "TokenMissing", "TokenUnreadable"), _OF_GHL),
    Check.ACCESS: (("LocationAccessDenied",), _OF_GHL),
    Check.SEARCH: (("RequestRejected",), ("hydration", "crm")),
    Check.SCOPES: (("ScopeMissing",), ("hydration", "crm")),
}


def record_examination(engine: Engine, location_id: str, findings: Sequence[Finding]) -> int:
    """Notes how a location was found, and makes due what was held for a cause that is gone.

    Returns:
        How many kinds of work were taken up again; the sensor `rerun_failed` asks for them within a minute.
    """
    attempt = begin_attempt(engine, location_id, None, DOCTOR)
    counts = {level.value: sum(finding.level is level for finding in findings) for level in Level}
    problem = next((finding for finding in findings if finding.level is Level.PROBLEM), None)
    failure = None
    if problem is not None:
        text = f"Location {location_id}: {problem.check.value}: {problem}"
        failure = FailedLocation(location_id, PROBLEM_FOUND, text, permanent=True)
    end_attempt(engine, attempt, "failed" if failure else "succeeded", report=counts, failure=failure)
    released = 0
    with engine.begin() as connection:
        for check in _passed(findings) & _TRIED.keys():
            errors, capabilities = _TRIED[check]
            released += release(connection, location_id, errors, capabilities)
    return released


def _passed(findings: Sequence[Finding]) -> set[Check]:
    """The checks that were made and found nothing wrong; one that warns is not one that passed."""
    made = {finding.check for finding in findings}
    return made - {finding.check for finding in findings if finding.level is not Level.OK}
