"""One completion over an engine that hands out its tokens in batches, as it does when the network is slow."""

from collections.abc import AsyncGenerator

import pytest

from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.reply import Vocabulary
from inference_server.chat.types import ChatRequest, Message, Role
from inference_server.completion import Completions, Delta, SamplingDefaults, TokenLogprob
from inference_server.convert import to_chunk, to_completion
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.engine.types import FinishReason, SamplingParams, TokenEvent, TokenLogprobs
from inference_server.errors import InvalidField, PromptTooLong, UnknownModel
from protos.chat.v1 import chat_pb2

ENCODER = PromptEncoder(CHECKPOINT_DIR)
VOCABULARY = Vocabulary(ENCODER.tokenizer)
MODEL_END = 2502
LETTERS = {chr(VOCABULARY.bytes_of(i)[0]): i for i in range(2000) if len(VOCABULARY.bytes_of(i)) == 1}


class BatchEngine:
    """Plays the batches of letters; remembers how it was asked."""

    def __init__(self, *batches: str) -> None:
        self.batches = batches
        self.params: SamplingParams | None = None
        self.resumed: tuple[int, ...] = ()
        self.closed = self.may_wait = False

    async def generate(
        self, prompt: object, params: SamplingParams, resumed_token_ids: tuple[int, ...], may_wait: bool, client: str
    ) -> AsyncGenerator[list[TokenEvent]]:
        self.params, self.resumed, self.may_wait = params, resumed_token_ids, may_wait
        try:
            for number, batch in enumerate(self.batches):
                last = number == len(self.batches) - 1
                events = [TokenEvent(LETTERS[letter], None, 10.0, 10.0 + place) for place, letter in enumerate(batch)]
                if last:
                    events[-1] = TokenEvent(events[-1].token_id, FinishReason.LENGTH, 10.0, 20.0)
                yield events
        finally:
            self.closed = True


def completions(engine: BatchEngine, max_context_tokens: int = 100) -> Completions:
    defaults = SamplingDefaults(0.6, 0.7, 20, 0.05, 1.1)
    return Completions(
        engine, ENCODER, VOCABULARY, defaults, ("m", "Qwen/m"), max_context_tokens, frozenset([MODEL_END])  # type: ignore[arg-type]
    )  # fmt: skip


def ask(**changes: object) -> ChatRequest:
    fields: dict[str, object] = {
        "model": None, "messages": (Message(Role.USER, "Hi"),), "temperature": None, "top_p": None, "top_k": None,
        "seed": None, "max_tokens": None, "stop": (), "ignore_eos": False, "return_token_ids": False,
    }  # fmt: skip
    return ChatRequest(**(fields | changes))  # type: ignore[arg-type]


async def run(engine: BatchEngine, **changes: object) -> tuple[list[Delta], int]:
    completion = await completions(engine).open(ask(**changes))
    deltas = [delta async for delta in completion.deltas()]
    return deltas, completion.token_count


async def test_tokens_that_waited_come_together_and_are_all_counted() -> None:
    deltas, token_count = await run(BatchEngine("ABC", "DE"))
    assert [delta.text for delta in deltas] == ["ABC", "DE"]
    assert [len(delta.token_ids) for delta in deltas] == [3, 2]
    assert token_count == 5
    assert [delta.finish_reason for delta in deltas] == [None, FinishReason.LENGTH]


async def test_stop_text_inside_a_batch_ends_the_answer_at_its_last_token() -> None:
    engine = BatchEngine("ABCDE", "F")
    deltas, token_count = await run(engine, stop=("CD",))
    assert [delta.text for delta in deltas] == ["AB"]
    assert deltas[0].token_ids == tuple(LETTERS[letter] for letter in "ABCD")
    assert token_count == 4
    assert deltas[0].finish_reason is FinishReason.STOP
    assert engine.closed


