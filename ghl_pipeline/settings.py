"""Every environment variable the project reads: name, type, default, meaning.

`load_settings()` is called by entry points (the CLI, `build_defs`, the instance storage) and its result is handed down;
no other module reads the environment. A `.env` file in the project folder is read too, below real variables.
docs/reference/settings.md is made from this file and a test compares the two.
"""

from pathlib import Path

from pydantic import Field, HttpUrl, SecretStr, TypeAdapter, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ghl_pipeline.errors import ConfigurationError

GHL_API_URL = "https://services.leadconnectorhq.com"
# From HighLevel's webhook guides; the older one's text is in their documentation repository.
GHL_ED25519_KEY = "MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg="
GHL_RSA_KEY = (
    "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAokvo/r9tVgcfZ5DysOSC"
    "Frm602qYV0MaAiNnX9O8KxMbiyRKWeL9JpCpVpt4XHIcBOK4u3cLSqJGOLaPuXw6"
    "dO0t6Q/ZVdAV5Phz+ZtzPL16iCGeK9po6D6JHBpbi989mmzMryUnQJezlYJ3DVfB"
    "csedpinheNnyYeFXolrJvcsjDtfAeRx5ByHQmTnSdFUzuAnC9/GepgLT9SM4nCpv"
    "uxmZMxrJt5Rw+VUaQ9B8JSvbMPpez4peKaJPZHBbU3OdeCVx5klVXXZQGNHOs8gF"
    "3kvoV5rTnXV0IknLBXlcKKAQLZcY/Q9rG6Ifi9c+5vqlvHPCUJFT5XUGG5RKgOKU"
    "J062fRtN+rLYZUV+BjafxQauvC8wSWeYja63VSUruvmNj8xkx2zE/Juc+yjLjTXp"
    "IocmaiFeAO6fUtNjDeFVkhf5LNb59vECyrHD2SQIrhgXpO4Q3dVNA5rw576PwTzN"
    "h/AMfHKIjE4xQA1SZuYJmNnmVZLIZBlQAF9Ntd03rfadZ+yDiOXCCs9FkHibELhC"
    "HULgCsnuDJHcrGNd5/Ddm5hxGQ0ASitgHeMZ0kcIOwKDOzOU53lDza6/Y09T7sYJ"
    "PQe7z0cvj7aE4B+Ax1ZoZGPzpJlZtGXCsu9aTEGEnKzmsFqwcSsnw3JB31IGKAyk"
    "T1hhTiaCeIY/OwwwNUY2yvcCAwEAAQ=="
)


def project_root() -> Path:
    """The folder that holds `dagster.yaml`: beside the package in a checkout, else the working folder."""
    beside_package = Path(__file__).resolve().parent.parent
    return beside_package if (beside_package / "dagster.yaml").is_file() else Path.cwd()


