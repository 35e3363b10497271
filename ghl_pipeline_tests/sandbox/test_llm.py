"""The sandbox's language models, asked by the vendors' own clients and by pydantic-ai, as drafts are."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest, ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from ghl_pipeline.sandbox.llm import ANTHROPIC_PATH, OPENAI_PATH
from ghl_pipeline.sandbox.llm_answers import REFUSAL
from ghl_pipeline.sandbox.llm_plans import PLAIN, STATUSES, read_behaviour
from ghl_pipeline.sandbox.llm_providers import LlmProvider, draft_for, token_count
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

PROMPT = "The lead asks what a new roof costs."


@pytest.fixture
async def gpt(sandbox: Sandbox) -> AsyncIterator[openai.AsyncOpenAI]:
    url, key = f"{sandbox.url}{OPENAI_PATH}", sandbox.world.llm.openai.key
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
async def claude(sandbox: Sandbox) -> AsyncIterator[anthropic.AsyncAnthropic]:
    url, key = f"{sandbox.url}{ANTHROPIC_PATH}", sandbox.world.llm.anthropic.key
    async with anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=10) as client:
        yield client


async def respond(gpt: openai.AsyncOpenAI, text: str = PROMPT, **more: Any) -> Any:
    return await gpt.responses.create(model="gpt-test", instructions="Be brief.", input=text, **more)


async def message(claude: anthropic.AsyncAnthropic, text: str = PROMPT, *, max_tokens: int = 500) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return await claude.messages.create(
        model="claude-test", system="Be brief.", max_tokens=max_tokens, messages=messages
    )


def text_of(answer: Any) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")


async def test_both_clients_read_a_whole_answer_with_its_usage(
    sandbox: Sandbox, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    first, again, other = [await respond(gpt, text, max_output_tokens=400) for text in (PROMPT, PROMPT, "Hello?")]
    assert first.status == "completed"
    assert first.output_text == again.output_text == draft_for(f"Be brief.\n{PROMPT}")
    assert first.id != again.id
    assert first.usage.output_tokens == token_count(first.output_text)
    assert first.usage.input_tokens == token_count(f"Be brief.\n{PROMPT}") > other.usage.input_tokens
    answer = await message(claude)
    assert (answer.stop_reason, text_of(answer)) == ("end_turn", first.output_text)
    assert answer.usage.output_tokens == first.usage.output_tokens
    models = [[each.model for each in provider.requests] for provider in sandbox.world.llm]
    assert models == [["gpt-test"] * 3, ["claude-test"]]
    asked = sandbox.world.llm.openai.requests[0]
    assert (asked.prompt, asked.max_tokens, asked.number) == (f"Be brief.\n{PROMPT}", 400, 1)
    assert PROMPT not in repr(asked)


async def test_a_cut_off_answer_says_so_and_has_half_its_text(
    sandbox: Sandbox, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    for provider in sandbox.world.llm:
        provider.always("cut_off")
    whole = draft_for(f"Be brief.\n{PROMPT}")
    answer = await respond(gpt, max_output_tokens=400)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert 0 < len(answer.output_text) < len(whole)
    assert whole.startswith(answer.output_text)
    assert answer.usage.output_tokens == 400
    other = await message(claude)
    assert (other.stop_reason, text_of(other)) == ("max_tokens", answer.output_text)
    for provider in sandbox.world.llm:
        provider.always("cut_off_thinking")
    answer, other = await respond(gpt, max_output_tokens=400), await message(claude)
    assert (answer.status, answer.output_text) == ("incomplete", "")
    assert answer.usage.output_tokens_details.reasoning_tokens == 400
    assert (other.stop_reason, text_of(other)) == ("max_tokens", "")


async def test_a_larger_budget_ends_the_cutting(
    sandbox: Sandbox, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    for provider in sandbox.world.llm:
        provider.always("cut_off_unless:300")
    assert [(await respond(gpt, max_output_tokens=limit)).status for limit in (299, 300)] == ["incomplete", "completed"]
    assert [(await message(claude, max_tokens=n)).stop_reason for n in (299, 300)] == ["max_tokens", "end_turn"]
    for provider in sandbox.world.llm:
        provider.be_well()
        provider.thinking_tokens = 100  # counted against the limit, as reasoning models do
    assert [(await respond(gpt, max_output_tokens=limit)).status for limit in (100, 200)] == ["incomplete", "completed"]
    assert [(await message(claude, max_tokens=n)).stop_reason for n in (100, 200)] == ["max_tokens", "end_turn"]


async def test_answers_without_a_usable_text(
    sandbox: Sandbox, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    for provider in sandbox.world.llm:
        provider.plan("refusal", "reasoning_only", "empty", "filtered", "failed")
    refused, thought, empty, filtered, failed = [await respond(gpt) for _ in range(5)]
    assert (refused.status, refused.output_text) == ("completed", "")
    assert refused.output[0].content[0].refusal == REFUSAL
    assert (thought.status, [item.type for item in thought.output]) == ("completed", ["reasoning"])
    assert thought.usage.output_tokens_details.reasoning_tokens > 0
    assert (empty.status, empty.output[0].type, empty.output_text) == ("completed", "message", "")
    assert (filtered.status, filtered.incomplete_details.reason) == ("incomplete", "content_filter")
    assert filtered.output_text
    assert (failed.status, failed.error.code) == ("failed", "server_error")
    refusal, thinking, nothing, half = [await message(claude) for _ in range(4)]
    assert (refusal.stop_reason, refusal.content) == ("refusal", [])
    assert ([block.type for block in thinking.content], thinking.stop_reason) == (["thinking"], "end_turn")
    assert (nothing.content, nothing.stop_reason) == ([], "end_turn")
    assert (half.stop_reason, bool(text_of(half))) == ("refusal", True)
    with pytest.raises(anthropic.InternalServerError):
        await message(claude)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        ("400", "BadRequestError"),
        ("401", "AuthenticationError"),
        ("403", "PermissionDeniedError"),
        ("404", "NotFoundError"),
        ("429:3", "RateLimitError"),
        ("500", "InternalServerError"),
        ("503", None),
        ("529", None),
    ],
)
async def test_error_statuses_are_the_clients_own_errors_and_repeat_the_prompt(
    sandbox: Sandbox, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic, status: str, name: str | None
) -> None:
    for provider in sandbox.world.llm:
        provider.plan(status)
    with pytest.raises(openai.APIStatusError) as first:
        await respond(gpt)
    with pytest.raises(anthropic.APIStatusError) as second:
        await message(claude)
    for caught in (first.value, second.value):
        assert caught.status_code == int(status[:3])
        assert name is None or type(caught).__name__ == name
        assert PROMPT in str(caught)  # so that whoever logs it is found out
        assert caught.response.headers.get("Retry-After") == ("3" if status == "429:3" else None)
    assert (await respond(gpt)).status == "completed"


async def test_what_is_no_answer_at_all(
    sandbox: Sandbox, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    for provider in sandbox.world.llm:
        provider.plan("garbage", "disconnect", "html:502", "html")
    with pytest.raises((openai.APIError, json.JSONDecodeError)):
        await respond(gpt)
    with pytest.raises((anthropic.APIError, json.JSONDecodeError)):
        await message(claude)
    with pytest.raises(openai.APIConnectionError):
        await respond(gpt)
    with pytest.raises(anthropic.APIConnectionError):
        await message(claude)
    with pytest.raises(openai.InternalServerError):
        await respond(gpt)
    with pytest.raises(anthropic.InternalServerError):
        await message(claude)
    assert isinstance(await respond(gpt), str)  # the client hands a page through as it is
    assert isinstance(await message(claude), str)


async def test_hanging_slow_and_dripping_answers(
    sandbox: Sandbox, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    for provider in sandbox.world.llm:
        provider.plan("hang", "slow:0.3", "drip:0.6")
    with pytest.raises(openai.APITimeoutError):
        await respond(gpt.with_options(timeout=0.3))
    with pytest.raises(anthropic.APITimeoutError):
        await message(claude.with_options(timeout=0.3))
    for ask in (respond(gpt), message(claude)):
        started = time.monotonic()
        await ask
        assert time.monotonic() - started >= 0.3
    for ask in (respond(gpt.with_options(timeout=0.4)), message(claude.with_options(timeout=0.4))):
        started = time.monotonic()
        await ask  # no single read takes 0.4 s, so that only a deadline for the whole call could end it
        assert time.monotonic() - started >= 0.6


async def test_keys_and_bodies_are_checked(sandbox: Sandbox) -> None:
    llm = sandbox.world.llm
    wrong = openai.AsyncOpenAI(base_url=sandbox.url + OPENAI_PATH, api_key=llm.anthropic.key, max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        await respond(wrong)
    right = wrong.with_options(api_key=llm.openai.key)
    with pytest.raises(openai.BadRequestError, match="max_output_tokens"):
        await respond(right, max_output_tokens=15)
    with pytest.raises(openai.BadRequestError, match="input"):
        await respond(right, "")
    await wrong.close()
    unknown = anthropic.AsyncAnthropic(base_url=sandbox.url + ANTHROPIC_PATH, api_key="none", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        await message(unknown)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        await message(unknown.with_options(api_key=llm.anthropic.key), max_tokens=0)
    await unknown.close()
    assert [provider.calls for provider in llm] == [3, 2]
    assert [len(provider.requests) for provider in llm] == [0, 0]
    assert dict(llm.openai.statuses) == {401: 1, 400: 2}


async def test_a_plan_is_met_once_each_in_order_and_by_text_before_that(
    sandbox: Sandbox, gpt: openai.AsyncOpenAI
) -> None:
    provider = sandbox.world.llm.openai
    provider.always("says:Anything else?")
    provider.plan("says:One.", "says:Two.")
    provider.when("roof", "says:About roofs: we know.")
    asked = [PROMPT, "Hello", PROMPT, "Hello", "Hello"]
    texts = [(await respond(gpt, text)).output_text for text in asked]
    assert texts == ["About roofs: we know.", "One.", "About roofs: we know.", "Two.", "Anything else?"]
    provider.be_well()
    assert (await respond(gpt, "Hello")).output_text == draft_for("Be brief.\nHello")


async def test_calls_at_once_are_counted(sandbox: Sandbox, gpt: openai.AsyncOpenAI) -> None:
    provider = sandbox.world.llm.openai
    provider.always("slow:0.2")
    await asyncio.gather(*(respond(gpt) for _ in range(5)))
    assert (provider.calls, provider.highest_at_once) == (5, 5)
    assert provider.as_counts()["by_behaviour"] == {"slow": 5}
    sandbox.world.reset_statistics()
    assert (provider.calls, len(provider.requests), provider.highest_at_once) == (0, 0, 0)


async def _asked(model: Model, limit: int = 200) -> ModelResponse:
    request = ModelRequest.user_text_prompt(PROMPT, instructions="Be brief.")
    return await model_request(model, [request], model_settings=ModelSettings(max_tokens=limit))


@pytest.fixture
def models(
    gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic, sandbox: Sandbox
) -> list[tuple[LlmProvider, Model]]:
    gpt_model = OpenAIResponsesModel("gpt-test", provider=OpenAIProvider(openai_client=gpt))
    claude_model = AnthropicModel("claude-test", provider=AnthropicProvider(anthropic_client=claude))
    return list(zip(sandbox.world.llm, (gpt_model, claude_model), strict=True))


async def test_pydantic_ai_reads_both_providers_alike(models: list[tuple[LlmProvider, Model]]) -> None:
    for provider, model in models:
        provider.plan("ok", "cut_off", "refusal", "reasoning_only")
        whole, half, refused, thought = [await _asked(model) for _ in range(4)]
        asked = provider.requests[0]
        assert asked.max_tokens == 200
        assert asked.prompt.startswith("Be brief.")
        assert PROMPT in asked.prompt
        assert (whole.text, whole.finish_reason) == (draft_for(asked.prompt), "stop")
        assert whole.usage.output_tokens == token_count(whole.text or "")
        assert half.finish_reason == "length"
        assert (refused.text, refused.finish_reason) == (None, "content_filter")
        assert thought.text is None


@pytest.fixture
async def control(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:
        yield client


async def test_everything_can_be_ordered_from_another_process(
    control: httpx.AsyncClient, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    async def order(**fields: object) -> int:
        return (await control.post("/_sandbox/llm", json=fields)).status_code

    shown = (await control.get("/_sandbox/llm")).json()
    assert (shown["openai"]["path"], shown["openai"]["calls"]) == (OPENAI_PATH, 0)
    assert (gpt.api_key, claude.api_key) == (shown["openai"]["key"], shown["anthropic"]["key"])
    assert await order(provider="openai", plan=["500"], when={"roof": "says:Roofs."}, thinking_tokens=7) == 200
    assert await order(always="says:Well.") == 200
    assert (await respond(gpt)).output_text == "Roofs."
    with pytest.raises(openai.InternalServerError):
        await respond(gpt, "Hello")
    assert (await respond(gpt, "Hello")).output_text == "Well."
    assert text_of(await message(claude, "Hello")) == "Well."
    assert await order(be_well=True) == 200
    assert text_of(await message(claude, "Hello")) == draft_for("Be brief.\nHello")
    kept = (await control.get("/_sandbox/llm/requests")).json()
    assert [each["behaviour"] for each in kept["openai"]] == ["says", "500", "says"]
    assert kept["openai"][0]["prompt"] == f"Be brief.\n{PROMPT}"
    stats = await control.get("/_sandbox/stats")
    assert stats.json()["llm"]["openai"]["by_status"] == {"200": 2, "500": 1}
    assert "roof" not in stats.text
    orders: list[dict[str, object]] = [{"provider": "mistral"}, {"plan": ["explode"]}, {"plam": []}]
    for senseless in orders:
        assert await order(**senseless) == 422


def test_every_behaviour_can_be_named() -> None:
    for word in (*PLAIN, *STATUSES, "hang", "hang:5", "429", "429:0.5", "html", "html:502", "slow:1", "says:a:b"):
        assert read_behaviour(word).word == word.partition(":")[0]
    assert (read_behaviour("429").number, read_behaviour("says:a:b").text) == (1.0, "a:b")


@pytest.mark.parametrize(
    "text", ["", "slow", "slow:", "slow:-1", "slow:nan", "slow:601", "ok:1", "cut_off_unless", "says:"]
)
def test_what_is_no_behaviour_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="cut_off_unless:<number>"):
        read_behaviour(text)
