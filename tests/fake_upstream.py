"""A gRPC server that answers as it is told, for tests of what the bridge makes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from protos.chat.v1 import chat_pb2, chat_pb2_grpc

_USAGE = chat_pb2.Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10)
Context = grpc.aio.ServicerContext[Any, Any]


class FakeUpstream(chat_pb2_grpc.ChatServiceServicer):
    """Streams `chunk_count` chunks, the later ones once `open` is set; or refuses with `refusal`.

    If it tells admission, all chunks come once `open` is set.
    """

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.tells_admission = False
        self.chunk_count = 3
        self.chunk_text = "x"
        self.failure_at_start: grpc.StatusCode | None = None  # of a stream that is admitted
        self.failure_at_end: grpc.StatusCode | None = None  # of a stream, behind its last chunk
        self.refusal: tuple[grpc.StatusCode, str, float | None] | None = None
        self.running = 0
        self.address = ""

    async def GetModel(self, request: chat_pb2.GetModelRequest, context: Context) -> chat_pb2.GetModelResponse:
        return chat_pb2.GetModelResponse(name="fake", state=chat_pb2.MODEL_STATE_READY)

    async def CreateChatCompletion(
        self, request: chat_pb2.ChatCompletionRequest, context: Context
    ) -> chat_pb2.ChatCompletion:
        self.running += 1
        try:
            await self._refuse_or_begin(context)
            await self.open.wait()
            message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, content=self.chunk_text * self.chunk_count)
            choice = chat_pb2.Choice(message=message, finish_reason=chat_pb2.FINISH_REASON_STOP)
            return chat_pb2.ChatCompletion(id="id", model="fake", choices=[choice], usage=_USAGE)
        finally:
            self.running -= 1

    async def StreamChatCompletion(
        self, request: chat_pb2.ChatCompletionRequest, context: Context
    ) -> AsyncIterator[chat_pb2.ChatCompletionChunk]:
        self.running += 1
        try:
            await self._refuse_or_begin(context)
            if self.tells_admission:
                await context.send_initial_metadata((("chat-admitted", "1"),))
                await self.open.wait()
            if self.failure_at_start:
                await context.abort(self.failure_at_start, "too early")
            for number in range(self.chunk_count):
                if number:
                    await self.open.wait()
                delta = chat_pb2.ChoiceDelta(content=self.chunk_text)
                yield chat_pb2.ChatCompletionChunk(id="id", model="fake", choices=[delta])
            end = chat_pb2.ChoiceDelta(finish_reason=chat_pb2.FINISH_REASON_STOP)
            yield chat_pb2.ChatCompletionChunk(choices=[end], usage=_USAGE)
            if self.failure_at_end:
                await context.abort(self.failure_at_end, "too late")
        finally:
            self.running -= 1

    async def _refuse_or_begin(self, context: Context) -> None:
        if self.refusal:
            await self._refuse(context, *self.refusal)

    async def _refuse(
        self, context: Context, code: grpc.StatusCode, message: str, retry_delay_s: float | None
    ) -> NoReturn:
        status = status_pb2.Status(code=code.value[0], message=message)
        if retry_delay_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(retry_delay_s * 1e9))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        trailing = (
            ("grpc-status-details-bin", status.SerializeToString()),
            ("grpc-retry-pushback-ms", str(int((retry_delay_s or 0) * 1000))),
        )
        await context.abort(code, message, trailing)


@asynccontextmanager
async def fake_upstream() -> AsyncIterator[FakeUpstream]:
    """One that listens inside the block."""
    servicer, server = FakeUpstream(), grpc.aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(servicer, server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield servicer
    finally:
        servicer.open.set()
        await server.stop(0)
