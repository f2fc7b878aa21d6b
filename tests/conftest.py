"""One running service for all tests that only talk to it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc
import httpx2
import openai
import pytest
from hypothesis import settings

from protos.chat.v1 import chat_pb2_grpc
from tests.programs import start_bridge, start_server

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@dataclass(frozen=True)
class Service:
    """Where the two programs listen."""

    grpc_address: str
    url: str


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """The demo model behind both programs, started as a user does."""
    server, grpc_port = start_server()
    bridge, http_port = start_bridge(f"127.0.0.1:{grpc_port}")
    server.wait_for("ready: demo")
    yield Service(f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{http_port}")
    assert bridge.stop() == 0
    assert server.stop() == 0
    for program in (bridge, server):
        assert "Traceback" not in program.output


@pytest.fixture
async def stub(service: Service) -> AsyncIterator["chat_pb2_grpc.ChatServiceAsyncStub"]:
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        yield chat_pb2_grpc.ChatServiceStub(channel)


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=service.url, timeout=30) as client:
        yield client


@pytest.fixture
async def sdk(service: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0) as client:
        yield client