class Settings(BaseSettings):
    """The project's settings. Secrets are `SecretStr`, so that a `repr` or a traceback cannot show them."""

    # Code gives fields by name. pydantic-settings then reads variables of that name too, and without the prefix those
    # would be HOME and DATABASE_URL.
    model_config = SettingsConfigDict(
        env_prefix="GHL_PIPELINE_", populate_by_name=True, extra="ignore", env_ignore_empty=True, frozen=True
    )

    # --- where things are
    home: Path = Field(
        default_factory=lambda: project_root() / ".ghl_pipeline",
        alias="GHL_PIPELINE_HOME",
        description="Folder for the embedded database, its password, the token key and compute logs.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        alias="GHL_PIPELINE_DATABASE_URL",
        description="PostgreSQL URL of the dashboard database. Unset: an embedded server in the home folder.",
    )
    dagster_database_url: SecretStr | None = Field(
        default=None,
        alias="GHL_PIPELINE_DAGSTER_DATABASE_URL",
        description="PostgreSQL URL of Dagster's own storage. Unset: `<name>_dagster` on the same server.",
    )
    database_name: str = Field(
        default="ghl_pipeline",
        alias="GHL_PIPELINE_DATABASE_NAME",
        pattern=r"^[a-z][a-z0-9_]{0,40}$",
        description="Name of the dashboard database on the embedded server.",
    )
    postgres_os_user: str | None = Field(
        default=None,
        alias="GHL_PIPELINE_POSTGRES_USER",
        description="OS user for the embedded server when started as root. Unset: `postgres`, else `nobody`.",
    )
    token_keys: SecretStr | None = Field(
        default=None,
        alias="GHL_PIPELINE_TOKEN_KEYS",
        description="Fernet keys for stored tokens, comma-separated, newest first. Unset: a key file in the home "
        "folder, allowed with the embedded server only.",
    )

    # --- the GHL API and its limits
    api_url: str = Field(
        default=GHL_API_URL, alias="GHL_API_URL", description="Base URL of the GHL API; the sandbox's URL in a demo."
    )
    requests_per_10s: int = Field(
        default=90,
        ge=1,
        le=1000,
        alias="GHL_REQUESTS_PER_10S",
        description="Most requests per location in any 10 seconds, over all processes; what a person waits for may "
        "take a few more of GHL's limit (GHL_INTERACTIVE_REQUESTS_PER_10S). GHL allows 100.",
    )
    interactive_requests_per_10s: int = Field(
        default=5,
        ge=0,
        le=1000,
        alias="GHL_INTERACTIVE_REQUESTS_PER_10S",
        description="Requests of GHL's limit per 10 seconds that are kept for what a person waits for (single leads, "
        "events, doctor). They come out of what GHL allows beyond GHL_REQUESTS_PER_10S, and only then out of that.",
    )
    requests_per_day: int = Field(
        default=200_000,
        ge=1,
        alias="GHL_REQUESTS_PER_DAY",
        description="Most requests per location and UTC day, over all processes. GHL allows 200,000.",
    )
    max_429_retries: int = Field(
        default=8, ge=0, le=100, alias="GHL_MAX_429_RETRIES", description="How often one call may be told 429 and wait."
    )
    max_attempts: int = Field(
        default=5, ge=1, le=20, alias="GHL_MAX_ATTEMPTS", description="Attempts of one call, 429 answers not counted."
    )
    timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        alias="GHL_TIMEOUT_SECONDS",
        description="Longest wait for one answer; filtered searches have been seen to hang for 18 to 20 s.",
    )
    call_deadline_seconds: float = Field(
        default=180.0,
        gt=0,
        alias="GHL_CALL_DEADLINE_SECONDS",
        description="Longest time one call may take with all attempts and pauses, waits on the limit not counted.",
    )

    # --- hydration
    lookup_group_size: int = Field(
        default=50,
        ge=1,
        le=100,
        alias="HYDRATION_GROUP_SIZE",
        description="Addresses that a location's first search asks for at once; what works is then remembered.",
    )
    page_size: int = Field(
        default=1000,
        ge=1,
        le=5000,
        alias="HYDRATION_PAGE_SIZE",
        description="Leads that are looked up, recorded and written at a time; the most that a killed run asks again.",
    )
    delta_overlap_seconds: float = Field(
        default=600.0,
        ge=0,
        alias="HYDRATION_DELTA_OVERLAP_SECONDS",
        description="How far before the last pass changed contacts are looked for again: for a search that lags behind "
        "writes and for clocks that differ.",
    )
    full_lookup_days: float = Field(
        default=30.0,
        ge=0,
        alias="HYDRATION_FULL_LOOKUP_DAYS",
        description="How often a lead is looked up although no contact of it was seen to change; 0: every time.",
    )
    sync_all_concurrency: int = Field(
        default=20,
        ge=1,
        le=500,
        alias="SYNC_ALL_CONCURRENCY",
        description="Locations that `sync-all` works on at the same time.",
    )

    # --- webhooks
    webhook_public_url: str | None = Field(
        default=None,
        alias="WEBHOOK_PUBLIC_URL",
        description="Where the receiver is reached from outside, such as https://hooks.example.com; for the URLs that "
        "`clients webhook-url` prints.",
    )
    webhook_ed25519_keys: str = Field(
        default=GHL_ED25519_KEY,
        alias="GHL_WEBHOOK_ED25519_KEYS",
        description="GHL's public keys for `x-ghl-signature`: base64 of the DER, comma-separated.",
    )
    webhook_rsa_keys: str = Field(
        default=GHL_RSA_KEY,
        alias="GHL_WEBHOOK_RSA_KEYS",
        description="GHL's public keys for the older `x-wh-signature`: base64 of the DER, comma-separated.",
    )
    webhook_accept_rsa: bool = Field(
        default=True,
        alias="GHL_WEBHOOK_ACCEPT_RSA",
        description="Whether an event that carries only the older signature is accepted.",
    )
    webhook_tolerance_seconds: float = Field(
        default=300.0,
        gt=0,
        alias="WEBHOOK_TOLERANCE_SECONDS",
        description="How far the time in a signed event may be from now; older ones are taken for replays.",
    )
    webhook_max_bytes: int = Field(
        default=5 * 1024 * 1024,
        ge=1024,
        alias="WEBHOOK_MAX_BYTES",
        description="Largest body that is taken; EmailBison sends whole e-mails.",
    )
    webhook_max_attempts: int = Field(
        default=8,
        ge=1,
        le=50,
        alias="WEBHOOK_MAX_ATTEMPTS",
        description="How often an event is tried before it waits for a person as a dead letter.",
    )
    webhook_keep_bodies_days: float = Field(
        default=30.0,
        gt=0,
        alias="WEBHOOK_KEEP_BODIES_DAYS",
        description="How long the bodies of handled events are kept; those of dead letters until they are handled.",
    )
    protected_statuses: str = Field(
        default="booked,won,lost,customer,do_not_contact",
        alias="LEAD_PROTECTED_STATUSES",
        description="Lead statuses, comma-separated, that an event never changes, except to unsubscribed.",
    )

    # --- vendors and leads kept in step with GHL
    list_scan_cap: int = Field(
        default=15_000,
        ge=1,
        le=1_000_000,
        alias="LIST_SCAN_CAP",
        description="Most contacts that one scan of a location's list brings, for vendors and leads that no search "
        "has found.",
    )
    list_scan_page: int = Field(
        default=500,
        ge=1,
        le=500,
        alias="LIST_SCAN_PAGE",
        description="Contacts on a page of such a scan, and of the search for new vendors and leads. GHL gives 500.",
    )
    crm_confirm_gets: int = Field(
        default=100,
        ge=1,
        alias="CRM_CONFIRM_GETS",
        description="Vendors and leads that a complete scan did not bring are asked for one by one up to this many; of "
        "more, a sample of this size decides whether the scan is believed.",
    )
    crm_full_pass_days: float = Field(
        default=7.0,
        ge=0,
        alias="CRM_FULL_PASS_DAYS",
        description="How often all vendors and leads are looked up, although between that only changed contacts are "
        "pulled: a deletion leaves no change. 0: every time.",
    )
    crm_look_up_again_days: float = Field(
        default=30.0,
        ge=0,
        alias="CRM_LOOK_UP_AGAIN_DAYS",
        description="For how long it is believed that a scan did not find a vendor or lead, and that a contact is "
        "gone.",
    )
    crm_most_missing: float = Field(
        default=0.2,
        ge=0,
        le=1,
        alias="CRM_MOST_MISSING",
        description="Share of a location's vendors, or of its leads, whose contacts may be gone at once; with more "
        "the run stops and asks.",
    )

    # --- messages
    sms_first_days: float = Field(
        default=30.0,
        gt=0,
        alias="SMS_IMPORT_FIRST_DAYS",
        description="How far back the first import of a location's messages reaches.",
    )
    sms_overlap_seconds: float = Field(
        default=600.0,
        ge=0,
        alias="SMS_IMPORT_OVERLAP_SECONDS",
        description="How far before the last imported message the next import begins.",
    )

    # --- EmailBison
    emailbison_timeout_seconds: float = Field(
        default=30.0, gt=0, alias="EMAILBISON_TIMEOUT_SECONDS", description="Longest wait for one answer of EmailBison."
    )
    emailbison_overlap_seconds: float = Field(
        default=3600.0,
        ge=0,
        alias="EMAILBISON_OVERLAP_SECONDS",
        description="How far before the last look for lost events the next one begins; EmailBison keeps 10 days.",
    )

    # --- free times of the clients' calendars
    availability_client_seconds: float = Field(
        default=20.0,
        gt=0,
        alias="AVAILABILITY_CLIENT_SECONDS",
        description="Longest time that one client's calendar may take in a run; half of AVAILABILITY_RUN_SECONDS at "
        "most. A calendar that takes longer keeps the free times it has.",
    )
    availability_run_seconds: float = Field(
        default=300.0,
        gt=0,
        alias="AVAILABILITY_RUN_SECONDS",
        description="Longest time that a run over all calendars may take; clients that it does not reach are first in "
        "the next one.",
    )
    calendly_api_url: str = Field(
        default="https://api.calendly.com",
        alias="CALENDLY_API_URL",
        description="Base URL of the Calendly API; the sandbox's in a demo.",
    )
    calendly_chunk_days: int = Field(
        default=31,
        ge=1,
        le=31,
        alias="CALENDLY_CHUNK_DAYS",
        description="Most days of free times that one request asks Calendly for. 31 since July 2026; where they are "
        "refused, 7, as before then, are asked for by itself.",
    )
    calendly_timeout_seconds: float = Field(
        default=10.0, gt=0, alias="CALENDLY_TIMEOUT_SECONDS", description="Longest wait for one answer of Calendly."
    )

    # --- drafts of replies
    openai_api_key: SecretStr | None = Field(
        default=None, alias="OPENAI_API_KEY", description="Key of the provider that is asked first. Unset: left out."
    )
    openai_base_url: str = Field(
        default="https://api.openai.com/v1",
        alias="OPENAI_BASE_URL",
        description="Where OpenAI's Responses API is, or that of a compatible server.",
    )
    openai_model: str = Field(
        default="gpt-6-luna", min_length=1, alias="OPENAI_MODEL", description="Model that writes drafts."
    )
    anthropic_api_key: SecretStr | None = Field(
        default=None, alias="ANTHROPIC_API_KEY", description="Key of the provider that is asked next. Unset: left out."
    )
    anthropic_base_url: str = Field(
        default="https://api.anthropic.com",
        alias="ANTHROPIC_BASE_URL",
        description="Where Anthropic's Messages API is, or that of a compatible server.",
    )
    anthropic_model: str = Field(
        default="claude-haiku-5-5",
        min_length=1,
        alias="ANTHROPIC_MODEL",
        description="Model that writes drafts when the first provider does not.",
    )
    draft_token_budget_multiplier: float = Field(
        default=3.0,
        ge=1,
        le=10,
        alias="DRAFT_TOKEN_BUDGET_MULTIPLIER",
        description="How many times the tokens of its text an answer may take; models that reason need several.",
    )
    draft_sms_deadline_seconds: float = Field(
        default=20.0,
        gt=0,
        le=600,
        alias="DRAFT_SMS_DEADLINE_SECONDS",
        description="Longest time for a draft of a text message, all providers and tries together.",
    )
    draft_email_deadline_seconds: float = Field(
        default=60.0,
        gt=0,
        le=600,
        alias="DRAFT_EMAIL_DEADLINE_SECONDS",
        description="Longest time for a draft of an e-mail, all providers and tries together.",
    )
    draft_concurrency: int = Field(
        default=20,
        ge=1,
        le=200,
        alias="DRAFT_CONCURRENCY",
        description="Drafts that a run writes at the same time.",
    )
    draft_prices: str | None = Field(
        default=None,
        alias="DRAFT_PRICES",
        description='US dollars for a million tokens by model, as JSON: {"a-model": {"in": 0.25, "out": 2}}. Unset, or '
        "a model left out: no cost is told.",
    )
    draft_max_age_days: float = Field(
        default=7.0,
        gt=0,
        le=365,
        alias="DRAFT_MAX_AGE_DAYS",
        description="Messages older than this get no draft any more.",
    )

    # --- metrics and alerts
    metrics_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        alias="METRICS_TOKEN",
        description="What whoever scrapes the receiver's /metrics has to send (Authorization: Bearer ...), 16 letters "
        "or more. Unset: nobody may, but see METRICS_WITHOUT_TOKEN.",
    )
    metrics_without_token: bool = Field(
        default=False,
        alias="METRICS_WITHOUT_TOKEN",
        description="Whether programs of this machine may read /metrics where METRICS_TOKEN is unset. Not where a "
        "proxy on this machine passes requests on: it looks like one of them. `ghl-pipeline dev` sets it.",
    )
    metrics_per_location_up_to: int = Field(
        default=1000,
        ge=0,
        alias="METRICS_PER_LOCATION_UP_TO",
        description="Up to how many active locations metrics tell each apart, with up to 60 series for each; above, "
        "sums alone. 0: never.",
    )
    alert_every_seconds: float = Field(
        default=3600.0,
        ge=0,
        alias="ALERT_EVERY_SECONDS",
        description="For how long the same error of the same work at the same location is counted and not told again.",
    )
    alert_slack_url: SecretStr | None = Field(
        default=None,
        alias="ALERT_SLACK_URL",
        description="Slack's incoming webhook for alerts. Unset: no alert goes to Slack.",
    )
    alert_webhook_url: SecretStr | None = Field(
        default=None,
        alias="ALERT_WEBHOOK_URL",
        description="Where alerts are posted as JSON. Unset: nowhere.",
    )
    alert_webhook_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        alias="ALERT_WEBHOOK_SECRET",
        description="With what such a post is signed (HMAC-SHA256), 16 letters or more. Unset: it is not.",
    )
    ui_url: str | None = Field(
        default=None,
        alias="UI_URL",
        description="Where people reach the Dagster UI, such as https://dagster.example.com; alerts link to its runs.",
    )

    # --- the UI
    ui_allowed_hosts: str = Field(
        default="",
        alias="UI_ALLOWED_HOSTS",
        description="Names beside those of loopback under which browsers may ask for the UI, comma-separated, with the "
        "port where it is not 80 or 443: `ops.example.com,10.0.0.5:3000`.",
    )
    ui_password: SecretStr | None = Field(
        default=None,
        min_length=16,
        alias="UI_PASSWORD",
        description="Password that the UI asks for (HTTP Basic, any user name), 16 letters or more. Unset: none.",
    )
    ui_proxy_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        alias="UI_PROXY_SECRET",
        description="What the proxy that logs people in has to send as the header `x-ghl-pipeline-proxy`, so that "
        "nobody comes past it. Unset: nothing is asked for.",
    )

    # --- reruns of what failed
    rerun_first_pause_seconds: float = Field(
        default=60.0,
        gt=0,
        alias="RERUN_FIRST_PAUSE_SECONDS",
        description="Pause before a location whose work failed is asked for again, the first time; then twice as long "
        "each time. Up to as much again is added, differently for each location, so that many do not come at once.",
    )
    rerun_longest_pause_seconds: float = Field(
        default=3600.0,
        gt=0,
        alias="RERUN_LONGEST_PAUSE_SECONDS",
        description="What the doubling of that pause ends at.",
    )
    rerun_after_stop_seconds: float = Field(
        default=3600.0,
        ge=0,
        alias="RERUN_AFTER_STOP_SECONDS",
        description="Pause before work that a person stopped, in the UI or by Ctrl-C, is asked for again.",
    )
    rerun_most: int = Field(
        default=12,
        ge=1,
        le=1000,
        alias="RERUN_MOST",
        description="Reruns of a location without a success after which it is asked for once a day only.",
    )

    # --- housekeeping
    keep_attempts_days: float = Field(
        default=90.0,
        gt=0,
        alias="KEEP_ATTEMPTS_DAYS",
        description="How long attempts at locations and alerts are kept; the last 20 attempts of each location and "
        "kind of work for ever.",
    )
    keep_run_events_days: float = Field(
        default=30.0,
        gt=0,
        alias="KEEP_RUN_EVENTS_DAYS",
        description="How long Dagster's runs keep log lines, inner events and what they printed.",
    )
    keep_history_days: float = Field(
        default=2.0,
        ge=1,
        alias="KEEP_HISTORY_DAYS",
        description="How long Dagster keeps all materializations and checkpoints; older ones the last of each location "
        "and day only. What each look at a location found is in the attempts, for longer.",
    )
    keep_daily_history_days: float = Field(
        default=30.0,
        ge=1,
        alias="KEEP_DAILY_HISTORY_DAYS",
        description="How long Dagster keeps the last materialization and checkpoint of each location and day (UTC); "
        "the newest of each location for ever.",
    )

    # --- Dagster
    automation: bool = Field(
        default=False,
        alias="GHL_PIPELINE_AUTOMATION",
        description="Whether schedules and run-starting sensors are on before somebody switches them in the UI.",
    )
    celery_broker_url: SecretStr | None = Field(
        default=None,
        alias="CELERY_BROKER_URL",
        description="Redis URL (redis:// or rediss://) through which runs reach the workers of several machines. "
        "Unset: runs are processes of the code server.",
    )

    @field_validator("api_url", "calendly_api_url")
    @classmethod
    def _is_http_url(cls, url: str) -> str:
        # Checked only: pydantic's URL type would append a slash.
        TypeAdapter(HttpUrl).validate_python(url)
        return url

    @field_validator("ui_url")
    @classmethod
    def _is_http_url_without_end(cls, url: str | None) -> str | None:
        if url is not None:
            TypeAdapter(HttpUrl).validate_python(url)
        return url and url.rstrip("/")

    @field_validator("alert_slack_url", "alert_webhook_url")
    @classmethod
    def _is_secret_http_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            try:
                TypeAdapter(HttpUrl).validate_python(url.get_secret_value())
            except ValidationError:
                raise ValueError("it has to be a URL that begins with https:// or http://") from None
        return url

    @property
    def uses_embedded_database(self) -> bool:
        """Whether no database URL was given, so that the embedded server is used."""
        return self.database_url is None

    def as_environment(self) -> dict[str, str]:
        """The variables with which another process, or Dagster's configuration, arrives at these settings.

        Holds secrets in plain text: for the environment of a child process, never for a log.
        """
        variables: dict[str, str] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            if field.alias and value is not None:
                variables[field.alias] = str(value)
        return variables


def load_settings() -> Settings:
    """Settings from the environment and the project's `.env`.

    Raises:
        ConfigurationError: names each variable that cannot be used, without its value.
    """
    try:
        return Settings(_env_file=project_root() / ".env")
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise ConfigurationError(f"Settings cannot be used: {reasons}. See docs/reference/settings.md.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The file {project_root() / '.env'} cannot be read ({type(error).__name__}). It has to be UTF-8 text that "
            "this user may read; correct or remove it."
        ) from None
