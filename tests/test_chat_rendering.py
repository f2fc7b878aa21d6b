"""What the terminal client shows: long answers on small screens, Chinese lines, lines of events."""

import asyncio
import re
import subprocess
import sys
from io import StringIO
from itertools import pairwise

import pytest
from rich.console import Console

from clients.conversation import Turn
from clients.http_transport import HttpTransport
from clients.live_answer import LiveAnswer
from clients.markdown import AnswerMarkdown
from clients.transports import AnswerEnd, AnswerOptions
from clients.wrapping import line_starts
from tests.programs import ROOT

LONG_ANSWER = (
    "# Title\n\nText with **bold**, a `code` and a vector<int>.\nSecond line.\n\n- one\n- two\n  - nested\n\n1. a\n\n"
    "2. b\n\n```python\n" + "".join(f"line_{i} = {i}\n" for i in range(20)) + "```\n\n> quoted\n\n"
    "| a | 中文 |\n|---|---|\n| 1 | 表格 |\n\n---\n\n" + "很长的中文段落，" * 40 + "到此为止。\n\n[1]: http://source\n\n"
    + "".join(f"{i}. item {i}\n" for i in range(1, 20)) + "\nThe end."
)  # fmt: skip


class Screen:
    """A terminal's paper: knows what rich sends while it draws an answer, and keeps what scrolls away."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.lines = [""]
        self._row = 0
        self._column = 0

    def feed(self, output: str) -> None:
        for text, sequence in re.findall(r"([^\x1b]*)(\x1b\[[0-9;?]*[A-Za-z])?", output):
            for part in re.split(r"(\n|\r)", text):
                self._write(part)
            match = re.fullmatch(r"\x1b\[(\d*)([AK])", sequence)
            if match and match[2] == "A":
                top_row = max(0, len(self.lines) - self._rows)
                self._row = max(top_row, self._row - int(match[1] or 1))
            elif match:
                self.lines[self._row] = ""

    def _write(self, part: str) -> None:
        if part == "\r":
            self._column = 0
        elif part == "\n":
            self._row, self._column = self._row + 1, 0
            self.lines += [""] * (self._row + 1 - len(self.lines))
        else:
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + part + line[self._column + len(part) :]
            self._column += len(part)


@pytest.mark.parametrize("piece_characters", [3, 20, 300])
async def test_answer_longer_than_the_screen_stands_there_once(
    piece_characters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.live_answer._REDRAW_S", 0.0)
    output, whole = StringIO(), StringIO()
    console = Console(file=output, force_terminal=True, width=60, height=12, legacy_windows=False, _environ={})
    live = LiveAnswer(console)
    live.start()
    for begin in range(0, len(LONG_ANSWER), piece_characters):
        live.add(LONG_ANSWER[begin : begin + piece_characters])
        await asyncio.sleep(0)
    live.finish()
    screen = Screen(rows=12)
    screen.feed(output.getvalue())
    Console(file=whole, width=60, _environ={}).print(AnswerMarkdown(LONG_ANSWER))
    drawn = [line.rstrip() for line in screen.lines]
    assert drawn == [line.rstrip() for line in whole.getvalue().split("\n")]
    assert [line for line in drawn if "item 17" in line] == [" 17 item 17"]
    assert "vector<int>" in "".join(drawn)
    assert "[1]: http://source" in drawn


@pytest.mark.parametrize(
    ("line", "width", "lines"),
    [
        ("采用 Qwen3 的格式，随服务提供", 10, ["采用 Qwen3 ", "的格式，随", "服务提供"]),
        ("你好世界。再见", 8, ["你好世", "界。再见"]),
        ("他说《红楼梦》", 6, ["他说", "《红楼", "梦》"]),
        ("one two three", 7, ["one two ", "three"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("", 4, [""]),
    ],
)
def test_lines_break_where_chinese_and_english_may(line: str, width: int, lines: list[str]) -> None:
    cuts = [0, *line_starts(line, width), len(line)]
    assert [line[begin:end] for begin, end in pairwise(cuts)] == lines


async def test_line_separator_within_an_event_stays_text() -> None:
    events = (
        'data: {"choices":[{"delta":{"content":"a\u2028b"},"finish_reason":null}],"usage":null}\n\n'
        'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null,'
        '"timings":{"tokens_per_second":1.0,"time_to_first_token_ms":2.0}}\n\n'
        'data: {"choices":[],"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n'
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + events.encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = HttpTransport(f"http://127.0.0.1:{port}", AnswerOptions(None, None, None, None, None))
        pieces = [piece async for piece in transport.answer([Turn("user", "Hello")])]
        await transport.close()
    assert pieces == ["a\u2028b", AnswerEnd(3, 1.0, 2.0, "stop")]


def test_client_runs_without_the_servers_packages() -> None:
    banned = ("torch", "transformers", "inference_server", "http_bridge", "fastapi")
    code = f"import clients.chat, sys; print([m for m in {banned} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
