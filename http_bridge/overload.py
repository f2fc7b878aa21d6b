"""Refuses chats in the server's name while it is known to refuse them or to be behind: asking it costs ten times that.

What the server refuses one client it may take from another, so each client that has chats here is known by itself, and
those that have none together. A few chats are let through all the same, to see whether there is room again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from http_bridge.errors import ApiError

_KNOWN_S = 2.0  # how long a refusal counts
_TRIAL_S = 0.05  # between two chats that are let through
_NEWCOMERS = ""
# A server that is not behind takes a chat in within milliseconds. A long prompt may take longer, and many at once too.
_BEHIND_CHATS, _BEHIND_S = 32, 0.25


@dataclass(slots=True)
class _Refusal:
    """The last one. limit: the chats here that the server has taken at once, then or later."""

    error: ApiError
    limit: int
    at_s: float
    tried_s: float


class Overload:
    """What is known of the server's room, and who has chats here."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._chats: Counter[str] = Counter()  # by client; those of 0 are left out
        self._refusals: dict[str, _Refusal] = {}  # by client, oldest first
        self._asked_s: dict[object, float] = {}  # chats that the server has neither taken in nor refused, oldest first
        self._tried_s = 0.0  # when one was let through though the server was behind

    def enter(self, client: str) -> None:
        """Counts a chat, to be called before anything of it is read. Raises ApiError 429 instead."""
        now_s = self._now_s()
        self._forget(now_s)
        own = self._chats[client]
        if self._is_behind(now_s):
            if now_s - self._tried_s < _TRIAL_S:
                problem = f"the server is busy: {len(self._asked_s)} chats wait to be taken in"
                raise ApiError(429, problem, code="rate_limit_exceeded", headers={"Retry-After": "1"})
            self._tried_s = now_s
        refusal = self._refusals.get(client if own else _NEWCOMERS)
        if refusal and (own or self._chats.total()) >= refusal.limit:
            if now_s - refusal.tried_s < _TRIAL_S:
                error = refusal.error
                raise ApiError(error.status_code, error.detail, error.param, error.code, error.headers)
            refusal.tried_s = now_s
        self._chats[client] += 1

    def leave(self, client: str) -> None:
        """The chat has ended."""
        self._chats[client] -= 1
        if not self._chats[client]:
            del self._chats[client]

    @contextmanager
    def asked(self, client: str) -> Iterator[Callable[[], None]]:
        """Around the call of a chat that is counted here. Yield what to call when the server has taken the chat in."""
        mark = object()
        self._asked_s[mark] = self._now_s()

        def taken_in() -> None:
            self._asked_s.pop(mark, None)
            own, total = self._chats[client], self._chats.total()
            for key, count in ((client, own), (_NEWCOMERS, total)):
                if key in self._refusals:
                    self._refusals[key].limit = max(self._refusals[key].limit, count)

        try:
            yield taken_in
        except ApiError as error:
            if error.is_queue_full:
                self._note(client, error)
            raise
        finally:
            self._asked_s.pop(mark, None)

    def _note(self, client: str, error: ApiError) -> None:
        own = self._chats[client] - 1
        key, now_s = client if own else _NEWCOMERS, self._now_s()
        self._refusals.pop(key, None)
        self._refusals[key] = _Refusal(error, own or self._chats.total() - 1, now_s, now_s)

    def _is_behind(self, now_s: float) -> bool:
        asked_s = next(islice(self._asked_s.values(), _BEHIND_CHATS - 1, None), None)
        return asked_s is not None and now_s - asked_s > _BEHIND_S

    def _forget(self, now_s: float) -> None:
        while self._refusals:
            oldest = next(iter(self._refusals))
            if now_s - self._refusals[oldest].at_s < _KNOWN_S:
                return
            del self._refusals[oldest]
