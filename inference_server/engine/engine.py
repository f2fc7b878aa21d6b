"""The engine: one thread that owns the device, a mailbox into it, one call back per step out of it.

Knows tokens. The text of requests and answers, and gRPC, are the callers' business.
"""

import asyncio
import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial

from inference_server.engine.mail import Mail, pause_s
from inference_server.engine.pace import Pace
from inference_server.engine.scheduler import Scheduler
from inference_server.engine.step import Step
from inference_server.engine.thread_times import ServedTime, name_team
from inference_server.engine.types import EngineUse, SampledToken, SamplingParams, Sequence, TokenEvent
from inference_server.errors import EngineFailed, PromptTooLong

_log = logging.getLogger(__name__)
_STOP_S = 1.0
# The served time of steps that should take longer is measured, in about a millisecond; the watchdog's shortest limit
# is far above that of shorter ones.
_LONG_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class _Add:
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class _Cancel:
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class _Park:
    sequence: Sequence
    rests: bool


class _Stop:
    """Ends the thread."""


class Engine:
    """Generates tokens for many callers at once."""

    def __init__(
        self,
        step: Step,
        scheduler: Scheduler,
        on_failure: Callable[[BaseException], None],
        on_step: Callable[[float], None] = lambda seconds: None,
        max_chunk_delay_s: float = 0.0,
        niceness: int = 0,
        pace: Pace | None = None,
    ) -> None:
        """max_chunk_delay_s: how long tokens may wait for others of their answer, as `mail` says.

        niceness: how much less urgent than others the engine's thread and those that it begins are to the system.

        on_failure is called on the event loop, once, when the thread has ended by an exception.

        pace: what is known of how long steps take.

        on_step is called on the engine's thread, with the seconds that each step took.
        """
        self._step = step
        self._scheduler = scheduler
        self._on_failure = on_failure
        self._on_step = on_step
        self._max_chunk_delay_s = max_chunk_delay_s
        self._niceness = niceness
        self._pace = pace or Pace()
        self._inbox: queue.SimpleQueue[_Add | _Cancel | _Park | _Stop] = queue.SimpleQueue()
        self._mails: dict[Sequence, Mail] = {}  # the event loop's
        self._failed = False
        self._sent_tokens = 0  # through the mailbox; the event loop's
        self._taken_tokens = 0  # out of it; the engine thread's
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def step_count(self) -> int:
        """Computations that have ended; while a failed step is divided, each part counts."""
        return self._step.attempt_count

    @property
    def expected_step_s(self) -> float:
        """How long the step that runs should take, as far as that is known."""
        return self._pace.expected_s

    @property
    def thread_id(self) -> int | None:
        """The system's number of its thread; None before the start."""
        return self._thread.native_id

    @property
    def has_work(self) -> bool:
        """Whether a step should end some time soon."""
        return not self._inbox.empty() or self._has_sequences()

    @property
    def use(self) -> EngineUse:
        """Numbers for people and monitors; taken while the engine runs, so not all of one moment."""
        scheduler = self._scheduler
        return EngineUse(
            scheduler.running_count, scheduler.waiting_count + scheduler.parked_count,
            scheduler.waiting_tokens, scheduler.counts,
            scheduler.cache.use,
        )  # fmt: skip

    @property
    def waiting_tokens(self) -> int:
        """Tokens of the prompts and answers that wait for their turn, those in the mailbox included."""
        return self._scheduler.waiting_tokens + self._sent_tokens - self._taken_tokens

    @property
    def max_running(self) -> int:
        """Most sequences that run at once."""
        return self._scheduler.max_sequences

    @property
    def running_if_full(self) -> int | None:
        """How many sequences run, if others wait for their slots or blocks."""
        return self._scheduler.running_count if self._scheduler.waiting_count else None

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

    def give_up(self) -> None:
        """Ends every call with EngineFailed; for a thread that is stuck. To be called on the event loop."""
        self._fail(TimeoutError("the engine's thread is stuck"))

    async def generate(
        self,
        prompt_token_ids: tuple[int, ...],
        params: SamplingParams,
        resumed_token_ids: tuple[int, ...] = (),
        may_wait: bool = False,
        client: str = "",
    ) -> AsyncGenerator[list[TokenEvent]]:
        """Yield whatever tokens have arrived, in order, until one has a finish reason.

        The first item is empty: it says that the request has been admitted and waits for its first step.

        resumed_token_ids: the first tokens of the answer, which are not generated again; fewer than max_tokens.
        may_wait: whether tokens may wait for others of their answer, as `mail` says.
        client: who asks; clients have fair turns.
        Closing the generator early cancels the sequence: the engine drops it before its next step.
        Raises EngineFailed; PromptTooLong where the cache could never hold prompt and answer; OutOfMemory or
        SequenceFailed for what befalls this sequence alone.
        """
        if self._failed:
            raise EngineFailed
        capacity = self._scheduler.cache.token_capacity
        if len(prompt_token_ids) + params.max_tokens > capacity:
            raise PromptTooLong(len(prompt_token_ids), params.max_tokens, capacity)
        sequence, ended = Sequence(prompt_token_ids, params, list(resumed_token_ids), client), False
        mail = self._mails[sequence] = Mail(lambda rests: self._inbox.put(_Park(sequence, rests)))
        self._sent_tokens += sequence.length
        self._inbox.put(_Add(sequence))
        longest_s = self._max_chunk_delay_s if may_wait else 0.0
        try:
            yield []
            while not ended:
                events = await mail.take(pause_s(self._scheduler.running_count, longest_s))
                ended = events[-1].finish_reason is not None
                yield events
        finally:
            mail.close()
            del self._mails[sequence]
            if not ended:
                self._inbox.put(_Cancel(sequence))

    def _run(self) -> None:
        try:
            if self._niceness and sys.platform == "linux":  # where it is each thread's own
                os.nice(self._niceness)
            name_team(threading.get_native_id())
            self._served = ServedTime(threading.get_native_id())
            while self._read_inbox():
                self._take_step()
        except BaseException as error:
            _log.exception("the engine has failed")
            self._call_back(partial(self._fail, error))

    def _read_inbox(self) -> bool:
        """Takes in what has come, waiting only when there is nothing to run. False: the thread shall end."""
        while not (self._has_sequences() and self._inbox.empty()):
            match self._inbox.get():
                case _Add(sequence):
                    self._scheduler.add(sequence)
                    self._taken_tokens += sequence.length
                case _Cancel(sequence):
                    self._scheduler.cancel(sequence)
                case _Park(sequence, rests):
                    (self._scheduler.park if rests else self._scheduler.unpark)(sequence)
                case _Stop():
                    return False
        return True

    def _take_step(self) -> None:
        started_s = time.perf_counter()
        chunks = self._scheduler.schedule()
        self._pace.begin(chunks)
        is_long = self._pace.expected_s > _LONG_STEP_S
        if is_long:
            self._served.begin()
        outcomes = self._step.run(chunks)
        self._pace.end(self._served.lap()[1] if is_long else time.perf_counter() - started_s)
        events: list[tuple[Sequence, TokenEvent | Exception]] = []
        for chunk, outcome in zip(chunks, outcomes, strict=True):
            if outcome is None or isinstance(outcome, SampledToken):
                event = self._scheduler.advance(chunk, outcome)
                if event:
                    events.append((chunk.sequence, event))
            else:
                # what it has written may not be finite, which others must not find in their blocks
                self._step.clear(self._scheduler.distrust(chunk.sequence))
                self._scheduler.fail(chunk.sequence)
                events.append((chunk.sequence, outcome))
        self._on_step(time.perf_counter() - started_s)
        if events:
            self._call_back(partial(self._deliver, events))

    def _has_sequences(self) -> bool:
        return bool(self._scheduler.running_count or self._scheduler.waiting_count)

    def _call_back(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function)

    def _deliver(self, events: list[tuple[Sequence, TokenEvent | Exception]]) -> None:
        for sequence, event in events:
            mail = self._mails.get(sequence)
            if mail:  # its caller may have left meanwhile
                mail.put(event)

    def _fail(self, error: BaseException) -> None:
        if self._failed:
            return
        self._failed = True
        for mail in self._mails.values():
            mail.put(EngineFailed())
        self._on_failure(error)
