"""A session as an SVG picture that shows the same in every viewer and fetches nothing.

rich's own export gives a run of wide characters the length of narrow ones, so that they lie on each other, and links a
font at a host outside. Here every run of equally wide characters has its own place and length.
"""

import io
from collections.abc import Iterator
from itertools import groupby
from xml.sax.saxutils import escape, quoteattr

from rich.console import Console, Group, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME as THEME
from wcwidth import iter_graphemes, wcswidth

COLUMNS = 100
CELL_PX, LINE_PX, FONT_PX = 12.0, 24.0, 20
_LEFT_PX, _TOP_PX, _BOTTOM_PX = 10.0, 42.0, 10.0
_SPACING = f"letter-spacing: {2 * CELL_PX - FONT_PX:g}px"  # a wide character is as wide as its font's size
_TEXT = '<text x="{x:g}" y="{y:g}" textLength="{length:g}"{style}>{text}</text>'
_FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">
<style>
text {{ font: {font}px "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace }}
text {{ fill: currentColor; color: {color} }}
.title {{ font: bold 18px sans-serif; text-anchor: middle }}
</style>
<rect width="{width:g}" height="{height:g}" rx="8" fill="{background}"/>
<circle cx="22" cy="21" r="7" fill="#ff5f57"/>
<circle cx="44" cy="21" r="7" fill="#febc2e"/>
<circle cx="66" cy="21" r="7" fill="#28c840"/>
<text class="title" x="{middle:g}" y="27">{title}</text>
{content}
</svg>
"""


class Picture:
    """Collects what is shown, and draws it."""

    def __init__(self) -> None:
        self._shown: list[RenderableType] = []

    def add(self, *shown: RenderableType) -> None:
        self._shown += shown

    def svg(self, title: str) -> str:
        """The whole picture."""
        console = Console(file=io.StringIO(), width=COLUMNS, force_terminal=True, color_system="truecolor")
        lines = console.render_lines(Group(*self._shown), pad=False)
        content = [element for row, line in enumerate(lines) for element in _drawn_line(row, line)]
        width_px = COLUMNS * CELL_PX + 2 * _LEFT_PX
        return _FRAME.format(
            width=width_px,
            height=len(lines) * LINE_PX + _TOP_PX + _BOTTOM_PX,
            middle=width_px / 2,
            font=FONT_PX,
            color=THEME.foreground_color.hex,
            background=THEME.background_color.hex,
            title=escape(title),
            content="\n".join(content),
        )


def _drawn_line(row: int, line: list[Segment]) -> Iterator[str]:
    """Backgrounds and texts of one line of the terminal."""
    column, top_px = 0, _TOP_PX + row * LINE_PX
    for text, style, _ in Segment.filter_control(line):
        style = style or Style()
        for cells, count, run in _runs(text):
            x_px, length_px = _LEFT_PX + column * CELL_PX, count * cells * CELL_PX
            if style.bgcolor and not style.bgcolor.is_default:
                rect = f'<rect x="{x_px:g}" y="{top_px:g}" width="{length_px:g}" height="{LINE_PX:g}"'
                yield f'{rect} fill="{style.bgcolor.get_truecolor(THEME).hex}" shape-rendering="crispEdges"/>'
            if run.strip(" "):
                css = "; ".join(filter(None, (style.get_html_style(THEME), _SPACING if cells == 2 else "")))
                yield _TEXT.format(
                    x=x_px,
                    y=top_px + FONT_PX - 2,
                    length=length_px,
                    style=f" style={quoteattr(css)}" if css else "",
                    text=escape(run).replace(" ", "\xa0"),
                )
            column += count * cells


def _runs(text: str) -> Iterator[tuple[int, int, str]]:
    """Neighbours that are equally wide: the cells of each, how many they are, and their text.

    One is what a terminal shows as one character, as a letter with its marks or an emoji of several.
    """
    graphemes = [(wcswidth(grapheme), grapheme) for grapheme in iter_graphemes(text)]
    for cells, same in groupby((pair for pair in graphemes if pair[0] > 0), lambda pair: pair[0]):
        run = [grapheme for _, grapheme in same]
        yield cells, len(run), "".join(run)
