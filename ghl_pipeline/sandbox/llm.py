"""Language models under `/_llm`: OpenAI's `POST /v1/responses` and Anthropic's `POST /v1/messages`, and their control.

Base URLs for the vendors' own clients are `<sandbox>/_llm/openai/v1` and `<sandbox>/_llm/anthropic`. What the models do
is planned in `llm_providers.py` or by `POST /_sandbox/llm`. Streaming is not offered.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as Path

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.faults import Mishap
from ghl_pipeline.sandbox.llm_answers import (
    anthropic_message,
    llm_error,
    openai_failure,
    openai_response,
    reply_to,
    wrong_key,
)
from ghl_pipeline.sandbox.llm_plans import STATUSES
from ghl_pipeline.sandbox.llm_providers import LlmProvider, LlmRequest, token_count
from ghl_pipeline.sandbox.responses import Answer
from ghl_pipeline.sandbox.transport import bearer_token, delay, respond
from ghl_pipeline.sandbox.world import World

OPENAI_PATH: Final = "/_llm/openai/v1"
ANTHROPIC_PATH: Final = "/_llm/anthropic"
FEWEST_OUTPUT_TOKENS: Final = 16
"""OpenAI refuses a lower `max_output_tokens`."""
_DRIP_SECONDS: Final = 0.1
_PAGE: Final = b"<html><head><title>Sign in</title></head><body>This network needs you to sign in.</body></html>"


class LlmOrder(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /_sandbox/llm`. An order without a provider is for both; what is not given stays as it is."""

    provider: str | None = None
    plan: list[str] | None = None
    always: str | None = None
    when: dict[str, str] = {}
    thinking_tokens: int | None = None
    be_well: bool = False
    """Before anything else, forgets all that was planned."""


def llm_routes(world: World) -> list[Path]:
    """The routes, for `world`."""
    openai = _endpoint(world, world.llm.openai, _openai_key, _read_openai)
    anthropic = _endpoint(world, world.llm.anthropic, _anthropic_key, _read_anthropic)
    return [
        Path(f"{OPENAI_PATH}/responses", openai, methods=["POST"]),
        Path(f"{ANTHROPIC_PATH}/v1/messages", anthropic, methods=["POST"]),
        *_control_routes(world),
    ]


