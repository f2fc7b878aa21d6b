"""One line in the log and one count in the metrics for every chat, however it ends."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from inference_server.boundary import Context, request_id_of
from inference_server.completion import Completion
from inference_server.errors import (
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
_SERVICE = chat_pb2.DESCRIPTOR.services_by_name["ChatService"]
_CHATS = {f"/{_SERVICE.full_name}/{name}" for name in ("CreateChatCompletion", "StreamChatCompletion")}


class Record:
    """One chat. `completion` is set once it is open."""

    def __init__(self) -> None:
        self.completion: Completion | None = None
        self.outcome = ""
        self.started_s = time.perf_counter()


class Accounting:
    """Stands around every chat's handler."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @contextmanager
    def chat(self, context: Context) -> Iterator[Record]:
        """Notes how the block ends. To be entered first, so that refusals are counted too."""
        record = Record()
        try:
            yield record
            assert record.completion
            assert record.completion.finish_reason
            record.outcome = record.completion.finish_reason.value
        except BaseException as error:
            record.outcome = _outcome(error, context)
            raise
        finally:
            self._note(record, request_id_of(context))

    def malformed(self, method: str, context: Context) -> None:
        """Note a chat whose message could not be read, which no handler sees."""
        if method in _CHATS:
            with contextlib.suppress(MalformedMessage), self.chat(context):
                raise MalformedMessage

    def _note(self, record: Record, request_id: str) -> None:
        total_s = time.perf_counter() - record.started_s
        self._metrics.requests.labels(record.outcome).inc()
        completion = record.completion
        if completion is None:
            _log.info("chat", extra=fields(request_id=request_id, reason=record.outcome, total_ms=_ms(total_s)))
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
                request_id=request_id,
                prompt_tokens=completion.prompt_token_count,
                cached_tokens=completion.cached_token_count,
                completion_tokens=completion.token_count,
                ttft_ms=timings and round(timings.time_to_first_token_ms, 1),
                total_ms=_ms(total_s),
                reason=record.outcome,
            ),
        )


def _outcome(error: BaseException, context: Context) -> str:
    """One of metrics.OUTCOMES."""
    if isinstance(error, asyncio.CancelledError | grpc.aio.InternalError):  # the client has left, or its time is over
        remaining_s = context.time_remaining()
        return "cancelled" if remaining_s is None or remaining_s > 0 else "deadline"
    if isinstance(error, TookTooLong):
        return "deadline"
    if isinstance(error, InvalidField | MalformedMessage | PromptTooLong | UnknownModel):
        return "invalid"
    return "refused" if isinstance(error, RequestError) else "failed"


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)
