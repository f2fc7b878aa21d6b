"""Everything that can go wrong on the HTTP side, always as OpenAI's error body.

From the server's gRPC status, from a request's schema, from routing. Fixed words: nothing of an exception gets out.
"""

import logging
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from google.rpc import error_details_pb2, status_pb2
from starlette.exceptions import HTTPException

from http_bridge.exchange import exchange_of
from protos.chat.v1.ranges import INNER_RANGES, RANGES, Range

_log = logging.getLogger(__name__)
_DETAILS_KEY = "grpc-status-details-bin"  # where gRPC keeps a google.rpc.Status
_SHOWN_CHARACTERS = 40
UNION_TAGS = ("<text>", "<parts>", "<text part>", "<refusal part>")  # places in pydantic's errors that are no fields
_QUOTED = "'([^']*)'"


class ApiError(HTTPException):
    """An answer that is an error, in OpenAI's terms."""

    def __init__(
        self,
        status_code: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, message, headers)
        self.param = param
        self.code = code
        self.is_queue_full = False  # the server would refuse any other chat of this client now too

    @property
    def kind(self) -> str:
        """OpenAI's word for what sort of error it is."""
        return _KINDS.get(self.status_code, "invalid_request_error" if self.status_code < 500 else "server_error")

    @property
    def reason(self) -> str:
        """What a log line says of it: nothing that was sent."""
        return self.code or self.kind

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": {"message": self.detail, "type": self.kind, "param": self.param, "code": self.code}}


_KINDS: Mapping[int, str] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True, slots=True)
class _Mapped:
    status_code: int
    code: str | None


