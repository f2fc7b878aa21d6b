"""The JSON contract to chat.v1 messages and back, field by field. Knows no HTTP."""

from collections.abc import Iterable, Mapping
from typing import Any

from http_bridge.messages import Message
from http_bridge.schemas import ChatCompletionRequest, Resume
from protos.chat.v1 import chat_pb2

_ROLES: Mapping[str, chat_pb2.Role] = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}
_FINISH_REASONS: Mapping[int, str | None] = {
    chat_pb2.FINISH_REASON_UNSPECIFIED: None,
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_LENGTH: "length",
}
_HEALTH: Mapping[int, str] = {
    chat_pb2.MODEL_STATE_LOADING: "loading",
    chat_pb2.MODEL_STATE_READY: "ok",
    chat_pb2.MODEL_STATE_DRAINING: "draining",
}

Json = dict[str, Any]


def to_grpc(body: ChatCompletionRequest) -> chat_pb2.ChatCompletionRequest:
    """Unset stays unset."""
    return chat_pb2.ChatCompletionRequest(
        model=body.model,
        messages=[_message(message) for message in body.messages],
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        seed=body.seed,
        max_tokens=body.max_completion_tokens if body.max_tokens is None else body.max_tokens,
        stop=body.stop or (),
        ignore_eos=bool(body.ignore_eos),
        return_token_ids=bool(body.return_token_ids),
        min_p=body.min_p,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=body.repetition_penalty,
        logit_bias=body.logit_bias or {},
        min_tokens=body.min_tokens or 0,
        stop_token_ids=body.stop_token_ids or (),
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs,
        resume=_resume(body.resume) if body.resume else None,
        continuous_usage=bool(body.stream_options and body.stream_options.continuous_usage_stats),
    )


def _resume(resume: Resume) -> chat_pb2.Resume:
    return chat_pb2.Resume(token_ids=resume.token_ids, seed=resume.seed)


def _message(message: Message) -> chat_pb2.Message:
    parts = [message.content] if isinstance(message.content, str) else [part.text for part in message.content]
    return chat_pb2.Message(role=_ROLES[message.role], content="".join(parts), name=message.name)


def to_completion(answer: chat_pb2.ChatCompletion, body: ChatCompletionRequest) -> Json:
    """OpenAI's object and `response` at once."""
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "response": answer.choices[0].message.content,
        "choices": [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": choice.message.content, "refusal": None},
                "finish_reason": _FINISH_REASONS[choice.finish_reason],
                "logprobs": _logprobs(choice.logprobs) if body.logprobs else None,
            }
            | ({"token_ids": list(choice.token_ids)} if body.return_token_ids else {})
            for choice in answer.choices
        ],
        "usage": _usage(answer.usage),
        "seed": answer.seed,
        "timings": _timings(answer.timings),
    }


def finish_reason(ended: chat_pb2.ChatCompletion | chat_pb2.ChatCompletionChunk) -> str | None:
    """Of the first choice that has one."""
    return next((_FINISH_REASONS[one.finish_reason] for one in ended.choices if one.finish_reason), None)


class ChunkTranslator:
    """One stream's chunks to OpenAI's events. The first gRPC message says what all events repeat."""

    def __init__(self, first: chat_pb2.ChatCompletionChunk, body: ChatCompletionRequest) -> None:
        self._head = {
            "id": first.id,
            "object": "chat.completion.chunk",
            "created": first.created,
            "model": first.model,
        }
        self._seed = first.seed
        self._return_token_ids = bool(body.return_token_ids)
        self._include_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._running_usage: Json | None = None
        if first.HasField("running_usage"):
            prompt = first.running_usage
            self._running_usage = _usage(
                chat_pb2.Usage(
                    prompt_tokens=prompt.prompt_tokens,
                    total_tokens=prompt.prompt_tokens,
                    cached_tokens=prompt.cached_tokens,
                )
            )

    def opening(self) -> Json:
        """The event that names the role and the seed."""
        return self._event([_choice(0, {"role": "assistant", "content": ""}, None)], seed=self._seed)

    def text(self, content: str) -> Json:
        """The event of a piece of text and nothing else."""
        return self._event([_choice(0, {"content": content}, None)])

    def text_alone(self, chunk: chat_pb2.ChatCompletionChunk) -> str:
        """The chunk's text where `text` makes its only event; else empty."""
        if self._return_token_ids or self._running_usage or len(chunk.choices) != 1 or chunk.HasField("usage"):
            return ""
        delta = chunk.choices[0]
        return "" if delta.finish_reason or delta.logprobs or delta.index else delta.content

    def events(self, chunk: chat_pb2.ChatCompletionChunk) -> list[Json]:
        """What one gRPC message becomes: text, then the end, then usage where it was asked for."""
        events = []
        if chunk.HasField("running_usage"):
            self._running_usage = _usage(chunk.running_usage)
        for delta in chunk.choices:
            if delta.content or delta.token_ids or delta.logprobs:
                choice = _choice(delta.index, {"content": delta.content}, None)
                if delta.logprobs:
                    choice["logprobs"] = _logprobs(delta.logprobs)
                if self._return_token_ids:
                    choice["token_ids"] = list(delta.token_ids)
                events.append(self._event([choice]))
            if delta.finish_reason:
                end = _choice(delta.index, {}, _FINISH_REASONS[delta.finish_reason])
                events.append(self._event([end], timings=_timings(chunk.timings)))
        if chunk.HasField("usage") and self._include_usage:
            events.append(self._event([]) | {"usage": _usage(chunk.usage)})
        return events

    def _event(self, choices: list[Json], **more: object) -> Json:
        usage = {"usage": self._running_usage} if self._include_usage or self._running_usage else {}
        return {**self._head, "choices": choices, **usage, **more}


def _choice(index: int, delta: Json, finish_reason: str | None) -> Json:
    return {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _logprobs(logprobs: Iterable[chat_pb2.TokenLogprob]) -> Json:
    content = [_logprob(one) | {"top_logprobs": [_logprob(top) for top in one.top_logprobs]} for one in logprobs]
    return {"content": content, "refusal": None}


def _logprob(one: chat_pb2.TokenLogprob | chat_pb2.TopLogprob) -> Json:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.token_bytes)}


def _usage(usage: chat_pb2.Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _timings(timings: chat_pb2.Timings) -> Json:
    return {
        "queue_ms": round(timings.queue_ms, 3),
        "prefill_ms": round(timings.prefill_ms, 3),
        "time_to_first_token_ms": round(timings.time_to_first_token_ms, 3),
        "decode_ms": round(timings.decode_ms, 3),
        "tokens_per_second": round(timings.tokens_per_second, 3),
    }


def to_health(model: chat_pb2.GetModelResponse) -> Json:
    """The server's state in the words of `GET /health`."""
    health: Json = {"status": _HEALTH.get(model.state, "unavailable"), "model": model.name}
    if model.notice:
        health["notice"] = model.notice
    if model.state == chat_pb2.MODEL_STATE_LOADING:
        health["progress"] = model.load_percent
    return health


def to_model_card(model: chat_pb2.GetModelResponse) -> Json:
    """OpenAI's model object, with vLLM's `max_model_len`."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "local",
        "max_model_len": model.max_context_tokens,
    }
