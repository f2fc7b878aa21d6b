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

    def take_near(self, last: int | None, wanted: int) -> list[int]:
        """Takes 1 to `wanted` neighbours: those that follow `last` where they are free, else out of the longest run.

        There must be free ones. A new place is begun in the middle of the run, so that its left neighbour can grow on.
        """
        follows = last is not None and last + 1 in self._end_of
        start = last + 1 if last is not None and follows else self._new_place(wanted)
        end = self._end_of[start]
        self._drop(start)
        taken_end = min(start + wanted, end)
        self._put(taken_end, end)
        return list(range(start, taken_end))

    def _new_place(self, wanted: int) -> int:
        """A start of a run, cut out of the longest one."""
        start = max(self._end_of, key=lambda begin: self._end_of[begin] - begin)
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
