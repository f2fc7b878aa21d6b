"""An answer on the terminal while it comes: what is finished is printed for good, only the last lines are redrawn.

The redrawn region never reaches the height of the screen, where the terminal could not take its lines back.
"""

import asyncio

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment, SegmentLines
from rich.style import Style

from clients.markdown import Lines, block_lines, split_blocks, split_finished

_REDRAW_S = 0.08
_KEPT_FREE_LINES = 2


class LiveAnswer:
    """Made for one answer, inside the event loop."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._redrawn: Lines = [[Segment("…", Style(dim=True))]]
        self._live = Live(
            self,
            console=console,
            auto_refresh=False,
            transient=True,
            vertical_overflow="visible",
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._open_text = ""  # the last blocks, which may still change
        self._is_first_block = True
        self._printed_line_count = 0  # of the open text
        self._redraw: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._live.start(refresh=True)

    def add(self, text: str) -> None:
        """Pieces that come close together are drawn together."""
        self._open_text += text
        if self._redraw is None:
            self._redraw = asyncio.get_running_loop().call_later(_REDRAW_S, self._draw)

    def finish(self) -> None:
        """Prints what is left."""
        if self._redraw:
            self._redraw.cancel()
        finished = self._take_finished_lines()
        self._show(finished + self._open_lines(), [])
        self._live.stop()

    def _draw(self) -> None:
        self._redraw = None
        finished = self._take_finished_lines()
        lines = self._open_lines()
        overflow = max(0, len(lines) - max(1, self._console.height - _KEPT_FREE_LINES))
        self._printed_line_count += overflow
        self._show(finished + lines[:overflow], lines[overflow:])

    def _show(self, for_good: Lines, redrawn: Lines) -> None:
        """In one write, so that nothing flickers: whatever is printed, rich draws the live region anew below it."""
        self._redrawn = redrawn
        self._console.print(SegmentLines(for_good, new_lines=True))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The live region. rich keeps the object that it was given, so what that draws has to change."""
        yield SegmentLines(self._redrawn, new_lines=True)

    def _take_finished_lines(self) -> Lines:
        finished, self._open_text = split_finished(self._open_text)
        lines: Lines = []
        for block in finished:
            drawn = self._block_lines(block, is_first=self._is_first_block)
            lines += drawn[self._printed_line_count :]
            self._printed_line_count = max(0, self._printed_line_count - len(drawn))
            self._is_first_block = False
        return lines

    def _open_lines(self) -> Lines:
        """What is not printed yet of the text that may still change."""
        lines: Lines = []
        for block in split_blocks(self._open_text):
            lines += self._block_lines(block, is_first=self._is_first_block and not lines)
        return lines[self._printed_line_count :]

    def _block_lines(self, block: str, is_first: bool) -> Lines:
        return block_lines(self._console, self._console.options, block, is_first)
