"""The engine: one thread that owns the device, a mailbox into it, one call back per step out of it.

Knows tokens. The text of requests and answers, and gRPC, are the callers' business.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from inference_server.engine.model_runner import ModelRunner
from inference_server.engine.sampler import SamplingRow, sample
from inference_server.engine.types import FinishReason, SamplingParams, Sequence, TokenEvent
from inference_server.errors import EngineFailed

_log = logging.getLogger(__name__)
_STOP_S = 1.0


@dataclass(frozen=True, slots=True)
class _Add:
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class _Cancel:
    sequence: Sequence


class _Stop:
    """Ends the thread."""


class _Mail:
    """What a caller has not read yet of its sequence's events. Lives on the event loop."""

    def __init__(self) -> None:
        self._events: list[TokenEvent] = []
        self._arrived = asyncio.Event()
        self._failed = False

    def put(self, event: TokenEvent) -> None:
        self._events.append(event)
        self._arrived.set()

    def fail(self) -> None:
        self._failed = True
        self._arrived.set()

    async def take(self) -> list[TokenEvent]:
        """All that has arrived, at least one. Raises EngineFailed."""
        await self._arrived.wait()
        if self._failed:
            raise EngineFailed
        self._arrived.clear()
        events, self._events = self._events, []
        return events


class Engine:
    """Generates tokens for many callers, one sequence at a time, first come first served."""

    def __init__(
        self, runner: ModelRunner, stop_token_ids: frozenset[int], on_failure: Callable[[BaseException], None]
    ) -> None:
        """on_failure is called on the event loop, once, when the thread has ended by an exception."""
        self._runner = runner
        self._stop_token_ids = stop_token_ids
        self._on_failure = on_failure
        self._inbox: queue.SimpleQueue[_Add | _Cancel | _Stop] = queue.SimpleQueue()
        self._waiting: deque[Sequence] = deque()  # the engine thread's; the first one runs
        self._mails: dict[Sequence, _Mail] = {}  # the event loop's
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """To be called on the event loop that the callers of `generate` run on."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after its current step, or leaves it behind where that takes more than a second."""
        self._inbox.put(_Stop())
        end_s = time.monotonic() + _STOP_S
        while self._thread.is_alive() and time.monotonic() < end_s:  # noqa: ASYNC110 - a thread sets no asyncio event
            await asyncio.sleep(0.01)

    async def generate(
        self, prompt_token_ids: tuple[int, ...], params: SamplingParams
    ) -> AsyncGenerator[list[TokenEvent]]:
        """Yields whatever tokens have arrived, in order, until one has a finish reason.

        Closing the generator early cancels the sequence: the engine drops it before its next step.
        Raises EngineFailed.
        """
        if self._failed:
            raise EngineFailed
        sequence, mail, finished = Sequence(prompt_token_ids, params), _Mail(), False
        self._mails[sequence] = mail
        self._inbox.put(_Add(sequence))
        try:
            while not finished:
                events = await mail.take()
                finished = events[-1].finish_reason is not None
                yield events
        finally:
            del self._mails[sequence]
            if not finished:
                self._inbox.put(_Cancel(sequence))

    def _run(self) -> None:
        try:
            while self._read_inbox():
                if self._waiting:
                    self._step(self._waiting[0])
        except BaseException as error:
            _log.exception("the engine has failed")
            self._loop.call_soon_threadsafe(self._fail, error)

    def _read_inbox(self) -> bool:
        """Takes in what has come, waiting only when there is nothing to run. False: the thread shall end."""
        while not (self._waiting and self._inbox.empty()):
            match self._inbox.get():
                case _Add(sequence):
                    self._waiting.append(sequence)
                case _Cancel(sequence) if sequence in self._waiting:
                    self._drop(sequence)
                case _Stop():
                    return False
        return True

    def _step(self, sequence: Sequence) -> None:
        sequence.started_s = sequence.started_s or time.perf_counter()
        logits = self._runner.forward(sequence)  # [1, V]
        if logits is None:
            return
        [token_id] = sample(logits, [SamplingRow(sequence.params, position=len(sequence.token_ids))])
        sequence.token_ids.append(token_id)
        finish_reason = self._finish_reason(sequence, token_id)
        if finish_reason:
            self._drop(sequence)
        event = TokenEvent(token_id, finish_reason, sequence.started_s, time.perf_counter())
        self._loop.call_soon_threadsafe(self._deliver, sequence, event)

    def _finish_reason(self, sequence: Sequence, token_id: int) -> FinishReason | None:
        if token_id in self._stop_token_ids and not sequence.params.ignore_eos:
            return FinishReason.STOP
        if len(sequence.token_ids) >= sequence.params.max_tokens:
            return FinishReason.LENGTH
        return None

    def _drop(self, sequence: Sequence) -> None:
        self._waiting.remove(sequence)
        self._runner.release(sequence)

    def _deliver(self, sequence: Sequence, event: TokenEvent) -> None:
        mail = self._mails.get(sequence)
        if mail:  # its caller may have left meanwhile
            mail.put(event)

    def _fail(self, error: BaseException) -> None:
        self._failed = True
        for mail in self._mails.values():
            mail.fail()
        self._on_failure(error)
