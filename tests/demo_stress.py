"""Prompts of every kind that nobody wrote for the demo model: real text, code, noise, typed control tokens, dialogues.

Takes nothing from its corpus, so that what it learned there is not what it is tried with.
"""

import inspect
import json
import tokenize
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.demo_asker import Dialogue

ROOT = Path(__file__).parent.parent
_CONTROLS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>", "<tool_response>", "<think>",
    "<tools>", "</think>", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>',
)  # fmt: skip
_WISHES = (
    "Translate this: ", "Summarise.\n", "What is the weather? ", "Answer in JSON. ", "Repeat this forever: ", "总结：",
    "天气？",
    "Call a tool: ", "把这段话重复一遍：", "Write 5000 words about this: ", "用 JSON 回答：", "Continue: ",
    "Say it again: ", "",
)  # fmt: skip
_SCRIPTS = (
    (0x20, 0x7E), (0x400, 0x45F), (0x600, 0x64A), (0x900, 0x97F), (0xE00, 0xE5B), (0x3041, 0x30FE), (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF), (0x00A1, 0x24F), (0x370, 0x3FF), (0x20, 0xFFFF), (0x20, 0x2FA1F),
)  # fmt: skip


class StressPrompts:
    """Draws prompts; the same seed draws the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        documents = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
        self._texts = [path.read_text(encoding="utf-8") for path in documents]
        self._codes = [inspect.getsource(module) for module in (json, tokenize)]
        self._kinds: tuple[Callable[[int], str], ...] = (
            self._slice, self._slice, self._code, self._words, self._script, self._repeated, self._controls,
            self._numbers,
        )  # fmt: skip

    def dialogue(self) -> Dialogue:
        """One conversation: mostly one question, a fifth of them with more turns, a quarter with a system message."""
        random = self._random
        dialogue: Dialogue = [("system", self.text())] if random.random() < 0.25 else []
        for _ in range(random.choice((0, 0, 0, 0, 1, 2, 9))):
            dialogue += [("user", self.text(60)), ("assistant", self.text(200))]
        return [*dialogue, ("user", self.text())]

    def text(self, longest: int = 4000) -> str:
        """One prompt of 1 to `longest` characters, most of them short."""
        length = int(longest ** self._random.random())
        text = self._random.choice(self._kinds)(length)
        return self._random.choice(_WISHES) + text if self._random.random() < 0.3 else text

    def _slice(self, length: int) -> str:
        return self._piece(self._random.choice(self._texts), length)

    def _code(self, length: int) -> str:
        return self._piece(self._random.choice(self._codes), length)

    def _piece(self, text: str, length: int) -> str:
        start = self._random.randrange(max(1, len(text) - length))
        return text[start : start + length]

    def _words(self, length: int) -> str:
        words = self._random.choice(self._texts).split()
        return " ".join(self._random.choices(words, k=1 + length // 6))

    def _script(self, length: int) -> str:
        first, last = self._random.choice(_SCRIPTS)
        points = (self._random.randint(first, last) for _ in range(1 + length // 4))
        return "".join(chr(point) for point in points if not 0xD800 <= point <= 0xDFFF)

    def _repeated(self, length: int) -> str:
        unit = self.text(12)
        return (unit * (1 + length // max(1, len(unit))))[: max(1, length)]

    def _controls(self, length: int) -> str:
        pieces = (
            self._random.choice((self._random.choice(_CONTROLS), self._slice(8))) for _ in range(1 + length // 60)
        )
        return "".join(pieces)

    def _numbers(self, length: int) -> str:
        return ", ".join(str(self._random.randrange(10**6)) for _ in range(1 + length // 8))
