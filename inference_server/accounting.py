"""One line in the log and one count in the metrics for every chat, however it ends.

A chat is a call of a chat method, or of a method of the chat service that is not there; also a call whose message never
reached a handler.
"""

import asyncio
import logging
import time
from typing import Any

import grpc

from inference_server.boundary import Behavior, Context, Continuation, request_id_of, rewrapped
from inference_server.completion import Completion
from inference_server.errors import (
    ClientStalled,
    InvalidField,
    MalformedMessage,
    PromptTooLong,
    RequestError,
    TookTooLong,
    UnknownModel,
)
from inference_server.metrics import Metrics
from observability.logs import fields
from protos.chat.v1 import chat_pb2

_log = logging.getLogger(__name__)


_CHAT = chat_pb2.DESCRIPTOR.services_by_name["ChatService"]
_SERVICE_PATH = f"/{_CHAT.full_name}/"
_CHAT_METHODS = {one.name for one in _CHAT.methods if one.input_type is chat_pb2.ChatCompletionRequest.DESCRIPTOR}


class Record:
    """One chat. `completion` is set once it is open, `outcome` at the end."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.completion: Completion | None = None
        self.outcome: str | None = None
        self.started_s = time.perf_counter()


class Accounting(grpc.aio.ServerInterceptor):
    """Stands around every chat, inside the error boundary, which makes a status of what it has seen."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._records: dict[asyncio.Task[Any], Record] = {}

    @property
    def record(self) -> Record:
        """The record of the chat whose handler asks."""
        return self._records[_current_task()]

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method: str = handler_call_details.method
        handler = await continuation(handler_call_details)
        if not method.startswith(_SERVICE_PATH) or (handler and method.rpartition("/")[2] not in _CHAT_METHODS):
            return handler
        # this runs in the task of the whole call, which ends whether or not a handler is reached
        record = self._records[_current_task()] = Record(request_id_of(handler_call_details.invocation_metadata))
        _current_task().add_done_callback(self._call_ended)
        if handler is None:
            self._note(record, "unimplemented")
        return rewrapped(handler, self._accounted)

    def _accounted(self, behavior: Behavior) -> Behavior:
        async def call(request: Any, context: Context) -> Any:
            record, outcome = self.record, "failed"
            try:
                answer = await behavior(request, context)
                assert record.completion
                assert record.completion.finish_reason
                outcome = record.completion.finish_reason.value
            except BaseException as error:
                outcome = _outcome(error, context)
                raise
            finally:
                self._note(record, outcome)
            return answer

        return call

    def _call_ended(self, task: "asyncio.Task[Any]") -> None:
        """gRPC's core had no whole message for a handler: it was too large or unreadable, or the client had gone."""
        record = self._records.pop(task)
        if record.outcome is None:
            self._note(record, "unread")

    def _note(self, record: Record, outcome: str) -> None:
        record.outcome = outcome
        total_s = time.perf_counter() - record.started_s
        self._metrics.requests.labels(outcome).inc()
        completion = record.completion
        if completion is None:
            _log.info("chat", extra=fields(request_id=record.request_id, reason=outcome, total_ms=_ms(total_s)))
            return
        timings = completion.timings() if completion.has_begun else None
        if timings:
            self._metrics.queue_s.observe(timings.queue_ms / 1e3)
            self._metrics.first_token_s.observe(timings.time_to_first_token_ms / 1e3)
        if completion.finish_reason:
            self._metrics.end_to_end_s.observe(total_s)
            self._metrics.prompt_tokens.observe(completion.prompt_token_count)
            self._metrics.generation_tokens.observe(completion.token_count)
        _log.info(
            "chat",
            extra=fields(
                id=completion.id,
                request_id=record.request_id,
                prompt_tokens=completion.prompt_token_count,
                cached_tokens=completion.cached_token_count,
                completion_tokens=completion.token_count,
                ttft_ms=timings and round(timings.time_to_first_token_ms, 1),
                total_ms=_ms(total_s),
                reason=outcome,
            ),
        )


def _outcome(error: BaseException, context: Context) -> str:
    """One of metrics.OUTCOMES."""
    if isinstance(error, asyncio.CancelledError | grpc.aio.InternalError):  # the client has left, or its time is over
        remaining_s = context.time_remaining()
        return "cancelled" if remaining_s is None or remaining_s > 0 else "deadline"
    if isinstance(error, ClientStalled):
        return "stalled"
    if isinstance(error, TookTooLong):
        return "deadline"
    if isinstance(error, InvalidField | MalformedMessage | PromptTooLong | UnknownModel):
        return "invalid"
    return "refused" if isinstance(error, RequestError) else "failed"


def _current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task
    return task


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)
