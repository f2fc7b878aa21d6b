"""How long a step should take on this machine, from how long others took. The engine tells it, the watchdog asks it.

A step's work is counted in products of a weight with a token. It has three parts: reading the weights, which takes as
long as computing some tokens; the weights' products; attention's, which grow with the keys that are seen.
"""

from collections.abc import Callable
from collections.abc import Sequence as Rows

from inference_server.engine.types import NO_SAMPLING, Chunk, Sequence

# Tokens whose products take as long as reading the weights. 15 where a step of 64 tokens takes five times as long as
# one of a single token, as with compiled code here; fewer let more be expected of long steps, for slower processors.
_READING = 8
_FORGOTTEN = 0.95  # a step that something else held up counts for less with each one that follows
_MOST_SLOWER = 4.0  # times as slow as the slowest recent one, a single step counts at most

Work = Callable[[Rows[Chunk]], float]


def work_of(parameter_count: int, attended: int) -> Work:
    """parameter_count: of layers and output. attended: the numbers that one token's queries have in all layers."""

    def work(chunks: Rows[Chunk]) -> float:
        tokens = sum(chunk.count for chunk in chunks)
        seen = sum(chunk.count * (chunk.start + chunk.count) for chunk in chunks)
        return parameter_count * (_READING + tokens) + 2.0 * attended * seen

    return work


class Pace:
    """Written by the engine's thread alone; read by any."""

    def __init__(self, work: Work = lambda chunks: 1.0) -> None:
        self._work = work
        self._running: Rows[Chunk] = ()
        self._s_per_work = 0.0

    @property
    def expected_s(self) -> float:
        """Of the step that runs; 0 between steps and as long as nothing has been measured."""
        running = self._running
        return self._s_per_work * self._work(running) if running else 0.0

    def begin(self, chunks: Rows[Chunk]) -> None:
        """A step begins."""
        self._running = chunks

    def end(self, seconds: float) -> None:
        """It has ended after so many."""
        sample = seconds / self._work(self._running)
        if self._s_per_work:  # a suspended process is no slow one
            sample = min(sample, _MOST_SLOWER * self._s_per_work)
        self._s_per_work = max(sample, self._s_per_work * _FORGOTTEN)
        self._running = ()

    def learn_from_one_token(self, seconds: float) -> None:
        """What a step of one token took, before the engine runs."""
        self.begin([Chunk(Sequence((0,), NO_SAMPLING), 0, 1)])
        self.end(seconds)
