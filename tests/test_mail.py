"""When a caller gets the tokens that the engine has made for it."""

import asyncio
import dataclasses
import os
import sys
from pathlib import Path

import pytest

from inference_server.engine.mail import Mail, pause_s
from inference_server.engine.types import FinishReason, TokenEvent
from tests.fakes import FakeRunner, engine_over
from tests.programs import start_server
from tests.test_engine import greedy

EVENT = TokenEvent(5, None, 0.0, 0.0)
LAST = dataclasses.replace(EVENT, finish_reason=FinishReason.STOP)
LONG_S = 60.0


async def taken(mail: Mail, pause_s: float) -> int:
    return len(await asyncio.wait_for(mail.take(pause_s), 10))


async def test_first_token_is_read_at_once_and_the_next_ones_together() -> None:
    mail = Mail(lambda rests: None)
    mail.put(EVENT)
    assert await taken(mail, 0.2) == 1
    mail.put(EVENT)
    reading = asyncio.ensure_future(taken(mail, 0.0))
    await asyncio.sleep(0.05)
    mail.put(EVENT)
    await asyncio.sleep(0.05)
    assert not reading.done()
    assert await reading == 2
    mail.put(EVENT)
    assert await taken(mail, 0.0) == 1


async def test_tokens_that_come_after_the_pause_do_not_wait() -> None:
    mail = Mail(lambda rests: None)
    mail.put(EVENT)
    assert await taken(mail, 0.01) == 1
    await asyncio.sleep(0.05)
    mail.put(EVENT)
    assert mail._alarm is None
    assert await taken(mail, LONG_S) == 1


async def test_the_last_token_takes_those_before_it_along() -> None:
    mail = Mail(lambda rests: None)
    mail.put(EVENT)
    assert await taken(mail, LONG_S) == 1
    mail.put(EVENT)
    mail.put(LAST)
    assert await taken(mail, LONG_S) == 2


async def test_an_error_is_told_at_once_behind_what_came_before_it() -> None:
    mail = Mail(lambda rests: None)
    mail.put(EVENT)
    assert await taken(mail, LONG_S) == 1
    mail.put(EVENT)
    mail.put(ValueError("broken"))
    assert await taken(mail, LONG_S) == 1
    with pytest.raises(ValueError, match="broken"):
        await taken(mail, LONG_S)


async def test_a_closed_mail_wakes_nobody() -> None:
    mail = Mail(lambda rests: None)
    mail.put(EVENT)
    assert await taken(mail, 0.05) == 1
    mail.put(EVENT)
    mail.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(mail.take(0.0), 0.2)


def test_a_lone_stream_never_pauses_and_many_no_longer_than_allowed() -> None:
    assert pause_s(0, 0.05) == pause_s(1, 0.05) == 0.0
    assert 0 < pause_s(4, 0.05) < pause_s(16, 0.05) < pause_s(64, 0.05) == pause_s(1000, 0.05) == 0.05
    assert pause_s(64, 0.0) == 0.0


@pytest.mark.parametrize(
    ("delay_s", "may_wait", "together"), [(0.0, True, False), (1.0, False, False), (1.0, True, True)]
)
async def test_an_engine_of_many_streams_gives_tokens_together_where_they_may_wait(
    delay_s: float, may_wait: bool, together: bool
) -> None:
    engine = engine_over(FakeRunner(step_s=0.002), [].append, max_chunk_delay_s=delay_s)  # type: ignore[arg-type]

    async def pieces() -> list[int]:
        return [len(events) async for events in engine.generate((1, 2, 3), greedy(40), (), may_wait)]

    answers = await asyncio.gather(*(pieces() for _ in range(30)))
    await engine.stop()
    assert all(sum(answer) == 40 for answer in answers)
    usual = sorted(len(answer) for answer in answers)[15]
    assert usual < 15 if together else usual > 20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no urgency of their own")
def test_on_a_cpu_threads_that_compute_are_less_urgent_than_those_that_serve() -> None:
    server, _ = start_server("--device", "cpu")
    try:
        server.wait_for("ready: demo")
        pid = server.process.pid
        threads = [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
        others = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
        own = os.getpriority(os.PRIO_PROCESS, pid)
        assert others == {own, own + 3}
    finally:
        server.stop()


async def test_a_sequence_rests_while_its_caller_reads_nothing() -> None:
    told: list[bool] = []
    mail = Mail(told.append)
    for _ in range(300):
        mail.put(EVENT)
    assert told == [True]
    for _ in range(5):
        assert await taken(mail, 0.0) == 32
    assert told == [True]  # 140 are left
    assert await taken(mail, 0.0) == 32
    assert told == [True, False]
    for _ in range(150):
        mail.put(EVENT)
    assert told == [True, False, True]
    mail.put(LAST)
    taken_counts = [await taken(mail, 0.0) for _ in range(9)]
    assert taken_counts == [32] * 8 + [3]
    assert told == [True, False, True, False]
