"""Ids that the model has logits for and the tokenizer does not have: never answered, told or taken, on either path."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM

from inference_server.chat.reply import Vocabulary
from inference_server.engine.native.library import Library
from inference_server.engine.native.runner import NativeRunner
from inference_server.engine.native.weights import PackedWeights
from inference_server.engine.sampler import Sampler, greedy_tokens
from inference_server.engine.types import NO_SAMPLING, Chunk, Computed, Sequence
from inference_server.errors import InvalidField
from inference_server.loading import LoadedParts
from tests.checkpoints import Shape, write_checkpoint
from tests.sampling_reference import random_logits, row
from tests.test_completion import ask
from tests.test_generation_config import answer, loaded, serving
from tests.test_native import BLOCKS, VARIANTS, model_of, needs_code

UNTIED = Shape(hidden=64, heads=4, head_size=32, tied=False)
KNOWN, ALL = 2526, 2560  # of the demo model's tokenizer and of its logits
UNKNOWN = frozenset({0, 3, 77, 150, *range(190, 200)})
DTYPES = ["float32", pytest.param("bfloat16", marks=needs_code)]
SAMPLING: list[dict[str, Any]] = [
    {"temperature": 0.0}, {"temperature": 0.0, "top_logprobs": 20}, {"temperature": 0.0, "repetition_penalty": 1.5},
    {"temperature": 0.0, "min_tokens": 6}, {"temperature": 1.0}, {"temperature": 2.0, "top_k": 20},
    {"temperature": 1.0, "top_p": 0.9}, {"temperature": 2.0, "min_p": 0.1}, {"temperature": 1.0, "top_logprobs": 20},
    {"temperature": 2.0, "top_k": 2000, "logit_bias": ((5, -100.0), (6, 3.0))},
]  # fmt: skip


def write_misled_checkpoint(directory: Path, dtype: str) -> None:
    """One whose likeliest token is nearly always none of the tokenizer's."""
    write_checkpoint(directory, dataclasses.replace(UNTIED, dtype=dtype))
    weights = load_file(directory / "model.safetensors")
    weights["lm_head.weight"][KNOWN:] *= 20
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


