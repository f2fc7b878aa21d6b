"""The programs' lives: settings, loading, failing to start, draining, ending."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from http_bridge.server import listen
from inference_server.demo_model import CHECKPOINT_DIR
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.conftest import Service
from tests.programs import ROOT, Program, start_bridge, start_server
from tests.test_grpc_client import request

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def ended(*command: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output of a program that ends by itself."""
    program = Program(sys.executable, "-m", *command, env=env)
    code = program.wait()
    return code, program.output.strip()


@pytest.fixture
def slow_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint whose configuration is a pipe that nobody writes to: reading it takes for ever."""
    checkpoint = tmp_path / "slow"
    checkpoint.mkdir()
    for file in CHECKPOINT_DIR.iterdir():
        if file.name != "tokenizer.json":
            (checkpoint / file.name).symlink_to(file)
    subprocess.run(["mkfifo", str(checkpoint / "tokenizer.json")], check=True)
    return checkpoint


@pytest.mark.parametrize(
    ("command", "environment", "said"),
    [
        (["inference_server", "--port", "many"], {}, "'--port'"),
        (["inference_server"], {"INFERENCE_PORT": "70000"}, "INFERENCE_PORT"),
        (["inference_server", "--device", "tpu"], {}, "'--device'"),
        (["inference_server", "--port", "0", "--model", "/nowhere"], {}, "--model /nowhere: no such directory"),
        (["inference_server", "--port", "0", "--max-context-tokens", "99999"], {}, "at most 32768, got 99999"),
        (["inference_server", "--nonsense"], {}, "--nonsense"),
        (["http_bridge", "--max-body-bytes", "1"], {}, "'--max-body-bytes'"),
        (["http_bridge"], {"BRIDGE_PORT": "x"}, "BRIDGE_PORT"),
        (["http_bridge"], {"BRIDGE_ALLOWED_HOSTS": "http://x"}, "BRIDGE_ALLOWED_HOSTS"),
    ],
)
def test_bad_setting_is_one_line_and_exit_code_2(command: list[str], environment: dict[str, str], said: str) -> None:
    code, output = ended(*command, env=environment)
    errors = [line for line in output.splitlines() if " INFO " not in line]
    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith(f"{command[0]}: ")
    assert said in errors[0]


@pytest.mark.parametrize("module", ["inference_server", "http_bridge"])
def test_busy_port_is_one_line_and_exit_code_2(module: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = ended(module, "--host", "127.0.0.1", "--port", str(port))
    assert code == 2
    assert len(output.splitlines()) == 1
    assert f"--port {port}: cannot listen" in output


@pytest.mark.parametrize(("module", "prefix"), [("inference_server", "INFERENCE"), ("http_bridge", "BRIDGE")])
def test_help_shows_every_settings_name_in_the_environment(module: str, prefix: str) -> None:
    code, output = ended(module, "--help")
    assert code == 0
    flags = [line.split()[0] for line in output.splitlines() if line.strip().startswith("--") and "--help" not in line]
    assert len(flags) >= 6
    squeezed = " ".join(output.split())
    for flag in flags:
        assert f"{prefix}_{flag[2:].replace('-', '_').upper()}" in squeezed.replace("[env var: ", "")


async def test_health_is_not_serving_while_the_model_loads(slow_checkpoint: Path) -> None:
    server, grpc_port = start_server("--model", str(slow_checkpoint))
    bridge, http_port = start_bridge(f"127.0.0.1:{grpc_port}")
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{http_port}") as client,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
            chat_service = health_pb2.HealthCheckRequest(service="chat.v1.ChatService")
            assert (await health.Check(chat_service)).status == NOT_SERVING
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            model = await stub.GetModel(chat_pb2.GetModelRequest())
            assert (model.name, model.state) == ("slow", chat_pb2.MODEL_STATE_LOADING)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.CreateChatCompletion(request())
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            answer = await client.get("/health")
            assert (answer.status_code, answer.json()) == (503, {"status": "loading", "model": "slow", "progress": 0})
            refused = await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert "loading" in refused.json()["error"]["message"]
        start_s = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - start_s < 10
    finally:
        bridge.stop()
        server.stop()


def test_loading_shows_percents_in_a_log() -> None:
    server, _ = start_server()
    try:
        server.wait_for("ready: demo on cpu in float32")
        assert "loading the model: 100 %" in server.output
        assert "embedded demo model" in server.output
    finally:
        assert server.stop() == 0


async def test_drain_lets_running_chats_end_and_refuses_new_ones() -> None:
    server, port = start_server()
    try:
        server.wait_for("ready: demo")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub, health = chat_pb2_grpc.ChatServiceStub(channel), health_pb2_grpc.HealthStub(channel)
            asked = request(ignore_eos=True, max_tokens=400, return_token_ids=True)
            undisturbed = await stub.CreateChatCompletion(asked)
            call = stub.StreamChatCompletion(asked)
            arriving = aiter(call)
            chunks = [await anext(arriving)]
            server.signal()
            server.wait_for("draining")
            answer = await health.Check(health_pb2.HealthCheckRequest(service="chat.v1.ChatService"))
            assert answer.status == NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.CreateChatCompletion(request())
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            chunks += [chunk async for chunk in arriving]
            token_ids = [i for chunk in chunks for i in chunk.choices[0].token_ids]
            assert token_ids == undisturbed.choices[0].token_ids
        assert server.wait() == 0
    finally:
        server.stop()


async def test_second_signal_ends_at_once() -> None:
    server, port = start_server()
    try:
        server.wait_for("ready: demo")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = chat_pb2_grpc.ChatServiceStub(channel).StreamChatCompletion(
                request(ignore_eos=True, max_tokens=30_000)
            )
            await call.read()
            server.signal()
            server.wait_for("draining")
            await asyncio.sleep(0.5)
            assert server.process.poll() is None
            server.signal()
            assert server.wait(5) == 1
    finally:
        server.stop()


async def test_bridge_without_a_server_says_so_until_it_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        grpc_port = free.getsockname()[1]
    bridge, http_port = start_bridge(f"127.0.0.1:{grpc_port}")
    server = None
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", timeout=30) as client:
            assert (await client.get("/health")).json() == {"status": "unavailable"}
            refused = await client.post("/v1/chat/completions", json=body)
            assert refused.status_code == 503
            assert refused.json()["error"]["message"] == "the inference server cannot be reached"
            command = [sys.executable, "-m", "inference_server", "--host", "127.0.0.1", "--port", str(grpc_port)]
            server = Program(*command)
            server.wait_for("ready: demo")
            async with asyncio.timeout(10):
                while (await client.get("/health")).status_code != 200:
                    await asyncio.sleep(0.1)
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    finally:
        bridge.stop()
        if server:
            server.stop()


async def test_proxy_of_the_environment_is_not_asked_for_the_server(service: Service) -> None:
    proxy = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    bridge, http_port = start_bridge(service.grpc_address, env=proxy)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", timeout=30) as client:
            assert (await client.get("/health")).json()["status"] == "ok"
    finally:
        bridge.stop()


def test_answers_of_the_bridge_do_not_wait_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_make_run_on_a_taken_port_is_one_line_and_says_nothing_of_a_service() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        program = Program("make", "run", f"HTTP_PORT={port}", f"GRPC_PORT={_free_ports(1)[0]}", cwd=ROOT)
        assert program.wait() == 2
    assert f"port {port} is taken" in program.output
    assert "Try it" not in program.output


def _processes_of(session: int) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "ppid,pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"--port {session}" in line or f":{session}" in line]


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in taken]
    for listener in taken:
        listener.close()
    return ports


@pytest.mark.parametrize("busy", [False, True])
def test_make_run_answers_and_ends_without_a_trace(busy: bool, tmp_path: Path) -> None:
    grpc_port, http_port = _free_ports(2)
    program = Program("make", "run", f"GRPC_PORT={grpc_port}", env={"HTTP_PORT": str(http_port)}, cwd=ROOT)
    try:
        curl = program.wait_for(r"(?s)(curl http.*?\}'\n)").group(1)
        answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True, timeout=30).stdout
        assert '"response":"' in answer
        assert f"localhost:{grpc_port}" in program.output
        stuck = _endless_curl(http_port, tmp_path / "events") if busy else None
        program.signal(signal.SIGTERM)
        if stuck:
            time.sleep(1)
            assert program.process.poll() is None
            program.signal(signal.SIGTERM)
        program.wait(15)
        deadline = time.monotonic() + 5
        while (left := _processes_of(grpc_port)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left
        if stuck:
            stuck.wait(10)
    finally:
        program.stop()


def _endless_curl(http_port: int, events: Path) -> "subprocess.Popen[bytes]":
    body = '{"messages": [{"role": "user", "content": "Hello"}], "ignore_eos": true, "stream": true}'
    url = f"http://localhost:{http_port}/v1/chat/completions"
    asking = subprocess.Popen(["curl", "-sN", url, "-H", "Content-Type: application/json", "-d", body, "-o", events])
    while not (events.exists() and events.stat().st_size):
        assert asking.poll() is None
        time.sleep(0.05)
    return asking


COLLECTING = """
import gc, signal, sys, threading, time
def tell():
    was_off = False
    while not (gc.isenabled() and gc.get_freeze_count() > 10_000):
        was_off = was_off or not gc.isenabled()
        time.sleep(0.02)
    print("garbage is collected" if was_off else "garbage was collected all along")
assert gc.isenabled()
threading.Thread(target=tell).start()
from {name}.__main__ import main
sys.argv[1:] = ["--host", "127.0.0.1", "--port", "0", "--metrics-port", "0"]
main()
"""


@pytest.mark.parametrize("name", ["inference_server", "http_bridge"])
def test_a_program_that_serves_collects_garbage_but_not_in_what_it_has_loaded(name: str) -> None:
    program = Program(sys.executable, "-u", "-c", COLLECTING.format(name=name))
    try:
        program.wait_for("garbage is collected")
    finally:
        program.stop()
