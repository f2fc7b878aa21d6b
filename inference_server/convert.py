"""Protobuf messages to domain types and back. The only file that knows both; the request's checks live here."""

from collections.abc import Mapping, Sequence
from typing import Any

from inference_server.chat.types import ChatRequest, Message, Role
from inference_server.completion import Completion, Delta, Timings, TokenLogprob
from inference_server.engine.types import EngineUse, FinishReason
from inference_server.errors import InvalidField
from protos.chat.v1 import chat_pb2
from protos.chat.v1.ranges import (
    INNER_RANGES,
    MAX_LOGIT_BIASES,
    MAX_NAME_CHARACTERS,
    MAX_RESUMED_TOKEN_IDS,
    MAX_STOP_CHARACTERS,
    MAX_STOP_TEXTS,
    MAX_STOP_TOKEN_IDS,
    RANGES,
    TOKEN_IDS,
    Range,
)

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
_LEAST_LOGPROB = -9999.0  # OpenAI's word for a token that is all but impossible; JSON has no infinity


def to_chat_request(request: chat_pb2.ChatCompletionRequest, max_messages: int) -> ChatRequest:
    """Raises InvalidField, naming the first field at fault and what it may be."""
    if not 1 <= len(request.messages) <= max_messages:
        raise InvalidField("messages", f"expected 1 to {max_messages} messages, got {len(request.messages)}")
    chosen = _ranged(request)
    chosen["seed"], resumed_token_ids = _resume(request)
    chosen["top_logprobs"] = _top_logprobs(request)
    return ChatRequest(
        model=request.model if request.HasField("model") else None,
        messages=tuple(_message(index, message) for index, message in enumerate(request.messages)),
        stop=_stop(request),
        ignore_eos=request.ignore_eos,
        return_token_ids=request.return_token_ids,
        logit_bias=_logit_bias(request),
        stop_token_ids=_token_ids("stop_token_ids", request.stop_token_ids, MAX_STOP_TOKEN_IDS),
        resumed_token_ids=resumed_token_ids,
        **chosen,
    )


def _ranged(request: chat_pb2.ChatCompletionRequest) -> dict[str, Any]:
    """The fields that have a range; None where one is unset and that differs from 0."""
    fields = [field for field in request.DESCRIPTOR.fields if field.name in RANGES]
    chosen = {
        field.name: None if field.has_presence and not request.HasField(field.name) else getattr(request, field.name)
        for field in fields
    }
    for name, value in chosen.items():
        if value is not None:
            _require(name, value, RANGES[name])
    return chosen


def _require(field: str, value: float, allowed: Range) -> None:
    if value not in allowed:
        raise InvalidField(field, f"expected {allowed}, got {value}")


def _message(index: int, message: chat_pb2.Message) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidField(f"messages[{index}].role", f"expected one of {', '.join(_ROLES.values())}")
    if len(message.name) > MAX_NAME_CHARACTERS:
        expected = f"expected at most {MAX_NAME_CHARACTERS} characters, got {len(message.name)}"
        raise InvalidField(f"messages[{index}].name", expected)
    return Message(role, message.content, message.name or None)


def _stop(request: chat_pb2.ChatCompletionRequest) -> tuple[str, ...]:
    if len(request.stop) > MAX_STOP_TEXTS:
        raise InvalidField("stop", f"expected at most {MAX_STOP_TEXTS} texts, got {len(request.stop)}")
    for index, text in enumerate(request.stop):
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise InvalidField(f"stop[{index}]", f"expected 1 to {MAX_STOP_CHARACTERS} characters, got {len(text)}")
    return tuple(request.stop)


def _logit_bias(request: chat_pb2.ChatCompletionRequest) -> tuple[tuple[int, float], ...]:
    if len(request.logit_bias) > MAX_LOGIT_BIASES:
        raise InvalidField("logit_bias", f"expected at most {MAX_LOGIT_BIASES} ids, got {len(request.logit_bias)}")
    for token_id, bias in sorted(request.logit_bias.items()):
        _require(f"logit_bias[{token_id}]", token_id, TOKEN_IDS)
        _require(f"logit_bias[{token_id}]", bias, INNER_RANGES["logit_bias[]"])
    return tuple(sorted(request.logit_bias.items()))


def _token_ids(field: str, token_ids: Sequence[int], most: int) -> tuple[int, ...]:
    if len(token_ids) > most:
        raise InvalidField(field, f"expected at most {most} ids, got {len(token_ids)}")
    taken = tuple(token_ids)  # once: upb makes each number anew
    if taken and min(taken) not in TOKEN_IDS:
        place = next(place for place, token_id in enumerate(taken) if token_id not in TOKEN_IDS)
        _require(f"{field}[{place}]", taken[place], TOKEN_IDS)
    return taken


