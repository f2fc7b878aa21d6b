"""What the corpus is made of, and the small phrase grammar in which it is written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

LOAD_COMMAND = "make run MODEL=/path/to/Qwen3-4B-Instruct-2507"

_CHINESE = re.compile("[\u4e00-\u9fff]")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Topic:
    """Phrasings of one question and the variants of its answer, the likeliest first."""

    name: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages and tools in the form that a chat template takes."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()


def is_chinese(text: str) -> bool:
    """The asker's language is Chinese as soon as one Chinese character is there."""
    return _CHINESE.search(text) is not None


def expand(random: Random, phrase: str) -> str:
    """Picks one alternative of every `[a|b|]`, innermost first, until none is left."""
    while (found := _CHOICE.search(phrase)) is not None:
        phrase = phrase[: found.start()] + random.choice(found[1].split("|")) + phrase[found.end() :]
    return phrase


def pick_answer(random: Random, answers: Sequence[str]) -> str:
    """The first variant is three times as likely as another, so that greedy answers are settled."""
    return random.choices(answers, weights=[3.0] + [1.0] * (len(answers) - 1))[0]


def user(content: str) -> dict[str, Any]:
    """One user message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    """One assistant message."""
    return {"role": "assistant", "content": content}
