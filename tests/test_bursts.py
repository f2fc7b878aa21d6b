"""Many calls at once, and metadata up to the limit: all of them are answered or refused in words."""

from collections import Counter

import grpc
import pytest

from inference_server.admission import QueueLimits
from protos.chat.v1 import chat_pb2_grpc
from tests.fakes import FakeRunner, in_process_service
from tests.test_admission import ask

LIMIT = 16 * 1024  # as docs/reliability.md says


def metadata_of(size: int) -> tuple[tuple[str, str], ...]:
    """Of so many bytes by RFC 7541, 4.1: 32 for each field beside its name and value; gRPC adds some of its own."""
    name = "x-large"
    return ((name, "x" * (size - 32 - len(name))),)


@pytest.mark.parametrize("size", [7 * 1024, 9 * 1024, 12 * 1024, LIMIT - 1024])
async def test_metadata_below_the_limit_always_pass(size: int) -> None:
    async with (
        in_process_service(FakeRunner()) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        for _ in range(40):
            await stub.CreateChatCompletion(ask(1), metadata=metadata_of(size))


@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT])
async def test_metadata_over_the_limit_never_pass(size: int) -> None:
    async with (
        in_process_service(FakeRunner()) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.CreateChatCompletion(ask(1), metadata=metadata_of(size))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_more_calls_than_one_connection_carries_are_answered_or_refused_in_words() -> None:
    async with (
        in_process_service(FakeRunner(), queue=QueueLimits(256, 2**20, 60)) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        calls = [stub.CreateChatCompletion(ask(1)) for _ in range(1300)]
        codes = Counter([await call.code() for call in calls])
        assert codes.keys() <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}, codes
        assert codes[grpc.StatusCode.OK] >= 320
