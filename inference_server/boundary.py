"""The boundary around every RPC: what comes in malformed and what goes wrong inside leaves as a proper status.

grpc.aio alone would send an exception's text to the client, and nothing at all when a handler is cancelled from inside.
"""

import asyncio
import logging
import re
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import grpc
from google.rpc import status_pb2

from inference_server.errors import MalformedMessage, RequestError
from inference_server.status import DETAILS_KEY, internal_status, to_status, trailing_metadata

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CODES = {code.value[0]: code for code in grpc.StatusCode}

Context = grpc.aio.ServicerContext[Any, Any]
Behavior = Callable[[Any, Context], Awaitable[Any]]
Deserializer = Callable[[bytes], Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


def request_id_of(metadata: "Iterable[tuple[str, str | bytes]] | None") -> str:
    """Return the id that the client sent as metadata `x-request-id`; empty if there is none of the allowed form."""
    for key, value in metadata or ():
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return ""


def rewrapped(handler: Any, wrap: Callable[[Behavior], Behavior], deserialize: "Deserializer | None" = None) -> Any:
    """Return the handler with its coroutine wrapped. Handlers with a stream of requests (reflection) stay as they are.

    Streaming handlers are coroutines that call `context.write`.
    """
    if handler is None or handler.request_streaming:
        return handler
    make = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
    return make(
        wrap(handler.unary_stream if handler.response_streaming else handler.unary_unary),
        request_deserializer=deserialize or handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


class ErrorBoundary(grpc.aio.ServerInterceptor):
    """Turns every exception into a status. To be the outermost interceptor."""

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return rewrapped(await continuation(handler_call_details), _guarded)


class WellFormed(grpc.aio.ServerInterceptor):
    """Raises the error of a message in the handler's place. To be the innermost interceptor.

    grpc.aio would answer an exception in a deserializer by itself, where no other interceptor sees it.
    checks: by a method's path, what its message's bytes must pass before they are parsed. Each raises RequestError.
    """

    def __init__(self, checks: Mapping[str, Callable[[bytes], None]]) -> None:
        self._checks = checks

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler: Any = await continuation(handler_call_details)
        check = self._checks.get(handler_call_details.method)
        return handler and rewrapped(handler, _well_formed, _or_error(handler.request_deserializer, check))


def _well_formed(behavior: Behavior) -> Behavior:
    async def call(request: Any, context: Context) -> Any:
        if isinstance(request, RequestError):
            raise request
        return await behavior(request, context)

    return call


def _or_error(deserialize: Deserializer, check: Callable[[bytes], None] | None) -> Deserializer:
    def deserialize_safely(payload: bytes) -> Any:
        try:
            if check:
                check(payload)
            return deserialize(payload)
        except RequestError as error:
            return error
        except Exception:  # upb raises several kinds, none of them documented
            return MalformedMessage()

    return deserialize_safely


def _guarded(behavior: Behavior) -> Behavior:
    async def call(request: Any, context: Context) -> Any:
        try:
            return await behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task and task.cancelling():  # the client has gone
                raise
            status = _internal(error, context)
        except grpc.aio.InternalError:  # a write to a client that has gone: there is nobody to send a status to
            raise asyncio.CancelledError from None
        except RequestError as error:
            status = to_status(error)
            metadata = trailing_metadata(error, status)
            traceback.clear_frames(error.__traceback__)  # or a large request lives until cycles are collected
            return await context.abort(_CODES[status.code], status.message, metadata)
        except Exception as error:
            status = _internal(error, context)
        metadata = ((DETAILS_KEY, status.SerializeToString()),)
        return await context.abort(_CODES[status.code], status.message, metadata)

    return call


def _internal(error: BaseException, context: Context) -> status_pb2.Status:
    request_id = request_id_of(context.invocation_metadata()) or uuid.uuid4().hex
    _log.error("request %s failed", request_id, exc_info=error)
    return internal_status(request_id)