_BY_GRPC_CODE: Mapping[grpc.StatusCode, _Mapped] = {
    grpc.StatusCode.INVALID_ARGUMENT: _Mapped(400, None),
    grpc.StatusCode.UNAUTHENTICATED: _Mapped(401, "invalid_api_key"),
    grpc.StatusCode.PERMISSION_DENIED: _Mapped(403, None),
    grpc.StatusCode.NOT_FOUND: _Mapped(404, "model_not_found"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: _Mapped(429, "rate_limit_exceeded"),
    grpc.StatusCode.UNIMPLEMENTED: _Mapped(501, None),
    grpc.StatusCode.UNAVAILABLE: _Mapped(503, "unavailable"),
    grpc.StatusCode.DEADLINE_EXCEEDED: _Mapped(504, "deadline_exceeded"),
}
_OWN_WORDS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


def from_grpc(error: grpc.aio.AioRpcError) -> ApiError:
    """The HTTP error for a call that failed.

    The server's own messages are meant for users. gRPC's are not (they name addresses), so where the server said
    nothing of its own, neither does the answer.
    """
    details = _details(error)
    mapped = _BY_GRPC_CODE.get(error.code())
    if mapped is None:
        return ApiError(500, (error.details() or "") if details else "internal error")
    if details is None and error.code() in _OWN_WORDS:
        return _without_details(error.code())
    bad_request, reason, retry = (
        error_details_pb2.BadRequest(),
        error_details_pb2.ErrorInfo(),
        error_details_pb2.RetryInfo(),
    )
    for packed in details.details if details else ():
        for kind in (bad_request, reason, retry):
            packed.Unpack(kind)
    param = bad_request.field_violations[0].field if bad_request.field_violations else None
    wait_s = retry.retry_delay.seconds + (retry.retry_delay.nanos > 0)
    headers = {"Retry-After": str(max(1, wait_s))} if mapped.status_code in (429, 503) else None
    is_queue_full = reason.reason == "QUEUE_FULL"
    code = mapped.code if is_queue_full else reason.reason.lower() or mapped.code
    found = ApiError(mapped.status_code, error.details() or "", param, code, headers)
    found.is_queue_full = is_queue_full
    return found


def _without_details(code: grpc.StatusCode) -> ApiError:
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's own limit on the size of a message
        return ApiError(413, "the request is larger than the inference server accepts", code="request_too_large")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return too_late()
    return unreachable()


def too_late() -> ApiError:
    """The request's own deadline has passed."""
    return ApiError(504, "the answer took longer than the request allowed", code="deadline_exceeded")


def unreachable() -> ApiError:
    """The inference server does not answer."""
    return ApiError(503, "the inference server cannot be reached", code="unavailable", headers={"Retry-After": "2"})


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def from_schema(error: RequestValidationError) -> ApiError:
    """The first problem alone, with the field's name and what it may be."""
    problem = error.errors()[0]
    path = [part for part in problem["loc"][1:] if part not in UNION_TAGS]  # without "body"
    if problem["type"] == "unsupported":
        path.append(problem["ctx"]["field"])
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    field = field if len(field) <= 2 * _SHOWN_CHARACTERS else ""
    return ApiError(400, f"{field or 'body'}: {_expected(field, problem)}", param=field or None)


def _expected(field: str, problem: Mapping[str, Any]) -> str:
    allowed, given = _range_of(field), problem.get("input")
    if allowed and problem["type"] != "unsupported":
        if isinstance(allowed.low, float) and isinstance(given, int) and not isinstance(given, bool):
            given = float(given)  # as the server shows it
        return f"expected {allowed}{_got(given)}"
    got = _got(given)
    match problem["type"]:
        case "missing":
            return "required"
        case "extra_forbidden":
            return "not a field of this service"
        case "unsupported":
            return str(problem["ctx"]["problem"])
        case "token_id_names":
            return 'expected token ids as names, such as "0"'
        case "too_long":
            return f"expected at most {problem['ctx']['max_length']} ids, got {problem['ctx']['actual_length']}"
        case "too_short":
            return f"expected at least 1 {'text part' if field.endswith('content') else 'id'}, got 0"
        case "literal_error" | "enum":
            allowed_names = re.findall(_QUOTED, problem["ctx"]["expected"])
            return f"expected {'one of ' * (len(allowed_names) > 1)}{', '.join(allowed_names)}"
        case kind if kind in _EXPECTED:
            return f"expected {_EXPECTED[kind]}{got}"
    return "not valid"


def _range_of(field: str) -> Range | None:
    if field == "max_completion_tokens":
        return RANGES["max_tokens"]
    return RANGES.get(field) or INNER_RANGES.get(re.sub(r"\[\d+\]$", "[]", field))


_EXPECTED: Mapping[str, str] = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "an integer",
    "list_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
    "string_too_long": "a shorter string",
}


def _got(value: object) -> str:
    """Numbers and truth values are shown; other input is not repeated."""
    if isinstance(value, bool) or value is None:
        return f", got {str(value).lower().replace('none', 'null')}"
    if isinstance(value, int | float):
        shown = repr(value) if not isinstance(value, int) or abs(value) < 10**_SHOWN_CHARACTERS else "a longer number"
        return f", got {shown}"
    kind = "a string" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"
    return f", got {kind}"


def own_fault(request_id: str) -> JSONResponse:
    """The answer to a request that failed inside the bridge: nothing of the failure but the id in the log."""
    return JSONResponse(ApiError(500, f"internal error, request id {request_id}").body(), 500)


def install_error_handlers(app: FastAPI) -> None:
    """Give every error that a route may raise OpenAI's body; accounting.py does it for faults of our own."""

    async def api_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        traceback.clear_frames(error.__traceback__)  # or a large body lives until cycles are collected
        exchange_of(request.scope).reason = error.reason
        return JSONResponse(error.body(), error.status_code, error.headers)

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if isinstance(error, ApiError):
            return await api_error(request, error)
        words = {404: "no such path", 405: "this path does not take that method"}
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"
        return await api_error(
            request, ApiError(error.status_code, words.get(error.status_code, "bad request"), headers=headers)
        )

    async def schema_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        traceback.clear_frames(error.__traceback__)
        return await api_error(request, from_schema(error))

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, schema_error)
