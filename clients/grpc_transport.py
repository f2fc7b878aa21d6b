"""The way to the gRPC server."""

from collections.abc import AsyncGenerator, Mapping, Sequence

import grpc

from clients.conversation import Role, Turn
from clients.transports import AnswerEnd, AnswerOptions, FinishReason, ServedModel, ServiceError
from protos.chat.v1 import chat_pb2, chat_pb2_grpc

_MODEL_TIMEOUT_S = 5.0
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment is for the outside
    # a server that comes back is found within a second, not within gRPC's two minutes
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # how large a message may be is the server's word
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
_DETAILS_KEY = "grpc-status-details-bin"  # there where the server itself speaks, not where gRPC does
_ROLES: Mapping[Role, chat_pb2.Role] = {
    "system": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
}
_FINISH_REASONS: Mapping[int, FinishReason] = {
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_LENGTH: "length",
}
_ENDING: Mapping[int, str] = {
    chat_pb2.MODEL_STATE_DRAINING: "is shutting down",
    chat_pb2.MODEL_STATE_FAILED: "has failed",
}


class GrpcTransport:
    """One channel to the server. To be made where an event loop runs."""

    def __init__(self, target: str, options: AnswerOptions) -> None:
        self.place = f"{target} over gRPC"
        self._target = target
        self._options = options
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub: chat_pb2_grpc.ChatServiceAsyncStub = chat_pb2_grpc.ChatServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def model(self) -> ServedModel:
        try:
            model = await self._stub.GetModel(chat_pb2.GetModelRequest(), timeout=_MODEL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise self._service_error(error) from error
        if model.state in _ENDING:
            raise ServiceError(f"the server at {self._target} {_ENDING[model.state]}")
        return ServedModel(
            name=model.name,
            load_percent=None if model.state == chat_pb2.MODEL_STATE_READY else model.load_percent,
            notice=model.notice,
            facts=_facts(model),
        )

    async def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[str | AnswerEnd]:
        call = self._stub.StreamChatCompletion(self._request(turns))
        try:
            async for chunk in call:
                for choice in chunk.choices:
                    if choice.content:
                        yield choice.content
                if chunk.HasField("usage"):
                    yield _end(chunk)
        except grpc.aio.AioRpcError as error:
            raise self._service_error(error) from error
        finally:
            call.cancel()  # gRPC would let an abandoned one run on

    def _request(self, turns: Sequence[Turn]) -> chat_pb2.ChatCompletionRequest:
        return chat_pb2.ChatCompletionRequest(
            model=self._options.model,
            messages=[chat_pb2.Message(role=_ROLES[turn.role], content=turn.content) for turn in turns],
            temperature=self._options.temperature,
            top_p=self._options.top_p,
            max_tokens=self._options.max_tokens,
            seed=self._options.seed,
        )

    def _service_error(self, error: grpc.aio.AioRpcError) -> ServiceError:
        """The server's own words where there are any; gRPC's speak of sockets and addresses."""
        own_words = any(key == _DETAILS_KEY for key, _ in error.trailing_metadata() or ())
        if own_words:
            return ServiceError(error.details() or error.code().name)
        match error.code():
            case grpc.StatusCode.UNAVAILABLE:
                return ServiceError(f"no gRPC server can be reached at {self._target}")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return ServiceError(f"{self._target} does not answer")
        details = " ".join((error.details() or "").split())
        return ServiceError(f"{self._target} does not answer as a chat server: {error.code().name} {details}".rstrip())


def _facts(model: chat_pb2.GetModelResponse) -> list[str]:
    context = f"context {model.max_context_tokens:,} tokens" if model.max_context_tokens else ""
    return [fact for fact in (model.device, model.dtype, context) if fact]


def _end(chunk: chat_pb2.ChatCompletionChunk) -> AnswerEnd:
    return AnswerEnd(
        completion_tokens=chunk.usage.completion_tokens,
        tokens_per_second=chunk.timings.tokens_per_second,
        time_to_first_token_ms=chunk.timings.time_to_first_token_ms,
        finish_reason=_FINISH_REASONS[chunk.choices[0].finish_reason],
    )
