"""What a checkpoint's files say about generating: end tokens and sampling defaults, as transformers reads them."""

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference_server.completion import Completions, SamplingDefaults
from inference_server.errors import StartupError
from inference_server.loading import LoadedParts, assemble, load_parts
from inference_server.metrics import Metrics
from inference_server.service_state import ServiceState
from tests.checkpoints import Shape, write_checkpoint
from tests.fakes import settings
from tests.test_completion import ask

END_OF_TEXT, END_OF_TURN = 2500, 2502
GREEDY = {"do_sample": False, "temperature": 0.7, "top_k": 20, "top_p": 0.8}


def rewrite(directory: Path, name: str, **fields: object) -> None:
    """Fields of value ... are taken out."""
    content = json.loads((directory / name).read_text()) | fields
    (directory / name).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def loaded(directory: Path) -> LoadedParts:
    torch.set_num_threads(1)
    return load_parts(directory, settings(kv_cache_gib=0.01), lambda share: None)


@asynccontextmanager
async def serving(parts: LoadedParts) -> AsyncIterator[Completions]:
    engine, service = assemble(parts, settings(), "m", lambda error: None, Metrics(ServiceState()))
    yield service.completions
    await engine.stop()


async def answer(completions: Completions, **fields: object) -> list[int]:
    completion = await completions.open(ask(seed=1, **fields))
    return [token_id for delta in [delta async for delta in completion.deltas()] for token_id in delta.token_ids]


def reference_answer(directory: Path, parts: LoadedParts, **options: object) -> list[int]:
    """transformers' generate over the same directory, its generation_config.json included."""
    prompt = torch.tensor([parts.encoder.encode(ask().messages)])
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    told: list[int] = model.generate(prompt, max_new_tokens=24, pad_token_id=0, **options)[0].tolist()
    return told[prompt.shape[1] :]


@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "expected"),
    [
        ([END_OF_TURN, END_OF_TEXT], END_OF_TURN, "<|im_end|>", {END_OF_TURN, END_OF_TEXT}),
        (END_OF_TEXT, END_OF_TEXT, "<|im_end|>", {END_OF_TURN, END_OF_TEXT}),  # a base model after a fine-tune
        ([], END_OF_TURN, "<|endoftext|>", {END_OF_TURN, END_OF_TEXT}),
        (None, [7, 8], "<|im_end|>", {7, 8, END_OF_TURN}),
        (..., ..., {"content": "<|im_end|>", "__type": "AddedToken"}, {END_OF_TURN}),
        (5, ..., None, {5}),
        (5, ..., ..., {5, END_OF_TEXT}),  # the default of Qwen2Tokenizer
        (-1, 4000, "<|im_end|>", {END_OF_TURN}),  # no token of this tokenizer
    ],
)
def test_end_tokens_are_those_of_all_three_files(
    generation: object, config: object, tokenizer: object, expected: set[int], tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, Shape())
    rewrite(tmp_path, "generation_config.json", eos_token_id=generation)
    rewrite(tmp_path, "config.json", eos_token_id=config)
    rewrite(tmp_path, "tokenizer_config.json", eos_token=tokenizer)
    parts = loaded(tmp_path)
    assert parts.scheduler.stop_token_ids == parts.sampler._stop_token_ids == expected
    told = AutoTokenizer.from_pretrained(tmp_path).eos_token_id
    assert told is None or told in expected


def test_end_tokens_without_a_generation_config_are_those_of_the_others(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Shape())
    (tmp_path / "generation_config.json").unlink()
    rewrite(tmp_path, "config.json", eos_token_id=[9])
    assert loaded(tmp_path).scheduler.stop_token_ids == {9, END_OF_TURN}


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_end_token_that_is_no_id_is_refused(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Shape())
    rewrite(tmp_path, name, eos_token_id=["</s>"])
    with pytest.raises(StartupError, match=rf"{name}: (eos_token_id: expected an id|cannot be read)"):
        loaded(tmp_path)


async def test_answers_and_resumed_ones_end_at_a_token_that_config_json_alone_names(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Shape())
    rewrite(tmp_path, "generation_config.json", eos_token_id=[], do_sample=False)
    endless = reference_answer(tmp_path, loaded(tmp_path), eos_token_id=[])
    end = next(token_id for place, token_id in enumerate(endless) if place > 4 and token_id not in endless[:place])
    rewrite(tmp_path, "config.json", eos_token_id=end)
    parts = loaded(tmp_path)
    expected = reference_answer(tmp_path, parts, eos_token_id=[end])
    assert 5 < len(expected) < len(endless)
    async with serving(parts) as completions:
        assert await answer(completions, max_tokens=24) == expected
        assert await answer(completions, max_tokens=24, ignore_eos=True) == endless
        assert await answer(completions, max_tokens=24, resumed_token_ids=tuple(expected[:3])) == expected[3:]
        assert await answer(completions, max_tokens=24, resumed_token_ids=tuple(expected)) == []
        longer = await answer(completions, max_tokens=24, min_tokens=len(expected))
        assert longer[: len(expected) - 1] == expected[:-1]
        assert longer[len(expected) - 1] != end


async def test_do_sample_false_is_greedy_until_a_request_sets_a_temperature(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Shape())
    rewrite(tmp_path, "generation_config.json", eos_token_id=END_OF_TURN, **GREEDY)
    parts = loaded(tmp_path)
    expected = reference_answer(tmp_path, parts)
    async with serving(parts) as completions:
        assert await answer(completions, max_tokens=24) == expected
        for fields in ({"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"temperature": 0.0}):
            assert await answer(completions, max_tokens=24, **fields) == expected
        drawn = await answer(completions, max_tokens=24, temperature=1.5)
        assert drawn != expected
        assert drawn == await answer(completions, max_tokens=24, temperature=1.5)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}, SamplingDefaults(0.6, 0.95, 20)),
        ({"do_sample": False, "temperature": 0.6, "top_k": 20, "top_p": 0.95}, SamplingDefaults(0.0, 0.95, 20)),
        ({"do_sample": False, "temperature": None, "top_k": None, "top_p": None}, SamplingDefaults(0.0, 1.0, 0)),
        ({"temperature": None, "top_p": None}, SamplingDefaults(1.0, 1.0, 0)),
        ({"do_sample": None, "temperature": 1}, SamplingDefaults(1.0, 1.0, 0)),
        ({}, SamplingDefaults(1.0, 1.0, 0)),
    ],
)
def test_sampling_defaults_are_those_of_the_generation_config(
    fields: dict[str, object], expected: SamplingDefaults, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, Shape())
    (tmp_path / "generation_config.json").write_text(json.dumps(fields))
    assert dataclasses.asdict(loaded(tmp_path).defaults) == dataclasses.asdict(expected)
