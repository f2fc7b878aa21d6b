"""Metrics and the log's line of every chat: whatever the outcome, it is counted once and told once."""

import json
import logging
import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import grpc
import httpx2
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inference_server.metrics import OUTCOMES
from observability.logs import JsonFormatter, TextFormatter, fields
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import FakeRunner, InProcessService, in_process_service, until
from tests.programs import Program, start_server
from tests.test_admission import ask
from tests.test_cancel import ASK

COUNTING = ("counter", "histogram")


@pytest.fixture
async def gated() -> AsyncIterator[InProcessService]:
    async with in_process_service(FakeRunner(gated=True)) as service:
        yield service


def samples(service: InProcessService) -> dict[str, float]:
    """What Prometheus would read."""
    lines = generate_latest(service.metrics.registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def outcomes(service: InProcessService) -> dict[str, float]:
    counted = {outcome: samples(service)[f'chat_requests_total{{outcome="{outcome}"}}'] for outcome in OUTCOMES}
    return {outcome: count for outcome, count in counted.items() if count}


async def test_a_malformed_chat_is_counted_and_told_once_and_a_malformed_probe_is_not(
    gated: InProcessService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    metadata = (("x-request-id", "broken"),)
    async with grpc.aio.insecure_channel(gated.grpc_address) as channel:
        for path in ("chat.v1.ChatService/GetModel", "grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/{path}", request_serializer=bytes)(b"\xff\xff\xff")
        whole: Any = channel.unary_unary("/chat.v1.ChatService/CreateChatCompletion", request_serializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError):
            await whole(b"\xff\xff\xff", metadata=metadata)
        stream: Any = channel.unary_stream("/chat.v1.ChatService/StreamChatCompletion", request_serializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError):
            await stream(b"\xff\xff\xff", metadata=metadata).read()
    assert outcomes(gated) == {"invalid": 2}
    lines = [record for record in caplog.records if record.name == "inference_server.accounting"]
    assert [(record.fields["reason"], record.fields["request_id"]) for record in lines] == [("invalid", "broken")] * 2  # type: ignore[attr-defined]


async def test_every_outcome_is_counted_once(gated: InProcessService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with grpc.aio.insecure_channel(gated.grpc_address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.CreateChatCompletion(chat_pb2.ChatCompletionRequest(temperature=9.0))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.CreateChatCompletion(ask(), timeout=0.1)
        gated.runner.allow(20)
        await stub.CreateChatCompletion(ask(max_tokens=3))
        call = stub.StreamChatCompletion(ask(max_tokens=100))
        await call.read()
        call.cancel()
        await until(lambda: outcomes(gated).get("cancelled") == 1)
    assert outcomes(gated) == {"invalid": 1, "deadline": 1, "length": 1, "cancelled": 1}
    lines = [record for record in caplog.records if record.name == "inference_server.accounting"]
    assert [record.fields["reason"] for record in lines] == ["invalid", "deadline", "length", "cancelled"]  # type: ignore[attr-defined]
    whole = lines[2].fields  # type: ignore[attr-defined]
    assert (whole["completion_tokens"], whole["prompt_tokens"]) == (3, whole["prompt_tokens"])
    assert whole["ttft_ms"] <= whole["total_ms"]
    gated.runner.allow(100)


async def test_metrics_tell_what_happened() -> None:
    async with in_process_service(FakeRunner()) as service, grpc.aio.insecure_channel(service.grpc_address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        answers = [await stub.CreateChatCompletion(ask(max_tokens=10)) for _ in range(5)]
        read = samples(service)
        assert read["chat_generation_tokens_total"] == 50
        assert read["chat_prompt_tokens_total"] == sum(answer.usage.prompt_tokens for answer in answers)
        assert read["chat_time_to_first_token_seconds_count"] == read["chat_e2e_request_latency_seconds_count"] == 5
        assert read["chat_request_queue_time_seconds_count"] == 5
        assert read["chat_inter_token_latency_seconds_count"] == 45
        assert read["chat_engine_step_seconds_count"] >= 50
        assert read["chat_num_requests_running"] == read["chat_num_requests_waiting"] == 0
        assert read["chat_kv_cache_used_blocks"] == 0
        assert read["chat_kv_cache_blocks"] == 4096
        assert read["chat_ready"] == 1
        assert read["chat_request_prompt_tokens_count"] == read["chat_request_generation_tokens_count"] == 5
        assert read["chat_request_generation_tokens_sum"] == 50
        assert read["chat_request_prompt_tokens_sum"] == read["chat_prompt_tokens_total"]
        assert read['chat_request_generation_tokens_bucket{le="10.0"}'] == 5
        assert read['chat_request_generation_tokens_bucket{le="5.0"}'] == 0
        assert not [name for name in read if "_created" in name]


def assert_a_fresh_start(page: str) -> None:
    """What the engine does to warm up is not counted: all but gauges are 0."""
    families = {family.name: family for family in text_string_to_metric_families(page)}
    counting = [family for name, family in families.items() if name.startswith("chat_") and family.type in COUNTING]
    assert {"chat_generation_tokens", "chat_engine_step_seconds", "chat_inter_token_latency_seconds"} <= {
        family.name for family in counting
    }
    assert [sample for family in counting for sample in family.samples if sample.value] == []
    assert families["process_resident_memory_bytes"].samples[0].value > 2**20
    [build] = families["chat_build_info"].samples
    assert build.labels["torch_version"] == version("torch")
    assert set(build.labels) == {"python_version", "torch_version", "transformers_version", "grpcio_version"}


async def test_nothing_that_a_client_sends_becomes_a_series() -> None:
    async with in_process_service(FakeRunner()) as service, grpc.aio.insecure_channel(service.grpc_address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        await stub.CreateChatCompletion(ask())
        before = set(samples(service))
        for number in range(200):
            odd = chat_pb2.ChatCompletionRequest(model=f"model-{number}\n{{}}", messages=ASK.messages)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.CreateChatCompletion(odd, metadata=(("x-request-id", f"id-{number}"),))
        assert set(samples(service)) == before


async def test_the_program_serves_metrics_on_a_port_of_their_own() -> None:
    metrics_port = _free_port()
    program, port = start_server("--metrics-port", str(metrics_port), "--log-format", "json")
    try:
        program.wait_for('"message": "ready: demo')
        async with httpx2.AsyncClient() as client:
            assert_a_fresh_start((await client.get(f"http://127.0.0.1:{metrics_port}/metrics")).text)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            sent = (("x-request-id", "abc-1"),)
            await chat_pb2_grpc.ChatServiceStub(channel).CreateChatCompletion(ask(), metadata=sent)
        async with httpx2.AsyncClient() as client:
            page = (await client.get(f"http://127.0.0.1:{metrics_port}/metrics")).text
        assert 'chat_model_info{device="cpu",dtype="float32",model_name="demo"} 1.0' in page
        assert re.search(r"(?m)^chat_num_requests_waiting 0.0$", page)
        lines = [json.loads(line) for line in program.lines]
        [chat] = [line for line in lines if line["message"] == "chat"]
        assert chat["request_id"] == "abc-1"
        assert chat["reason"] in {"stop", "length"}
        assert {"id", "prompt_tokens", "completion_tokens", "ttft_ms", "total_ms", "time", "level"} <= set(chat)
    finally:
        assert program.stop() == 0


def test_busy_metrics_port_is_one_line_and_exit_code_2() -> None:
    first, _ = start_server("--metrics-port", str(port := _free_port()))
    try:
        second = Program(*first.process.args[:7], "--metrics-port", str(port))  # type: ignore[index]
        assert second.wait() == 2
        assert f"--metrics-port {port}: cannot listen" in second.output
        assert "Traceback" not in second.output
    finally:
        first.stop()


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@pytest.mark.parametrize("odd", ["\r\nforged", "\x1b[31mred", "\u2028forged", "\0", "\x85forged", "\x9b31m"])
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_no_input_begins_a_line_of_its_own(odd: str, formatter: logging.Formatter) -> None:
    record = logging.LogRecord("name", logging.INFO, "", 0, "said %s", (odd,), None)
    record.__dict__.update(fields(model=odd, nothing=None))
    line = formatter.format(record)
    assert len(line.splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f]", line)
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["model"] == odd
    else:
        assert "nothing" not in line


def test_traceback_stays_readable_in_text_and_is_one_value_in_json() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        record = logging.LogRecord("name", logging.ERROR, "", 0, "failed", (), (type(error), error, None))
    assert TextFormatter().format(record).splitlines()[-1].strip() == "ValueError: broken"
    assert json.loads(JsonFormatter().format(record))["exception"] == "ValueError: broken"
