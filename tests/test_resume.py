"""Answers that another server began: they continue exactly where it left off."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_server.completion import Completion, Delta
from inference_server.convert import to_completion
from inference_server.engine.types import FinishReason
from tests.test_completion import LETTERS, MODEL_END, BatchEngine, ask, completions, run


def whole_text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def resumed_at(cut: int, letters: str, **changes: object) -> tuple[Completion, list[Delta], BatchEngine]:
    """The answer of these letters, of which another server has sent `cut`."""
    engine = BatchEngine(letters[cut:])
    token_ids = tuple(LETTERS[letter] for letter in letters)
    completion = await completions(engine).open(ask(resumed_token_ids=token_ids[:cut], seed=1, **changes))
    return completion, [delta async for delta in completion.deltas()], engine


BYTES = "abc" + "".join(chr(byte) for byte in "\u4f60".encode())  # as LETTERS name them


@given(
    st.text(alphabet=BYTES, min_size=2, max_size=12),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=4),
    st.integers(0, 5),
)
@settings(max_examples=200)
async def test_resumed_answer_is_what_an_undisturbed_one_sends_after_the_cut(
    letters: str, stop: list[str], min_tokens: int
) -> None:
    changes = {"stop": tuple(stop), "min_tokens": min_tokens}
    undisturbed, token_count = await run(BatchEngine(*letters), **changes)
    for cut in range(1, token_count):
        completion, deltas, engine = await resumed_at(cut, letters, **changes)
        assert whole_text(deltas) == whole_text(undisturbed[cut:])
        assert deltas[-1].finish_reason is undisturbed[-1].finish_reason
        assert completion.token_count == token_count
        assert engine.resumed == tuple(LETTERS[letter] for letter in letters[:cut])
        assert [i for delta in deltas for i in delta.token_ids] == [
            LETTERS[letter] for letter in letters[cut:token_count]
        ]


@pytest.mark.parametrize(
    ("token_ids", "changes", "reason"),
    [
        ("AB", {"max_tokens": 2}, FinishReason.LENGTH),
        ("ABCD", {"stop": ("CD",)}, FinishReason.STOP),
        ("ABCD", {"stop": ("CD",), "max_tokens": 4}, FinishReason.STOP),
        ((70, MODEL_END), {}, FinishReason.STOP),
        ((70, MODEL_END), {"min_tokens": 1, "max_tokens": 2}, FinishReason.STOP),
        ((70, 71), {"stop_token_ids": (71,), "ignore_eos": True}, FinishReason.STOP),
    ],
)  # fmt: skip
async def test_answer_that_the_resumed_tokens_end_needs_no_engine(
    token_ids: str | tuple[int, ...], changes: dict[str, object], reason: FinishReason
) -> None:
    resumed = tuple(LETTERS[token] if isinstance(token, str) else token for token in token_ids)
    engine = BatchEngine("XYZ")
    completion = await completions(engine).open(ask(resumed_token_ids=resumed, seed=1, **changes))
    assert [delta async for delta in completion.deltas()] == [Delta("", (), reason)]
    assert engine.params is None
    answer = to_completion(completion, "m", [Delta("", (), reason)], return_token_ids=True)
    assert answer.usage.completion_tokens == len(resumed)
    assert answer.choices[0].finish_reason != 0


@pytest.mark.parametrize(
    ("token_ids", "changes"),
    [
        ((70, MODEL_END), {"ignore_eos": True}),
        ((70, MODEL_END), {"min_tokens": 2}),
        ((70, 71), {"stop_token_ids": (71,), "min_tokens": 2}),
        ((LETTERS["A"], LETTERS["B"]), {"stop": ("AB",), "min_tokens": 2}),
        ((LETTERS["A"], LETTERS["B"]), {"stop": ("ABX",), "max_tokens": 3}),
    ],
)
async def test_end_that_does_not_count_is_resumed_after(token_ids: tuple[int, ...], changes: dict[str, object]) -> None:
    deltas, _ = await run(engine := BatchEngine("Y"), resumed_token_ids=token_ids, seed=1, **changes)
    assert engine.resumed == token_ids
    assert whole_text(deltas).endswith("Y")


async def test_resumed_tokens_do_not_count_in_the_speed() -> None:
    completion, _, _ = await resumed_at(3, "ABCDE")
    assert completion.timings().tokens_per_second == 0.1


async def test_long_resumed_answer_is_continued() -> None:
    resumed = (LETTERS["A"],) * 3000
    engine = BatchEngine("B")
    completion = await completions(engine, 10_000).open(ask(resumed_token_ids=resumed, seed=1, stop=("AB",)))
    deltas = [delta async for delta in completion.deltas()]
    assert deltas[-1].finish_reason is FinishReason.STOP
    assert completion.token_count == 3001
