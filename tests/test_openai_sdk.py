"""The OpenAI SDK as a client of the bridge."""

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

CHINESE: list[ChatCompletionMessageParam] = [{"role": "user", "content": "你好，介绍一下你自己"}]
ENGLISH: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
COUNT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Count to ten"}]


async def test_sdk_gets_a_whole_answer(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="demo", messages=CHINESE, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.model == "demo"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_sdk_stream_joins_to_the_whole_answer(sdk: openai.AsyncOpenAI) -> None:
    whole = await sdk.chat.completions.create(model="demo", messages=CHINESE, temperature=0)
    stream = await sdk.chat.completions.create(
        model="demo", messages=CHINESE, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(deltas) == whole.choices[0].message.content
    assert sum(map(bool, deltas)) > 3, "it did not come in pieces"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_sdk_stream_without_usage_has_none(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(model="demo", messages=ENGLISH, temperature=0, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_sdk_seed_repeats_an_answer(sdk: openai.AsyncOpenAI) -> None:
    async def ask(seed: int) -> str | None:
        answer = await sdk.chat.completions.create(
            model="demo", messages=ENGLISH, temperature=1.5, top_p=1, seed=seed, extra_body={"top_k": 0}
        )
        assert answer.model_extra
        assert answer.model_extra["seed"] == seed
        return answer.choices[0].message.content

    first, again = [[await ask(seed) for seed in range(8)] for _ in range(2)]
    assert first == again
    assert len(set(first)) > 1


async def test_seed_that_the_server_chose_repeats_the_answer(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="demo", messages=ENGLISH, temperature=1.5, top_p=1)
    assert answer.model_extra
    assert 0 <= answer.model_extra["seed"] < 2**53
    again = await sdk.chat.completions.create(
        model="demo", messages=ENGLISH, temperature=1.5, top_p=1, seed=answer.model_extra["seed"]
    )
    assert again.choices[0].message.content == answer.choices[0].message.content


async def test_sdk_gets_typed_errors(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        await sdk.chat.completions.create(model="demo", messages=ENGLISH, temperature=3)
    assert bad.value.param == "temperature"
    assert "0.0 to 2.0" in bad.value.message
    with pytest.raises(openai.NotFoundError) as unknown:
        await sdk.chat.completions.create(model="gpt-4o", messages=ENGLISH)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        await sdk.chat.completions.create(model="demo", messages=ENGLISH, max_tokens=10**6)
    assert long.value.code == "context_length_exceeded"


async def test_answers_message_can_be_sent_back_as_the_sdk_holds_it(sdk: openai.AsyncOpenAI) -> None:
    first = await sdk.chat.completions.create(model="demo", messages=ENGLISH, temperature=0)
    said: Any = first.choices[0].message.model_dump()
    history: list[Any] = [*ENGLISH, said, {"role": "user", "content": "Thanks"}]
    again = await sdk.chat.completions.create(model="demo", messages=history, temperature=0)
    assert again.choices[0].message.content


async def test_sdk_lists_and_retrieves_the_model(sdk: openai.AsyncOpenAI) -> None:
    [model] = [model async for model in sdk.models.list()]
    assert model.id == "demo"
    assert (await sdk.models.retrieve("Qwen/demo")).id == "demo"
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("other")


async def test_model_is_reached_by_both_names_and_by_none(sdk: openai.AsyncOpenAI) -> None:
    for name in ("demo", "Qwen/demo"):
        assert (await sdk.chat.completions.create(model=name, messages=ENGLISH, max_tokens=1)).model == "demo"
    answer = await sdk.chat.completions.create(model=openai.NOT_GIVEN, messages=ENGLISH, max_tokens=1)  # type: ignore[call-overload]
    assert answer.model == "demo"


async def test_sdk_parses_logprobs_whole_and_streamed(sdk: openai.AsyncOpenAI) -> None:
    whole = await sdk.chat.completions.create(
        model="demo", messages=CHINESE, temperature=0, logprobs=True, top_logprobs=2
    )
    assert whole.choices[0].logprobs
    content = whole.choices[0].logprobs.content
    assert content
    assert whole.choices[0].logprobs.refusal is None
    assert whole.usage
    assert len(content) == whole.usage.completion_tokens
    assert all(one.logprob <= 0 and one.bytes and len(one.top_logprobs) == 2 for one in content)
    assert all(one.top_logprobs[0].token == one.token for one in content)
    stream = await sdk.chat.completions.create(
        model="demo", messages=CHINESE, temperature=0, logprobs=True, top_logprobs=2, stream=True
    )
    choices = [chunk.choices[0] async for chunk in stream]
    streamed = [one for choice in choices if choice.logprobs for one in choice.logprobs.content or []]
    assert [one.token for one in streamed] == [one.token for one in content]
    assert [one.logprob for one in streamed] == pytest.approx([one.logprob for one in content], abs=1e-4)
    for choice in choices:  # they come with their text
        if choice.delta.content and choice.logprobs and "\ufffd" not in "".join(one.token for one in streamed):
            assert choice.delta.content in "".join(one.token for one in choice.logprobs.content or [])


async def test_sdk_gets_no_logprobs_where_it_asks_for_none(sdk: openai.AsyncOpenAI) -> None:
    whole = await sdk.chat.completions.create(model="demo", messages=ENGLISH, temperature=0, max_tokens=2)
    assert whole.choices[0].logprobs is None
    assert whole.usage
    assert whole.usage.prompt_tokens_details
    assert whole.usage.prompt_tokens_details.cached_tokens is not None


async def test_sdk_biases_a_token(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(
        model="demo", messages=ENGLISH, temperature=0, max_tokens=3, logit_bias={"70": 100}
    )
    assert answer.choices[0].message.content
    assert len(set(answer.choices[0].message.content)) == 1
    with pytest.raises(openai.BadRequestError) as raised:
        await sdk.chat.completions.create(model="demo", messages=ENGLISH, logit_bias={"2526": 1})
    assert raised.value.param == "logit_bias[2526]"


async def test_sdk_penalties_change_the_answer(sdk: openai.AsyncOpenAI) -> None:
    async def ask(repetition_penalty: float = 1, **penalties: float) -> str | None:
        extra = {"ignore_eos": True, "repetition_penalty": repetition_penalty}
        answer: ChatCompletion = await sdk.chat.completions.create(  # type: ignore[call-overload]
            model="demo", messages=COUNT, temperature=0, max_tokens=60, extra_body=extra, **penalties
        )
        return answer.choices[0].message.content

    plain = await ask()
    assert await ask(presence_penalty=0, frequency_penalty=0) == plain
    assert await ask(presence_penalty=2) != plain
    assert await ask(frequency_penalty=2) != plain
    assert await ask(repetition_penalty=2) != plain


async def test_sdk_refusals_name_the_field(sdk: openai.AsyncOpenAI) -> None:
    for fields, param in (
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"extra_body": {"min_tokens": 9, "max_tokens": 8}}, "min_tokens"),
    ):
        with pytest.raises(openai.BadRequestError) as raised:
            await sdk.chat.completions.create(model="demo", messages=ENGLISH, **fields)
        assert raised.value.param == param
