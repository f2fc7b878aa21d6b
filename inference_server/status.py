"""The one table from domain errors to gRPC status and google.rpc details."""

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from inference_server.errors import (
    ClientStalled,
    InvalidField,
    MalformedMessage,
    OutOfMemory,
    PromptTooLong,
    QueueFull,
    RequestError,
    TookTooLong,
    TooManyFields,
    Unavailable,
    UnknownModel,
)

DETAILS_KEY = "grpc-status-details-bin"  # where gRPC keeps a google.rpc.Status
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_DOMAIN = "chat.v1"


def to_status(error: RequestError) -> status_pb2.Status:
    """The status for an error that its sender may read."""
    match error:
        case InvalidField(field=field, problem=problem):
            return _status(code_pb2.INVALID_ARGUMENT, error, _bad_request(field, problem))
        case PromptTooLong(field=field):
            reason = error_details_pb2.ErrorInfo(reason="CONTEXT_LENGTH_EXCEEDED", domain=_DOMAIN)
            return _status(code_pb2.INVALID_ARGUMENT, error, _bad_request(field, str(error)), reason)
        case MalformedMessage() | TooManyFields():
            return _status(code_pb2.INVALID_ARGUMENT, error)
        case QueueFull(retry_after_s=retry_after_s, concerns_client=True):
            reason = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain=_DOMAIN)
            return _status(code_pb2.RESOURCE_EXHAUSTED, error, _retry(retry_after_s), reason)
        case OutOfMemory(retry_after_s=retry_after_s) | QueueFull(retry_after_s=retry_after_s):
            return _status(code_pb2.RESOURCE_EXHAUSTED, error, _retry(retry_after_s))
        case ClientStalled():
            return _status(code_pb2.ABORTED, error)
        case TookTooLong():
            return _status(code_pb2.DEADLINE_EXCEEDED, error)
        case UnknownModel():
            return _status(code_pb2.NOT_FOUND, error, _bad_request("model", str(error)))
        case Unavailable(retry_after_s=retry_after_s):
            return _status(code_pb2.UNAVAILABLE, error, _retry(retry_after_s))
    raise TypeError(f"no status for {type(error).__name__}")


def trailing_metadata(error: RequestError, status: status_pb2.Status) -> tuple[tuple[str, str | bytes], ...]:
    """What goes with a status: its details, and when gRPC's own retries may come again."""
    details = ((DETAILS_KEY, status.SerializeToString()),)
    retry_after_s = getattr(error, "retry_after_s", None)
    return details if retry_after_s is None else (*details, (_PUSHBACK_KEY, str(1000 * retry_after_s)))


def internal_status(request_id: str) -> status_pb2.Status:
    """The status for an error that is our own fault: nothing of it leaves the server but the id in its log."""
    return status_pb2.Status(code=code_pb2.INTERNAL, message=f"internal error, request id {request_id}")


def _status(code: code_pb2.Code, error: RequestError, *details: Message) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code, message=str(error), details=packed)


def _retry(after_s: int) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=after_s))


def _bad_request(field: str, problem: str) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=problem)
    return error_details_pb2.BadRequest(field_violations=[violation])
