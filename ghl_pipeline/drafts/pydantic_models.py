"""The providers, by pydantic-ai: OpenAI's Responses API first, Anthropic's Messages second.

Importing the SDKs takes seconds of processor time, so that this module is imported when a draft is to be written
(`build.py`) and never with the definitions.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import (
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    OutputTokenLimitExceeded,
)
from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from ghl_pipeline.drafts.asking import Answer, Provider
from ghl_pipeline.drafts.outcomes import DraftFailure
from ghl_pipeline.drafts.prompting import Prompt
from ghl_pipeline.settings import Settings

# They log whole requests below WARNING, the prompt included.
_LOGGERS_THAT_PRINT_PROMPTS = ("openai", "anthropic", "pydantic_ai", "httpx2", "httpcore2")
OPENAI, ANTHROPIC = "openai", "anthropic"

# The first that fits: a time-out is a connection error, too, and some are both a kind and a status.
_KINDS: tuple[tuple[type[Exception], DraftFailure], ...] = (
    (ModelAuthenticationError, DraftFailure.KEY_REFUSED),
    (ModelNotFoundError, DraftFailure.MODEL_UNKNOWN),
    (ModelRateLimitError, DraftFailure.RATE_LIMITED),
    (ModelTimeoutError, DraftFailure.TIMEOUT),
    (ModelConnectionError, DraftFailure.UNREACHABLE),
    (ModelServerError, DraftFailure.SERVER_ERROR),
    (ModelUnavailableError, DraftFailure.SERVER_ERROR),
    (OutputTokenLimitExceeded, DraftFailure.CUT_OFF),
    (ContentFilterError, DraftFailure.REFUSED),
)
_STATUSES = {
    401: DraftFailure.KEY_REFUSED,
    403: DraftFailure.KEY_REFUSED,
    404: DraftFailure.MODEL_UNKNOWN,
    408: DraftFailure.SERVER_ERROR,
    429: DraftFailure.RATE_LIMITED,
}


@dataclass(frozen=True, slots=True)
class PydanticProvider:
    """One provider with its model. `first` and `again`: settings of a first call, and of one after a cut-off."""

    name: str
    model: str
    _model: Model = field(repr=False)
    _first: ModelSettings = field(repr=False)
    _again: ModelSettings = field(repr=False)

    async def ask(self, prompt: Prompt, *, budget: int, again: bool) -> Answer:
        """One request; whatever goes wrong comes back as an answer without a text."""
        settings: ModelSettings = {**(self._again if again else self._first), "max_tokens": budget}
        request = ModelRequest([SystemPromptPart(prompt.instructions), UserPromptPart(prompt.data)])
        try:
            # instrument: a tracer that somebody set up for other reasons would be sent the conversation.
            response = await model_request(self._model, [request], model_settings=settings, instrument=False)
        except Exception as error:  # noqa: BLE001 - SDKs raise what they like at what a server sends; none of it gets out
            return _failed(error)
        return _read(response)


@asynccontextmanager
async def open_providers(settings: Settings) -> AsyncIterator[list[Provider]]:
    """The providers that have a key, in the order in which they are asked, with connections for this event loop."""
    for name in _LOGGERS_THAT_PRINT_PROMPTS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    async with AsyncExitStack() as opened:
        found: list[Provider] = []
        if settings.openai_api_key is not None:
            openai = AsyncOpenAI(
                api_key=settings.openai_api_key.get_secret_value(), base_url=settings.openai_base_url, max_retries=0
            )
            await opened.enter_async_context(openai)
            found.append(_openai(settings.openai_model, openai))
        if settings.anthropic_api_key is not None:
            anthropic = AsyncAnthropic(
                api_key=settings.anthropic_api_key.get_secret_value(),
                base_url=settings.anthropic_base_url,
                max_retries=0,
            )
            await opened.enter_async_context(anthropic)
            found.append(_anthropic(settings.anthropic_model, anthropic))
        yield found


def _openai(model: str, client: AsyncOpenAI) -> Provider:
    # Unless told otherwise, OpenAI keeps each response for 30 days.
    first = OpenAIResponsesModelSettings(thinking="low", openai_store=False)
    again = OpenAIResponsesModelSettings(thinking=False, openai_store=False)
    made = OpenAIResponsesModel(model, provider=OpenAIProvider(openai_client=client))
    return PydanticProvider(OPENAI, model, made, first, again)


def _anthropic(model: str, client: AsyncAnthropic) -> Provider:
    # Thinking in a budget of its own would take 1,024 tokens at least, more than a whole text message may.
    little = ModelSettings(thinking=False)
    made = AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client))
    return PydanticProvider(ANTHROPIC, model, made, little, little)


def _read(response: ModelResponse) -> Answer:
    """The text of a whole answer. A part of one is none, however good it looks."""
    usage = response.usage
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    failure: DraftFailure | None = None
    match response.finish_reason:
        case "length":
            failure = DraftFailure.CUT_OFF
        case "content_filter":
            failure = DraftFailure.REFUSED
        case "error":
            failure = DraftFailure.SERVER_ERROR
        case "stop":
            failure = None if text.strip() else DraftFailure.EMPTY
        case _:
            # No word that says it is complete: "in_progress", a tool that nobody offered, or nothing at all.
            failure = DraftFailure.UNREADABLE if text.strip() else DraftFailure.EMPTY
    return Answer(
        text=None if failure else text,
        failure=failure,
        tokens_in=usage.input_tokens,
        tokens_out=usage.output_tokens,
    )


def _failed(error: Exception) -> Answer:
    """What an SDK's error means. Only its class, status and pause are used: its text repeats the server's."""
    status = error.status_code if isinstance(error, ModelHTTPError) else None
    pause = error.retry_after if isinstance(error, ModelAPIError) else None
    return Answer(failure=_failure(error, status), status=status, retry_after=pause)


def _failure(error: Exception, status: int | None) -> DraftFailure:
    for kind, failure in _KINDS:
        if isinstance(error, kind):
            return failure
    if status is not None:
        return _STATUSES.get(status, DraftFailure.SERVER_ERROR if status >= 500 else DraftFailure.REQUEST_REJECTED)
    return DraftFailure.UNREADABLE