async def test_text_held_for_a_stop_text_is_let_go_at_the_end() -> None:
    deltas, _ = await run(BatchEngine("AB", "C"), stop=("CD",))
    assert "".join(delta.text for delta in deltas) == "ABC"
    assert deltas[-1].finish_reason is FinishReason.LENGTH


async def test_timings_follow_from_the_events() -> None:
    completion = await completions(BatchEngine("AB", "C")).open(ask())
    async for _ in completion.deltas():
        pass
    timings = completion.timings()
    assert timings.prefill_ms == 0.0
    assert timings.decode_ms == 10_000.0
    assert timings.tokens_per_second == 0.2


async def test_what_is_left_out_takes_the_checkpoints_default() -> None:
    engine = BatchEngine("A")
    await run(engine)
    assert engine.params
    assert (engine.params.temperature, engine.params.top_p, engine.params.top_k) == (0.6, 0.7, 20)
    assert (engine.params.min_p, engine.params.repetition_penalty) == (0.05, 1.1)
    assert engine.params.max_tokens == 100 - len(ENCODER.encode([Message(Role.USER, "Hi")]))
    await run(engine, temperature=0.0, top_p=0.0, top_k=-1, max_tokens=3, min_p=0.0, repetition_penalty=1.0)
    assert (engine.params.min_p, engine.params.repetition_penalty) == (0.0, 1.0)
    assert (engine.params.temperature, engine.params.top_p, engine.params.top_k) == (0.0, 0.0, 0)
    assert engine.params.max_tokens == 3


async def test_prompt_and_answer_must_fit_to_the_last_token() -> None:
    prompt = len(ENCODER.encode([Message(Role.USER, "Hi")]))
    await completions(BatchEngine(), prompt + 5).open(ask(max_tokens=5))
    with pytest.raises(PromptTooLong):
        await completions(BatchEngine(), prompt + 5).open(ask(max_tokens=6))
    with pytest.raises(PromptTooLong):
        await completions(BatchEngine(), prompt).open(ask())


async def test_only_the_served_names_are_known() -> None:
    for name in ("m", "Qwen/m", None):
        await completions(BatchEngine()).open(ask(model=name))
    for name in ("M", "", "other/m", "Qwen/Qwen/m"):
        with pytest.raises(UnknownModel):
            await completions(BatchEngine()).open(ask(model=name))


async def test_every_sampling_field_reaches_the_engine() -> None:
    engine = BatchEngine("A")
    await run(
        engine, min_p=0.1, presence_penalty=0.2, frequency_penalty=0.3, repetition_penalty=1.4, logit_bias=((5, -6.0),),
        min_tokens=2, max_tokens=4, stop_token_ids=(7, 7, 8), top_logprobs=9, ignore_eos=True, seed=10, temperature=0.0,
        top_p=0.11, top_k=12,
    )  # fmt: skip
    assert engine.params == SamplingParams(
        temperature=0.0, top_p=0.11, top_k=12, seed=10, max_tokens=4, min_p=0.1, repetition_penalty=1.4,
        presence_penalty=0.2, frequency_penalty=0.3, logit_bias=((5, -6.0),), min_tokens=2,
        stop_token_ids=frozenset([7, 8]), ignore_eos=True, top_logprobs=9,
    )  # fmt: skip
    assert engine.resumed == ()


BEYOND = VOCABULARY.last_token_id + 1
PROMPT_TOKENS = len(ENCODER.encode([Message(Role.USER, "Hi")]))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"logit_bias": ((0, 1.0), (BEYOND, 1.0))}, f"logit_bias[{BEYOND}]"),
        ({"stop_token_ids": (0, BEYOND)}, "stop_token_ids[1]"),
        ({"resumed_token_ids": (0, 1, BEYOND), "seed": 1}, "resume.token_ids[2]"),
        ({"min_tokens": 4, "max_tokens": 3}, "min_tokens"),
        ({"min_tokens": 101 - PROMPT_TOKENS}, "min_tokens"),
        ({"resumed_token_ids": (70,) * 4, "seed": 1, "max_tokens": 3}, "resume.token_ids"),
        ({"resumed_token_ids": (70,) * (101 - PROMPT_TOKENS), "seed": 1}, "resume.token_ids"),
        ({"resumed_token_ids": (70,)}, "resume.seed"),
    ],
)
async def test_what_tokenizer_or_context_forbid_is_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidField) as raised:
        await completions(BatchEngine()).open(ask(**changes))
    assert raised.value.field == field


