"""What the service costs beside its engine, against a bare loop that does nothing else than pass tokens on.

usage: python -m benchmarks.service_cost [carry|first|slowdown] [--runs 3] [--seconds 4] [--json PATH]

carry: tokens/s of 64 streams at steps of 10 ms and CPU time for each token, over HTTP and gRPC, turn about.
first: how much later the first token comes through the bridge.
slowdown: how much longer a step takes when its tokens are served over gRPC than when they go nowhere. First as a user
has it, then with a core for the engine's thread alone, so that what is left is waiting for Python's lock. `ratio`
compares each served step with the one before it, for the machine's speed drifts.
"""

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.counting_client import Client
from benchmarks.fixed_step import ENGINE_THREAD, STREAMS

_START_S = 60.0
_SETTLE_S = 1.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
Row = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """A server and a bridge in front of it."""

    name: str
    server: "subprocess.Popen[bytes]"
    bridge: "subprocess.Popen[bytes]"
    grpc_address: str
    http_address: str

    @property
    def cpu_s(self) -> dict[str, float]:
        """What each process has used, the client's too."""
        processes = {"server": self.server.pid, "bridge": self.bridge.pid, "client": os.getpid()}
        return {name: _cpu_s(pid) for name, pid in processes.items()}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def _engine_cpu_s(pid: int) -> float:
    """What the engine's thread has used."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    engine = next(thread for thread in threads if (thread / "comm").read_text().strip() == ENGINE_THREAD)
    return int((engine / "schedstat").read_text().split()[0]) / 1e9


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def ours(work: str, **environment: str) -> Iterator[Contender]:
    """The service itself, with another runner."""
    grpc_port, http_port = _free_port(), _free_port()
    target = f"127.0.0.1:{grpc_port}"
    common = ["--host", "127.0.0.1", "--metrics-port", "0", "--log-level", "warning"]
    server = ["benchmarks.fixed_step", work, "--port", str(grpc_port), "--max-step-tokens", "512", *common]
    if work == "grid":  # the bare loop passes each token by itself
        server += ["--max-chunk-delay-ms", "0"]
    bridge = ["http_bridge", "--port", str(http_port), "--target", target, *common]
    with _running(server, environment) as first, _running(bridge, environment) as second:
        yield Contender("service", first, second, target, f"127.0.0.1:{http_port}")


@contextmanager
def bare() -> Iterator[Contender]:
    grpc_port, http_port = _free_port(), _free_port()
    target = f"127.0.0.1:{grpc_port}"
    server = ["benchmarks.bare_loop", "server", str(grpc_port)]
    bridge = ["benchmarks.bare_loop", "bridge", str(http_port), target]
    with _running(server, {}) as first, _running(bridge, {}) as second:
        yield Contender("bare loop", first, second, target, f"127.0.0.1:{http_port}")


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-m", *command], env=os.environ | environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _connected(contender: Contender) -> Client:
    """A client, once both ways give a token."""
    client = Client(contender.grpc_address, contender.http_address)
    for transport in ("grpc", "http"):
        end_s = time.monotonic() + _START_S
        while True:
            try:
                await client.first_token_ms(transport, 0.5)
                break
            except TimeoutError:
                assert time.monotonic() < end_s, f"{contender.name} gives no token over {transport}"
    return client


async def _carried(contender: Contender, client: Client, transport: str, seconds: float) -> Row:
    """Tokens that arrive while all streams run, and what every process uses for it."""
    async with client.streams(transport, STREAMS) as counts:
        await asyncio.sleep(_SETTLE_S)
        tokens, chunks = sum(count.tokens for count in counts), sum(count.chunks for count in counts)
        cpu_s, started_s = contender.cpu_s, time.perf_counter()
        await asyncio.sleep(seconds)
        tokens = sum(count.tokens for count in counts) - tokens
        chunks = sum(count.chunks for count in counts) - chunks
        rate = tokens / (time.perf_counter() - started_s)
        used = {f"{name}_us": (now - cpu_s[name]) / tokens * 1e6 for name, now in contender.cpu_s.items()}
    await asyncio.sleep(0.5)
    return {"who": contender.name, "over": transport, "tokens_per_s": rate, "chunks_per_token": chunks / tokens, **used}


async def carry(runs: int, seconds: float) -> list[Row]:
    rows = []
    with ours("grid") as service, bare() as loop:
        clients = [(contender, await _connected(contender)) for contender in (service, loop)]
        for _ in range(runs):
            for transport in ("http", "grpc"):
                for contender, client in clients:
                    rows.append(await _carried(contender, client, transport, seconds))
    return rows


async def first(runs: int, seconds: float) -> list[Row]:
    rows = []
    with ours("grid") as service:
        client = await _connected(service)
        for _ in range(int(runs * seconds * 10)):
            for transport in ("http", "grpc"):
                rows.append({"over": transport, "first_token_ms": await client.first_token_ms(transport)})
                await asyncio.sleep(0.01)
    return rows


async def slowdown(runs: int, seconds: float) -> list[Row]:
    rows = []
    apart = {"ENGINE_CPU": "0", "SERVICE_CPU": "1"}
    for work in ("compute", "call", "model"):
        for cores, environment in (("shared", {}), ("apart", apart)):
            with ours(work, OMP_NUM_THREADS="1", **environment) as service, _aside(environment.get("SERVICE_CPU")):
                client = await _connected(service)
                for _ in range(runs):
                    nowhere = await _step(service, client, False, seconds)
                    served = await _step(service, client, True, seconds)
                    for tokens, step in (("nowhere", nowhere), ("served", served)):
                        ratio = step["step_ms"] / nowhere["step_ms"]
                        rows.append({"work": work, "cores": cores, "tokens": tokens, **step, "ratio": ratio})
    return rows


@contextmanager
def _aside(cpu: str | None) -> Iterator[None]:
    """The client on the service's core, and only when the service leaves it: it must not preempt who holds the lock."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(cpu)})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, before)


