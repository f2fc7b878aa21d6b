"""Protobuf messages to domain types and back. The only file that knows both; the request's checks live here."""

from collections.abc import Mapping

from inference_server.chat.types import ChatRequest, Message, Role
from inference_server.completion import Completion, Delta, Timings
from inference_server.engine.types import FinishReason
from inference_server.errors import InvalidField
from protos.chat.v1 import chat_pb2
from protos.chat.v1.ranges import MAX_STOP_CHARACTERS, MAX_STOP_TEXTS, RANGES

_ROLES: Mapping[int, Role] = {
    chat_pb2.ROLE_SYSTEM: Role.SYSTEM,
    chat_pb2.ROLE_USER: Role.USER,
    chat_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    chat_pb2.ROLE_TOOL: Role.TOOL,
}
_FINISH_REASONS: Mapping[FinishReason | None, chat_pb2.FinishReason] = {
    None: chat_pb2.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: chat_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: chat_pb2.FINISH_REASON_LENGTH,
}


def to_chat_request(request: chat_pb2.ChatCompletionRequest, max_messages: int) -> ChatRequest:
    """Raises InvalidField, naming the first field at fault and what it may be."""
    if not 1 <= len(request.messages) <= max_messages:
        raise InvalidField("messages", f"expected 1 to {max_messages} messages, got {len(request.messages)}")
    ranged = {name: getattr(request, name) if request.HasField(name) else None for name in RANGES}
    for name, value in ranged.items():
        if value is not None and value not in RANGES[name]:
            raise InvalidField(name, f"expected {RANGES[name]}, got {value}")
    return ChatRequest(
        model=request.model if request.HasField("model") else None,
        messages=tuple(_message(index, message) for index, message in enumerate(request.messages)),
        stop=_stop(request),
        ignore_eos=request.ignore_eos,
        return_token_ids=request.return_token_ids,
        **ranged,
    )


def _message(index: int, message: chat_pb2.Message) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidField(f"messages[{index}].role", f"expected one of {', '.join(_ROLES.values())}")
    return Message(role, message.content)


def _stop(request: chat_pb2.ChatCompletionRequest) -> tuple[str, ...]:
    if len(request.stop) > MAX_STOP_TEXTS:
        raise InvalidField("stop", f"expected at most {MAX_STOP_TEXTS} texts, got {len(request.stop)}")
    for index, text in enumerate(request.stop):
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise InvalidField(f"stop[{index}]", f"expected 1 to {MAX_STOP_CHARACTERS} characters, got {len(text)}")
    return tuple(request.stop)


def to_completion(
    completion: Completion, model: str, text: str, token_ids: list[int], return_token_ids: bool
) -> chat_pb2.ChatCompletion:
    """The whole answer of a completion that has ended."""
    choice = chat_pb2.Choice(
        index=0,
        message=chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, content=text),
        finish_reason=_FINISH_REASONS[completion.finish_reason],
        token_ids=token_ids if return_token_ids else [],
    )
    return chat_pb2.ChatCompletion(
        id=completion.id,
        created=completion.created_s,
        model=model,
        choices=[choice],
        usage=_usage(completion),
        timings=_timings(completion.timings()),
        seed=completion.seed,
    )


def to_chunk(
    completion: Completion, model: str, delta: Delta, first: bool, return_token_ids: bool
) -> chat_pb2.ChatCompletionChunk:
    """One message of the stream; the first also says what answers, the last how it went."""
    chunk = chat_pb2.ChatCompletionChunk()
    if first:
        chunk.id, chunk.created, chunk.model, chunk.seed = completion.id, completion.created_s, model, completion.seed
    choice = chunk.choices.add(index=0, content=delta.text, finish_reason=_FINISH_REASONS[delta.finish_reason])
    if return_token_ids:
        choice.token_ids.extend(delta.token_ids)
    if delta.finish_reason:
        chunk.usage.CopyFrom(_usage(completion))
        chunk.timings.CopyFrom(_timings(completion.timings()))
    return chunk


def _usage(completion: Completion) -> chat_pb2.Usage:
    prompt_tokens, completion_tokens = completion.prompt_token_count, completion.token_count
    return chat_pb2.Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )


def _timings(timings: Timings) -> chat_pb2.Timings:
    return chat_pb2.Timings(
        queue_ms=timings.queue_ms,
        prefill_ms=timings.prefill_ms,
        time_to_first_token_ms=timings.time_to_first_token_ms,
        decode_ms=timings.decode_ms,
        tokens_per_second=timings.tokens_per_second,
    )
