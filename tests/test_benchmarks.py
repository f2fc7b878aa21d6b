"""The benchmarks do what they say: counts, checkpoint, pictures. No figure is judged here."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
import pytest
import torch
from safetensors import safe_open

from benchmarks.checkpoint import SHAPES, write_checkpoint
from benchmarks.conversation import ConversationFigures, gaps_while_all_stream, measure_conversations
from benchmarks.event_stream import _chunks
from benchmarks.load import WORDS, Answer, ChatServer, Load, LoadFigures, prompt, run_load
from benchmarks.machine import machine, versions
from benchmarks.report import refresh
from benchmarks.results import Result, comparable
from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.reply import Vocabulary
from inference_server.chat.types import Message, Role
from tests.fakes import FakeRunner, in_process_service, settings


async def test_load_counts_what_was_asked_for() -> None:
    async with in_process_service(FakeRunner()) as service:
        answered: list[None] = []
        load = Load(streams=3, requests=7, words=5, tokens=11)
        figures = await run_load(ChatServer(service.url, "fake"), load, on_answer=lambda: answered.append(None))
    assert (figures.concurrency, figures.requests, len(answered)) == (3, 7, 7)
    assert figures.completion_tokens == 7 * 11
    assert 7 <= figures.chunks <= 7 * 11
    assert figures.prompt_tokens >= 7 * 5
    assert figures.output_tokens_per_s > 0


async def test_load_takes_an_address_with_v1() -> None:
    async with in_process_service(FakeRunner()) as service:
        answer = await ChatServer(f"{service.url}/v1", "fake").ask(["Hello"], 4)
    assert answer.completion_tokens == 4
    assert len(answer.text) == 4
    assert answer.asked_s < answer.text_s[0] <= answer.text_s[-1] <= answer.ended_s


async def test_refusal_ends_the_load_with_what_the_server_said() -> None:
    async with in_process_service(FakeRunner()) as service:
        with pytest.raises(click.ClickException, match="not served here"):
            await ChatServer(service.url, "another").ask(["Hello"], 4)


async def test_conversations_are_measured_on_both_turns() -> None:
    async with in_process_service(FakeRunner(step_s=0.005)) as service:  # or all tokens may come as one event
        figures = await measure_conversations(ChatServer(service.url, "fake"), words=20, tokens=12)
    assert figures.prompt_tokens >= 20
    assert min(figures.cold_ttft_s, figures.second_turn_ttft_s) > 0


def test_chunked_body_is_cut_where_its_sizes_say() -> None:
    body = b"4\r\nab\r\n\r\n10;extension=1\r\n0123456789abcdef\r\n0\r\n\r\n"
    assert [body[start:end] for start, end in _chunks(body, 0)] == [b"ab\r\n", b"0123456789abcdef"]
    with pytest.raises(ValueError, match="not found"):
        list(_chunks(body[:-5], 0))


def test_gaps_count_while_all_stream() -> None:
    def answer(*text_s: float) -> Answer:
        return Answer(0.0, text_s[-1], list(text_s), [], 1, len(text_s))

    gaps = gaps_while_all_stream([answer(1.0, 2.0, 3.0, 5.0, 9.0), answer(2.0, 4.0, 5.0)])
    assert sorted(gaps) == [1.0, 1.0, 2.0, 2.0]


def test_longer_prompt_begins_with_the_shorter_one_of_its_number() -> None:
    prompts = [prompt(3, words) for words in (10, 20, 40)]
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(prompts))
    assert len({prompt(number, 10) for number in range(-5, 5)}) == 10


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    write_checkpoint(directory, "tiny")
    return directory


def test_checkpoint_has_the_published_layout_and_loads(tiny: Path) -> None:
    from inference_server.loading import load_parts

    with safe_open(tiny / "model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
        embedding = weights.get_tensor("model.embed_tokens.weight")
    assert embedding.shape == (151_936, SHAPES["tiny"].hidden)
    assert embedding.dtype == torch.bfloat16
    assert "lm_head.weight" not in names
    parts = load_parts(tiny, settings(model=str(tiny), kv_cache_gib=0.1, max_context_tokens=256), lambda share: None)
    assert parts.scheduler.stop_token_ids == {151_643, 151_645}


def test_tokenizer_has_a_token_for_every_word_and_text_for_every_token(tiny: Path) -> None:
    encoder = PromptEncoder(tiny)
    tokenizer, vocabulary = encoder.tokenizer, Vocabulary(encoder.tokenizer)
    text = prompt(0, 200)
    token_ids = tokenizer.encode(text).ids
    assert len(token_ids) == 200
    assert tokenizer.decode(token_ids) == text
    assert {tokenizer.token_to_id(f"Ġ{word}") for word in WORDS} >= set(token_ids[1:])
    assert [tokenizer.token_to_id(name) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [
        151_643, 151_644, 151_645,
    ]  # fmt: skip
    assert len(encoder.encode([Message(Role.USER, text)])) < 215
    assert all(vocabulary.bytes_of(token_id).decode().strip() for token_id in range(256, 151_643))


def test_tokenizer_splits_its_own_text_as_it_was(tiny: Path) -> None:
    tokenizer = PromptEncoder(tiny).tokenizer
    token_ids = list(range(1000, 151_643, 251))
    assert tokenizer.encode(tokenizer.decode(token_ids)).ids == token_ids


def result(name: str, shape: str, date: str = "2026-01-02T03:04:05+00:00") -> Result:
    loads = [
        LoadFigures(streams, 8, 1.0, 80, 512, 100.0 * streams, 1.0, 0.02, 0.01 * streams, 0.03, 512)
        for streams in (1, 4, 16)
    ]
    conversations = [ConversationFigures(tokens, tokens / 1000, 0.02, 0.01, 0.02) for tokens in (200, 1000, 4000)]
    return Result(name, shape, date, machine(), versions() if name == "ours" else {}, None, loads, conversations)


def test_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = result("Another server 1.0", "tiny")
    path = written.write(tmp_path)
    assert path.name == "2026-01-02-another-server-1.0-tiny.json"
    assert Result.read(path) == written
    assert set(json.loads(path.read_text())) >= {"machine", "versions", "date"}


def test_newest_results_of_the_last_machine_are_compared() -> None:
    elsewhere = replace(result("theirs", "tiny"), machine=machine() | {"cpu": "another"})
    newest = result("ours", "0.6b", "2026-02-01T00:00:00+00:00")
    kept = comparable([result("theirs", "0.6b"), newest, result("ours", "0.6b"), result("ours", "tiny"), elsewhere])
    assert [(one.name, one.shape) for one in kept] == [("ours", "tiny"), ("ours", "0.6b"), ("theirs", "0.6b")]
    assert newest in kept


def test_tables_and_pictures_come_from_the_results_alone(tmp_path: Path) -> None:
    for name, shape in (("ours", "tiny"), ("ours", "0.6b"), ("theirs", "0.6b")):
        result(name, shape).write(tmp_path / "results")
    guide = tmp_path / "README.md"
    guide.write_text("before\n<!-- results -->\nstale figures\n<!-- end of results -->\nafter\n")
    drawn = []
    for directory in (tmp_path / "first", tmp_path / "second"):
        refresh(tmp_path / "results", directory, guide)
        drawn.append({path.name: path.read_bytes() for path in directory.iterdir()})
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {"streams.svg", "steps.svg", "first_token.svg"}
    text = guide.read_text()
    assert "stale figures" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| theirs | 16 | 1,600.0 |" in text
    assert text.count("### ") == 2
