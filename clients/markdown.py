"""Markdown as answers have it, for rich, and its division into blocks that can be shown while more comes."""

from collections.abc import Sequence
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, Paragraph
from rich.segment import Segment, SegmentLines

from clients.wrapping import wrapped

Lines = list[list[Segment]]


class AnswerMarkdown:
    """A whole answer, drawn as LiveAnswer draws it piece by piece."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines: Lines = []
        for block in split_blocks(self._text):
            lines += block_lines(console, options, block, is_first=not lines)
        yield SegmentLines(lines, new_lines=True)


def block_lines(console: Console, options: ConsoleOptions, block: str, is_first: bool) -> Lines:
    """One block with an empty line before it, and without those that rich puts around some kinds of blocks."""
    lines = console.render_lines(_Block(block), options, pad=False)
    while lines and _is_empty(lines[-1]):
        lines.pop()
    while lines and _is_empty(lines[0]):
        lines.pop(0)
    return lines if is_first or not lines else [[], *lines]


def _is_empty(line: list[Segment]) -> bool:
    return not any(segment.text.strip() or (segment.style and segment.style.bgcolor) for segment in line)


class _WrappedParagraph(Paragraph):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield wrapped(self.text, options.max_width)


class _Block(Markdown):
    """Markdown of which no text is lost: rich would leave out `<T>` and links' definitions, and join lines."""

    elements = Markdown.elements | {"paragraph_open": _WrappedParagraph}

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.markup = text
        self.parsed = _parser().parse(text)
        _keep_line_ends(self.parsed)


def split_blocks(text: str) -> list[str]:
    """The text cut before each block but the first."""
    tokens = _parser().parse(text)
    starts = [token.map[0] for token in tokens if token.level == 0 and token.nesting >= 0 and token.map]
    lines = text.split("\n")
    return ["\n".join(lines[begin:end]) for begin, end in pairwise([0, *starts[1:], len(lines)])]


def split_finished(text: str) -> tuple[list[str], str]:
    """The blocks that no further text can change, and the rest.

    A block is finished when the next one has a whole line: `2` may yet become the `2.` of the list before it.
    """
    whole, newline, begun_line = text.rpartition("\n")
    *finished, last = split_blocks(whole)
    return finished, last + newline + begun_line


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False})
    return parser.enable(["strikethrough", "table"]).disable(["html_block", "html_inline", "reference"])


def _keep_line_ends(tokens: Sequence[Token]) -> None:
    for token in tokens:
        if token.type == "softbreak":
            token.type = "hardbreak"
        _keep_line_ends(token.children or ())
