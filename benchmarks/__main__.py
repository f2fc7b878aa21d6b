"""Measures the service, shape by shape, and shows it; `make bench` runs it.

usage: python -m benchmarks [--shape tiny] [--shape 0.6b]
       python -m benchmarks --url URL --model MODEL --shape 0.6b --name NAME

With an address it measures the server there instead, which serves a checkpoint of that shape.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.checkpoint import checkpoint
from benchmarks.conversation import ConversationFigures, measure_conversations
from benchmarks.load import ChatServer, LoadFigures, run_load
from benchmarks.machine import machine, versions
from benchmarks.plans import PLANS, Plan
from benchmarks.report import print_tables, refresh
from benchmarks.results import RESULTS_DIR, Result
from benchmarks.service import running_service

_OWN_NAME = "qwen3-chat"
_USUAL_SHAPES = ("tiny", "0.6b")
_PROMPTS_APART = 10_000  # nothing reads what another part has left in the prefix cache
_SEEDS_APART = 100 * _PROMPTS_APART


Show = Callable[[str, int], None]  # takes what is being measured, and how many answers more have come


@dataclass(frozen=True, slots=True)
class Bench:
    """What is the same for all shapes."""

    name: str
    seed: int
    tokenizer_dir: Path | None
    console: Console

    def own(self, shape: str) -> Result:
        """Starts the service on a checkpoint of that shape."""
        directory = checkpoint(shape, self.tokenizer_dir)
        self.console.print(f"{shape}: starting the service")
        with running_service(directory) as service:
            return self._result(ChatServer(service.url, service.model), shape, versions(), round(service.start_s, 1))

    def other(self, server: ChatServer, shape: str) -> Result:
        return self._result(server, shape, {}, None)

    def _result(self, server: ChatServer, shape: str, versions: dict[str, str], start_s: float | None) -> Result:
        with self._shown(shape, PLANS[shape].answer_count) as show:
            loads, conversations = asyncio.run(measure(server, PLANS[shape], self.seed, show))
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return Result(self.name, shape, date, machine(), versions, start_s, loads, conversations)

    @contextmanager
    def _shown(self, shape: str, answers: int) -> Iterator[Show]:
        """A bar in a terminal, a line for each part elsewhere."""

        def show_line(part: str, done: int) -> None:
            if not done:
                self.console.print(f"{shape}: {part}")

        if not self.console.is_terminal:
            yield show_line
            return
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(shape, total=answers)
            yield lambda part, done: bar.update(task, description=f"{shape}: {part}", advance=done)


async def measure(
    server: ChatServer, plan: Plan, seed: int, show: Show
) -> tuple[list[LoadFigures], list[ConversationFigures]]:
    loads, conversations, first_prompts = [], [], count(seed * _SEEDS_APART, _PROMPTS_APART)
    for load in plan.loads:
        part = f"{load.streams} stream{'s' if load.streams > 1 else ''}"
        show(part, 0)
        loads.append(await run_load(server, load, next(first_prompts), partial(show, part, 1)))
    for words in plan.conversation_words:
        part = f"conversations of {words} words"
        show(part, 0)
        conversations.append(
            await measure_conversations(
                server, words, plan.conversation_tokens, next(first_prompts), partial(show, part, 1)
            )
        )
    return loads, conversations


@click.command(help=__doc__)
@click.option("--shape", "shapes", multiple=True, type=click.Choice(list(PLANS)), help="May be given more than once.")
@click.option("--url", help="A server of OpenAI's chat completions that runs already.")
@click.option("--model", help="The model's name there.")
@click.option("--name", default=_OWN_NAME, show_default=True, help="The server's name in tables and pictures.")
@click.option("--seed", default=0, show_default=True, help="Another one gives prompts that a server has not seen yet.")
@click.option("--ignore-eos/--no-ignore-eos", default=True, show_default=True, help="Not every server knows it.")
@click.option(
    "--tokenizer",
    "tokenizer_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkpoint whose tokenizer the random one gets.",
)
def main(
    shapes: tuple[str, ...],
    url: str | None,
    model: str | None,
    name: str,
    seed: int,
    ignore_eos: bool,
    tokenizer_dir: Path | None,
) -> None:
    if url and (not model or len(shapes) != 1):
        raise click.UsageError("--url wants --model and the one --shape that is served there")
    bench = Bench(name, seed, tokenizer_dir, Console())
    for shape in shapes or _USUAL_SHAPES:
        result = bench.other(ChatServer(url, model, ignore_eos), shape) if url and model else bench.own(shape)
        print_tables(result, bench.console)
        bench.console.print(f"kept as {result.write(RESULTS_DIR)}", soft_wrap=True)
    refresh()


if __name__ == "__main__":
    main()
