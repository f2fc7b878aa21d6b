"""Runs the inference server and the bridge together, for `make run`; the images run them apart.

Waits until both are healthy and says where they are. The first signal drains both, the second one ends them at once.
"""

import argparse
import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from inference_server.checkpoint.check import require_usable
from inference_server.errors import StartupError
from observability.stream import unblock

_POLL_S = 0.1
_AT_ONCE_S = 0.25
_LAST_WORDS_S = 1.0
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Defaults that the environment overrides. Two services on one machine would ask for the same metrics ports; and pages
# that are served on this machine, by a developer's web server, may use the service.
_DEFAULTS = {
    "INFERENCE_METRICS_PORT": "0",
    "BRIDGE_METRICS_PORT": "0",
    "BRIDGE_CORS_ORIGINS": ",".join(f"{scheme}://{host}:*" for scheme in ("http", "https") for host in _LOCAL_HOSTS),
}
_PR_SET_PDEATHSIG = 1  # Linux: the kernel signals a process when its parent dies
TRY_IT = """
  HTTP   http://localhost:{http_port}/v1/chat/completions   (API page: http://localhost:{http_port}/docs)
  gRPC   localhost:{grpc_port}   chat.v1.ChatService

Try it:
  curl http://localhost:{http_port}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"messages": [{{"role": "user", "content": "你好，介绍一下你自己"}}]}}'

Ctrl-C stops both.
"""


class Signals:
    """Counts how often the end was asked for.

    A signal to the whole process group comes twice, from its sender and from make, so those at once count as one. A
    second signal to make alone is never passed on: make waits for its children with signals blocked, where /proc shows
    it as pending. One that was pending at once stays so; then a later one to make must be another (SIGINT).
    """

    def __init__(self) -> None:
        self._first_s: float | None = None
        self._is_repeated = False
        self._pending_at_once: set[int] | None = None
        for number in _ENDING:
            signal.signal(number, self._on_signal)

    @property
    def count(self) -> int:
        """0, 1 or 2."""
        if self._first_s is None:
            return 0
        pending = _pending(os.getppid())
        if self._pending_at_once is None or time.monotonic() - self._first_s < _AT_ONCE_S:
            self._pending_at_once = pending
        return 2 if self._is_repeated or pending - self._pending_at_once else 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
        elif now_s - self._first_s >= _AT_ONCE_S:
            self._is_repeated = True


def _pending(process_id: int) -> set[int]:
    """The ending signals that wait for that process; none where there is no /proc."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return set()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return {number for number in _ENDING for mask in masks if mask & 1 << (number - 1)}


def main() -> int:
    """Returns the exit code: 0 after a signal, else that of the program that ended by itself."""
    unblock("stdout")
    unblock("stderr")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--grpc-port", default="50051")
    parser.add_argument("--http-port", default="8000")
    parser.add_argument("--check", action="store_true", help="says what is wrong with the settings and starts nothing")
    options = parser.parse_args()
    if problem := _problem(options.model, {"GRPC_PORT": options.grpc_port, "HTTP_PORT": options.http_port}):
        print(problem, file=sys.stderr)
        return 2
    if options.check:
        return 0
    options.grpc_port, options.http_port = int(options.grpc_port), int(options.http_port)
    signals = Signals()
    _die_with_parent()
    server = _start("inference_server", "--model", options.model, "--port", str(options.grpc_port))
    bridge = _start("http_bridge", "--target", f"localhost:{options.grpc_port}", "--port", str(options.http_port))
    try:
        if _wait(lambda: _is_healthy(options.http_port), server, bridge, signals):
            print(TRY_IT.format(http_port=options.http_port, grpc_port=options.grpc_port), flush=True)
            _wait(lambda: False, server, bridge, signals)
        ended = [process.returncode for process in (server, bridge) if process.poll() is not None]
        return 0 if signals.count else next(iter(ended), 1)
    finally:
        _stop(server, bridge, signals)


def _problem(model: str, ports: dict[str, str]) -> str | None:
    """What is wrong with make's variables, in one line."""
    if len({port.lstrip("0") for port in ports.values()}) < len(ports):
        return f"GRPC_PORT and HTTP_PORT: expected two ports, got {ports['GRPC_PORT']} twice"
    problems = (_port_problem(name, value) for name, value in ports.items())
    return next((problem for problem in problems if problem), None) or _model_problem(model)


def _port_problem(name: str, value: str) -> str | None:
    if not (re.fullmatch("[0-9]{1,5}", value) and 1 <= int(value) <= 65535):
        return f'{name}: expected 1 to 65535, got "{value}"'
    try:
        socket.create_server(("0.0.0.0", int(value))).close()  # somebody else's service would look healthy
    except PermissionError:
        return f"{name}: this user may not listen on port {value}; expected 1024 to 65535"
    except OSError:
        return f"port {value} is taken; {name} chooses another"
    return None


def _model_problem(model: str) -> str | None:
    try:
        require_usable(model)
    except StartupError as error:
        return re.sub(r"\A--model ", "MODEL=", str(error))
    return None


def _start(module: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """A session of its own: the terminal's Ctrl-C reaches this script alone, which ends the programs."""
    command = [sys.executable, "-m", module, *arguments]
    environment = _DEFAULTS | os.environ
    return subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=_die_with_parent)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(
    reached: Callable[[], bool], server: "subprocess.Popen[bytes]", bridge: "subprocess.Popen[bytes]", signals: Signals
) -> bool:
    """True when it is reached; False when a signal came or a program ended before."""
    while not signals.count and server.poll() is None and bridge.poll() is None:
        if reached():
            return True
        time.sleep(_POLL_S)
    return False


def _is_healthy(http_port: int) -> bool:
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is for the outside
        with opener.open(f"http://127.0.0.1:{http_port}/health", timeout=2) as answer:
            return bool(json.load(answer)["status"] == "ok")
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _stop(server: "subprocess.Popen[bytes]", bridge: "subprocess.Popen[bytes]", signals: Signals) -> None:
    """Both drain at once: running answers end, new ones are refused on both ports. Another signal ends them."""
    allowed = signals.count + 1 if signals.count else 1
    for process in (bridge, server):
        if process.poll() is None:
            process.terminate()
    while any(process.poll() is None for process in (bridge, server)) and signals.count < allowed:
        time.sleep(_POLL_S / 4)
    _kill(server)
    with contextlib.suppress(subprocess.TimeoutExpired):
        bridge.wait(_LAST_WORDS_S)  # it tells its clients of the server's end, and then is drained
    _kill(bridge)
    for number in _ENDING:  # Python's end gives the others back to the system, where they kill
        signal.signal(number, signal.SIG_IGN)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
