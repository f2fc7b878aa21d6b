"""A streaming load on any server of OpenAI's chat completions; prints one JSON line of what was measured.

usage: python -m benchmarks.load URL MODEL [--streams 1] [--requests 4] [--words 200] [--tokens 64]

The prompts come from a seeded generator, so that every server gets the same ones. One request warms the server up
and is not counted. Token counts are the server's own.
"""

import asyncio
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import click

from benchmarks.event_stream import post

# Each is one token of Qwen3's tokenizer, and of the one in tokenizer.py.
WORDS = (
    "time", "people", "water", "light", "house", "small", "large", "river", "city", "street", "summer", "winter",
    "window", "table", "music", "story", "answer", "number", "letter", "family", "child", "mother", "father", "doctor",
    "student", "market", "train", "horse", "world", "book", "game", "team", "road", "king", "power", "image",
)  # fmt: skip
_WARM_UP_PROMPT = -1
_LONGEST_S = 900.0
_PATH = "/v1/chat/completions"
_EVENT = b"data:"
# Reading every event as JSON would take cores from the server that is measured; quotes inside of a text are escaped.
_TEXT = re.compile(rb'"content": ?"[^"]')
_USAGE = re.compile(rb'"usage": ?\{')

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer: times of this machine's clock, and the server's counts."""

    asked_s: float
    ended_s: float
    text_s: list[float]  # when each event with text came
    text_events: list[bytes]
    prompt_tokens: int
    completion_tokens: int

    @property
    def first_text_s(self) -> float:
        """From the request to the first text; to the end where no token had one."""
        return (self.text_s[0] if self.text_s else self.ended_s) - self.asked_s

    @property
    def gaps_s(self) -> list[float]:
        return [after - before for before, after in pairwise(self.text_s)]

    @property
    def text(self) -> str:
        events = (json.loads(event.removeprefix(_EVENT)) for event in self.text_events)
        return "".join(event["choices"][0]["delta"]["content"] for event in events)


@dataclass(frozen=True, slots=True)
class Load:
    """How many streams at once, and what each request asks for."""

    streams: int
    requests: int
    words: int
    tokens: int


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What a load measured, under the names that are printed."""

    concurrency: int
    requests: int
    wall_s: float
    prompt_tokens: int
    completion_tokens: int
    output_tokens_per_s: float
    requests_per_s: float
    ttft_p50_s: float
    gap_p50_s: float
    gap_p99_s: float
    chunks: int


@dataclass(frozen=True, slots=True)
class ChatServer:
    """Any server at its address, and the model's name there."""

    url: str
    model: str
    ignore_eos: bool = True

    async def ask(self, texts: Sequence[str], tokens: int) -> Answer:
        """Streams an answer to a conversation in which the user has the first turn.

        Raises click.ClickException where the server does not answer as one.
        """
        roles = ("user", "assistant")
        request: Json = {
            "model": self.model,
            "messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)],
            "temperature": 0,
            "max_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        } | ({"ignore_eos": True} if self.ignore_eos else {})
        asked_s = time.perf_counter()
        try:
            async with asyncio.timeout(_LONGEST_S):
                return _read(asked_s, await post(self.url, _PATH, request))
        except TimeoutError as error:
            raise click.ClickException(f"{self.url}: no answer in {_LONGEST_S:.0f} s") from error


def _read(asked_s: float, lines: Sequence[tuple[float, bytes]]) -> Answer:
    with_text = [(time_s, line) for time_s, line in lines if _TEXT.search(line)]
    with_usage = [line for _, line in lines if _USAGE.search(line)]
    if not with_usage:
        raise click.ClickException("an answer ended without usage")
    counts = json.loads(with_usage[-1].removeprefix(_EVENT))["usage"]
    return Answer(
        asked_s, lines[-1][0], [time_s for time_s, _ in with_text], [line for _, line in with_text],
        counts["prompt_tokens"], counts["completion_tokens"],
    )  # fmt: skip


def prompt(number: int, words: int) -> str:
    """The words of a prompt; a longer one with the same number begins with them."""
    choose = random.Random(f"prompt {number}")  # a negative number would give the prompt of the positive one
    return " ".join(choose.choice(WORDS) for _ in range(words))


async def run_load(
    server: ChatServer, load: Load, first_prompt: int = 0, on_answer: Callable[[], object] = lambda: None
) -> LoadFigures:
    """Keeps so many streams busy until every request is answered."""
    await server.ask([prompt(_WARM_UP_PROMPT, load.words)], load.tokens)
    numbers = iter(range(first_prompt, first_prompt + load.requests))
    answers: list[Answer] = []

    async def stream() -> None:
        for number in numbers:
            answers.append(await server.ask([prompt(number, load.words)], load.tokens))
            on_answer()

    started_s = time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(load.streams)))
    return figures(load.streams, answers, time.perf_counter() - started_s)


def figures(streams: int, answers: Sequence[Answer], wall_s: float) -> LoadFigures:
    gaps = sorted(gap for answer in answers for gap in answer.gaps_s) or [0.0]
    completion_tokens = sum(answer.completion_tokens for answer in answers)
    return LoadFigures(
        concurrency=streams,
        requests=len(answers),
        wall_s=round(wall_s, 2),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        completion_tokens=completion_tokens,
        output_tokens_per_s=round(completion_tokens / wall_s, 1),
        requests_per_s=round(len(answers) / wall_s, 2),
        ttft_p50_s=round(statistics.median(answer.first_text_s for answer in answers), 4),
        gap_p50_s=round(gaps[len(gaps) // 2], 5),
        gap_p99_s=round(gaps[int(len(gaps) * 0.99)], 5),
        chunks=sum(len(answer.text_s) for answer in answers),
    )


@click.command(help=__doc__)
@click.argument("url")
@click.argument("model")
@click.option("--streams", default=1, show_default=True, type=click.IntRange(1))
@click.option("--requests", default=4, show_default=True, type=click.IntRange(1))
@click.option("--words", default=200, show_default=True, type=click.IntRange(1), help="Of each prompt.")
@click.option("--tokens", default=64, show_default=True, type=click.IntRange(1), help="Of each answer.")
@click.option("--first-prompt", default=0, show_default=True, help="Others are not in the server's prefix cache.")
@click.option("--ignore-eos/--no-ignore-eos", default=True, show_default=True, help="Not every server knows it.")
def main(
    url: str, model: str, streams: int, requests: int, words: int, tokens: int, first_prompt: int, ignore_eos: bool
) -> None:
    server, load = ChatServer(url, model, ignore_eos), Load(streams, requests, words, tokens)
    click.echo(json.dumps(asdict(asyncio.run(run_load(server, load, first_prompt)))))


if __name__ == "__main__":
    main()
