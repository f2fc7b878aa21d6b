"""Our own faults: callers are told in fixed words, health turns, nothing of the inside gets out."""

import asyncio

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_server.boundary import ErrorBoundary
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import FakeRunner, in_process_service, until
from tests.test_cancel import ASK, BODY, CHAT


async def test_engine_failure_ends_every_call_and_turns_health() -> None:
    runner = FakeRunner(gated=True)
    async with in_process_service(runner) as service, grpc.aio.insecure_channel(service.grpc_address) as channel:
        stub, health = chat_pb2_grpc.ChatServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="chat.v1.ChatService"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        calls = [asyncio.ensure_future(_outcome(stub.CreateChatCompletion(ASK))) for _ in range(3)]
        await until(lambda: service.sequence_count >= 1)
        runner.error = RuntimeError("secret /opt/path")
        runner.allow(1)
        for error in await asyncio.gather(*calls):
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "the engine has failed")
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (
            await health.Check(health_pb2.HealthCheckRequest())
        ).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await _outcome(stub.CreateChatCompletion(ASK))).code() is grpc.StatusCode.UNAVAILABLE
        async with httpx2.AsyncClient(base_url=service.url) as client:
            response = await client.post(CHAT, json=BODY)
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) >= 1
            assert (await client.get("/health")).json()["status"] == "unavailable"


async def _outcome(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call  # type: ignore[misc]
    return raised.value


class _Faulty(chat_pb2_grpc.ChatServiceServicer):
    """Fails as no handler should."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def CreateChatCompletion(
        self, request: chat_pb2.ChatCompletionRequest, context: object
    ) -> chat_pb2.ChatCompletion:
        raise self._error

    async def StreamChatCompletion(self, request: chat_pb2.ChatCompletionRequest, context: object) -> None:  # type: ignore[override]
        raise self._error

    async def GetModel(self, request: chat_pb2.GetModelRequest, context: object) -> chat_pb2.GetModelResponse:
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("secret /opt/path"), asyncio.CancelledError("from inside")])
async def test_handler_fault_is_internal_with_the_request_id_alone(error: BaseException) -> None:
    server = grpc.aio.server(interceptors=[ErrorBoundary()])
    chat_pb2_grpc.add_ChatServiceServicer_to_server(_Faulty(error), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            sent = grpc.aio.Metadata(("x-request-id", "abc-1"))
            for call in (
                stub.CreateChatCompletion(ASK, metadata=sent, timeout=5),
                stub.StreamChatCompletion(ASK, metadata=sent, timeout=5).read(),
            ):
                failed = await _outcome(call)
                assert failed.code() is grpc.StatusCode.INTERNAL
                assert failed.details() == "internal error, request id abc-1"
    finally:
        await server.stop(0)
