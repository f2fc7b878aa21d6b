"""Which requests are taken in: all that can be answered soon enough, and no client's at the cost of another's.

Lives on the event loop. A request has a place from its arrival to its end, while its prompt is encoded too.
"""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from inference_server.errors import QueueFull

_WEIGHT = 1 / 32  # of each answer that ends, in the means of how long they take and how many run
_LONGEST_RETRY_S = 60


class Load(Protocol):
    """What the engine says of itself; `Engine` describes each."""

    @property
    def max_running(self) -> int: ...
    @property
    def running_if_full(self) -> int | None: ...
    @property
    def waiting_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait: requests, tokens of their prompts, the expected seconds of a request's wait.

    client_requests: most requests of one client, those that run included; 0 is no limit of its own.
    """

    requests: int
    tokens: int
    wait_s: float
    client_requests: int = 0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. name: equal for all requests of one client. remaining_s: until its deadline."""

    name: str
    remaining_s: float | None = None


@dataclass(slots=True)
class Place:
    """A request's place. running_since_s: time.perf_counter() at its first step, once that is known."""

    caller: Caller
    require_token_room: Callable[[int], None]  # raises QueueFull where a prompt of so many tokens may not wait
    running_since_s: float | None = None


class Admission:
    """Counts the requests that are here, by client."""

    def __init__(self, limits: QueueLimits, engine: Load) -> None:
        self._limits = limits
        self._engine = engine
        self._present: Counter[str] = Counter()  # requests by client; those of 0 are left out
        self._mean_run_s = 0.0  # of a request, from its first step to its end
        self._mean_running = float(engine.max_running)  # while others wait: fewer if the cache is full before

    @contextlib.contextmanager
    def place(self, caller: Caller) -> Iterator[Place]:
        """Around a request. Raises QueueFull if it would wait too long or take what is others'."""
        self._require_room(caller)
        self._present[caller.name] += 1
        place = Place(caller, partial(self._require_token_room, caller))
        try:
            yield place
        finally:
            self._present[caller.name] -= 1
            if not self._present[caller.name]:
                del self._present[caller.name]
            if place.running_since_s is not None:
                self._note_run(time.perf_counter() - place.running_since_s)

    def _require_token_room(self, caller: Caller, tokens: int) -> None:
        """A client's only request may always wait."""
        waiting = self._engine.waiting_tokens
        if waiting and waiting + tokens > self._limits.tokens and self._present[caller.name] > 1:
            raise self._full(f"{waiting} tokens of prompts wait", self._expected_wait_s(caller.name), False)

    def _require_room(self, caller: Caller) -> None:
        limits, own, total = self._limits, self._present[caller.name], self._present.total()
        if limits.client_requests and own >= limits.client_requests:
            raise self._full(f"this client has {own} requests here, its most", self._mean_run_s)
        most = self._engine.max_running + limits.requests
        clients = len(self._present) + (not own)
        # An equal share of the places is each client's own. Twice as many bound the memory, however many clients come.
        if total >= most and (own >= most // clients or total >= 2 * most):
            raise self._full(f"{total} requests are here", self._mean_run_s / self._mean_running)
        wait_s = self._expected_wait_s(caller.name)
        if wait_s > limits.wait_s:
            raise self._full(f"a wait of {wait_s:.0f} s is expected", wait_s - limits.wait_s)
        if caller.remaining_s is not None and wait_s > caller.remaining_s:
            raise self._full(f"a wait of {wait_s:.1f} s is expected, past the request's deadline", wait_s, False)

    def _expected_wait_s(self, client: str) -> float:
        """Until one more request of this client would run: turns are fair, and each takes as long as others took."""
        turns = self._present[client] + 1
        ahead = sum(min(count, turns) for count in self._present.values())
        return max(0.0, ahead + 1 - self._mean_running) * self._mean_run_s / self._mean_running

    def _note_run(self, seconds: float) -> None:
        self._mean_run_s += (seconds - self._mean_run_s) * (_WEIGHT if self._mean_run_s else 1.0)
        running = self._engine.running_if_full
        if running is not None:
            self._mean_running += (max(1, running) - self._mean_running) * _WEIGHT

    def _full(self, reason: str, retry_after_s: float, concerns_client: bool = True) -> QueueFull:
        return QueueFull(reason, min(max(1, math.ceil(retry_after_s)), _LONGEST_RETRY_S), concerns_client)
