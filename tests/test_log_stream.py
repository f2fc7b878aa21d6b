"""Standard error behind a pipe that is not read: nothing waits for it, and what is lost is counted."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import httpx2
import pytest

from observability.logs import JsonFormatter
from observability.stream import NonBlockingStream
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.programs import ROOT, START_S, start_server

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}]}
END_S = 20.0  # a generous end, not a measurement
# What the programs would do with an ordinary stderr: the control that shows the pipe to be really full.
WITHOUT = "import sys, observability.stream as s; s.unblock = lambda *_: None; from {0}.__main__ import main; main()"


@contextlib.contextmanager
def pipe(is_full: bool = False) -> Iterator[tuple[int, int]]:
    """The ends to read and to write."""
    reading, writing = os.pipe()
    if is_full:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"-" * 1023 + b"\n")
        os.set_blocking(writing, True)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        with contextlib.suppress(OSError):
            os.close(writing)


def read_all(reading: int, stream: NonBlockingStream) -> list[str]:
    """The lines that come until the stream has written everything."""
    os.set_blocking(reading, False)
    read, is_done, end_s = b"", False, time.monotonic() + END_S
    while not is_done and time.monotonic() < end_s:
        is_done = stream.drain(0.01)
        with contextlib.suppress(BlockingIOError):
            while more := os.read(reading, 2**16):
                read += more
    assert is_done
    return read.decode().splitlines()


def test_lines_come_in_order_and_the_missing_ones_are_reported_in_their_place() -> None:
    with pipe(is_full=True) as (reading, writing):
        stream = NonBlockingStream(writing, max_held_bytes=1000)
        for number in range(500):
            stream.write(f"line {number}\n")
        kept = next(number for number in range(500) if stream.dropped_count + number == 500)
        before = [line for line in read_all(reading, stream) if not line.startswith("-")]
        stream.write("after\n")
        after = read_all(reading, stream)
    assert 0 < kept < 500
    assert before[:kept] == [f"line {number}" for number in range(kept)]
    [notice] = before[kept:]
    assert str(500 - kept) in notice
    assert after == ["after"]
    assert stream.dropped_count == 500 - kept


def test_nothing_is_dropped_or_reported_while_the_pipe_is_read() -> None:
    with pipe() as (reading, writing):
        stream, written = NonBlockingStream(writing), [f"line {number} of {'x' * 80}" for number in range(2000)]
        read: list[str] = []
        for start in range(0, 2000, 100):
            for line in written[start : start + 100]:
                stream.write(line + "\n")
            read += read_all(reading, stream)
    assert read == written
    assert stream.dropped_count == 0


def test_a_traceback_is_kept_or_dropped_as_a_whole_among_lines_of_other_threads() -> None:
    with pipe() as (reading, writing):
        stream = NonBlockingStream(writing)
        threads = [
            threading.Thread(target=lambda name=name: [stream.write(f"{name}1\n{name}2\n") for _ in range(200)])
            for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = read_all(reading, stream)
    assert len(lines) == 1600
    assert all(first[0] == second[0] for first, second in zip(lines[::2], lines[1::2], strict=True))


def test_a_pipe_that_its_other_end_made_non_blocking_loses_nothing() -> None:
    with pipe(is_full=True) as (reading, writing):
        os.set_blocking(writing, False)
        stream = NonBlockingStream(writing)
        stream.write("kept\n")
        assert not stream.drain(0.2)
        assert read_all(reading, stream)[-1] == "kept"


def test_a_reader_that_has_gone_costs_lines_and_nothing_else() -> None:
    with pipe() as (_, writing):
        reading, other = os.pipe()
        stream = NonBlockingStream(other)
        os.close(reading)
        for _ in range(10):
            stream.write("lost\n")
        assert stream.drain(END_S)
        assert stream.dropped_count == 10
        os.dup2(writing, other)  # as when a full disk has room again
        stream.write("written\n")
        assert stream.drain(END_S)
        os.close(other)


def test_the_notice_of_dropped_lines_has_the_logs_format(monkeypatch: pytest.MonkeyPatch) -> None:
    from observability.logs import configure_logs

    with pipe(is_full=True) as (reading, writing):
        stream = NonBlockingStream(writing, max_held_bytes=100)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
        configure_logs("info", "json")
        for _ in range(100):
            stream.write("x" * 50 + "\n")
        lines = read_all(reading, stream)
    told = json.loads(lines[-1])
    assert (told["level"], told["message"].split()[:2]) == ("warning", ["dropped", str(stream.dropped_count)])
    assert set(told) == set(json.loads(JsonFormatter().format(logging.makeLogRecord({}))))


def started(writing: int, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing,
        env=os.environ | environment, start_new_session=True,
    )  # fmt: skip


@contextlib.contextmanager
def running(writing: int, *command: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    program = started(writing, *command, **environment)
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in taken]
    for listener in taken:
        listener.close()
    return ports


def answers(url: str, timeout_s: float = START_S) -> bool:
    """Whether it is answered with 200 before the time is over."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(url, timeout=2, trust_env=False).status_code == 200:
                return True
        time.sleep(0.05)
    return False


def bridge_flags(port: int, metrics_port: int = 0) -> tuple[str, ...]:
    """For a bridge without a server: it answers each chat with 503, and logs each."""
    return ("--host", "127.0.0.1", "--port", str(port), "--metrics-port", str(metrics_port), "--target", "127.0.0.1:1")


