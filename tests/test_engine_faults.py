"""Faults of the engine as a client and an operator see them: over both transports, and in a real process."""

import asyncio
import sys
from collections.abc import Sequence as Rows

import grpc
import httpx2
import pytest
import torch
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_server.engine.types import Chunk
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import ENDLESS_TOKEN, FakeRunner, in_process_service, one_hot
from tests.programs import Program
from tests.test_cancel import ASK, BODY, CHAT

BAD_SEED = 666


class FaultyRunner(FakeRunner):
    """Fails for requests with one seed."""

    def __init__(self, fault: Exception | None) -> None:
        super().__init__()
        self._fault = fault

    def rows(self, chunks: Rows[Chunk]) -> list[torch.Tensor]:
        bad = [chunk.sequence.params.seed == BAD_SEED for chunk in chunks]
        if self._fault and any(bad):
            raise self._fault
        return [one_hot(ENDLESS_TOKEN) * (float("nan") if row_is_bad else 1.0) for row_is_bad in bad]


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (ValueError("secret /opt/path"), grpc.StatusCode.INTERNAL, 500),
        (None, grpc.StatusCode.INTERNAL, 500),
        (torch.OutOfMemoryError("CUDA out of memory"), grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    ],
    ids=["exception", "not finite", "memory"],
)
async def test_fault_of_one_request_is_told_to_it_alone(
    fault: Exception | None, code: grpc.StatusCode, status: int
) -> None:
    async with (
        in_process_service(FaultyRunner(fault)) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
        httpx2.AsyncClient(base_url=service.url, timeout=30) as http,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        bad, good = chat_pb2.ChatCompletionRequest(seed=BAD_SEED), chat_pb2.ChatCompletionRequest(max_tokens=500)
        bad.MergeFrom(ASK)
        good.MergeFrom(ASK)
        neighbours = [asyncio.ensure_future(stub.CreateChatCompletion(good)) for _ in range(4)]
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.CreateChatCompletion(bad, metadata=(("x-request-id", "abc-1"),))
        over_http = await http.post(CHAT, json=BODY | {"seed": BAD_SEED}, headers={"X-Request-Id": "abc-1"})
        assert (failed.value.code(), over_http.status_code) == (code, status)
        told = failed.value.details()
        assert over_http.json()["error"]["message"] == told
        if code is grpc.StatusCode.INTERNAL:
            assert told == "internal error, request id abc-1"
        else:
            assert _retry_after_s(failed.value) == int(over_http.headers["Retry-After"]) == 5
        for answer in await asyncio.gather(*neighbours):
            assert answer.usage.completion_tokens == 500
        use = (await stub.GetModel(chat_pb2.GetModelRequest())).engine
        assert (use.started, use.finished, use.failed, use.running, use.used_blocks) == (6, 4, 2, 0, 0)


def _retry_after_s(error: grpc.aio.AioRpcError) -> int:
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    [packed] = status_pb2.Status.FromString(details).details
    retry = error_details_pb2.RetryInfo()
    assert packed.Unpack(retry)
    return int(retry.retry_delay.seconds)


FAULTS = {
    "raises": "raise RuntimeError('the device is lost')",
    "is stuck": "time.sleep(1000)",
    "gives no numbers": "return forward(self, chunks) * float('nan')",
}
BROKEN_SERVER = """
import sys, time
from inference_server.engine import model_runner
forward, steps = model_runner.ModelRunner._logits, 0

def breaking(self, chunks):
    global steps
    steps += 1
    if steps > 20:
        {fault}
    return forward(self, chunks)

model_runner.ModelRunner._logits = breaking
from inference_server.__main__ import main
sys.argv[1:] = ["--host", "127.0.0.1", "--port", "0", "--metrics-port", "0", "--stall-timeout-s", "1"]
main()
"""


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_engine_that_breaks_ends_every_call_turns_health_and_ends_the_process(fault: str) -> None:
    program = Program(sys.executable, "-c", BROKEN_SERVER.format(fault=fault))
    try:
        port = int(program.wait_for(r"gRPC on 127\.0\.0\.1:(\d+)").group(1))
        program.wait_for("ready: demo")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            asked = health_pb2.HealthCheckRequest(service="chat.v1.ChatService")
            watching = health_pb2_grpc.HealthStub(channel).Watch(asked)
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
            endless = chat_pb2.ChatCompletionRequest(ignore_eos=True, temperature=0)
            endless.MergeFrom(ASK)
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            calls = [asyncio.ensure_future(stub.CreateChatCompletion(endless, timeout=60)) for _ in range(3)]
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, grpc.aio.AioRpcError)
                assert outcome.code() is grpc.StatusCode.UNAVAILABLE
        assert program.wait(30) == 1
    finally:
        program.stop()
