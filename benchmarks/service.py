"""The service on free ports for as long as it is measured, started as `make run` does."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click
import httpx2

_ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.05
_END_S = 60.0
_SHOWN_LINES = 15


@dataclass(frozen=True, slots=True)
class RunningService:
    """Where it is, under which name it serves the checkpoint, and how long it took from start to healthy."""

    url: str
    model: str
    start_s: float


@contextmanager
def running_service(checkpoint_dir: Path) -> Iterator[RunningService]:
    """Raises click.ClickException with its last lines where it does not start."""
    grpc_port, http_port = _free_ports()
    ports = ("--grpc-port", str(grpc_port), "--http-port", str(http_port))
    command = [sys.executable, str(_ROOT / "scripts" / "run.py"), "--model", str(checkpoint_dir), *ports]
    with tempfile.TemporaryFile("w+") as log:
        started_s = time.perf_counter()
        process = subprocess.Popen(command, cwd=_ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{http_port}"
            _wait_until_healthy(url, process, log)
            yield RunningService(url, checkpoint_dir.name, time.perf_counter() - started_s)
        finally:
            _end(process)


def _free_ports() -> tuple[int, int]:
    """Two ports that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _wait_until_healthy(url: str, process: "subprocess.Popen[bytes]", log: IO[str]) -> None:
    with httpx2.Client(trust_env=False, timeout=5) as client:
        while process.poll() is None:
            try:
                if client.get(f"{url}/health").status_code == 200:
                    return
            except httpx2.HTTPError:
                pass  # the port is not open yet
            time.sleep(_POLL_S)
    log.seek(0)
    last_lines = "".join(log.readlines()[-_SHOWN_LINES:])
    raise click.ClickException(f"the service ended with exit code {process.returncode}:\n{last_lines}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Lets it drain; a service that does not end is killed with its programs."""
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
