"""The boundary around every RPC: what comes in malformed and what goes wrong inside leaves as a proper status.

grpc.aio alone would send an exception's text to the client, and nothing at all when a handler is cancelled from inside.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
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


def request_id_of(context: Context) -> str:
    """The id that the client sent as metadata `x-request-id`; empty where there is none of the allowed form."""
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return ""


class ErrorBoundary(grpc.aio.ServerInterceptor):
    """Wraps unary-unary and unary-stream handlers; streaming handlers are coroutines that call `context.write`."""

    def __init__(self, on_malformed: Callable[[str, Context], None] = lambda method, context: None) -> None:
        """on_malformed is called for a message that no handler will see. method: as `/package.Service/Method`."""
        self._on_malformed = on_malformed

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler  # type: ignore[no-any-return]  # unknown method, or reflection
        wrap = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
        return wrap(
            _guarded(
                handler.unary_stream if handler.response_streaming else handler.unary_unary,
                partial(self._on_malformed, handler_call_details.method),
            ),
            request_deserializer=_or_malformed(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )


def _or_malformed(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """grpc.aio answers an exception in a deserializer by itself; the message goes on as an error instead."""

    def deserialize_safely(payload: bytes) -> Any:
        try:
            return deserialize(payload)
        except Exception:  # upb raises several kinds, none of them documented
            return MalformedMessage()

    return deserialize_safely


def _guarded(behavior: Behavior, on_malformed: Callable[[Context], None]) -> Behavior:
    async def call(request: Any, context: Context) -> Any:
        try:
            if isinstance(request, MalformedMessage):
                on_malformed(context)
                raise request
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
            return await context.abort(_CODES[status.code], status.message, metadata)
        except Exception as error:
            status = _internal(error, context)
        metadata = ((DETAILS_KEY, status.SerializeToString()),)
        return await context.abort(_CODES[status.code], status.message, metadata)

    return call


def _internal(error: BaseException, context: Context) -> status_pb2.Status:
    request_id = request_id_of(context) or uuid.uuid4().hex
    _log.error("request %s failed", request_id, exc_info=error)
    return internal_status(request_id)
