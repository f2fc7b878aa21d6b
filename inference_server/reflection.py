"""gRPC reflection under both of its names; grpcio-reflection itself registers v1alpha only.

The messages of v1 and v1alpha are the same on the wire.
"""

from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

_NAMES = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")


def add_reflection(server: grpc.aio.Server, service_names: tuple[str, ...]) -> None:
    """Makes the services discoverable, reflection itself included."""
    servicer = aio.ReflectionServicer((*service_names, *_NAMES))
    method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=_request_or_empty,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in _NAMES:
        handler = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handler,))


def _request_or_empty(payload: bytes) -> reflection_pb2.ServerReflectionRequest:
    """An empty request is answered with INVALID_ARGUMENT; an exception here would leave the server as its text."""
    try:
        return reflection_pb2.ServerReflectionRequest.FromString(payload)
    except Exception:  # upb raises several kinds, none of them documented
        return reflection_pb2.ServerReflectionRequest()
