"""Draws results: one column for each shape, one colour for each server. The same results give the same bytes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from benchmarks.conversation import BATCH
from benchmarks.results import Result

PICTURES_DIR = Path(__file__).parent / "pictures"
_COLOURS = ("#1f6feb", "#d1571b", "#2d8a4e", "#8250df", "#6e7781")
_STYLE: Any = {
    "svg.hashsalt": "benchmarks", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e6e8eb", "axes.axisbelow": True, "axes.edgecolor": "#8c959f",
    "axes.titlesize": 11, "axes.titleweight": "bold", "figure.titleweight": "bold", "legend.frameon": False,
    "xtick.color": "#57606a", "ytick.color": "#57606a", "axes.labelcolor": "#24292f",
}  # fmt: skip
_BAR_SHARE = 0.8  # of the room that a length has


def draw(results: Sequence[Result], directory: Path) -> None:
    """Writes the three pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    shapes = list(dict.fromkeys(result.shape for result in results))
    names = list(dict.fromkeys(result.name for result in results))
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    by_shape = {shape: [result for result in results if result.shape == shape] for shape in shapes}
    with matplotlib.rc_context(_STYLE):
        for file_name, title, drawings in (
            ("streams.svg", "Many streams at once", (_throughput, _gap_over_streams)),
            ("steps.svg", "Gap between tokens over the length of the conversation", (_gap_over_length,)),
            ("first_token.svg", "Time to the first token of an answer", (_first_token,)),
        ):
            _figure(title, by_shape, colours, drawings).savefig(directory / file_name, metadata={"Date": None})


_Draw = Callable[[Axes, Result, str, tuple[int, int]], None]


def _figure(
    title: str, by_shape: dict[str, list[Result]], colours: dict[str, str], drawings: Sequence[_Draw]
) -> Figure:
    figure = Figure(figsize=(max(4.6 * len(by_shape), 6.0), 0.9 + 2.9 * len(drawings)), layout="constrained")
    FigureCanvasSVG(figure)
    figure.suptitle(title)
    grid = figure.subplots(len(drawings), len(by_shape), squeeze=False)
    for column, (shape, results) in enumerate(by_shape.items()):
        grid[0][column].set_title(f"{shape} shape")
        for row, drawing in enumerate(drawings):
            axes = grid[row][column]
            for place, result in enumerate(results):
                drawing(axes, result, colours[result.name], (place, len(results)))
            axes.set_ylim(bottom=0)
    every = [axes.get_legend_handles_labels() for axes in grid[0]]
    drawn = {label: handle for handles, labels in every for handle, label in zip(handles, labels, strict=True)}
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=min(len(drawn), 4))
    return figure


def _throughput(axes: Axes, result: Result, colour: str, place: tuple[int, int]) -> None:
    streams = [load.concurrency for load in result.loads]
    axes.plot(streams, [load.output_tokens_per_s for load in result.loads], "o-", color=colour, label=result.name)
    axes.set_ylabel("output tokens per second")
    _streams_axis(axes, streams)


def _gap_over_streams(axes: Axes, result: Result, colour: str, place: tuple[int, int]) -> None:
    streams = [load.concurrency for load in result.loads]
    axes.plot(streams, [load.gap_p50_s * 1e3 for load in result.loads], "o-", color=colour, label=result.name)
    axes.set_ylabel("median gap between tokens, ms")
    _streams_axis(axes, streams)


def _streams_axis(axes: Axes, streams: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(streams)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("streams at once")


def _gap_over_length(axes: Axes, result: Result, colour: str, place: tuple[int, int]) -> None:
    lengths = [figures.prompt_tokens for figures in result.conversations]
    for label, line, gaps_s in (
        ("1 stream", "o--", [figures.gap_alone_s for figures in result.conversations]),
        (f"{BATCH} streams", "o-", [figures.gap_together_s for figures in result.conversations]),
    ):
        axes.plot(lengths, [gap_s * 1e3 for gap_s in gaps_s], line, color=colour, label=f"{result.name}, {label}")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("tokens of context")
    axes.set_ylabel("median gap between tokens, ms")


def _first_token(axes: Axes, result: Result, colour: str, place: tuple[int, int]) -> None:
    """Two bars for each length, side by side for every server; cold and second turn differ too much for one height."""
    width = _BAR_SHARE / (2 * place[1])
    for turn, (label, strength, times_s) in enumerate((
        ("cold", 1.0, [figures.cold_ttft_s for figures in result.conversations]),
        ("second turn", 0.45, [figures.second_turn_ttft_s for figures in result.conversations]),
    )):  # fmt: skip
        offset = (2 * place[0] + turn + 0.5) * width - _BAR_SHARE / 2
        bars = axes.bar(
            [length + offset for length in range(len(times_s))], times_s, width, color=colour, alpha=strength,
            label=f"{result.name}, {label}",
        )  # fmt: skip
        if place[1] == 1:  # they would stand in each other; the tables have them all
            axes.bar_label(bars, [_seconds(time_s) for time_s in times_s], fontsize=8, padding=2)
    axes.grid(visible=False, axis="x")
    lengths = [f"{figures.prompt_tokens:,}" for figures in result.conversations]
    axes.set_xticks(range(len(lengths)), lengths)
    axes.set_xlabel("tokens of the first prompt")
    axes.set_ylabel("time to first token, s")


def _seconds(time_s: float) -> str:
    return f"{time_s:.1f} s" if time_s >= 1 else f"{time_s * 1e3:.0f} ms"
