"""What the length of a conversation costs: until the first token, cold and on the second turn, and between tokens."""

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.load import Answer, ChatServer, prompt

BATCH = 4  # conversations, which are also measured together
_SECOND_WORDS = 20


@dataclass(frozen=True, slots=True)
class ConversationFigures:
    """Medians over the conversations; gaps in seconds, alone and while all of them stream."""

    prompt_tokens: int
    cold_ttft_s: float
    second_turn_ttft_s: float
    gap_alone_s: float
    gap_together_s: float


async def measure_conversations(
    server: ChatServer, words: int, tokens: int, first_prompt: int = 0, on_answer: Callable[[], object] = lambda: None
) -> ConversationFigures:
    """Conversations that share no beginning begin with so many words, one after the other; then all go on at once."""

    async def ask(*texts: str) -> Answer:
        answer = await server.ask(texts, tokens)
        on_answer()
        return answer

    numbers = range(first_prompt, first_prompt + BATCH)
    openings = [prompt(number, words) for number in numbers]
    first = [await ask(opening) for opening in openings]
    turns = [
        (opening, answer.text, prompt(-number - 2, _SECOND_WORDS))
        for number, opening, answer in zip(numbers, openings, first, strict=True)
    ]
    second = [await ask(*texts) for texts in turns]
    together = await asyncio.gather(*(ask(*texts) for texts in turns))
    return ConversationFigures(
        prompt_tokens=first[0].prompt_tokens,
        cold_ttft_s=round(statistics.median(answer.first_text_s for answer in first), 4),
        second_turn_ttft_s=round(statistics.median(answer.first_text_s for answer in second), 4),
        gap_alone_s=round(statistics.median(gap for answer in first + second for gap in answer.gaps_s), 5),
        gap_together_s=round(statistics.median(gaps_while_all_stream(together)), 5),
    )


def answer_count() -> int:
    """How often `on_answer` is called for one length."""
    return 3 * BATCH


def gaps_while_all_stream(answers: Sequence[Answer]) -> list[float]:
    """Gaps that begin after every answer's first text and end before any one's last."""
    begin_s = max(answer.text_s[0] for answer in answers)
    end_s = min(answer.text_s[-1] for answer in answers)
    return [
        after - before
        for answer in answers
        for before, after in pairwise(answer.text_s)
        if begin_s <= before and after <= end_s
    ]
