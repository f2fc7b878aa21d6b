"""Prompts on their way to token ids, beside the event loop: one long and one short one at a time, shortest first.

A prompt that nobody waits for any more is left, one that is too long ends where that is seen.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from inference_server.chat.types import Message
from inference_server.errors import PromptTooLong

if TYPE_CHECKING:  # it brings transformers, which takes seconds to import
    from inference_server.chat.prompt import PromptEncoder

# A prompt of this many characters takes a few milliseconds; longer ones go to a thread.
_INLINE_CHARACTERS = 2_000
_SHORT_CHARACTERS = 64_000
_CHARACTERS_A_TURN = 20  # what the template adds

_number = count()


@dataclass(slots=True, order=True)
class _Job:
    characters: int
    number: int = field(init=False, default_factory=_number.__next__)
    messages: Sequence[Message] = field(compare=False)
    result: "asyncio.Future[list[int]]" = field(compare=False)


class EncodeQueue:
    """Encodes prompts for the callers on one event loop."""

    def __init__(self, encoder: "PromptEncoder", max_tokens: int) -> None:
        """max_tokens: of a prompt; the count is not finished for one that has more."""
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._short, self._long = _Lane(self._encode), _Lane(self._encode)

    async def encode(self, messages: Sequence[Message], max_tokens: int | None) -> tuple[int, ...]:
        """The prompt's ids. max_tokens: of the answer, for the error.

        Raises PromptTooLong, and InvalidField if the prompt cannot be made.
        """
        characters = sum(len(message.content) + _CHARACTERS_A_TURN for message in messages)
        job = _Job(characters, messages, asyncio.get_running_loop().create_future())
        if characters <= _INLINE_CHARACTERS:
            token_ids = self._encode(job)
        else:
            token_ids = await (self._short if characters <= _SHORT_CHARACTERS else self._long).run(job)
        if len(token_ids) > self._max_tokens:
            raise PromptTooLong(len(token_ids), max_tokens, self._max_tokens, is_counted=False)
        return tuple(token_ids)

    def _encode(self, job: _Job) -> list[int]:
        """At most one piece more than max_tokens."""
        token_ids: list[int] = []
        for ids in self._encoder.pieces(job.messages):
            token_ids += ids
            if len(token_ids) > self._max_tokens or job.result.cancelled():
                break
        return token_ids


class _Lane:
    """One thread, and what waits for it."""

    def __init__(self, encode: Callable[[_Job], list[int]]) -> None:
        self._encode = encode
        self._waiting: list[_Job] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._working: asyncio.Task[None] | None = None

    async def run(self, job: _Job) -> list[int]:
        """What `encode` returns. Cancelling leaves the job."""
        heapq.heappush(self._waiting, job)
        self._working = self._working or asyncio.create_task(self._work())
        return await job.result

    async def _work(self) -> None:
        while self._waiting:
            job = heapq.heappop(self._waiting)
            if job.result.done():
                continue
            try:
                token_ids = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, job)
            except Exception as error:
                if not job.result.done():
                    job.result.set_exception(error)
            else:
                if not job.result.done():
                    job.result.set_result(token_ids)
        self._working = None
