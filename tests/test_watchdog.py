"""The watchdog: an engine that has work and takes no step turns health, and is given up when that lasts."""

import asyncio
import threading
import time
from collections.abc import Sequence as Rows
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_server import watchdog
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.engine.pace import Pace, work_of
from inference_server.engine.thread_times import ServedTime
from inference_server.engine.types import NO_SAMPLING, Chunk, Computed, SamplingParams, Sequence
from inference_server.errors import EngineFailed
from inference_server.loading import load_parts
from inference_server.service_state import Phase, ServiceState
from inference_server.watchdog import watch
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import FakeRunner, engine_over, in_process_service, settings, until
from tests.test_cancel import ASK
from tests.test_thread_times import ENGINE, write_thread

TIMEOUT_S = 0.2


class FakeEngine:
    def __init__(self, has_work: bool) -> None:
        self.step_count = 0
        self.expected_step_s = 0.0
        self.thread_id: int | None = None
        self.has_work = has_work
        self.given_up = False

    def give_up(self) -> None:
        self.given_up = True


def ready() -> ServiceState:
    state = ServiceState()
    state.enter(Phase.READY)
    return state


async def test_stalled_engine_turns_the_state_and_a_step_turns_it_back() -> None:
    engine, state = FakeEngine(has_work=True), ready()
    watching = asyncio.create_task(watch(engine, state, TIMEOUT_S))
    await until(lambda: state.phase is Phase.STALLED)
    engine.step_count += 1
    await until(lambda: state.phase is Phase.READY)
    assert not engine.given_up
    watching.cancel()


async def test_engine_that_stays_stalled_is_given_up() -> None:
    engine, state = FakeEngine(has_work=True), ready()
    await asyncio.wait_for(watch(engine, state, TIMEOUT_S), 30)
    assert engine.given_up


@pytest.mark.parametrize("working", [False, True])
async def test_idle_and_working_engines_are_let_be(working: bool) -> None:
    engine, state = FakeEngine(has_work=working), ready()
    watching = asyncio.create_task(watch(engine, state, TIMEOUT_S))
    for _ in range(50):
        await asyncio.sleep(TIMEOUT_S / 10)
        engine.step_count += working
        assert state.phase is Phase.READY
    watching.cancel()


async def test_slow_step_has_four_times_what_is_expected_of_it_and_a_stuck_one_is_still_found() -> None:
    timeout_s = 0.05
    engine, state = FakeEngine(has_work=True), ready()
    engine.expected_step_s = 5 * timeout_s
    watching = asyncio.create_task(watch(engine, state, timeout_s))
    for _ in range(2):
        await asyncio.sleep(
            8 * timeout_s
        )  # more than twice the time after which an engine of no known pace is given up
        assert state.phase is Phase.READY
        engine.step_count += 1
    engine.expected_step_s = 2 * timeout_s  # of the next one
    await until(lambda: state.phase is Phase.STALLED)
    await asyncio.wait_for(watching, 60)
    assert engine.given_up


class SlowRunner(FakeRunner):
    """Takes so long for each token, as a processor without fast products does; a gate stops it for good."""

    def __init__(self, token_s: float) -> None:
        super().__init__()
        self._token_s, self.gate = token_s, threading.Event()
        self.gate.set()

    def forward(self, chunks: Rows[Chunk], keep_logits: bool) -> Computed:
        time.sleep(self._token_s * sum(chunk.count for chunk in chunks))
        self.gate.wait()
        return super().forward(chunks, keep_logits)


async def test_prompt_on_a_slow_processor_is_no_stall_and_a_stuck_engine_is_one() -> None:
    """Its steps of 60 tokens take twice the time after which an engine of no known pace is given up."""
    token_s, state, runner = 0.02, ready(), SlowRunner(0.02)
    pace = Pace(work_of(1_000_000, 0))
    pace.learn_from_one_token(token_s)
    engine = engine_over(runner, lambda error: None, pace=pace)
    params = SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=4)
    warm_up = [events async for events in engine.generate(tuple(range(5, 25)), params)]
    watching = asyncio.create_task(watch(engine, state, TIMEOUT_S))
    phases = set()

    async def answer() -> int:
        return sum([len(events) async for events in engine.generate(tuple(range(70, 190)), params)])

    answering = asyncio.create_task(answer())
    while not answering.done():
        phases.add(state.phase)
        await asyncio.sleep(0.01)
    assert sum(map(len, warm_up)) == answering.result() == 4
    assert phases == {Phase.READY}
    runner.gate.clear()
    asking = asyncio.create_task(answer())
    await until(lambda: state.phase is Phase.STALLED, 30)
    await asyncio.wait_for(watching, 60)
    with pytest.raises(EngineFailed):
        await asking
    runner.gate.set()
    await engine.stop()


