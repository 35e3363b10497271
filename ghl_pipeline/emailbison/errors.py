"""What EmailBison can answer instead of data, as one small tree.

    EmailBisonError
    ├── EmailBisonUnavailable     no usable answer, though it was tried again: timeouts, connection, 429, 5xx, no JSON
    ├── EmailBisonAccessDenied    401, 403: the token is not of this instance, or was withdrawn
    ├── EmailBisonWrongWorkspace  the token opens another workspace than the one that is stored
    └── EmailBisonRefused         any other refusal: our request is wrong, or its pages do not end

An error knows workspace, route and status. It never holds a body, an address or a token.
"""

from ghl_pipeline.errors import PipelineError


class EmailBisonError(PipelineError):
    """Base of everything the EmailBison client raises."""

    what = "failed"
    advice = ""

    def __init__(
        self,
        workspace_id: int,
        route: str,
        *,
        status: int | None = None,
        what: str = "",
        retry_after: float | None = None,
    ) -> None:
        self.workspace_id = workspace_id
        self.status = status
        self.retry_after = retry_after
        call = f"GET {route} ({status})" if status is not None else f"GET {route}"
        advice = f". {self.advice}" if self.advice else ""
        super().__init__(
            f"{type(self).__name__}: EmailBison workspace {workspace_id}: {call} {what or self.what}{advice}"
        )


class EmailBisonUnavailable(EmailBisonError):
    """No usable answer, though it was tried again."""

    what = "gave no usable answer"
    advice = "The next run asks again; if it stays so, check the instance's URL and its state"


class EmailBisonAccessDenied(EmailBisonError):
    """The token is unknown to this instance, or was withdrawn."""

    what = "refused the token"
    advice = "Make an API token in the workspace's settings and store it with: ghl-pipeline clients set-emailbison"


class EmailBisonWrongWorkspace(EmailBisonError):
    """Whatever the token opens is of another workspace."""

    what = "answered with events of another workspace only, none of which were taken"
    advice = (
        "The token is of another workspace: make one in this workspace's settings, or correct the workspace's id, and "
        "store both with: ghl-pipeline clients set-emailbison. The last ten days are then looked through again"
    )


class EmailBisonRefused(EmailBisonError):
    """The request is wrong, or the answer leads nowhere."""

    what = "was rejected"
