"""Sees that the engine gets on: steps are counted, not tokens, so a long prompt raises no alarm."""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Protocol

from inference_server.engine.thread_times import TASKS, ServedTime
from inference_server.service_state import Phase, ServiceState

_log = logging.getLogger(__name__)
_LOOKS = 10  # in the timeout
_LASTING = 3  # limits
_SLACK = 4  # between a step and what others of other sizes let expect of it
_MOST_STARVED = 30  # a thread of the engine's niceness beside 15 busy ones on its processor gets a thirtieth


class Watched(Protocol):
    """The engine, as far as it is watched."""

    @property
    def step_count(self) -> int:
        """Grows with every computation that ends."""

    @property
    def has_work(self) -> bool:
        """Whether a step should end some time soon."""

    @property
    def thread_id(self) -> int | None:
        """The system's number of its thread; None if that is not known."""

    @property
    def expected_step_s(self) -> float:
        """How long the step that runs should take; 0 where that is not known."""

    def give_up(self) -> None:
        """Ends every call, and tells the server that the engine has failed."""


async def watch(engine: Watched, state: ServiceState, timeout_s: float, tasks: Path = TASKS) -> None:
    """Turn the state to STALLED when there is work and no step has ended for `timeout_s`; back when one ends.

    A step that should take long on this machine has `_SLACK` times that instead. Three times as long without a step,
    and the engine is given up.

    The seconds are those in which the engine's threads had a processor or asked for none: an engine that is blocked
    uses them up at the clock's pace also on a busy machine, one that spins at the pace at which it gets processors. A
    look counts at most the pause before it, so the event loop's own delay and a suspended process do not count, and
    at least a `_MOST_STARVED`th of it, so that no load hides a stuck engine for ever.
    """
    pause_s = timeout_s / _LOOKS
    served = ServedTime(engine.thread_id, (threading.get_native_id(),), tasks)
    seen_count, stalled_s, silent_s, limit_s = engine.step_count, 0.0, 0.0, timeout_s
    while stalled_s < _LASTING * limit_s:
        await asyncio.sleep(pause_s)
        passed_s, served_s = served.lap()
        if engine.step_count != seen_count or not engine.has_work:
            seen_count, stalled_s, silent_s = engine.step_count, 0.0, 0.0
            if state.phase is Phase.STALLED:
                _log.info("the engine gets on again")
                state.enter(Phase.READY)
            continue
        silent_s += passed_s
        stalled_s += min(max(served_s, pause_s / _MOST_STARVED), pause_s)
        limit_s = max(timeout_s, _SLACK * engine.expected_step_s)
        if stalled_s >= limit_s and state.phase is Phase.READY:
            _log.error(
                "the engine has work, and no step has ended for %.1f s (%s)", silent_s, _used(stalled_s, limit_s)
            )
            state.enter(Phase.STALLED)
    _log.error("no step has ended for %.1f s (%s); giving up", silent_s, _used(stalled_s, _LASTING * limit_s))
    engine.give_up()


def _used(stalled_s: float, limit_s: float) -> str:
    return f"{stalled_s:.1f} s without waits for a processor, {limit_s:.1f} s are allowed"
