"""What Calendly can answer instead of data, as one small tree.

    CalendlyError
    ├── CalendlyUnavailable    no usable answer, though it was tried again: timeouts, connection, 429, 5xx, no JSON
    ├── CalendlyAccessDenied   401, 403: the token is unknown or withdrawn, or may not see this
    └── CalendlyRefused        any other refusal: our request is wrong, or its pages do not end

An error knows location, route and status. It never holds a body, a booking link or a token.
"""

from ghl_pipeline.errors import PipelineError


class CalendlyError(PipelineError):
    """Base of everything the Calendly client raises. `timed_out`: there was no answer in time."""

    what = "failed"
    advice = ""

    def __init__(
        self,
        location_id: str,
        route: str,
        *,
        status: int | None = None,
        what: str = "",
        retry_after: float | None = None,
        timed_out: bool = False,
    ) -> None:
        self.location_id = location_id
        self.status = status
        self.retry_after = retry_after
        self.timed_out = timed_out
        call = f"GET {route} ({status})" if status is not None else f"GET {route}"
        advice = f". {self.advice.format(location=location_id)}" if self.advice else ""
        super().__init__(
            f"{type(self).__name__}: Calendly for location {location_id}: {call} {what or self.what}{advice}"
        )


class CalendlyUnavailable(CalendlyError):
    """No usable answer, though it was tried again."""

    what = "gave no usable answer"
    advice = "The next run asks again; if it stays so, check CALENDLY_API_URL and Calendly's status page"


class CalendlyAccessDenied(CalendlyError):
    """The token is unknown or was withdrawn, or may not see this."""

    what = "refused the token"
    advice = (
        "Make a personal access token in the client's Calendly account and store it with: ghl-pipeline clients "
        "set-calendar {location} --calendly-token"
    )


class CalendlyRefused(CalendlyError):
    """The request is wrong, or the answer leads nowhere."""

    what = "was rejected"
