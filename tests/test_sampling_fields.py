"""What the sampling fields do to answers of the demo model, end to end, against what transformers makes of it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import httpx2
import pytest
import torch
from transformers import Qwen3ForCausalLM

from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.reply import Vocabulary
from inference_server.chat.types import Message, Role
from inference_server.demo_model import CHECKPOINT_DIR
from protos.chat.v1 import chat_pb2, chat_pb2_grpc

ENCODER = PromptEncoder(CHECKPOINT_DIR)
VOCABULARY = Vocabulary(ENCODER.tokenizer)
PROMPT = ENCODER.encode([Message(Role.USER, "Count to ten")])
MODEL_ENDS = [2502, 2500]
CHAT = "/v1/chat/completions"
Stub: TypeAlias = "chat_pb2_grpc.ChatServiceAsyncStub"


def hello(**fields: Any) -> chat_pb2.ChatCompletionRequest:
    """Greedy unless said otherwise."""
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Count to ten")
    return chat_pb2.ChatCompletionRequest(messages=[message], return_token_ids=True, **({"temperature": 0.0} | fields))


async def ids_of(stub: Stub, **fields: Any) -> list[int]:
    return list((await stub.CreateChatCompletion(hello(**fields))).choices[0].token_ids)


@pytest.fixture(scope="module")
def reference() -> Any:
    """The demo model as transformers loads it."""
    return Qwen3ForCausalLM.from_pretrained(CHECKPOINT_DIR, dtype=torch.float32).eval()


def greedy(reference: Any, **settings: Any) -> list[int]:
    plain = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "max_new_tokens": 60}
    with torch.inference_mode():
        output = reference.generate(torch.tensor([PROMPT]), **(plain | settings))
    return list(output[0, len(PROMPT) :].tolist())


@pytest.mark.parametrize("penalty", [0.6, 1.3, 2.0])
async def test_repetition_penalty_is_transformers_one(penalty: float, stub: Stub, reference: Any) -> None:
    ours = await ids_of(stub, repetition_penalty=penalty, max_tokens=60)
    assert ours == greedy(reference, repetition_penalty=penalty)
    assert ours != await ids_of(stub, max_tokens=60)


@pytest.mark.parametrize(("presence", "frequency"), [(2.0, 0.0), (0.0, 2.0), (0.0, 1.2), (-2.0, 0.0), (-0.5, 2.0)])
async def test_penalised_tokens_are_those_that_their_logprobs_call_for(
    presence: float, frequency: float, stub: Stub
) -> None:
    """Differences of logits are differences of raw log-probabilities, so that each choice can be made again."""
    asked = hello(presence_penalty=presence, frequency_penalty=frequency, logprobs=True, top_logprobs=20,
                  ignore_eos=True, max_tokens=60)  # fmt: skip
    [choice] = (await stub.CreateChatCompletion(asked)).choices
    counts: Counter[int] = Counter()
    for place in choice.logprobs:
        scores = {
            top.token_id: top.logprob - presence * (top.token_id in counts) - frequency * counts[top.token_id]
            for top in place.top_logprobs
        }
        if max(scores.values()) > place.top_logprobs[-1].logprob:  # else it may be one that is not told
            assert scores[place.token_id] == pytest.approx(max(scores.values()), abs=1e-4)
        counts[place.token_id] += 1
    assert len(choice.logprobs) == 60
    assert list(choice.token_ids) != await ids_of(stub, ignore_eos=True, max_tokens=60)


async def test_penalties_count_the_answer_and_not_the_prompt(stub: Stub) -> None:
    [first] = await ids_of(stub, max_tokens=1)
    assert await ids_of(stub, max_tokens=1, presence_penalty=2.0, frequency_penalty=2.0) == [first]


async def test_bias_forces_a_token_and_bans_another(stub: Stub) -> None:
    assert await ids_of(stub, logit_bias={70: 100.0}, max_tokens=4) == [70] * 4
    asked = hello(max_tokens=1, logprobs=True, top_logprobs=2)
    [place] = (await stub.CreateChatCompletion(asked)).choices[0].logprobs
    first, second = place.top_logprobs
    assert await ids_of(stub, max_tokens=1, logit_bias={first.token_id: -100.0}) == [second.token_id]
    lead = first.logprob - second.logprob
    for share, expected in ((0.9, first), (1.1, second)):  # added as it is, not scaled
        assert await ids_of(stub, max_tokens=1, logit_bias={second.token_id: lead * share}) == [expected.token_id]


async def test_bias_bans_a_token_from_hot_samples_too(stub: Stub) -> None:
    hot = {"temperature": 2.0, "top_p": 1.0, "top_k": 0, "max_tokens": 200, "ignore_eos": True, "seed": 1}
    most, _ = Counter(await ids_of(stub, **hot)).most_common(1)[0]
    assert most not in await ids_of(stub, **hot, logit_bias={most: -100.0})


async def test_min_p_of_1_keeps_the_likeliest_token_alone(stub: Stub) -> None:
    hot = {"temperature": 2.0, "top_p": 1.0, "top_k": 0, "seed": 3, "max_tokens": 20, "ignore_eos": True}
    likeliest = await ids_of(stub, max_tokens=20, ignore_eos=True)
    assert await ids_of(stub, **hot, min_p=1.0) == likeliest
    answers = [await ids_of(stub, **hot | {"seed": seed}, min_p=0.0) for seed in range(8)]
    assert any(answer != likeliest for answer in answers)


async def test_min_p_leaves_out_what_is_less_likely_than_its_share(stub: Stub) -> None:
    """Over the probabilities at the request's temperature, as transformers has it."""
    hot = {"temperature": 2.0, "top_p": 1.0, "top_k": 0, "max_tokens": 100, "ignore_eos": True, "seed": 4}
    shares = []
    for min_p in (0.0, 0.3):
        asked = hello(**hot, min_p=min_p, logprobs=True, top_logprobs=1)
        places = (await stub.CreateChatCompletion(asked)).choices[0].logprobs
        shares.append([2.718281828 ** ((p.logprob - p.top_logprobs[0].logprob) / 2.0) for p in places])
    assert min(shares[0]) < 0.3
    assert 0.3 - 1e-4 <= min(shares[1]) < 0.9
    assert max(shares[0]) <= 1.0 + 1e-6


