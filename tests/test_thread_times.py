"""Served time: what remains of the passed time without the waits for a processor, as Linux counts them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from inference_server.engine.thread_times import ServedTime, name_team
from inference_server.engine.types import SamplingParams
from tests.fakes import FakeRunner, engine_over

ENGINE, HELPER, OTHER, LOOP = 11, 12, 13, 14
NAMES = {ENGINE: "engine-11", HELPER: "engine-11", OTHER: "python", LOOP: "python"}


def write_thread(tasks: Path, thread_id: int, run_s: float, wait_s: float, state: str = "S") -> None:
    """As Linux shows a thread: nanoseconds on a processor, nanoseconds runnable without one, how often it ran."""
    directory = tasks / str(thread_id)
    directory.mkdir(exist_ok=True)
    (directory / "comm").write_text(NAMES[thread_id] + "\n")
    (directory / "stat").write_text(f"{thread_id} (a (b) c) {state} 1 1 1 0 -1 4194304 0\n")
    (directory / "schedstat").write_text(f"{run_s * 1e9:.0f} {wait_s * 1e9:.0f} 5\n")


@pytest.mark.parametrize(
    ("after", "served_s"),
    [
        ({}, 10),
        ({ENGINE: (2, 8, "R")}, 2),
        ({ENGINE: (1, 0, "S"), HELPER: (2, 7, "R")}, 3),
        ({ENGINE: (2, 8, "R"), HELPER: (1, 9, "R")}, 2),
        ({ENGINE: (0, 0, "R")}, 0),
        ({ENGINE: (0, 0, "D")}, 10),
        ({LOOP: (1, 6, "S")}, 4),
        ({OTHER: (1, 9, "R")}, 10),
        ({ENGINE: (10, 0, "R"), LOOP: (0, 9, "R")}, 10),
    ],
    ids=[
        "blocked", "given a fifth", "waits for a starved helper", "spins with its helper", "given nothing",
        "waits for a disk", "the loop may have Python's lock", "others wait", "spins",
    ],
)  # fmt: skip
def test_served_time_leaves_out_waits_for_a_processor(
    after: dict[int, tuple[float, float, str]], served_s: float, tmp_path: Path
) -> None:
    for thread_id in NAMES:
        write_thread(tmp_path, thread_id, 100.0, 50.0)
    times = iter((0.0, 10.0))
    served = ServedTime(ENGINE, (LOOP,), tmp_path, lambda: next(times))
    for thread_id, (run_s, wait_s, state) in after.items():
        write_thread(tmp_path, thread_id, 100.0 + run_s, 50.0 + wait_s, state)
    assert served.lap()[1] == pytest.approx(served_s)


@pytest.mark.parametrize("known", [True, False])
def test_without_the_systems_counts_all_time_is_served(known: bool, tmp_path: Path) -> None:
    write_thread(tmp_path, ENGINE, 0, 0, "R")  # what a kernel without these counts shows
    times = iter((0.0, 10.0, 20.0))
    served = ServedTime(ENGINE if known else None, (), tmp_path, lambda: next(times))
    assert served.lap() == (10.0, 10.0)
    (tmp_path / str(ENGINE) / "schedstat").unlink()
    assert served.lap() == (10.0, 10.0)


@pytest.fixture
def busy_processor() -> Iterator[None]:
    """This thread's only processor, and another program that never leaves it."""
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mask)})
    other = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    assert other.stdout
    other.stdout.readline()
    yield
    other.kill()
    other.communicate()
    os.sched_setaffinity(0, mask)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's counts")
@pytest.mark.usefixtures("busy_processor")
def test_system_counts_the_waits_of_a_thread_that_shares_its_processor() -> None:
    served = ServedTime(threading.get_native_id())
    end_s = time.monotonic() + 1
    while time.monotonic() < end_s:
        pass
    passed_s, served_s = served.lap()
    assert 0 < served_s < 0.8 * passed_s


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's counts")
def test_threads_of_openmp_belong_to_the_thread_that_began_them() -> None:
    team: set[int] = set()

    def compute() -> None:
        thread_id = threading.get_native_id()
        name_team(thread_id)
        torch.set_num_threads(3)
        torch.ones(2000, 2000).exp()
        team.update(ServedTime(thread_id)._team())

    before = torch.get_num_threads()
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert len(team) >= 3  # torch may begin some of its own beside OpenMP's
    assert threading.get_native_id() not in team


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's counts")
async def test_engines_thread_is_named_before_it_begins_others() -> None:
    engine = engine_over(FakeRunner(), lambda error: None)
    params = SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=1)
    assert [events async for events in engine.generate((5,), params)]
    assert engine.thread_id
    assert ServedTime(engine.thread_id)._team() == [engine.thread_id]
    await engine.stop()
