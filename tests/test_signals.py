"""Signals to the programs: two that come together are one request, a later one ends what still runs in words."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from observability.signals import AT_ONCE_S, EndSignals
from scripts.run import _AT_ONCE_S as AT_ONCE_OF_THE_SCRIPT_S
from tests.programs import Program, start_bridge, start_server
from tests.test_life import _endless_curl, _free_ports, _processes_of

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def curl(http_port: int, events: Path, **fields: object) -> "subprocess.Popen[bytes]":
    """A stream that has begun."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True, "stream": True} | fields
    url = f"http://127.0.0.1:{http_port}/v1/chat/completions"
    command = ["curl", "-sN", url, "-H", "Content-Type: application/json", "-d", json.dumps(body), "-o", str(events)]
    asking = subprocess.Popen(command)
    while not (events.exists() and events.stat().st_size):
        assert asking.poll() is None
        time.sleep(0.02)
    return asking


def last_event(events: Path) -> str:
    return events.read_text().strip().rpartition("\n\n")[2].removeprefix("data: ")


def test_signals_together_are_one_and_a_later_one_hurries() -> None:
    said: list[str] = []
    signals = EndSignals(lambda: said.append("begin"), lambda: said.append("hurry"))
    for _ in range(3):
        signals.on_signal(signal.SIGTERM, None)
    assert said == ["begin"]
    assert signals._first_s
    signals._first_s -= AT_ONCE_S  # as if it had been so long ago
    for number in SIGNALS:
        signals.on_signal(number, None)
    assert said == ["begin", "hurry", "hurry"]
    assert AT_ONCE_OF_THE_SCRIPT_S == AT_ONCE_S


@pytest.mark.parametrize("start", [start_server, lambda: start_bridge("127.0.0.1:1")], ids=["server", "bridge"])
@pytest.mark.parametrize("gap_s", [0.0, 0.005, 0.02, 0.05])
def test_an_idle_program_ends_well_after_two_signals_together(
    start: Callable[[], tuple[Program, int]], gap_s: float
) -> None:
    program, _ = start()
    try:
        for number in (signal.SIGTERM, signal.SIGTERM if gap_s else signal.SIGINT):
            if program.process.poll() is None:
                program.signal(number)
            time.sleep(gap_s)
        assert program.wait(20) == 0
        assert "Traceback" not in program.output
    finally:
        program.stop()


def test_two_signals_together_let_the_running_answers_end(tmp_path: Path) -> None:
    server, grpc_port = start_server()
    bridge, http_port = start_bridge(f"127.0.0.1:{grpc_port}")
    try:
        server.wait_for("ready: demo")
        streams = [curl(http_port, tmp_path / f"{number}", max_tokens=300) for number in range(2)]
        for gap_s in (0.005, 0.05, 0.0):
            for program in (bridge, server):
                program.signal()
            time.sleep(gap_s)
        assert [stream.wait(60) for stream in streams] == [0, 0]
        assert [last_event(tmp_path / f"{number}") for number in range(2)] == ["[DONE]"] * 2
        assert (bridge.wait(), server.wait()) == (0, 0)
    finally:
        bridge.stop()
        server.stop()


def _to_make(program: Program) -> None:
    program.signal(signal.SIGTERM)


def _to_the_group(program: Program) -> None:
    os.killpg(program.process.pid, signal.SIGTERM)


@pytest.mark.parametrize("send", [_to_make, pytest.param(_to_the_group, marks=pytest.mark.slow)])
def test_make_run_takes_two_signals_together_for_one_and_a_later_one_for_haste(
    send: Callable[[Program], None], tmp_path: Path
) -> None:
    grpc_port, http_port = _free_ports(2)
    program = Program("make", "-o", ".venv/native.built", "run", f"GRPC_PORT={grpc_port}", f"HTTP_PORT={http_port}")
    try:
        program.wait_for("Ctrl-C stops both")
        whole = curl(http_port, tmp_path / "whole", max_tokens=300)
        endless = _endless_curl(http_port, tmp_path / "endless")
        send(program)
        time.sleep(0.03)
        send(program)
        assert whole.wait(60) == 0
        assert last_event(tmp_path / "whole") == "[DONE]"
        assert endless.poll() is None
        os.killpg(program.process.pid, signal.SIGINT)  # a terminal's Ctrl-C
        program.wait(15)
        assert endless.wait(10) == 0
        assert json.loads(last_event(tmp_path / "endless"))["error"]["code"] == "unavailable"
        assert not _processes_of(grpc_port)
    finally:
        program.stop()


def test_a_number_of_workers_that_is_none_is_harmless() -> None:
    bridge, _ = start_bridge("127.0.0.1:1", env={"WEB_CONCURRENCY": "auto"})
    assert bridge.stop() == 0
    assert "Traceback" not in bridge.output


@pytest.mark.parametrize("module", ["inference_server", "http_bridge"])
def test_ctrl_c_while_a_program_starts_is_no_traceback(module: str) -> None:
    code = f"import signal, sys\nfrom {module}.__main__ import main\n"
    code += "sys.argv[1:] = ['--port', '0', '--metrics-port', '0']\n"
    code += "import threading, os\nthreading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\nmain()"
    program = Program(sys.executable, "-c", code)
    assert program.wait(20) == 0
    assert "Traceback" not in program.output
