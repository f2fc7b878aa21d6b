"""A machine that is busy with something else, and one that is short of descriptors or whose log nobody reads."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.chaos.figures import Figure, at_least, at_most
from tests.chaos.http_load import HttpClient
from tests.chaos.probes import bystander
from tests.chaos.service import Service, running_service
from tests.programs import ROOT, Program

_BUSY_S = 180.0
_HOGS = 8
_CLIENTS = 3


def busy_machine() -> list[Figure]:
    """Eight processes that compute beside a server that answers chats, for three minutes."""
    with running_service() as service, _hogs():
        answered, failed, false = asyncio.run(_chat_on(service))
        exits = sum(program.process.poll() is not None for program in (service.server, service.bridge))
    return [
        at_most("exits", exits, 0),
        at_most("health false", false, 0),
        at_most("chats failed", failed, 0),
        at_least("chats answered", answered, 1),
    ]


@contextlib.contextmanager
def _hogs() -> Iterator[None]:
    """stress-ng, or the same in Python."""
    command = ["stress-ng", "--quiet", "--cpu", str(_HOGS)]
    count = 1
    if not shutil.which(command[0]):
        command, count = [sys.executable, "-c", "while True: pass"], _HOGS
    hogs = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.terminate()
            hog.wait()


async def _chat_on(service: Service) -> tuple[int, int, int]:
    """Chats answered and failed, and how often health was not SERVING."""
    client, end_s, statuses = HttpClient(service.http_port), time.monotonic() + _BUSY_S, []

    async def keep_asking() -> None:
        while time.monotonic() < end_s:
            message = {"role": "user", "content": "Tell me a joke"}
            statuses.append((await client.chat({"messages": [message], "max_tokens": 50})).status)

    async with bystander(service) as seen:
        await asyncio.gather(*(keep_asking() for _ in range(_CLIENTS)))
    return statuses.count(200), len(statuses) - statuses.count(200), seen.false_count


def few_descriptors() -> list[Figure]:
    """A bridge with 256 descriptors, and 400 connections that say nothing."""
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, 256)); from http_bridge.__main__ import main; main()"
    )
    flags = ("--host", "127.0.0.1", "--port", "0", "--metrics-port", "0")
    program = Program(sys.executable, "-c", code, *flags, cwd=ROOT)
    port = int(program.wait_for(r"HTTP on 127\.0\.0\.1:(\d+)").group(1))
    lines = len(program.lines)
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        end_s = time.monotonic() + 20
        answered = 0
        while time.monotonic() < end_s:
            answered += asyncio.run(HttpClient(port).get("/livez")).status == 200
            time.sleep(1)
        said = len(program.lines) - lines
    program.stop()
    return [at_most("lines logged in 20 s", said, 2), at_least("of 20 others' requests answered", answered, 15)]


def unread_log() -> list[Figure]:
    """Both programs with a pipe as stderr that nobody reads, 2,000 chats and a SIGTERM."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "http_bridge", "--host", "127.0.0.1", "--target", "127.0.0.1:1", "--metrics-port"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, "0", "--port", str(port)], cwd=ROOT, stderr=write, stdout=write)
    os.close(write)
    time.sleep(5)
    answered = asyncio.run(_refused_chats(port, 2000))
    process.terminate()
    started_s = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    ended_s = time.monotonic() - started_s
    process.kill()
    os.close(read)
    return [at_least("of 2,000 chats answered", answered, 2000), at_most("ends after SIGTERM in", ended_s, 5, "s")]


async def _refused_chats(port: int, count: int) -> int:
    client = HttpClient(port)
    body = {"messages": [{"role": "user", "content": "x" * 500}]}
    return sum([(await client.chat(body)).status == 503 for _ in range(count)])
