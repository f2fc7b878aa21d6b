"""gRPC clients: generated stubs, a client made through reflection alone, health probes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.conftest import Service
from tests.programs import start_server


def request(text: str = "Hello", **fields: object) -> chat_pb2.ChatCompletionRequest:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=text)
    return chat_pb2.ChatCompletionRequest(messages=[message], **({"temperature": 0.0} | fields))  # type: ignore[arg-type]


async def test_stream_joins_to_the_whole_answer(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    asked = request("你好，介绍一下你自己", return_token_ids=True)
    whole = await stub.CreateChatCompletion(asked)
    chunks = [chunk async for chunk in stub.StreamChatCompletion(asked)]
    assert "".join(chunk.choices[0].content for chunk in chunks) == whole.choices[0].message.content
    assert [i for chunk in chunks for i in chunk.choices[0].token_ids] == whole.choices[0].token_ids
    assert whole.choices[0].message.role == chat_pb2.ROLE_ASSISTANT
    assert whole.choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP
    first, last = chunks[0], chunks[-1]
    assert first.id.startswith("chatcmpl-")
    assert first.model == "demo"
    assert first.created > 0
    assert not any(chunk.id for chunk in chunks[1:])
    assert last.choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP
    assert last.usage == whole.usage
    assert not any(chunk.HasField("usage") for chunk in chunks[:-1])
    assert last.timings.time_to_first_token_ms >= last.timings.prefill_ms > 0


async def test_usage_counts_the_prompt_and_every_generated_token(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    answer = await stub.CreateChatCompletion(request(return_token_ids=True))
    assert answer.usage.completion_tokens == len(answer.choices[0].token_ids)
    longer = await stub.CreateChatCompletion(request("Hello Hello", max_tokens=1))
    assert longer.usage.prompt_tokens > answer.usage.prompt_tokens


async def test_token_ids_come_only_where_they_are_asked_for(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    assert not (await stub.CreateChatCompletion(request())).choices[0].token_ids


async def test_max_tokens_ends_with_length(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    answer = await stub.CreateChatCompletion(request(max_tokens=2))
    assert answer.choices[0].finish_reason == chat_pb2.FINISH_REASON_LENGTH
    assert answer.usage.completion_tokens == 2


async def test_ignore_eos_generates_to_max_tokens(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    answer = await stub.CreateChatCompletion(request(max_tokens=300, ignore_eos=True))
    assert answer.usage.completion_tokens == 300
    assert answer.choices[0].finish_reason == chat_pb2.FINISH_REASON_LENGTH


async def test_stop_text_ends_the_answer_and_is_not_in_it(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    whole = (await stub.CreateChatCompletion(request("你好，介绍一下你自己"))).choices[0].message.content
    stop = whole[5:9]
    asked = request("你好，介绍一下你自己", stop=["never", stop])
    answer = await stub.CreateChatCompletion(asked)
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP
    streamed = [chunk.choices[0].content async for chunk in stub.StreamChatCompletion(asked)]
    assert "".join(streamed) == whole[: whole.index(stop)]


async def test_bad_field_is_named_with_its_range(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateChatCompletion(request(temperature=2.1))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "temperature: expected a number from 0.0 to 2.0, got 2.1"
    metadata = dict(raised.value.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    violations = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(violations)
    assert violations.field_violations[0].field == "temperature"


async def test_malformed_message_is_an_invalid_argument_of_fixed_words(service: Service) -> None:
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        for path in ("/chat.v1.ChatService/CreateChatCompletion", "/grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary(path, request_serializer=bytes)(b"\xff\xff\xff")
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert raised.value.details() == "the request is not a valid protobuf message"


async def test_message_over_the_limit_is_refused(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateChatCompletion(request("x" * (4 * 2**20)))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_deadline_ends_a_call(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateChatCompletion(request(ignore_eos=True, max_tokens=30_000), timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_get_model_tells_what_is_served(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    model = await stub.GetModel(chat_pb2.GetModelRequest())
    assert model.name == "demo"
    assert "demo" in model.notice
    assert model.state == chat_pb2.MODEL_STATE_READY
    assert model.load_percent == 100
    assert model.max_context_tokens == 32_768
    assert (model.max_messages, model.max_message_bytes) == (1024, 4 * 2**20)
    assert (model.dtype, model.device) == ("float32", "cpu")
    assert set(model.request_fields) == set(chat_pb2.ChatCompletionRequest.DESCRIPTOR.fields_by_name)
    assert set(model.versions) == {"torch", "transformers", "grpcio"}


SYMBOLS = (
    "chat.v1.ChatService", "chat.v1.ChatService.CreateChatCompletion", "chat.v1.ChatService.GetModel",
    "chat.v1.Message", "chat.v1.Message.content", "chat.v1.ROLE_USER", "chat.v1.ChatCompletionRequest._seed",
)  # fmt: skip


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_finds_every_kind_of_symbol_and_echoes_the_host(service: Service, version: str) -> None:
    """As the comments of grpc.reflection.v1 and grpc-go have it: a symbol may be `package.service[.method]`."""
    absent = ("chat.v1.ChatService.Nothing", "chat.v1.Nothing.CreateChatCompletion", "chat.v1", "")
    asked = [
        reflection_pb2.ServerReflectionRequest(host="a.example", file_containing_symbol=symbol)
        for symbol in (*SYMBOLS, *absent)
    ]
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        answers = [answer async for answer in call(iter(asked))]
    assert [answer.original_request for answer in answers] == asked
    assert {answer.valid_host for answer in answers} == {"a.example"}
    for answer in answers[: len(SYMBOLS)]:
        files = [FileDescriptorProto.FromString(one) for one in answer.file_descriptor_response.file_descriptor_proto]
        assert files[0].package == "chat.v1"
    assert all(answer.error_response.error_code == 5 for answer in answers[len(SYMBOLS) :])  # NOT_FOUND


def test_grpcurl_describes_every_service_that_is_listed(service: Service) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["grpcurl", "-plaintext", service.grpc_address, "describe"]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert (told.returncode, told.stderr) == (0, "")
    assert "service ServerReflection {" in told.stdout
    assert "grpc.reflection.v1.ServerReflection is a service" in told.stdout


def test_grpcurl_describes_a_method(service: Service) -> None:
    command = ["grpcurl", "-plaintext", service.grpc_address, "describe", "chat.v1.ChatService.CreateChatCompletion"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PATH": path})
    assert "returns ( .chat.v1.ChatCompletion )" in told.stdout


async def test_health_answers_kubernetes_probes(service: Service) -> None:
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "chat.v1.ChatService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        listed = await health.List(health_pb2.HealthListRequest())
        assert {name: answer.status for name, answer in listed.statuses.items()} == {
            "": health_pb2.HealthCheckResponse.SERVING,
            "chat.v1.ChatService": health_pb2.HealthCheckResponse.SERVING,
        }
        watch = health.Watch(health_pb2.HealthCheckRequest(service="chat.v1.ChatService"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_a_client_made_through_reflection_alone_gets_an_answer(service: Service) -> None:
    with grpc.insecure_channel(service.grpc_address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "chat.v1.ChatService" in database.get_services()
        pool = DescriptorPool(database)
        method = pool.FindServiceByName("chat.v1.ChatService").methods_by_name["CreateChatCompletion"]
        ask = json_format.ParseDict(
            {"messages": [{"role": "ROLE_USER", "content": "Hello"}], "temperature": 0},
            GetMessageClass(method.input_type)(),
        )
        call: Any = channel.unary_unary(
            "/chat.v1.ChatService/CreateChatCompletion",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        answer = json_format.MessageToDict(call(ask, timeout=30))
    assert answer["choices"][0]["message"]["role"] == "ROLE_ASSISTANT"
    assert answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services_under_both_names(service: Service, version: str) -> None:
    services = await _reflected_services(service.grpc_address, version)
    assert {"chat.v1.ChatService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= services


async def test_reflection_can_be_turned_off() -> None:
    server, port = start_server("--no-reflection")
    try:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _reflected_services(f"127.0.0.1:{port}", "v1")
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        server.stop()


async def _reflected_services(address: str, version: str) -> set[str]:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        async for answer in call:
            return {service.name for service in answer.list_services_response.service}
    raise AssertionError("no answer")