async def test_logprobs_are_those_of_transformers_whatever_the_sampling(stub: Stub, reference: Any) -> None:
    for fields in (
        {},
        {"temperature": 1.7, "top_p": 0.5, "top_k": 3, "seed": 2, "frequency_penalty": 1.0, "repetition_penalty": 1.5},
        {"logit_bias": {70: 100.0}, "min_tokens": 5, "max_tokens": 5},
    ):
        asked = hello(**fields, logprobs=True, top_logprobs=20)
        [choice] = (await stub.CreateChatCompletion(asked)).choices
        with torch.inference_mode():
            logits = reference(torch.tensor([[*PROMPT, *choice.token_ids]])).logits[0, len(PROMPT) - 1 : -1]
        expected = logits.log_softmax(dim=-1)  # [T, V]
        assert [place.token_id for place in choice.logprobs] == list(choice.token_ids)
        for row, place in zip(expected, choice.logprobs, strict=True):
            assert place.logprob == pytest.approx(max(float(row[place.token_id]), -9999.0), abs=1e-3)
            told = torch.tensor([top.logprob for top in place.top_logprobs])
            assert torch.allclose(told, row.topk(20).values, atol=1e-3)
            assert all(top.logprob == pytest.approx(float(row[top.token_id]), abs=1e-3) for top in place.top_logprobs)


async def test_logprobs_spell_the_answer(http: httpx2.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": "你好"}], "temperature": 0, "logprobs": True, "top_logprobs": 3}
    answer = (await http.post(CHAT, json=body)).raise_for_status().json()
    *said, end = answer["choices"][0]["logprobs"]["content"]
    assert bytes(byte for one in said for byte in one["bytes"]).decode() == answer["response"]
    assert end["token"] == bytes(end["bytes"]).decode() == "<|im_end|>"
    assert len(said) + 1 == answer["usage"]["completion_tokens"]
    assert all(len(one["top_logprobs"]) == 3 and one["top_logprobs"][0]["token"] == one["token"] for one in said)
    streamed = await http.post(CHAT, json=body | {"stream": True})
    assert streamed.text.count('"top_logprobs"') == len(said) + 1


async def test_no_end_comes_before_min_tokens(stub: Stub, reference: Any) -> None:
    natural = await ids_of(stub)
    assert natural[-1] in MODEL_ENDS
    longer = await ids_of(stub, min_tokens=len(natural) + 3, max_tokens=200)
    assert not {*MODEL_ENDS} & {*longer[: len(natural) + 3]}
    assert len(longer) > len(natural) + 3
    assert longer == greedy(reference, min_new_tokens=len(natural) + 3, max_new_tokens=200)
    assert await ids_of(stub, min_tokens=len(natural) - 1) == natural  # the end is the first token that may be one


async def test_min_tokens_hold_off_own_stop_tokens_and_stop_texts(stub: Stub) -> None:
    natural = await ids_of(stub, ignore_eos=True, max_tokens=20)
    stop = natural[8]  # one that is whole characters
    place = natural.index(stop)
    assert await ids_of(stub, stop_token_ids=[stop], ignore_eos=True, max_tokens=20) == natural[: place + 1]
    held_off = await ids_of(stub, stop_token_ids=[stop], min_tokens=place + 1, ignore_eos=True, max_tokens=20)
    assert held_off[:place] == natural[:place]
    assert stop not in held_off[: place + 1]
    text = VOCABULARY.bytes_of(stop).decode()
    whole = await stub.CreateChatCompletion(hello(ignore_eos=True, max_tokens=20))
    answer = await stub.CreateChatCompletion(hello(stop=[text], min_tokens=20, max_tokens=20, ignore_eos=True))
    assert answer.choices[0].message.content == whole.choices[0].message.content
    assert text in answer.choices[0].message.content


async def test_own_stop_token_ends_the_answer_as_stop_and_is_counted(stub: Stub) -> None:
    natural = await ids_of(stub)
    answer = await stub.CreateChatCompletion(hello(stop_token_ids=[natural[3], 5]))
    assert answer.choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP
    assert list(answer.choices[0].token_ids) == natural[: natural.index(natural[3]) + 1]
    assert answer.usage.completion_tokens == len(answer.choices[0].token_ids)


RESUMABLE: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.5, "top_p": 1.0, "top_k": 0, "seed": 11, "max_tokens": 30, "ignore_eos": True},
    "penalised": {
        "temperature": 1.2, "seed": 3, "presence_penalty": 0.5, "frequency_penalty": 0.7, "repetition_penalty": 1.2,
        "min_p": 0.05, "max_tokens": 24, "logit_bias": {70: 2.0},
    },
    "min_tokens": {"min_tokens": 30, "max_tokens": 40},
    "stop text": {"stop": ["demo model of"]},
    "logprobs": {"logprobs": True, "top_logprobs": 2, "max_tokens": 12},
}  # fmt: skip


