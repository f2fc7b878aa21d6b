"""Sees that the engine gets on: steps are counted, not tokens, so a long prompt raises no alarm."""

import asyncio
import logging
import time
from typing import Protocol

from inference_server.service_state import Phase, ServiceState

_log = logging.getLogger(__name__)
_LOOKS = 10  # in the timeout
_LASTING = 3  # limits
_SLACK = 4  # between a step and what others of other sizes let expect of it


class Watched(Protocol):
    """The engine, as far as it is watched."""

    @property
    def step_count(self) -> int:
        """Grows with every computation that ends."""

    @property
    def has_work(self) -> bool:
        """Whether a step should end some time soon."""

    @property
    def expected_step_s(self) -> float:
        """How long the step that runs should take; 0 where that is not known."""

    def give_up(self) -> None:
        """Ends every call, and tells the server that the engine has failed."""


async def watch(engine: Watched, state: ServiceState, timeout_s: float) -> None:
    """Turns the state to STALLED when there is work and no step has ended for `timeout_s`; back when one ends.

    A step that should take long on this machine has `_SLACK` times that instead. Three times as long without a step,
    and the engine is given up. Time in which this process itself was stopped does not count.
    """
    pause_s = timeout_s / _LOOKS
    seen_count, stalled_s, limit_s = engine.step_count, 0.0, timeout_s
    while stalled_s < _LASTING * limit_s:
        before_s = time.monotonic()
        await asyncio.sleep(pause_s)
        if engine.step_count != seen_count or not engine.has_work:
            seen_count, stalled_s = engine.step_count, 0.0
            if state.phase is Phase.STALLED:
                _log.info("the engine gets on again")
                state.enter(Phase.READY)
            continue
        stalled_s += min(time.monotonic() - before_s, 2 * pause_s)
        limit_s = max(timeout_s, _SLACK * engine.expected_step_s)
        if stalled_s >= limit_s and state.phase is Phase.READY:
            _log.error("the engine has work, and no step has ended for %.1f s, %.1f s are allowed", stalled_s, limit_s)
            state.enter(Phase.STALLED)
    _log.error("no step has ended for %.1f s; giving up", stalled_s)
    engine.give_up()
