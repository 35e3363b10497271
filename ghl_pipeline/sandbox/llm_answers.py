"""The bodies of the two providers' answers: OpenAI's Responses and Anthropic's Messages, whole, cut off or refused.

Errors repeat what was asked, and a wrong key in part, as providers' have done: who logs an error's text is found out.
"""

from dataclasses import dataclass
from typing import Final

from ghl_pipeline.sandbox.llm_plans import Behaviour
from ghl_pipeline.sandbox.llm_providers import LlmProvider, LlmRequest, ProviderName, draft_for, token_count
from ghl_pipeline.sandbox.responses import Answer, JsonObject

REFUSAL: Final = "I can't help with that request."
_THOUGHT: Final = "The message should be answered briefly and kindly."
_FEWEST_THINKING_TOKENS: Final = 8
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Reply:
    """What a model did, before it is put into a provider's form."""

    text: str | None
    """None: there is no text at all."""
    end: str
    """`done`, `limit`, `filter` or `refusal`."""
    output_tokens: int
    thinking_tokens: int


def reply_to(provider: LlmProvider, request: LlmRequest) -> Reply:
    """What the model does, as its behaviour and the request's token limit say."""
    behaviour, limit, thinking = request.behaviour, request.max_tokens, provider.thinking_tokens
    text = behaviour.text or draft_for(request.prompt)
    if behaviour.word in {"reasoning_only", "cut_off_thinking"}:
        is_whole, spent = behaviour.word == "reasoning_only", max(thinking, _FEWEST_THINKING_TOKENS)
        spent = spent if is_whole else limit or spent
        return Reply(None, "done" if is_whole else "limit", spent, spent)
    if behaviour.word in {"refusal", "empty"}:
        said = REFUSAL if behaviour.word == "refusal" else ""
        return Reply(None if said else "", "refusal" if said else "done", thinking + token_count(said), thinking)
    half = text[: len(text) // 2]
    if behaviour.word == "filtered":
        return Reply(half, "filter", thinking + token_count(half), thinking)
    needed = thinking + token_count(text)
    if _is_cut_off(behaviour, needed, limit):
        left = len(half) if limit is None else max(0, min(len(half), 4 * (limit - thinking)))
        return Reply(text[:left] or None, "limit", limit or needed, min(thinking, limit or thinking))
    return Reply(text, "done", needed, thinking)


def _is_cut_off(behaviour: Behaviour, needed: int, limit: int | None) -> bool:
    if behaviour.word == "cut_off":
        return True
    if limit is None:
        return False
    return limit < needed or (behaviour.word == "cut_off_unless" and limit < behaviour.number)


def openai_response(request: LlmRequest, reply: Reply, now: float) -> JsonObject:
    """The body of `POST /v1/responses`."""
    incomplete = {"limit": "max_output_tokens", "filter": "content_filter"}.get(reply.end)
    status = "incomplete" if incomplete else "completed"
    output: list[JsonObject] = []
    if reply.thinking_tokens:
        output.append({"id": f"rs_{request.number:032x}", "type": "reasoning", "summary": []})
    content: list[JsonObject] = []
    if reply.end == "refusal":
        content = [{"type": "refusal", "refusal": REFUSAL}]
    elif reply.text is not None:
        content = [{"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}]
    if content:
        message = {"id": f"msg_{request.number:032x}", "type": "message", "role": "assistant", "status": status}
        output.append({**message, "content": content})
    return {
        **_openai_head(request, now),
        "status": status,
        "error": None,
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "output": output,
        "usage": {
            "input_tokens": token_count(request.prompt),
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": reply.output_tokens,
            "output_tokens_details": {"reasoning_tokens": reply.thinking_tokens},
            "total_tokens": token_count(request.prompt) + reply.output_tokens,
        },
    }


def openai_failure(request: LlmRequest, now: float) -> JsonObject:
    """A response that failed although the request is answered with 200."""
    error = {"code": "server_error", "message": _message(500, request.prompt)}
    return {
        **_openai_head(request, now),
        "status": "failed",
        "error": error,
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }


def _openai_head(request: LlmRequest, now: float) -> JsonObject:
    return {
        "id": f"resp_{request.number:032x}",
        "object": "response",
        "created_at": int(now),
        "background": False,
        "instructions": request.body.get("instructions"),
        "max_output_tokens": request.max_tokens,
        "metadata": {},
        "model": request.model,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": request.effort, "summary": None},
        "store": request.body.get("store", True),
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }


def anthropic_message(request: LlmRequest, reply: Reply) -> JsonObject:
    """The body of `POST /v1/messages`."""
    content: list[JsonObject] = []
    if reply.thinking_tokens:
        content.append({"type": "thinking", "thinking": _THOUGHT, "signature": "c2FuZGJveA=="})
    if reply.text:
        content.append({"type": "text", "text": reply.text})
    refused = reply.end in {"refusal", "filter"}
    if reply.end == "refusal":
        content = []
    return {
        "id": f"msg_{request.number:024x}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": "refusal" if refused else "max_tokens" if reply.end == "limit" else "end_turn",
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": None, "explanation": REFUSAL} if refused else None,
        "usage": {
            "input_tokens": token_count(request.prompt),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": reply.output_tokens,
            "service_tier": "standard",
        },
    }


def llm_error(provider: ProviderName, status: int, about: str, *, retry_after: float | None = None) -> Answer:
    """An error in the provider's form, which repeats the end of `about`."""
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    message, kind = _message(status, about), _TYPES[status]
    if provider == "anthropic":
        error: JsonObject = {"type": kind, "message": message}
        return Answer({"type": "error", "error": error, "request_id": "req_sandbox"}, status, headers)
    kind = {429: "requests", 401: "invalid_request_error"}.get(status, "server_error" if status >= 500 else kind)
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    return Answer({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers)


def wrong_key(provider: ProviderName, key: str) -> Answer:
    """The 401 of a key that is none. OpenAI's text shows both ends of it."""
    return llm_error(provider, 401, f"Incorrect API key provided: {key[:8]}****{key[-4:]}")


def _message(status: int, about: str) -> str:
    texts = {
        400: "The request could not be processed",
        401: "Authentication failed",
        429: "Rate limit reached",
        529: "Overloaded",
    }
    return f"{texts.get(status, 'The server had an error while processing your request')}: {about[-200:]}"
