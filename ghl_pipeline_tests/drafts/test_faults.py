"""What a provider does wrong, at the first one and at both: the state it ends in, the time and the calls it takes."""

import time
from typing import Any

import pytest

from ghl_pipeline.drafts.draft import CALLS_PER_PROVIDER, SHARE_OF_FIRST
from ghl_pipeline_tests.drafts.conftest import Place

DEADLINE = 2.0
# 10 % of the deadline for cancelling a call; the rest is this test's own: reading and storing rows and importing the
# SDKs is not part of the deadline, and the test machine's two processors are shared.
SLACK = 0.1 * DEADLINE
SHORT: dict[str, Any] = {"draft_sms_deadline_seconds": DEADLINE}

# What the provider does; why there is no draft when both do it; calls of each.
FAULTS = [
    ("cut_off", "cut_off", 2),
    ("cut_off_thinking", "cut_off", 2),
    ("filtered", "refused", 1),
    ("refusal", "refused", 1),
    ("reasoning_only", "empty", 1),
    ("empty", "empty", 1),
    ("failed", "server_error", 1),
    ("garbage", "unreadable", 1),
    ("html", "unreadable", 1),
    ("html:502", "server_error", 1),
    ("disconnect", "unreachable", 1),
    ("500", "server_error", 1),
    ("502", "server_error", 1),
    ("503", "server_error", 1),
    ("529", "server_error", 1),
    ("408", "server_error", 1),
    ("429:30", "rate_limited", 1),
    ("400", "request_rejected", 1),
    ("401", "key_refused", 1),
    ("403", "key_refused", 1),
    ("404", "model_unknown", 1),
    ("hang", "timeout", 1),
    ("drip:20", "timeout", 1),
    ("says:See https://evil.example.com/now", "unwanted_link", 1),
]
of_each_fault = pytest.mark.parametrize(("fault", "reason", "calls"), FAULTS, ids=[fault for fault, _, _ in FAULTS])


@of_each_fault
async def test_what_the_first_provider_does_wrong_the_second_one_makes_up_for(
    place: Place, fault: str, reason: str, calls: int
) -> None:
    place.sms()
    place.always(fault)
    report = await place.write(**SHORT)
    row = place.row()
    assert (row["state"], row["provider"], row["failure"], row["retry_at"]) == ("pending", "anthropic", None, None)
    assert row["body"]
    assert "evil" not in row["body"]
    assert place.calls == (calls, 1)
    assert report.calls == calls + 1
    assert row["seconds"] <= DEADLINE + SLACK


@of_each_fault
async def test_when_both_do_wrong_there_is_a_reason_and_no_text(
    place: Place, fault: str, reason: str, calls: int
) -> None:
    place.sms()
    place.always(fault, fault)
    report = await place.write(**SHORT)
    row = place.row()
    assert (row["state"], row["failure"], row["body"]) == ("failed", reason, None)
    assert row["failure_text"].startswith("openai ")
    assert "; anthropic " in row["failure_text"]
    assert report.failed == {reason: 1}
    assert place.calls == (calls, calls)
    assert report.calls <= 2 * CALLS_PER_PROVIDER
    assert row["seconds"] <= DEADLINE + SLACK
    passes = reason not in {"refused", "request_rejected", "key_refused", "model_unknown"}
    assert (row["retry_at"] is not None) is passes


@pytest.mark.parametrize("fault", ["hang", "drip:20"])
async def test_a_hanging_first_provider_leaves_the_second_one_its_share_of_the_time(place: Place, fault: str) -> None:
    place.sms()
    place.always(fault, "slow:0.5")
    await place.write(**SHORT)
    row = place.row()
    assert row["provider"] == "anthropic"
    assert row["seconds"] == pytest.approx(SHARE_OF_FIRST * DEADLINE + 0.5, abs=SLACK)


async def test_a_provider_that_is_alone_has_the_whole_time(place: Place) -> None:
    place.sms()
    place.always("slow:1.6")
    await place.write(**SHORT, anthropic_api_key=None)
    assert place.row()["provider"] == "openai"
    place.sms()
    place.always("hang")
    began = time.monotonic()
    await place.write(**SHORT, anthropic_api_key=None)
    failed = place.rows()[1]
    assert failed["failure"] == "timeout"
    assert failed["seconds"] == pytest.approx(DEADLINE, abs=SLACK)
    assert time.monotonic() - began < DEADLINE + 2.0, "and the run with it"


async def test_a_larger_budget_is_no_new_deadline(place: Place) -> None:
    place.sms()
    place.openai.plan("cut_off")
    place.always("hang", "hang")
    report = await place.write(**SHORT)
    row = place.row()
    assert (row["failure"], place.calls, report.calls) == ("timeout", (2, 1), 3)
    assert row["seconds"] == pytest.approx(DEADLINE, abs=SLACK)


async def test_after_a_cut_off_the_budget_is_larger_and_the_effort_lower(place: Place) -> None:
    place.sms()
    place.openai.plan("cut_off")
    await place.write()
    row = place.row()
    assert (row["provider"], row["state"]) == ("openai", "pending")
    first, again = place.openai.requests
    assert first.max_tokens is not None
    assert again.max_tokens == 2 * first.max_tokens
    assert (first.effort, again.effort) in {("low", "none"), ("low", "minimal")}
    assert row["tokens_out"] > first.max_tokens, "what the cut-off answer cost counts"


async def test_a_model_that_needs_the_larger_budget_gets_it_in_the_second_call(place: Place) -> None:
    place.sms()
    place.always("cut_off_unless:500")
    await place.write(draft_token_budget_multiplier=1.0)
    assert place.row()["provider"] == "openai"
    assert place.calls == (2, 0)


async def test_the_prompt_is_not_kept_by_the_provider(place: Place) -> None:
    place.sms()
    await place.write()
    (request,) = place.openai.requests
    assert request.body["store"] is False


async def test_without_the_first_key_the_second_provider_is_the_only_one(place: Place) -> None:
    place.sms()
    await place.write(openai_api_key=None)
    assert place.row()["provider"] == "anthropic"
    assert place.calls == (0, 1)
