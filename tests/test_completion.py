"""One completion over an engine that hands out its tokens in batches, as it does when the network is slow."""

from collections.abc import AsyncGenerator

import pytest

from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.reply import Vocabulary
from inference_server.chat.types import ChatRequest, Message, Role
from inference_server.completion import Completions, Delta, SamplingDefaults
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.engine.types import FinishReason, SamplingParams, TokenEvent
from inference_server.errors import PromptTooLong, UnknownModel

ENCODER = PromptEncoder(CHECKPOINT_DIR)
VOCABULARY = Vocabulary(ENCODER.tokenizer)
LETTERS = {chr(VOCABULARY.bytes_of(i)[0]): i for i in range(2000) if len(VOCABULARY.bytes_of(i)) == 1}


class BatchEngine:
    """Plays the batches of letters; remembers how it was asked."""

    def __init__(self, *batches: str) -> None:
        self.batches = batches
        self.params: SamplingParams | None = None
        self.closed = False

    async def generate(self, prompt: tuple[int, ...], params: SamplingParams) -> AsyncGenerator[list[TokenEvent]]:
        self.params = params
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
    return Completions(engine, ENCODER, SamplingDefaults(0.6, 0.7, 20), ("m", "Qwen/m"), max_context_tokens)  # type: ignore[arg-type]


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
    assert engine.params.max_tokens == 100 - len(ENCODER.encode([Message(Role.USER, "Hi")]))
    await run(engine, temperature=0.0, top_p=0.0, top_k=-1, max_tokens=3)
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
