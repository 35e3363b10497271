"""The root of the project's error tree.

Every error that this project raises on purpose derives from `PipelineError`; its text is one line that says what
happened, where, and what to do, and never holds a value of a person (e-mail, phone, name, message) or a token. The
branches live beside what raises them:

    PipelineError
    ├── ConfigurationError      a setting is missing or wrong; the text names the variable
    ├── DatabaseUnavailable     the database cannot be reached, or is not migrated
    ├── UnknownClient           no such client, location or lead
    ├── InvalidInput            what a person gave (a CSV row, an option) cannot be used
    ├── LocationBusy            another run holds the location
    ├── Interrupted             a person stopped the work; what was done is kept
    ├── TooManyMissing          ghl_pipeline.crm.missing: so many contacts are gone at once that a person is asked
    ├── ChoresFailed            ghl_pipeline.operations.housekeeping: some kinds of old rows could not be dropped
    ├── GhlError                ghl_pipeline.ghl.errors: transient and permanent answers of the API
    ├── SlotsStale              ghl_pipeline.availability.outcomes: a calendar's free times could not be refreshed
    ├── CalendlyError           ghl_pipeline.calendly.errors: no answer, access denied, refused
    └── EmailBisonError         ghl_pipeline.emailbison.errors: no answer, access denied, refused
"""


class PipelineError(Exception):
    """Base of every error raised on purpose.

    `exit_code` is what the CLI ends with when nothing else handles it. `waits_for_person`: the work stopped to ask
    somebody, and asking again before he has answered only costs.
    """

    exit_code = 1
    waits_for_person = False


class ConfigurationError(PipelineError):
    """A setting is missing or cannot be used."""

    exit_code = 3


class DatabaseUnavailable(PipelineError):
    """The database does not answer, refuses the log-in, or lacks the pipeline's tables."""

    exit_code = 4


class UnknownClient(PipelineError):
    """Nothing in the database has this client name, location id or lead id."""

    exit_code = 2


class InvalidInput(PipelineError):
    """Something a person gave cannot be used as it is."""

    exit_code = 2


class LocationBusy(PipelineError):
    """Another run, in this or another process, is working on the location. Holds who, so that the text can say it."""

    exit_code = 5


class Interrupted(PipelineError):
    """Stopped by Ctrl-C. What was done is kept."""

    exit_code = 130
