"""Names of gRPC channel arguments: gRPC ignores those that it does not know, without a word."""

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from protos.chat.v1 import chat_pb2_grpc
from tests.fakes import FakeRunner, in_process_service
from tests.programs import ROOT
from tests.raw_http2 import ENHANCE_YOUR_CALM, GOAWAY, PING, call_headers, connected, frame, next_frame
from tests.test_admission import ask

_ARGUMENT = re.compile(r"grpc(?:\.[a-z0-9_]+)+")
_ROOMS = ("inference_server", "http_bridge", "clients", "benchmarks", "scripts")
KEEPALIVE = (
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


def named_arguments() -> Iterator[tuple[str, Path]]:
    """First items of pairs, which is how channel arguments are written."""
    for path in (path for room in _ROOMS for path in sorted((ROOT / room).rglob("*.py")) if "_pb2" not in path.name):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Constant):
                name = node.elts[0].value
                if isinstance(name, str) and _ARGUMENT.fullmatch(name):
                    yield name, path.relative_to(ROOT)


def unknown(names: Iterator[tuple[str, Path]]) -> list[tuple[str, Path]]:
    known = set(re.findall(rb"grpc(?:\.[a-z0-9_]+)+(?=\0)", Path(cygrpc.__file__).read_bytes()))
    return [(name, path) for name, path in names if name.encode() not in known]


def test_every_channel_argument_is_one_that_grpc_knows() -> None:
    found = list(named_arguments())
    assert len({name for name, _ in found}) > 15
    assert unknown(iter(found)) == []


def test_a_name_that_grpc_does_not_know_is_found() -> None:
    wrong = ("grpc.http2.min_recv_ping_interval_without_data_ms", Path("listener.py"))
    assert unknown(iter([wrong])) == [wrong]


async def expect_a_call_to_outlast(keepalive_ms: int, lasts_s: float) -> None:
    """A unary call, whose server sends nothing before its end, while the client pings."""
    options = (*KEEPALIVE, ("grpc.keepalive_time_ms", keepalive_ms), ("grpc.keepalive_timeout_ms", 5_000))
    async with (
        in_process_service(FakeRunner(gated=True)) as service,
        grpc.aio.insecure_channel(service.grpc_address, options=options) as channel,
    ):
        call = asyncio.ensure_future(chat_pb2_grpc.ChatServiceStub(channel).CreateChatCompletion(ask(5)))
        await asyncio.sleep(lasts_s)
        assert not call.done()
        service.runner.allow(10)
        assert (await call).usage.completion_tokens == 5


async def test_a_client_that_pings_each_second_keeps_its_call() -> None:
    """gRPC's own limit of one ping in 5 minutes ended such a call after 5 s with "too many pings"."""
    await expect_a_call_to_outlast(keepalive_ms=1_000, lasts_s=6)


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("keepalive_ms", [5_000, 10_000])
async def test_a_client_that_pings_each_few_seconds_keeps_a_call_of_90_s(keepalive_ms: int) -> None:
    await expect_a_call_to_outlast(keepalive_ms, lasts_s=90)


async def test_a_client_that_floods_with_pings_is_sent_away() -> None:
    async with (
        in_process_service(FakeRunner(gated=True)) as service,
        connected(service.grpc_address) as (reader, writer),
        asyncio.timeout(30),
    ):
        writer.write(call_headers("/chat.v1.ChatService/CreateChatCompletion"))
        writer.write(frame(PING, bytes(8), stream=0) * 10)
        assert int.from_bytes((await next_frame(reader, GOAWAY))[4:8]) == ENHANCE_YOUR_CALM