def test_expected_time_grows_with_tokens_and_with_what_they_see() -> None:
    pace, sequence = Pace(work_of(1000, 10)), Sequence((5,) * 9000, NO_SAMPLING)
    pace.learn_from_one_token(0.1)

    def expected(*chunks: tuple[int, int]) -> float:
        pace.begin([Chunk(sequence, *chunk) for chunk in chunks])
        return pace.expected_s

    one = expected((0, 1))
    assert one == pytest.approx(0.1)
    assert one < expected((0, 1), (0, 1)) < expected((0, 64)) < expected((8000, 64))
    assert expected((0, 64)) < 64 * one
    pace.end(3.0)  # the machine is busy with something else
    slow = expected((0, 1))
    assert slow > one
    for _ in range(200):
        expected((0, 1))
        pace.end(0.1)
    assert pace.expected_s == 0
    assert expected((0, 1)) == pytest.approx(0.1)


def test_a_loaded_model_has_been_timed() -> None:
    parts = load_parts(CHECKPOINT_DIR, settings(kv_cache_gib=0.01), lambda share: None)
    parts.pace.begin([Chunk(Sequence((5,), NO_SAMPLING), 0, 1)])
    assert parts.pace.expected_s > 0


async def test_stuck_step_turns_health_and_then_ends_every_call() -> None:
    async with (
        in_process_service(FakeRunner(gated=True)) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub, health = chat_pb2_grpc.ChatServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        asking = asyncio.ensure_future(stub.CreateChatCompletion(ASK))
        await until(lambda: service.engine.has_work)
        watching = asyncio.create_task(watch(service.engine, service.state, TIMEOUT_S))
        await until(lambda: service.state.phase is Phase.STALLED)
        asked = health_pb2.HealthCheckRequest(service="chat.v1.ChatService")
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await stub.GetModel(chat_pb2.GetModelRequest())).state == chat_pb2.MODEL_STATE_STALLED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CreateChatCompletion(ASK)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await watching
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asking
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert service.state.phase is Phase.FAILED


def test_one_step_of_a_suspended_process_does_not_blind_the_watchdog() -> None:
    pace = Pace(work_of(1_000_000, 0))
    pace.learn_from_one_token(0.1)
    usual_s = expected_of_one_token(pace)
    pace.learn_from_one_token(600.0)
    assert expected_of_one_token(pace) <= 4 * usual_s


def expected_of_one_token(pace: Pace) -> float:
    pace.begin([Chunk(Sequence((0,), NO_SAMPLING), 0, 1)])
    return pace.expected_s


async def test_starved_engine_is_let_be_and_a_blocked_one_on_the_same_machine_is_found(tmp_path: Path) -> None:
    engine, state, began_s = FakeEngine(has_work=True), ready(), time.monotonic()
    engine.thread_id = ENGINE
    write_thread(tmp_path, ENGINE, 1.0, 0.0)
    watching = asyncio.create_task(watch(engine, state, TIMEOUT_S, tmp_path))
    while time.monotonic() < began_s + 5 * TIMEOUT_S:
        passed_s = time.monotonic() - began_s
        write_thread(tmp_path, ENGINE, 1.0 + 0.05 * passed_s, 0.95 * passed_s, "R")
        await asyncio.sleep(TIMEOUT_S / 50)
        assert state.phase is Phase.READY
    write_thread(tmp_path, ENGINE, 2.0, 10.0)  # it sleeps from here on
    await until(lambda: state.phase is Phase.STALLED)
    await asyncio.wait_for(watching, 60)
    assert engine.given_up


async def test_no_load_hides_a_stuck_engine_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_MOST_STARVED", 4)
    engine, state = FakeEngine(has_work=True), ready()
    engine.thread_id = ENGINE
    write_thread(tmp_path, ENGINE, 1.0, 0.0, "R")
    await asyncio.wait_for(watch(engine, state, TIMEOUT_S / 4, tmp_path), 60)
    assert engine.given_up


async def test_delay_of_the_loop_itself_is_not_the_engines() -> None:
    engine, state = FakeEngine(has_work=True), ready()
    watching = asyncio.create_task(watch(engine, state, TIMEOUT_S))
    for _ in range(8):  # looks, each of which counts a tenth of the timeout
        time.sleep(TIMEOUT_S)  # noqa: ASYNC251 - the loop is held up
        for _ in range(5):  # until the watchdog has looked
            await asyncio.sleep(0)
        assert state.phase is Phase.READY
    watching.cancel()


async def test_pace_of_long_steps_is_in_served_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServedTime, "lap", lambda served: (50.0, 0.75))
    pace = Pace()
    pace.learn_from_one_token(0.5)
    engine = engine_over(FakeRunner(), lambda error: None, pace=pace)
    params = SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=1)
    assert [events async for events in engine.generate((5,), params)]
    await engine.stop()
    assert expected_of_one_token(pace) == pytest.approx(0.75)