@torch.inference_mode()
def reference_logits(directory: Path, token_ids: list[int]) -> torch.Tensor:
    """transformers': [V], of what follows."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    logits: torch.Tensor = model(torch.tensor([token_ids])).logits[0, -1]
    return logits


@pytest.fixture(params=DTYPES)
def misled(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedParts:
    write_misled_checkpoint(tmp_path, request.param)
    parts = loaded(tmp_path)
    assert isinstance(parts.runner, NativeRunner) == (request.param == "bfloat16")
    assert int(reference_logits(tmp_path, parts.encoder.encode(ask().messages)).argmax()) >= KNOWN
    return parts


async def test_answers_hold_only_tokens_that_the_tokenizer_has(misled: LoadedParts) -> None:
    async with serving(misled) as completions:
        for fields in SAMPLING:
            answered = await answer(completions, max_tokens=40, ignore_eos=True, **fields)
            assert len(answered) == 40
            assert max(answered) < KNOWN, fields


async def test_answers_can_be_resumed_anywhere(misled: LoadedParts) -> None:
    async with serving(misled) as completions:
        for fields in SAMPLING[0], SAMPLING[4], SAMPLING[5]:
            whole = await answer(completions, max_tokens=16, ignore_eos=True, **fields)
            for begin in (1, 7, 15):
                resumed = tuple(whole[:begin])
                rest = await answer(completions, max_tokens=16, ignore_eos=True, resumed_token_ids=resumed, **fields)
                assert rest == whole[begin:]


async def test_greedy_token_and_logprobs_are_transformers_own_of_the_tokens_that_are_known(tmp_path: Path) -> None:
    """The probabilities are the model's own: what unknown tokens have of them is nobody else's."""
    write_misled_checkpoint(tmp_path, "float32")
    parts = loaded(tmp_path)
    logits = reference_logits(tmp_path, parts.encoder.encode(ask().messages))
    expected_ids = logits[:KNOWN].topk(20).indices.tolist()
    async with serving(parts) as completions:
        completion = await completions.open(ask(temperature=0.0, top_logprobs=20, max_tokens=1, seed=0))
        [_, delta] = [delta async for delta in completion.deltas()]  # the first one says that it is admitted
    [told] = delta.logprobs
    assert told.token_id == expected_ids[0]
    assert [top.token_id for top in told.top] == expected_ids
    of_top = torch.tensor([top.logprob for top in told.top])
    torch.testing.assert_close(of_top, logits.log_softmax(dim=0)[expected_ids], rtol=0, atol=1e-4)


@pytest.mark.parametrize("token_id", [KNOWN, ALL - 1, ALL])
async def test_unknown_tokens_are_refused_in_every_field(token_id: int, misled: LoadedParts) -> None:
    async with serving(misled) as completions:
        for field, value in (
            ("logit_bias", ((token_id, 1.0),)), ("stop_token_ids", (5, token_id)), ("resumed_token_ids", (token_id,)),
        ):  # fmt: skip
            with pytest.raises(
                InvalidField, match=f"integer from 0 to {KNOWN - 1} that is a token's id, got {token_id}"
            ):
                await completions.open(ask(**{field: value}))


def test_vocabulary_tells_its_gaps() -> None:
    vocabulary = Vocabulary(Tokenizer(BPE(vocab={"a": 1, "b": 2, "c": 5}, merges=[])))
    assert vocabulary.unknown_token_ids(8) == {0, 3, 4, 6, 7}
    assert vocabulary.has_all([1, 5])
    assert not any(vocabulary.has_all([1, token_id]) for token_id in (-1, 0, 3, 6, 2**40))


@pytest.mark.parametrize("ties", [False, True])
def test_sampler_answers_as_over_logits_without_the_unknown_ones(ties: bool) -> None:
    """Gaps among them. The reference has the known columns alone, renumbered."""
    known = [token_id for token_id in range(200) if token_id not in UNKNOWN]
    logits = random_logits(40, seed=3, ties=ties)
    logits[:, sorted(UNKNOWN)] += 20
    assert {int(token_id) for token_id in logits.argmax(dim=1)} <= UNKNOWN
    greedy = [known[token_id] for token_id in logits[:, known].argmax(dim=1).tolist()]
    assert greedy_tokens(logits, UNKNOWN) == greedy
    sampler, computed = Sampler(frozenset(), UNKNOWN), Computed(list(greedy), logits.clone())
    told = sampler.sample(computed, [row(temperature=0.0, top_logprobs=5)] * 40)
    for token, raw, expected in zip(told, logits, greedy, strict=True):
        assert token is not None
        assert token.logprobs is not None
        ordered = sorted(known, key=lambda token_id: (-raw[token_id], token_id))[:5]
        assert token.token_id == expected
        assert [token_id for token_id, _ in token.logprobs.top] == ordered
    for limits in ({}, {"top_k": 7}, {"top_p": 0.8}, {"min_p": 0.2}):
        rows = [row(temperature=1.5, seed=seed, **limits) for seed in range(40)]
        drawn = sampler.sample(Computed(list(greedy), logits.clone()), rows)
        without = logits.clone()
        without[:, sorted(UNKNOWN)] = -1e4
        expected_ids = Sampler(frozenset()).sample(Computed(greedy_tokens(without), without), rows)
        assert drawn == expected_ids


@needs_code
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("vocabulary", [5, 48, 1003])
def test_compiled_code_finds_the_likeliest_known_token(variant: str, vocabulary: int, tmp_path: Path) -> None:
    model, rng = (
        model_of(tmp_path, dataclasses.replace(UNTIED, dtype="bfloat16", vocabulary=vocabulary)),
        random.Random(0),
    )
    output = model.module.output.weight.data
    output[:] = output[[rng.randrange(-(-vocabulary // 3)) for _ in range(vocabulary)]]  # many are equal
    unknown = frozenset(rng.sample(range(vocabulary), vocabulary // 3)) | {vocabulary - 1}
    output[sorted(unknown)] *= 30
    packed = PackedWeights(model.config, Library(variant), unknown)
    for name, parameter in model.module.published_parameters(tied=False):
        packed.places[name].put(parameter.detach())
    runner = NativeRunner(packed, BLOCKS)
    chunks = [
        Chunk(Sequence(tuple(rng.choices(range(vocabulary), k=9)), NO_SAMPLING, block_ids=[block]), 0, 9)
        for block in range(1, 31)
    ]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for count in (1, 13, 30):
            seen = runner.forward(chunks[:count])
            assert seen.likeliest == greedy_tokens(seen.logits, unknown)
            assert runner.forward(chunks[:count], keep_logits=False).likeliest == seen.likeliest
            assert not unknown & set(seen.likeliest)
    torch.set_num_threads(1)
    assert set(seen.logits.argmax(dim=1).tolist()) & unknown
