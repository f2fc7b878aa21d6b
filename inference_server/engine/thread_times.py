"""How much of the passed time the engine's threads were served: had a processor, or asked for none.

On a busy machine a thread that could run waits for a processor. Linux counts that wait for each thread, and it is no
sign of a stuck engine. The watchdog and the engine ask; without these counts all time is served time.

Source: https://docs.kernel.org/scheduler/sched-stats.html, /proc/<pid>/schedstat; proc_pid_stat(5), proc_pid_comm(5).
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TASKS = Path("/proc/self/task")
_NS = 1e-9


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """Since the thread began. is_runnable: it runs or waits for a processor; a wait that lasts is not in wait_s yet."""

    run_s: float
    wait_s: float
    is_runnable: bool


def name_team(thread_id: int, tasks: Path = TASKS) -> None:
    """Give this thread a name of its own. Threads that it begins, those of OpenMP among them, inherit the name."""
    with contextlib.suppress(OSError):
        (tasks / str(thread_id) / "comm").write_text(f"engine-{thread_id}"[:15])


class ServedTime:
    """Measures laps. Not for use by several threads at once."""

    def __init__(
        self,
        thread_id: int | None,
        also_awaited: tuple[int, ...] = (),
        tasks: Path = TASKS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """thread_id: the engine's thread, which stands for all of the same name; None: all time is served time.

        also_awaited: threads whose waits hold the engine up as well, as they may have Python's lock.
        """
        self._thread_id = thread_id
        self._also_awaited = also_awaited
        self._tasks = tasks
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Begin a lap."""
        self._began_s, self._before = self._clock(), self._read()

    def lap(self) -> tuple[float, float]:
        """End a lap and begin the next one. Returns its seconds on the clock and its served seconds.

        Served is what remains without the waits of all threads, since a step goes from thread to thread; it is at
        least what the busiest of them has run, so that one that spins for ever uses its time up.
        """
        began_s, before = self._began_s, self._before
        self.begin()
        passed_s = self._began_s - began_s
        waited_s = busiest_s = 0.0
        for thread_id, now in self._before.items():
            then = before.get(thread_id)
            if then is None:  # it has just begun
                continue
            ran_s = now.run_s - then.run_s
            starved = now.is_runnable and not ran_s
            waited_s += passed_s if starved else now.wait_s - then.wait_s
            if thread_id not in self._also_awaited:
                busiest_s = max(busiest_s, ran_s)
        return passed_s, min(max(passed_s - waited_s, busiest_s), passed_s)

    def _read(self) -> dict[int, ThreadTimes]:
        if self._thread_id is None:
            return {}
        found = {}
        for thread_id in {*self._team(), *self._also_awaited}:
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended, or Linux keeps no counts
                found[thread_id] = self._times(thread_id)
        return found

    def _team(self) -> list[int]:
        try:
            name = (self._tasks / str(self._thread_id) / "comm").read_text()
            directories = list(self._tasks.iterdir())
        except OSError:
            return []
        team = []
        for directory in directories:
            with contextlib.suppress(OSError):
                if (directory / "comm").read_text() == name:
                    team.append(int(directory.name))
        return team

    def _times(self, thread_id: int) -> ThreadTimes:
        directory = self._tasks / str(thread_id)
        run_ns, wait_ns, _ = (int(word) for word in (directory / "schedstat").read_text().split())
        state = (directory / "stat").read_text().rpartition(") ")[2][0]
        # a kernel that keeps no counts writes zeros
        return ThreadTimes(run_ns * _NS, wait_ns * _NS, state == "R" and run_ns > 0)
