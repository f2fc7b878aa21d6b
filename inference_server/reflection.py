"""gRPC reflection under both of its names; grpcio-reflection itself registers v1alpha only.

The messages of v1 and v1alpha are the same on the wire.
"""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

_NAMES = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")


class _Reflection(aio.ReflectionServicer):  # type: ignore[misc]  # the package has no types
    """Reflection that also finds methods by name, and echoes the host, as grpc-go's does."""

    async def ServerReflectionInfo(
        self, request_iterator: AsyncIterable[reflection_pb2.ServerReflectionRequest], unused_context: Any
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        async for response in super().ServerReflectionInfo(request_iterator, unused_context):
            response.valid_host = response.original_request.host
            yield response

    def _file_containing_symbol(
        self, request: reflection_pb2.ServerReflectionRequest, fully_qualified_name: str
    ) -> reflection_pb2.ServerReflectionResponse:
        return super()._file_containing_symbol(request, _in_pool(fully_qualified_name))


def _in_pool(symbol: str) -> str:
    """The name by which protobuf's pool finds the file: it knows every symbol but the methods of services."""
    service, _, method = symbol.rpartition(".")
    try:
        known = method in descriptor_pool.Default().FindServiceByName(service).methods_by_name
    except KeyError:
        return symbol
    return service if known else symbol


def _describe_v1() -> None:
    """Put grpc.reflection.v1 into protobuf's pool: the package brings v1alpha alone, which has the same messages."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileContainingSymbol(_NAMES[1])
    except KeyError:
        described = FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(described)
        copied = text_format.MessageToString(described).replace("reflection.v1alpha", "reflection.v1")
        v1 = text_format.Parse(copied, FileDescriptorProto())
        v1.name = "grpc/reflection/v1/reflection.proto"
        pool.AddSerializedFile(v1.SerializeToString())


def add_reflection(server: grpc.aio.Server, service_names: tuple[str, ...]) -> None:
    """Makes the services discoverable, reflection itself included."""
    _describe_v1()
    servicer = _Reflection((*service_names, *_NAMES))
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
