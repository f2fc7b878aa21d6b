"""Sequences that wait for their turn. Called by the scheduler.

Each client has a line of its own. The next turn is that of the client with the fewest running sequences, so that one
with hundreds of requests does not keep another from its first.
"""

from collections import deque
from collections.abc import Iterator, Mapping

from inference_server.engine.types import Sequence


class WaitingLines:
    """First come, first served within a client; among clients with equally many running sequences, turn about."""

    def __init__(self) -> None:
        self.tokens = 0  # of prompts and answers of all that wait
        self._lines: dict[str, deque[Sequence]] = {}  # by client; no line is empty; the next turn is the first one's
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence]:
        return (sequence for line in self._lines.values() for sequence in line)

    def add(self, sequence: Sequence) -> None:
        """Puts it at the end of its client's line."""
        self._lines.setdefault(sequence.client, deque()).append(sequence)
        self._counted(sequence, 1)

    def put_back(self, sequence: Sequence) -> None:
        """Puts one that has run before at the very front."""
        line = self._lines.pop(sequence.client, deque())
        line.appendleft(sequence)
        self._lines = {sequence.client: line} | self._lines
        self._counted(sequence, 1)

    def next(self, running: Mapping[str, int]) -> Sequence | None:
        """Whose turn it is; it stays. running: sequences by client, at least of those that have any."""
        client = min(self._lines, key=lambda client: running.get(client, 0), default=None)
        return None if client is None else self._lines[client][0]

    def take(self, sequence: Sequence) -> None:
        """Takes out what `next` has returned; the other clients' turns come before its client's next one."""
        line = self._lines.pop(sequence.client)
        taken = line.popleft()
        assert taken is sequence
        if line:
            self._lines[sequence.client] = line
        self._counted(sequence, -1)

    def remove(self, sequence: Sequence) -> bool:
        """Takes any out, in time linear in its client's line. Returns whether it was here."""
        line = self._lines.get(sequence.client)
        if not line or sequence not in line:
            return False
        line.remove(sequence)
        if not line:
            del self._lines[sequence.client]
        self._counted(sequence, -1)
        return True

    def _counted(self, sequence: Sequence, one: int) -> None:
        self._count += one
        self.tokens += one * sequence.length
