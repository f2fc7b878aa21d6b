"""Clients that only count: endless streams over HTTP or gRPC, every token one letter. They cost as little as can be."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from protos.chat.v1 import chat_pb2, chat_pb2_grpc

_CONTENT = re.compile(rb'"content": ?"(\w+)"')
_MOST_TOKENS = 4000
_START_S = 30.0
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


class Count:
    """What has come so far."""

    def __init__(self) -> None:
        self.tokens = 0
        self.chunks = 0
        self.asked_s = 0.0
        self.first_s: float | None = None
        self.arrived = asyncio.Event()

    def add(self, tokens: int) -> None:
        if self.first_s is None:
            self.first_s = time.perf_counter()
            self.arrived.set()
        self.tokens += tokens
        self.chunks += 1


class _Events(asyncio.Protocol):
    """One connection with one answer."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        whole, end, self._rest = (self._rest + data).rpartition(b"\n\n")
        for text in _CONTENT.findall(whole + end):
            self._count.add(len(text))


async def _stream_http(address: str, count: Count) -> None:
    body = json.dumps(
        {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": _MOST_TOKENS,
         "stream": True, "ignore_eos": True}
    ).encode()  # fmt: skip
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
    host, port = address.split(":")
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: _Events(count), host, int(port))
    count.asked_s = time.perf_counter()
    try:
        transport.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await asyncio.Event().wait()
    finally:
        transport.close()


async def _stream_grpc(stub: "chat_pb2_grpc.ChatServiceAsyncStub", count: Count) -> None:
    hello = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Hello")
    request = chat_pb2.ChatCompletionRequest(messages=[hello], temperature=0, max_tokens=_MOST_TOKENS, ignore_eos=True)
    count.asked_s = time.perf_counter()
    call = stub.StreamChatCompletion(request)
    try:
        async for chunk in call:
            if chunk.choices[0].content:
                count.add(len(chunk.choices[0].content))
    finally:
        call.cancel()


class Client:
    """One channel for all gRPC calls, as the bridge has; a connection of its own for each stream over HTTP."""

    def __init__(self, grpc_address: str, http_address: str) -> None:
        self._http_address = http_address
        self._channel = grpc.aio.insecure_channel(grpc_address, options=_OPTIONS)
        self.stub: chat_pb2_grpc.ChatServiceAsyncStub = chat_pb2_grpc.ChatServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    @asynccontextmanager
    async def streams(self, transport: str, number: int, timeout_s: float = _START_S) -> AsyncIterator[list[Count]]:
        """Runs so many streams inside the block, which begins when each has had a token."""
        counts = [Count() for _ in range(number)]
        tasks = [
            asyncio.create_task(
                _stream_http(self._http_address, count) if transport == "http" else _stream_grpc(self.stub, count)
            )
            for count in counts
        ]
        try:
            async with asyncio.timeout(timeout_s):
                for count in counts:
                    await count.arrived.wait()
            yield counts
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def first_token_ms(self, transport: str, timeout_s: float = _START_S) -> float:
        """Of one stream, over a connection that is open."""
        async with self.streams(transport, 1, timeout_s) as (count,):
            assert count.first_s
            return (count.first_s - count.asked_s) * 1e3

    async def generated_tokens(self) -> int:
        """The engine's own count."""
        model: chat_pb2.GetModelResponse = await self.stub.GetModel(chat_pb2.GetModelRequest())
        return model.engine.generated_tokens