async def _step(service: Contender, client: Client, served: bool, seconds: float) -> Row:
    """The mean step with 64 streams."""
    if served:
        async with client.streams("grpc", STREAMS):
            return await _counted_step(service, client, seconds)
    service.server.send_signal(signal.SIGUSR1)
    try:
        return await _counted_step(service, client, seconds)
    finally:
        service.server.send_signal(signal.SIGUSR2)
        await asyncio.sleep(0.5)


async def _counted_step(service: Contender, client: Client, seconds: float) -> Row:
    """By the engine's own count of tokens. What its thread did not compute in, it has waited."""
    await asyncio.sleep(_SETTLE_S)
    pid = service.server.pid
    tokens, cpu_s, started_s = await client.generated_tokens(), _engine_cpu_s(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    steps = (await client.generated_tokens() - tokens) / STREAMS
    step_ms = (time.perf_counter() - started_s) / steps * 1e3
    cpu_ms = (_engine_cpu_s(pid) - cpu_s) / steps * 1e3
    return {"step_ms": step_ms, "computed_ms": cpu_ms, "waited_ms": step_ms - cpu_ms}


def _medians(rows: list[Row]) -> list[Row]:
    """One row for each case, with the median of every number."""
    cases: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        cases.setdefault(tuple(value for value in row.values() if isinstance(value, str)), []).append(row)
    return [
        {name: value if isinstance(value, str) else statistics.median(one[name] for one in case)
         for name, value in case[0].items()}
        for case in cases.values()
    ]  # fmt: skip


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


_MEASURES: dict[str, Callable[[int, float], Coroutine[Any, Any, list[Row]]]] = {
    "carry": carry,
    "first": first,
    "slowdown": slowdown,
}


@click.command(help=__doc__)
@click.argument("what", type=click.Choice(list(_MEASURES)))
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--seconds", default=4.0, show_default=True, help="Of each measurement.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Every measurement, a line each.")
def main(what: str, runs: int, seconds: float, json_path: Path | None) -> None:
    rows = asyncio.run(_MEASURES[what](runs, seconds))
    medians = _medians(rows)
    print("  ".join(f"{name:>16}" for name in medians[0]))
    for row in medians:
        print("  ".join(f"{_shown(value):>16}" for value in row.values()))
    if json_path:
        json_path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