def _top_logprobs(request: chat_pb2.ChatCompletionRequest) -> int | None:
    if request.top_logprobs and not request.logprobs:
        raise InvalidField("top_logprobs", "only with logprobs true")
    return request.top_logprobs if request.logprobs else None


def _resume(request: chat_pb2.ChatCompletionRequest) -> tuple[int | None, tuple[int, ...]]:
    """The seed, said in one place or both, and the tokens to continue after."""
    seed = request.seed if request.HasField("seed") else None
    if not request.HasField("resume"):
        return seed, ()
    if not request.resume.token_ids:
        raise InvalidField("resume.token_ids", "expected at least 1 id, got 0")
    if request.resume.HasField("seed"):
        if seed not in (None, request.resume.seed):
            raise InvalidField("resume.seed", "must equal seed where both are set")
        seed = request.resume.seed
    return seed, _token_ids("resume.token_ids", request.resume.token_ids, MAX_RESUMED_TOKEN_IDS)


def to_completion(
    completion: Completion, model: str, deltas: Sequence[Delta], return_token_ids: bool
) -> chat_pb2.ChatCompletion:
    """The whole answer of a completion that has ended."""
    text = "".join(delta.text for delta in deltas)
    choice = chat_pb2.Choice(
        index=0,
        message=chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, content=text),
        finish_reason=_FINISH_REASONS[completion.finish_reason],
        token_ids=[token_id for delta in deltas for token_id in delta.token_ids] if return_token_ids else [],
        logprobs=[_logprob(logprob) for delta in deltas for logprob in delta.logprobs],
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
    completion: Completion, model: str, delta: Delta, first: bool, request: chat_pb2.ChatCompletionRequest
) -> chat_pb2.ChatCompletionChunk:
    """One message of the stream; the first also says what answers, the last how it went."""
    chunk = chat_pb2.ChatCompletionChunk()
    if first:
        chunk.id, chunk.created, chunk.model, chunk.seed = completion.id, completion.created_s, model, completion.seed
    if request.continuous_usage:
        chunk.running_usage.CopyFrom(_usage(completion))
    choice = chunk.choices.add(content=delta.text)
    if request.return_token_ids:
        choice.token_ids.extend(delta.token_ids)
    if delta.logprobs:
        choice.logprobs.extend(map(_logprob, delta.logprobs))
    if delta.finish_reason:
        choice.finish_reason = _FINISH_REASONS[delta.finish_reason]
        chunk.usage.CopyFrom(_usage(completion))
        chunk.timings.CopyFrom(_timings(completion.timings()))
    return chunk


def _logprob(found: TokenLogprob) -> chat_pb2.TokenLogprob:
    return chat_pb2.TokenLogprob(
        token=_shown(found),
        token_id=found.token_id,
        logprob=_finite(found.logprob),
        token_bytes=found.shown_bytes,
        top_logprobs=[
            chat_pb2.TopLogprob(
                token=_shown(top), token_id=top.token_id, logprob=_finite(top.logprob), token_bytes=top.shown_bytes
            )
            for top in found.top
        ],
    )


def _shown(found: TokenLogprob) -> str:
    return found.shown_bytes.decode(errors="replace")


def _finite(logprob: float) -> float:
    return logprob if logprob > _LEAST_LOGPROB else _LEAST_LOGPROB  # also for NaN


def _usage(completion: Completion) -> chat_pb2.Usage:
    prompt_tokens, completion_tokens = completion.prompt_token_count, completion.token_count
    return chat_pb2.Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        cached_tokens=completion.cached_token_count,
    )


def _timings(timings: Timings) -> chat_pb2.Timings:
    return chat_pb2.Timings(
        queue_ms=timings.queue_ms,
        prefill_ms=timings.prefill_ms,
        time_to_first_token_ms=timings.time_to_first_token_ms,
        decode_ms=timings.decode_ms,
        tokens_per_second=timings.tokens_per_second,
    )


def to_engine_use(use: EngineUse) -> chat_pb2.EngineUse:
    """What GetModel says of the engine."""
    counts, cache = use.counts, use.cache
    return chat_pb2.EngineUse(
        running=use.running_count,
        waiting=use.waiting_count,
        started=counts.started,
        finished=counts.finished,
        cancelled=counts.cancelled,
        failed=counts.failed,
        preempted=counts.preempted,
        prompt_tokens=counts.prompt_tokens,
        generated_tokens=counts.generated_tokens,
        block_tokens=cache.block_size,
        total_blocks=cache.total_blocks,
        used_blocks=cache.used_blocks,
        cached_blocks=cache.cached_blocks,
        prefix_queried_tokens=cache.queried_tokens,
        prefix_hit_tokens=cache.hit_tokens,
    )