@pytest.mark.parametrize(("log_format", "count"), [("text", 1500), pytest.param("json", 2000, marks=pytest.mark.slow)])
def test_bridge_answers_and_ends_while_its_log_is_not_read(log_format: str, count: int) -> None:
    port, metrics_port = free_ports(2)
    flags = (*bridge_flags(port, metrics_port), "--log-format", log_format)
    with pipe(is_full=True) as (reading, writing), running(writing, "-m", "http_bridge", *flags) as program:
        os.close(writing)
        url = f"http://127.0.0.1:{port}"
        assert answers(f"{url}/livez")
        with httpx2.Client(base_url=url, timeout=END_S, trust_env=False) as client:
            for _ in range(count):
                headers = {"X-Request-Id": "x" * 128}
                assert client.post(CHAT, json=BODY, headers=headers).status_code == 503
        assert answers(f"{url}/livez", 5)
        page = httpx2.get(f"http://127.0.0.1:{metrics_port}/metrics", trust_env=False).text
        found = re.search(r"(?m)^bridge_log_lines_dropped_total (\S+)$", page)
        assert found
        assert float(found.group(1)) > 0
        program.send_signal(signal.SIGTERM)
        assert program.wait(END_S) == 0
        assert os.read(reading, 10)


def server_is_open(port: int, timeout_s: float = START_S) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        with contextlib.suppress(grpc.RpcError):
            model = stub.GetModel(chat_pb2.GetModelRequest(), timeout=timeout_s, wait_for_ready=True)
            return bool(model.name)
    return False


def bridge_is_open(port: int, timeout_s: float = START_S) -> bool:
    return answers(f"http://127.0.0.1:{port}/livez", timeout_s)


OPEN: dict[str, Callable[..., bool]] = {"inference_server": server_is_open, "http_bridge": bridge_is_open}


@pytest.mark.parametrize("module", OPEN)
def test_program_starts_and_ends_on_a_pipe_that_is_full_from_the_start(module: str) -> None:
    [port] = free_ports(1)
    flags = ("--host", "127.0.0.1", "--port", str(port), "--metrics-port", "0")
    with pipe(is_full=True) as (_, writing), running(writing, "-m", module, *flags) as program:
        assert OPEN[module](port)
        program.send_signal(signal.SIGTERM)
        assert program.wait(END_S) == 0


@pytest.mark.parametrize("module", [pytest.param("inference_server", marks=pytest.mark.slow), "http_bridge"])
def test_control_with_an_ordinary_stderr_the_full_pipe_stops_the_program(module: str) -> None:
    [port] = free_ports(1)
    flags = ("--host", "127.0.0.1", "--port", str(port), "--metrics-port", "0")
    with pipe(is_full=True) as (_, writing), running(writing, "-c", WITHOUT.format(module), *flags):
        assert not OPEN[module](port, 5.0)


@pytest.mark.parametrize("module", OPEN)
def test_bad_start_on_a_full_pipe_ends_with_exit_code_2(module: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, pipe(is_full=True) as (_, writing):
        flags = ("--host", "127.0.0.1", "--port", str(busy.getsockname()[1]), "--metrics-port", "0")
        for wrong in (flags, ("--port", "many")):
            with running(writing, "-m", module, *wrong) as program:
                assert program.wait(END_S) == 2


@pytest.mark.slow
def test_both_programs_and_what_runs_them_end_on_a_full_pipe() -> None:
    grpc_port, http_port = free_ports(2)
    ports = ("--grpc-port", str(grpc_port), "--http-port", str(http_port))
    with pipe(is_full=True) as (_, writing), running(writing, "-m", "scripts.run", *ports) as program:
        assert answers(f"http://127.0.0.1:{http_port}/health")
        program.send_signal(signal.SIGTERM)
        assert program.wait(END_S) == 0
        assert not answers(f"http://127.0.0.1:{http_port}/livez", 1)


@pytest.mark.slow
def test_second_signal_ends_a_program_whose_log_is_not_read() -> None:
    [port] = free_ports(1)
    with pipe(is_full=True) as (_, writing):
        flags = ("--host", "127.0.0.1", "--port", str(port), "--metrics-port", "0")
        with running(writing, "-m", "inference_server", *flags) as program:
            assert server_is_open(port)
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                request = chat_pb2.ChatCompletionRequest(
                    messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Hello")],
                    ignore_eos=True, max_tokens=30_000,
                )  # fmt: skip
                call = _begun(chat_pb2_grpc.ChatServiceStub(channel), request)
                program.send_signal(signal.SIGTERM)
                time.sleep(0.5)
                assert program.poll() is None
                program.send_signal(signal.SIGTERM)
                assert program.wait(END_S) == 1
                call.cancel()


def _begun(stub: chat_pb2_grpc.ChatServiceStub, request: chat_pb2.ChatCompletionRequest) -> grpc.Call:
    """A stream whose first token has come; asked again while the model loads."""
    end_s = time.monotonic() + START_S
    while True:
        call = stub.StreamChatCompletion(request)
        try:
            next(iter(call))
            return call
        except grpc.RpcError:
            assert time.monotonic() < end_s
            time.sleep(0.1)


def test_every_line_comes_when_the_log_is_read() -> None:
    """The last ones too, which are written while the program ends."""
    program, _ = start_server("--log-format", "json")
    program.wait_for("ready: demo")
    assert program.stop() == 0
    messages = [json.loads(line)["message"] for line in program.lines]
    assert messages[-2:] == ["draining: running chats have 30 s", "ended"]
    assert not [message for message in messages if "dropped" in message]