@pytest.mark.parametrize("fields", RESUMABLE.values(), ids=RESUMABLE.keys())
async def test_answer_resumed_at_any_token_goes_on_as_the_whole_one(fields: dict[str, Any], stub: Stub) -> None:
    whole = await stub.CreateChatCompletion(hello(**fields))
    chunks = [chunk async for chunk in stub.StreamChatCompletion(hello(**fields))]
    assert "".join(chunk.choices[0].content for chunk in chunks) == whole.choices[0].message.content
    token_ids = list(whole.choices[0].token_ids)
    for cut in (1, 2, 7, len(token_ids) - 1):
        resume = chat_pb2.Resume(token_ids=token_ids[:cut], seed=whole.seed)
        answer = await stub.CreateChatCompletion(hello(**fields, resume=resume))
        assert list(answer.choices[0].token_ids) == token_ids[cut:]
        assert whole.choices[0].message.content.endswith(answer.choices[0].message.content)
        assert answer.choices[0].finish_reason == whole.choices[0].finish_reason
        assert answer.usage.completion_tokens == whole.usage.completion_tokens
        assert answer.seed == whole.seed
        _expect_near(answer.choices[0].logprobs, whole.choices[0].logprobs[cut:])


def _expect_near(found: Sequence[chat_pb2.TokenLogprob], expected: Sequence[chat_pb2.TokenLogprob]) -> None:
    assert [one.token_id for one in found] == [one.token_id for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


async def test_text_before_and_after_the_cut_is_the_whole_text(http: httpx2.AsyncClient) -> None:
    body = {
        "messages": [{"role": "user", "content": "你好"}], "temperature": 1.2, "seed": 8, "return_token_ids": True,
    }  # fmt: skip
    whole = (await http.post(CHAT, json=body)).raise_for_status().json()
    token_ids = whole["choices"][0]["token_ids"]
    for cut in range(1, len(token_ids)):
        before = (await http.post(CHAT, json=body | {"max_tokens": cut})).raise_for_status().json()
        rest = {"resume": {"token_ids": token_ids[:cut], "seed": 8}}
        after = (await http.post(CHAT, json=body | rest)).raise_for_status().json()
        assert before["response"] + after["response"] == whole["response"]


async def test_prompt_of_a_second_turn_comes_from_the_cache(http: httpx2.AsyncClient) -> None:
    first: list[dict[str, str]] = [{"role": "user", "content": "Once upon a time, " * 40}]
    body = {"messages": first, "temperature": 0, "max_tokens": 20}
    answer = (await http.post(CHAT, json=body)).raise_for_status().json()
    turn = [{"role": "assistant", "content": answer["response"]}, {"role": "user", "content": "Thanks"}]
    second = (await http.post(CHAT, json=body | {"messages": first + turn})).raise_for_status().json()
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert answer["usage"]["prompt_tokens"] // 2 < cached < second["usage"]["prompt_tokens"]
    again = (await http.post(CHAT, json=body | {"stream": True, "stream_options": {"include_usage": True}})).text
    assert '"cached_tokens":0' not in again
    assert (await http.post(CHAT, json=body)).json()["response"] == answer["response"]
