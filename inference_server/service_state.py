"""What the server says about itself: how far it is and whether it can answer. Lives on the event loop."""

import asyncio
import enum
from collections.abc import Iterator
from contextlib import contextmanager

from inference_server.errors import EngineFailed, Unavailable


class Phase(enum.Enum):
    """LOADING to READY to DRAINING, with STALLED and back on the way; FAILED from anywhere, for good."""

    LOADING = "loading"
    READY = "ready"
    STALLED = "stalled"
    DRAINING = "draining"
    FAILED = "failed"


class ServiceState:
    """Starts as LOADING. Health, GetModel and every chat look here, so they cannot disagree."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.load_percent = 0
        self.next_change = asyncio.Event()  # set, and replaced by a new one, when the phase changes
        self._chat_count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self, phase: Phase) -> None:
        """Changes the phase and wakes who waits for a change. Nothing follows FAILED."""
        if self.phase is Phase.FAILED:
            return
        self.phase = phase
        self.next_change.set()
        self.next_change = asyncio.Event()

    @contextmanager
    def chat(self) -> Iterator[None]:
        """Around every chat. Raises Unavailable where no chat can be answered now."""
        self._require_ready()
        self._chat_count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._chat_count -= 1
            if not self._chat_count:
                self._idle.set()

    async def idle(self) -> None:
        """Returns when no chat is running."""
        await self._idle.wait()

    def _require_ready(self) -> None:
        match self.phase:
            case Phase.LOADING:
                raise Unavailable(f"the model is loading ({self.load_percent} %)", retry_after_s=2)
            case Phase.STALLED:
                raise Unavailable("the engine does not get on", retry_after_s=5)
            case Phase.DRAINING:
                raise Unavailable("the server is ending", retry_after_s=1)
            case Phase.FAILED:
                raise EngineFailed