async def test_what_tokenizer_and_context_just_allow_is_taken() -> None:
    for changes in (
        {"logit_bias": ((0, 1.0), (BEYOND - 1, 1.0)), "stop_token_ids": (0, BEYOND - 1)},
        {"min_tokens": 100 - PROMPT_TOKENS},
        {"resumed_token_ids": (70,) * (100 - PROMPT_TOKENS), "seed": 1},
        {"resumed_token_ids": (70,), "temperature": 0.0},
    ):
        await completions(BatchEngine()).open(ask(**changes))


class LogprobEngine:
    """Plays one batch of tokens that have log-probabilities."""

    def __init__(self, *events: TokenEvent) -> None:
        self.events = list(events)

    async def generate(
        self, prompt: object, params: SamplingParams, resumed_token_ids: tuple[int, ...], may_wait: bool, client: str
    ) -> AsyncGenerator[list[TokenEvent]]:
        yield self.events


@pytest.mark.parametrize(("stop", "may_wait"), [((), True), (("Z",), False)])
async def test_tokens_that_may_end_a_stop_text_do_not_wait(stop: tuple[str, ...], may_wait: bool) -> None:
    engine = BatchEngine("AB")
    await run(engine, stop=stop)
    assert engine.may_wait is may_wait


async def test_logprobs_come_with_their_tokens_and_end_with_the_answer() -> None:
    a, b, part = LETTERS["A"], LETTERS["B"], LETTERS[chr(0xE4)]
    engine = LogprobEngine(
        TokenEvent(part, None, 10.0, 11.0, TokenLogprobs(-0.5, ((part, -0.5), (MODEL_END, -float("inf")))), 7),
        TokenEvent(a, None, 10.0, 12.0, TokenLogprobs(float("nan"), ()), 7),
        TokenEvent(MODEL_END, None, 10.0, 13.0, TokenLogprobs(-1.5, ((BEYOND, -0.1), (b, -20_000.0))), 7),
        TokenEvent(b, FinishReason.STOP, 10.0, 13.0, TokenLogprobs(-9.0, ()), 7),
    )
    completion = await completions(engine).open(ask(top_logprobs=2, stop=("A",), min_tokens=2))  # type: ignore[arg-type]
    [delta] = [delta async for delta in completion.deltas()]
    assert delta.logprobs[0] == TokenLogprob(
        part, b"\xe4", -0.5, (TokenLogprob(part, b"\xe4", -0.5), TokenLogprob(MODEL_END, b"<|im_end|>", -float("inf")))
    )
    [choice] = to_chunk(completion, "m", delta, True, chat_pb2.ChatCompletionRequest()).choices
    told = [(one.token, one.token_id, one.logprob, one.token_bytes) for one in choice.logprobs]
    assert told == [
        ("\ufffd", part, -0.5, b"\xe4"), ("A", a, -9999.0, b"A"), ("<|im_end|>", MODEL_END, -1.5, b"<|im_end|>"),
        ("B", b, -9.0, b"B"),
    ]  # fmt: skip
    assert [(top.token, top.logprob) for top in choice.logprobs[0].top_logprobs] == [
        ("\ufffd", -0.5),
        ("<|im_end|>", -9999.0),
    ]
    assert [(top.token, top.logprob) for top in choice.logprobs[2].top_logprobs] == [("", -0.1), ("B", -9999.0)]
    whole = to_completion(completion, "m", [delta], return_token_ids=False)
    assert whole.choices[0].logprobs == choice.logprobs
    assert whole.usage.cached_tokens == 7
