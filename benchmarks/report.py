"""Shows results: tables in the terminal and in the guide, and the pictures.

usage: python -m benchmarks.report

Refreshes the guide's tables and the pictures from the results that are kept, without measuring.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.conversation import BATCH
from benchmarks.pictures import PICTURES_DIR, draw
from benchmarks.results import RESULTS_DIR, Result, comparable

GUIDE = Path(__file__).parent / "README.md"
_BETWEEN = re.compile(r"(?<=<!-- results -->\n).*(?=<!-- end of results -->)", re.DOTALL)
_LOADS = (
    "streams", "tokens/s", "first token, ms", "gap, ms", "gap p99, ms", "events per token",
)  # fmt: skip
_CONVERSATIONS = (
    "tokens of context", "first token cold, ms", "second turn, ms", "gap of 1 stream, ms", f"gap of {BATCH}, ms",
)  # fmt: skip

Rows = list[tuple[str, ...]]


def load_rows(result: Result) -> Rows:
    return [
        (
            str(load.concurrency), f"{load.output_tokens_per_s:,.1f}", _ms(load.ttft_p50_s), _ms(load.gap_p50_s),
            _ms(load.gap_p99_s), f"{load.chunks / load.completion_tokens:.2f}",
        )
        for load in result.loads
    ]  # fmt: skip


def conversation_rows(result: Result) -> Rows:
    return [
        (
            f"{figures.prompt_tokens:,}", _ms(figures.cold_ttft_s), _ms(figures.second_turn_ttft_s),
            _ms(figures.gap_alone_s), _ms(figures.gap_together_s),
        )
        for figures in result.conversations
    ]  # fmt: skip


def _ms(time_s: float) -> str:
    """Three digits that count."""
    return f"{time_s * 1e3:,.{0 if time_s >= 0.1 else 1 if time_s >= 0.01 else 2}f}"


def print_tables(result: Result, console: Console) -> None:
    for headings, rows in ((_LOADS, load_rows(result)), (_CONVERSATIONS, conversation_rows(result))):
        table = Table(title=f"{result.name}, {result.shape}", title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def refresh(results_dir: Path = RESULTS_DIR, pictures_dir: Path = PICTURES_DIR, guide: Path = GUIDE) -> None:
    """Draws what is comparable, and puts its tables between the guide's two marks."""
    results = comparable(Result.read(path) for path in sorted(results_dir.glob("*.json")))
    if not results:
        raise click.ClickException(f"no results in {results_dir}")
    draw(results, pictures_dir)
    text = guide.read_text(encoding="utf-8")
    guide.write_text(_BETWEEN.sub(lambda _: _markdown(results), text), encoding="utf-8")


def _markdown(results: Sequence[Result]) -> str:
    blocks = [_machine(results)]
    for shape in dict.fromkeys(result.shape for result in results):
        alike = [result for result in results if result.shape == shape]
        blocks += [f"### {shape}", *_starts(alike), _table(_LOADS, [load_rows(result) for result in alike], alike)]
        blocks.append(_table(_CONVERSATIONS, [conversation_rows(result) for result in alike], alike))
    return "\n\n".join(["", *blocks, ""])


def _starts(results: Sequence[Result]) -> list[str]:
    known = [f"{result.name} {result.start_s} s" for result in results if result.start_s is not None]
    return [f"From start to healthy: {', '.join(known)}."] if known else []


def _table(headings: Sequence[str], rows: Sequence[Rows], results: Sequence[Result]) -> str:
    """Servers that did the same stand below each other."""
    lines = [("server", *headings), ("---", *("---:" for _ in headings))]
    steps = max(map(len, rows))
    lines += [
        (result.name, *own[step]) for step in range(steps) for result, own in zip(results, rows, strict=True)
        if step < len(own)
    ]  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _machine(results: Sequence[Result]) -> str:
    facts = results[0].machine
    sets = ", ".join(facts["instruction_sets"])
    where = f"{facts['cpu']}, {facts['cores']} cores ({sets}), {facts['memory_gib']} GiB"
    dates = sorted({result.date[:10] for result in results})
    own = [result for result in results if result.versions]
    ran = ", ".join(f"{name} {version}" for name, version in own[-1].versions.items()) if own else ""
    device = f"; {facts['gpu']}" if facts["gpu"] else ""
    return f"{where}{device}; {' and '.join(dates)}" + (f"; {ran}." if ran else ".")


@click.command(help=__doc__)
def main() -> None:
    refresh()


if __name__ == "__main__":
    main()
