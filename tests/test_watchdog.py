"""The watchdog: an engine that has work and takes no step turns health, and is given up when that lasts."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_server.service_state import Phase, ServiceState
from inference_server.watchdog import watch
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import FakeRunner, in_process_service, until
from tests.test_cancel import ASK

TIMEOUT_S = 0.2


class FakeEngine:
    def __init__(self, has_work: bool) -> None:
        self.step_count = 0
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