def _endpoint(
    world: World,
    provider: LlmProvider,
    key_of: Callable[[Request], str],
    read: Callable[[LlmProvider, Request, Mapping[str, object]], LlmRequest | Answer],
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        content = await request.body()
        with world.lock:
            provider.arrives()
        try:
            with world.lock:
                taken = _take(request, content)
            if isinstance(taken, Answer):
                return _counted(provider, taken)
            word, number = taken.behaviour.word, taken.behaviour.number
            await delay(request, number if word in {"hang", "slow"} else 0.0)
            with world.lock:
                return _respond(provider, taken, world.clock())
        finally:
            with world.lock:
                provider.leaves()

    def _take(request: Request, content: bytes) -> LlmRequest | Answer:
        key = key_of(request)
        if key != provider.key:
            return wrong_key(provider.name, key)
        try:
            body = msgspec.json.decode(content, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return llm_error(provider.name, 400, "the body is no JSON object")
        return read(provider, request, body)

    return endpoint


def _respond(provider: LlmProvider, request: LlmRequest, now: float) -> Response:
    word, number = request.behaviour.word, request.behaviour.number
    if word in STATUSES or word == "429":
        after = number if word == "429" else None
        return _counted(provider, llm_error(provider.name, int(word), request.prompt, retry_after=after))
    if word == "html":
        provider.statuses[int(number)] += 1
        return Response(_PAGE, int(number), media_type="text/html")
    if word == "failed":
        if provider.name == "anthropic":
            return _counted(provider, llm_error(provider.name, 500, request.prompt))
        return _counted(provider, Answer(openai_failure(request, now)))
    reply = reply_to(provider, request)
    provider.tokens_in += token_count(request.prompt)
    provider.tokens_out += reply.output_tokens
    is_openai = provider.name == "openai"
    answer = Answer(openai_response(request, reply, now) if is_openai else anthropic_message(request, reply))
    if word == "drip":
        provider.statuses[200] += 1
        return StreamingResponse(_drops(msgspec.json.encode(answer.body), number), media_type="application/json")
    mishap = {"garbage": Mishap.GARBAGE, "disconnect": Mishap.DROPPED}.get(word, Mishap.NONE)
    return _counted(provider, answer, mishap)


def _counted(provider: LlmProvider, answer: Answer, mishap: Mishap = Mishap.NONE) -> Response:
    provider.statuses[answer.status] += 1
    return respond(msgspec.json.encode(answer.body), answer.status, answer.headers, mishap)


async def _drops(content: bytes, seconds: float) -> AsyncIterator[bytes]:
    """White space, which JSON allows before it begins, and at last the content."""
    for _ in range(round(seconds / _DRIP_SECONDS)):
        yield b" "
        await asyncio.sleep(_DRIP_SECONDS)
    yield content


# --- what each provider's client sends


def _openai_key(request: Request) -> str:
    return bearer_token(request)


def _anthropic_key(request: Request) -> str:
    # Clients before 2.0 send x-api-key, later ones a bearer token; both are taken.
    return request.headers.get("x-api-key") or bearer_token(request)


def _read_openai(provider: LlmProvider, _: Request, body: Mapping[str, object]) -> LlmRequest | Answer:
    limit, reasoning = body.get("max_output_tokens"), body.get("reasoning")
    for name in ("model", "input"):
        if not body.get(name):
            return llm_error("openai", 400, f"Missing required parameter: '{name}'.")
    if body.get("stream"):
        return llm_error("openai", 400, "The sandbox does not stream.")
    if limit is not None and (not isinstance(limit, int) or limit < FEWEST_OUTPUT_TOKENS):
        text = f"Invalid 'max_output_tokens': expected an integer of at least {FEWEST_OUTPUT_TOKENS}."
        return llm_error("openai", 400, text)
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    return provider.accept(body, max_tokens=limit, effort=effort if isinstance(effort, str) else None)


def _read_anthropic(provider: LlmProvider, request: Request, body: Mapping[str, object]) -> LlmRequest | Answer:
    limit, output = body.get("max_tokens"), body.get("output_config")
    if not request.headers.get("anthropic-version"):
        return llm_error("anthropic", 400, "anthropic-version: header is required")
    for name in ("model", "messages"):
        if not body.get(name):
            return llm_error("anthropic", 400, f"{name}: Field required")
    if body.get("stream"):
        return llm_error("anthropic", 400, "The sandbox does not stream.")
    if not isinstance(limit, int) or limit < 1:
        return llm_error("anthropic", 400, "max_tokens: Field required")
    effort = output.get("effort") if isinstance(output, dict) else None
    return provider.accept(body, max_tokens=limit, effort=effort if isinstance(effort, str) else None)


# --- control


def _control_routes(world: World) -> list[Path]:
    def guarded(act: Callable[[bytes], object]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            content = await request.body()
            body: object
            try:
                with world.lock:
                    status, body = 200, act(content)
            except (msgspec.DecodeError, InvalidInput) as error:
                status, body = 422, {"error": str(error)}
            return Response(msgspec.json.encode(body), status, media_type="application/json")

        return endpoint

    def show(_: bytes) -> object:
        paths = {"openai": OPENAI_PATH, "anthropic": ANTHROPIC_PATH}
        return {each.name: {"key": each.key, "path": paths[each.name], **each.as_counts()} for each in world.llm}

    def requests(_: bytes) -> object:
        return {each.name: [_shown(request) for request in each.requests] for each in world.llm}

    def order(content: bytes) -> object:
        wanted = msgspec.json.decode(content, type=LlmOrder)
        chosen = list(world.llm) if wanted.provider is None else [world.llm.known(wanted.provider)]
        for provider in chosen:
            _obey(provider, wanted)
        return {"ok": True}

    return [
        Path("/_sandbox/llm", guarded(show), methods=["GET"]),
        Path("/_sandbox/llm", guarded(order), methods=["POST"]),
        Path("/_sandbox/llm/requests", guarded(requests), methods=["GET"]),
    ]


def _obey(provider: LlmProvider, order: LlmOrder) -> None:
    if order.be_well:
        provider.be_well()
    if order.plan is not None:
        provider.plan(*order.plan)
    if order.always is not None:
        provider.always(order.always)
    for text, behaviour in order.when.items():
        provider.when(text, behaviour)
    if order.thinking_tokens is not None:
        provider.thinking_tokens = order.thinking_tokens


def _shown(request: LlmRequest) -> object:
    return {
        "number": request.number,
        "model": request.model,
        "max_tokens": request.max_tokens,
        "effort": request.effort,
        "behaviour": request.behaviour.word,
        "prompt": request.prompt,
    }
