"""Clients that do not read, that come all at once, or that want everything."""

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator

import grpc

from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.chaos.figures import Figure, at_least, at_most
from tests.chaos.http_load import HttpClient
from tests.chaos.service import DEADLINE_S, Service, ask, running_service

_STREAMS = 16
_NORMAL_S = 10.0
_WRITE_TIMEOUT_S = 30
_STALLED = {
    "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20_000, "ignore_eos": True, "stream": True,
    "logprobs": True, "top_logprobs": 20,
}  # fmt: skip
_NORMAL = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 200, "ignore_eos": True, "stream": True}


def stalled_streams() -> list[Figure]:
    """Sixteen streams whose clients read nothing beside sixteen normal ones."""
    with running_service() as service:
        return asyncio.run(_stalled_streams(service))


async def _stalled_streams(service: Service) -> list[Figure]:
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        client = HttpClient(service.http_port)
        await _tokens_a_second(client, 3.0)
        before_mb = service.resident_mb
        alone = await _tokens_a_second(client, _NORMAL_S)
        with stalled_clients(service.http_port, _STREAMS):
            began_s = time.monotonic()
            while (use := await _engine(stub)).waiting < _STREAMS or use.running:  # until all of them rest
                await asyncio.sleep(0.2)
            share = await _tokens_a_second(client, _NORMAL_S) / alone
            held_mb = service.resident_mb - before_mb
            while (await _engine(stub)).waiting:
                await asyncio.sleep(0.2)
            gone_s = time.monotonic() - began_s
    return [
        at_least("throughput of normal ones", 100 * share, 95, "%"),
        at_most("memory", held_mb, 80, "MB"),
        at_most("the last one is let go after", gone_s, _WRITE_TIMEOUT_S + 15, "s"),
    ]


async def _engine(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> chat_pb2.EngineUse:
    return (await stub.GetModel(chat_pb2.GetModelRequest(), timeout=DEADLINE_S)).engine


async def _tokens_a_second(client: HttpClient, seconds: float) -> float:
    """Of sixteen normal streams, each followed by another until the time is over."""
    started_s, tokens = time.perf_counter(), 0

    async def keep_asking() -> None:
        nonlocal tokens
        while time.perf_counter() - started_s < seconds:
            assert (await client.chat(_NORMAL)).status == 200
            tokens += 200

    await asyncio.gather(*(keep_asking() for _ in range(_STREAMS)))
    return tokens / (time.perf_counter() - started_s)


@contextlib.contextmanager
def stalled_clients(port: int, count: int) -> Iterator[None]:
    payload = json.dumps(_STALLED).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
            client.connect(("127.0.0.1", port))
            client.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
        yield


def bursts() -> list[Figure]:
    """As many calls at once as may run and wait, and then many more, each time on a new channel."""
    with running_service() as service:
        fitting = [asyncio.run(_burst(service, 384)) for _ in range(3)]
        more = [asyncio.run(_burst(service, 1300)) for _ in range(3)]
    refused = sum(counts["RESOURCE_EXHAUSTED"] for counts in fitting)
    lost = sum(counts.total() - counts["OK"] - counts["RESOURCE_EXHAUSTED"] for counts in (*fitting, *more))
    return [
        at_most("of 3 x 384 calls refused", refused, 0),
        at_most("of 3 x 384 and 3 x 1,300 calls neither answered nor refused in words", lost, 0),
    ]


async def _burst(service: Service, count: int) -> Counter[str]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(service.address, options=options) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        calls = [stub.CreateChatCompletion(ask("Hello", 4), timeout=DEADLINE_S) for _ in range(count)]
        return Counter([(await call.code()).name for call in calls])


def greedy_client() -> list[Figure]:
    """One client with 384 requests of 30,000 tokens, and two others with one chat after another."""
    with running_service() as service:
        return asyncio.run(_greedy_client(service))


async def _greedy_client(service: Service) -> list[Figure]:
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)

        async def chat(client: str) -> float:
            started_s = time.perf_counter()
            metadata = (("chat-client", client),)
            await stub.CreateChatCompletion(ask("Hello", 16), metadata=metadata, timeout=DEADLINE_S)
            return time.perf_counter() - started_s

        alone_s = max([await chat("one") for _ in range(5)])
        long = ask("Hello", 30_000, ignore_eos=True)
        hogs = [stub.CreateChatCompletion(long, metadata=(("chat-client", "hog"),)) for _ in range(384)]
        while (await _engine(stub)).running < 100:
            await asyncio.sleep(0.1)
        waits = [max(await asyncio.gather(chat("one"), chat("two"))) for _ in range(10)]
        for call in hogs:
            call.cancel()
    return [at_most(f"the others' slowest of 20 chats ({alone_s:.2f} s alone)", max(waits), 20, "s")]
