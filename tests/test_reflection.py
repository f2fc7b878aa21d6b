"""Reflection answers as its proto says and as grpc-go's server does: every symbol, echoed requests, errors in place."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from sys import executable
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inference_server.listener import CHAT_SERVICE
from tests.conftest import Service
from tests.programs import ROOT

SERVICES = [
    "chat.v1.ChatService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]
Request: Any = reflection_pb2.ServerReflectionRequest
VERSIONS = ["v1", "v1alpha"]


async def ask(address: str, version: str, *requests: Any) -> list[Any]:
    """The answers to all requests on one stream."""

    async def sent() -> AsyncIterator[Any]:
        for request in requests:
            yield request

    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=Request.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        return [response async for response in call(sent(), timeout=30)]


def symbols(file: Any) -> Iterator[str]:
    """Every name that protobuf's scoping gives the file: an enum's values belong to the scope around the enum."""
    for service in file.service:
        yield f"{file.package}.{service.name}"
        yield from (f"{file.package}.{service.name}.{method.name}" for method in service.method)
    yield from (f"{file.package}.{value.name}" for enum in file.enum_type for value in enum.value)
    yield from (f"{file.package}.{enum.name}" for enum in file.enum_type)
    for message in file.message_type:
        yield from _symbols_of(message, file.package)


def _symbols_of(message: Any, scope: str) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    yield name
    yield from (f"{name}.{inner.name}" for inner in (*message.field, *message.oneof_decl, *message.enum_type))
    for nested in message.nested_type:
        yield from _symbols_of(nested, name)


def declared(response: Any) -> Any:
    """The file that was asked for comes first."""
    return descriptor_pb2.FileDescriptorProto.FromString(response.file_descriptor_response.file_descriptor_proto[0])


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_symbol_of_every_listed_service_is_found(service: Service, version: str) -> None:
    [listed] = await ask(service.grpc_address, version, Request(list_services=""))
    names = [one.name for one in listed.list_services_response.service]
    assert names == SERVICES
    for name in names:
        [response] = await ask(service.grpc_address, version, Request(file_containing_symbol=name))
        file = declared(response)
        every = list(symbols(file))
        assert name in every
        asked = [Request(file_containing_symbol=symbol) for symbol in every]
        answers = await ask(service.grpc_address, version, *asked, Request(file_by_filename=file.name))
        assert [declared(answer) for answer in answers] == [file] * (len(every) + 1)


@pytest.mark.parametrize(
    "symbol",
    [
        "chat.v1.ChatService.Nope", "chat.v1.Nope", "Nope", "", ".", "..", "chat.v1", "chat.v1.ChatService.",
        ".chat.v1.ChatService", "chat.v1.Message.CreateChatCompletion", "chat.v1.ChatService.CreateChatCompletion.x",
        "x" * 100_000, "." * 100_000, "grpc.reflection.v1.ServerReflection.Nope",
    ],
)  # fmt: skip
async def test_unknown_symbol_is_not_found_and_the_stream_goes_on(service: Service, symbol: str) -> None:
    known = Request(file_containing_symbol=CHAT_SERVICE)
    unknown = Request(file_containing_symbol=symbol, host="a.example")
    first, second = await ask(service.grpc_address, "v1", unknown, known)
    assert first.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert (first.valid_host, first.original_request) == ("a.example", unknown)
    assert declared(second).package == "chat.v1"


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_answer_says_which_host_and_request_it_is_for(service: Service, version: str) -> None:
    extension = reflection_pb2.ExtensionRequest(containing_type="chat.v1.Message", extension_number=1)
    requests = [
        Request(host="one.example:443", list_services=""),
        Request(host="two.example", file_by_filename="nope.proto"),
        Request(host="三", file_containing_symbol="chat.v1.ChatService.GetModel"),
        Request(host="four", file_containing_extension=extension),
        Request(host="five", all_extension_numbers_of_type="chat.v1.Message"),
        Request(host="six"),
        Request(list_services="*"),
    ]
    answers = await ask(service.grpc_address, version, *requests)
    assert [answer.original_request for answer in answers] == requests
    assert [answer.valid_host for answer in answers] == [request.host for request in requests]
    kinds = [answer.WhichOneof("message_response") for answer in answers]
    assert kinds == [
        "list_services_response", "error_response", "file_descriptor_response", "error_response",
        "all_extension_numbers_response", "error_response", "list_services_response",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("symbol", "shown"),
    [
        ("chat.v1.ChatService.CreateChatCompletion", "rpc CreateChatCompletion ( .chat.v1.ChatCompletionRequest )"),
        ("chat.v1.ChatService", "is a service"),
        ("chat.v1.ChatCompletionRequest.seed", "is a field"),
        ("chat.v1.Role", "is an enum"),
        ("grpc.reflection.v1.ServerReflection.ServerReflectionInfo", "is a method"),
        ("grpc.health.v1.Health.Watch", "is a method"),
    ],
)
async def test_grpcurl_describes_it(service: Service, symbol: str, shown: str) -> None:
    grpcurl = Path(executable).parent / "grpcurl"
    command = [str(grpcurl), "-plaintext", service.grpc_address, "describe", symbol]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
