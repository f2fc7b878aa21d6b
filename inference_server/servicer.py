"""chat.v1.ChatService: one coroutine per RPC. What happens to a request is in completion.py."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import grpc

from inference_server.accounting import Accounting
from inference_server.admission import Admission, Place
from inference_server.caller import caller_of
from inference_server.completion import Completion, Completions
from inference_server.convert import to_chat_request, to_chunk, to_completion, to_engine_use
from inference_server.engine.types import EngineUse
from inference_server.errors import ClientStalled, TookTooLong
from inference_server.service_state import Phase, ServiceState
from protos.chat.v1 import chat_pb2, chat_pb2_grpc

ADMITTED = "chat-admitted"  # the metadata that says so
# Larger requests are taken up one at a time: as Python's text and in pieces one takes ten times its size.
_LARGE_BYTES = 256 * 1024
_Context = grpc.aio.ServicerContext[Any, Any]
_STATES: Mapping[Phase, chat_pb2.ModelState] = {
    Phase.LOADING: chat_pb2.MODEL_STATE_LOADING,
    Phase.READY: chat_pb2.MODEL_STATE_READY,
    Phase.DRAINING: chat_pb2.MODEL_STATE_DRAINING,
    Phase.FAILED: chat_pb2.MODEL_STATE_FAILED,
    Phase.STALLED: chat_pb2.MODEL_STATE_STALLED,
}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is known of the model before it is loaded."""

    name: str
    notice: str
    max_messages: int
    max_message_bytes: int
    max_request_s: int
    write_timeout_s: int
    created_s: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True, slots=True)
class LoadedService:
    """What a loaded model adds."""

    completions: Completions
    admission: Admission
    dtype: str
    device: str
    use: Callable[[], EngineUse]
    versions: Mapping[str, str]


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """Answers from the first moment; `loaded` is set before the state turns READY."""

    def __init__(self, served: ServedModel, state: ServiceState, accounting: Accounting) -> None:
        self.loaded: LoadedService | None = None
        self.served = served
        self._state = state
        self._large = asyncio.Semaphore(1)
        self.accounting = accounting

    async def CreateChatCompletion(
        self, request: chat_pb2.ChatCompletionRequest, context: _Context
    ) -> chat_pb2.ChatCompletion:
        async with self._completion(request, context) as completion:
            async with aclosing(completion.deltas()) as deltas:
                answer = [await anext(deltas)]
                await _say_admitted(context)
                answer += [delta async for delta in deltas]
            return to_completion(completion, self.served.name, answer, request.return_token_ids)

    async def StreamChatCompletion(  # type: ignore[override]  # a coroutine that writes: its end is not left to the garbage collector
        self, request: chat_pb2.ChatCompletionRequest, context: _Context
    ) -> None:
        async with self._completion(request, context) as completion, aclosing(completion.deltas()) as deltas:
            is_admitted, is_first = False, True
            async for delta in deltas:
                if not is_admitted:
                    await _say_admitted(context)
                    is_admitted = True
                if delta.text or delta.finish_reason or delta.logprobs or request.return_token_ids:
                    await self._write(context, to_chunk(completion, self.served.name, delta, is_first, request))
                    is_first = False

    async def _write(self, context: _Context, chunk: chat_pb2.ChatCompletionChunk) -> None:
        """gRPC takes a few messages for a client that reads nothing, and then waits."""
        try:
            async with asyncio.timeout(self.served.write_timeout_s):
                await context.write(chunk)
        except TimeoutError as error:
            raise ClientStalled(self.served.write_timeout_s) from error

    async def GetModel(self, request: chat_pb2.GetModelRequest, context: _Context) -> chat_pb2.GetModelResponse:
        response = chat_pb2.GetModelResponse(
            name=self.served.name,
            state=_STATES[self._state.phase],
            load_percent=self._state.load_percent,
            notice=self.served.notice,
            max_messages=self.served.max_messages,
            max_message_bytes=self.served.max_message_bytes,
            request_fields=[field.name for field in chat_pb2.ChatCompletionRequest.DESCRIPTOR.fields],
            created=self.served.created_s,
        )
        if self.loaded:
            response.max_context_tokens = self.loaded.completions.max_context_tokens
            response.dtype, response.device = self.loaded.dtype, self.loaded.device
            response.versions.update(self.loaded.versions)
            response.engine.CopyFrom(to_engine_use(self.loaded.use()))
        return response

    @asynccontextmanager
    async def _completion(
        self, request: chat_pb2.ChatCompletionRequest, context: _Context
    ) -> AsyncIterator[Completion]:
        """Around every chat: refuses what cannot be answered, bounds the time."""
        with self._state.chat():
            assert self.loaded
            try:
                async with asyncio.timeout(self.served.max_request_s):
                    with self.loaded.admission.place(caller_of(context)) as place:
                        completion = await self._open(request, place)
                        self.accounting.record.completion = completion
                        try:
                            yield completion
                        finally:
                            place.running_since_s = completion.started_s
            except TimeoutError as error:
                raise TookTooLong(self.served.max_request_s) from error

    async def _open(self, request: chat_pb2.ChatCompletionRequest, place: Place) -> Completion:
        assert self.loaded
        async with self._large if request.ByteSize() > _LARGE_BYTES else nullcontext():
            return await self.loaded.completions.open(to_chat_request(request, self.served.max_messages), place)


async def _say_admitted(context: _Context) -> None:
    """At the first delta: the engine has taken the request in, or has nothing to do for it."""
    await context.send_initial_metadata(((ADMITTED, "1"),))
