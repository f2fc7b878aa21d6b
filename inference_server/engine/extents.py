"""Which blocks are free, as runs of neighbours. Knows numbers only; the KV cache asks it for places.

On a CPU attention reads a sequence's keys in place, run by run, so a sequence should lie in as few runs as possible.
"""


class Extents:
    """Free numbers from `first` to `first + count - 1`."""

    def __init__(self, first: int, count: int) -> None:
        self.count = 0  # free numbers
        self._first = first
        self._end_of: dict[int, int] = {}  # start of a run -> the number behind its last
        self._start_of: dict[int, int] = {}
        self._put(first, first + count)

    def add(self, number: int) -> None:
        """Frees one number, which must not be free."""
        start, end = number, number + 1
        if number in self._start_of:  # a run ends right before it
            start = self._start_of[number]
            self._drop(start)
        if end in self._end_of:
            behind = end
            end = self._end_of[behind]
            self._drop(behind)
        self._put(start, end)

    def take(self, last: int | None, wanted: int) -> list[int]:
        """Takes so many: first those that follow `last`, then out of the longest run, or the fewest runs.

        There must be enough. A new place is begun in the middle of its run, so that its left neighbour can grow on.
        """
        taken: list[int] = []
        if last is not None and last + 1 in self._end_of:
            taken = self._take_from(last + 1, wanted)
        if len(taken) < wanted:
            start = max(self._end_of, key=self._length)
            if self._length(start) >= wanted - len(taken):
                taken += self._take_from(self._place_in(start, wanted - len(taken)), wanted - len(taken))
            else:
                for start in sorted(self._end_of, key=self._length, reverse=True):
                    taken += self._take_from(start, wanted - len(taken))
                    if len(taken) == wanted:
                        break
        return taken

    def _length(self, start: int) -> int:
        return self._end_of[start] - start

    def _take_from(self, start: int, wanted: int) -> list[int]:
        """Up to so many from the beginning of a run."""
        end = self._end_of[start]
        self._drop(start)
        taken_end = min(start + wanted, end)
        self._put(taken_end, end)
        return list(range(start, taken_end))

    def _place_in(self, start: int, wanted: int) -> int:
        """The start of a run that is cut out of this one."""
        end = self._end_of[start]
        if start == self._first or end - start <= wanted:
            return start
        middle = start + (end - start - wanted) // 2
        self._drop(start)
        self._put(start, middle)
        self._put(middle, end)
        return middle

    def _put(self, start: int, end: int) -> None:
        if start < end:
            self._end_of[start], self._start_of[end] = end, start
            self.count += end - start

    def _drop(self, start: int) -> None:
        end = self._end_of.pop(start)
        del self._start_of[end]
        self.count -= end - start
