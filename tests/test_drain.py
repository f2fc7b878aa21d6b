"""The end of a server under load: running answers end whole, new ones are refused, hostile clients delay nothing."""

import asyncio
import signal
import socket
import struct
import subprocess
import sys
import time

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import until
from tests.programs import ROOT, start_bridge, start_server

STREAMS = 16
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def asked(seed: int) -> chat_pb2.ChatCompletionRequest:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=f"Hello {seed}")
    return chat_pb2.ChatCompletionRequest(
        messages=[message],
        ignore_eos=True,
        max_tokens=60 + 5 * seed,
        temperature=1.0,
        seed=seed,
        return_token_ids=True,
    )


async def ids_of(
    call: "grpc.aio.UnaryStreamCall[chat_pb2.ChatCompletionRequest, chat_pb2.ChatCompletionChunk]",
) -> list[int]:
    return [token_id async for chunk in call for token_id in chunk.choices[0].token_ids]


async def test_sixteen_streams_end_whole_and_new_calls_are_refused() -> None:
    server, port = start_server()
    try:
        server.wait_for("ready: demo")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            health = health_pb2_grpc.HealthStub(channel)
            undisturbed = [await ids_of(stub.StreamChatCompletion(asked(seed))) for seed in range(STREAMS)]
            streams = [asyncio.ensure_future(ids_of(stub.StreamChatCompletion(asked(seed)))) for seed in range(STREAMS)]
            before = 1 + STREAMS  # the warm-up's and the undisturbed ones
            while (await stub.GetModel(chat_pb2.GetModelRequest())).engine.started < before + STREAMS:
                await asyncio.sleep(0.01)
            server.signal()
            server.wait_for("draining")
            answer = await health.Check(health_pb2.HealthCheckRequest(service="chat.v1.ChatService"))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.CreateChatCompletion(asked(1))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            ended = await asyncio.gather(*streams)
        ended_s = time.monotonic()
        assert ended == undisturbed
        assert server.wait() == 0
        print(f"{STREAMS} of {STREAMS} streams whole; exit {time.monotonic() - ended_s:.2f} s after the last")
    finally:
        server.stop()


async def test_clients_go_to_another_server_while_one_drains() -> None:
    draining, drained_port = start_server("--drain-timeout-s", "100")
    other, other_port = start_server()
    try:
        draining.wait_for("ready: demo")
        other.wait_for("ready: demo")
        both = f"ipv4:127.0.0.1:{drained_port},127.0.0.1:{other_port}"
        async with (
            grpc.aio.insecure_channel(both, options=(("grpc.lb_policy_name", "round_robin"),)) as channel,
            grpc.aio.insecure_channel(f"127.0.0.1:{drained_port}") as direct,
        ):
            long = asked(1)
            long.max_tokens = 2400
            running = asyncio.ensure_future(ids_of(chat_pb2_grpc.ChatServiceStub(direct).StreamChatCompletion(long)))
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            short = asked(2)
            short.max_tokens = 5
            for _ in range(4):
                await stub.CreateChatCompletion(short)
            draining.signal()
            draining.wait_for("draining")
            await asyncio.sleep(3)  # two of refusing, and a little
            for _ in range(10):
                assert (await stub.CreateChatCompletion(short)).usage.completion_tokens == 5
            assert not running.done()
            assert len(await running) == long.max_tokens
        assert draining.wait() == 0
    finally:
        draining.stop()
        other.stop()


async def test_bridge_leaves_a_draining_server_at_once() -> None:
    draining, drained_port = start_server("--drain-timeout-s", "100")
    other, other_port = start_server()
    bridge, http_port = start_bridge(f"ipv4:127.0.0.1:{drained_port},127.0.0.1:{other_port}")
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    try:
        draining.wait_for("ready: demo")
        other.wait_for("ready: demo")
        async with (
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", timeout=60) as http,
            grpc.aio.insecure_channel(f"127.0.0.1:{drained_port}") as direct,
        ):
            for _ in range(6):
                assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
            # a line of the log may come after its answer
            await until(lambda: all(server.output.count("reason=length") >= 2 for server in (draining, other)))
            long = asked(1)
            long.max_tokens = 2400
            running = asyncio.ensure_future(ids_of(chat_pb2_grpc.ChatServiceStub(direct).StreamChatCompletion(long)))
            await asyncio.sleep(0.2)
            draining.signal()
            draining.wait_for("draining")
            await asyncio.sleep(0.3)  # the news of it
            for _ in range(12):
                assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
            assert len(await running) == long.max_tokens
        assert draining.wait() == 0
    finally:
        for program in (bridge, draining, other):
            program.stop()


DEAF_CLIENT = """
import sys, grpc
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
small_window = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))
channel = grpc.insecure_channel(sys.argv[1], options=small_window)
hello = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Hello")
call = chat_pb2_grpc.ChatServiceStub(channel).StreamChatCompletion(
    chat_pb2.ChatCompletionRequest(messages=[hello], ignore_eos=True, max_tokens=30_000)
)
print(next(call).id, flush=True)
import time
time.sleep(1000)
"""


async def test_clients_that_read_nothing_do_not_delay_the_end() -> None:
    server, port = start_server("--drain-timeout-s", "2")
    deaf, watcher = None, None
    try:
        server.wait_for("ready: demo")
        deaf = subprocess.Popen(
            [sys.executable, "-c", DEAF_CLIENT, f"127.0.0.1:{port}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert deaf.stdout
        assert deaf.stdout.readline().startswith("chatcmpl-")
        deaf.send_signal(signal.SIGSTOP)
        watcher = socket.create_connection(("127.0.0.1", port))  # a connection whose window is closed
        watcher.sendall(PREFACE + struct.pack(">I", 6)[1:] + b"\x04\x00\x00\x00\x00\x00" + struct.pack(">HI", 4, 0))
        server.signal()
        signalled_s = time.monotonic()
        assert server.wait(30) == 0
        print(f"exit {time.monotonic() - signalled_s:.2f} s after the signal, with 2 s to drain")
        assert "some chats were still running after 2 s" in server.output
    finally:
        if watcher:
            watcher.close()
        if deaf:
            deaf.kill()
            deaf.communicate()
        server.stop()


def test_a_connection_may_open_a_bounded_number_of_streams() -> None:
    server, port = start_server()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            header = connection.recv(9, socket.MSG_WAITALL)
            assert header[3] == 4, "the first frame has the settings"
            payload = connection.recv(int.from_bytes(header[:3]), socket.MSG_WAITALL)
        told = dict(struct.iter_unpack(">HI", payload))
        assert told[3] == 4096  # SETTINGS_MAX_CONCURRENT_STREAMS
    finally:
        server.stop()


@pytest.mark.slow
async def test_client_that_is_stopped_is_found_out() -> None:
    server, port = start_server()
    deaf = None
    try:
        server.wait_for("ready: demo")
        deaf = subprocess.Popen(
            [sys.executable, "-c", DEAF_CLIENT, f"127.0.0.1:{port}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert deaf.stdout
        deaf.stdout.readline()
        deaf.send_signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        server.wait_for("reason=cancelled", timeout_s=60)
        print(f"a stopped client's chat ended after {time.monotonic() - stopped_s:.1f} s")
    finally:
        if deaf:
            deaf.kill()
            deaf.communicate()
        assert server.stop() == 0
