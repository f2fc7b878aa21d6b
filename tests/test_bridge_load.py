"""Many slow or hostile connections at once: closed in time, without much memory, while a good client is served."""

import asyncio
import contextlib
import socket
import time

import httpx2
import psutil
import pytest

from tests.fake_upstream import fake_upstream
from tests.programs import start_bridge
from tests.test_bridge_limits import HEAD, LENGTH
from tests.test_bridge_upstream import BODY, CHAT


@pytest.mark.slow
async def test_endless_head_is_cut_off_early_without_memory() -> None:
    async with fake_upstream() as upstream:
        program, port = start_bridge(upstream.address)
        try:
            process = psutil.Process(program.process.pid)
            before = process.memory_info().rss
            taken = await asyncio.to_thread(_send_endless_head, port, 200 * 2**20)
            assert taken < 16 * 2**20  # most of it in the sockets' buffers
            assert process.memory_info().rss - before < 8 * 2**20
        finally:
            assert program.stop() == 0


def _send_endless_head(port: int, size: int) -> int:
    sent = 0
    with socket.create_connection(("127.0.0.1", port)) as client, contextlib.suppress(ConnectionError):
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ")
        while sent < size:
            sent += client.send(b"x" * 2**16)
    return sent


@pytest.mark.slow
async def test_500_slow_connections_end_in_time_and_a_good_client_is_served() -> None:
    async with fake_upstream() as upstream:
        program, port = start_bridge(upstream.address, "--read-timeout-s", "4")
        try:
            process = psutil.Process(program.process.pid)
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                await _p99_ms(client, 2)  # so that what comes once is in the baseline
                baseline_ms, before = await _p99_ms(client, 3), process.memory_info().rss
                slow = [asyncio.create_task(_slow(port, number)) for number in range(500)]
                busy_ms = await _p99_ms(client, 3)
                grown = process.memory_info().rss - before
                open_s = await asyncio.gather(*slow)
            print(f"p99 {baseline_ms:.1f} -> {busy_ms:.1f} ms, +{grown / 2**20:.1f} MiB, open {max(open_s):.1f} s")
            assert max(open_s) < 4 + 4
            assert grown < 32 * 2**20
        finally:
            assert program.stop() == 0


async def _p99_ms(client: httpx2.AsyncClient, for_s: float) -> float:
    took, end_s = [], time.monotonic() + for_s
    while time.monotonic() < end_s:
        start_s = time.monotonic()
        (await client.post(CHAT, json=BODY)).raise_for_status()
        took.append(time.monotonic() - start_s)
        await asyncio.sleep(0.005)
    return sorted(took)[int(len(took) * 0.99)] * 1000


async def _slow(port: int, number: int) -> float:
    """Silent, or sends a head or a body byte by byte; how long that was allowed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start_s = time.monotonic()
    ended = asyncio.create_task(reader.read())
    writer.write((b"", HEAD, HEAD + LENGTH)[number % 3])
    while not ended.done():
        if number % 3:
            writer.write(b"x")
        await asyncio.wait([ended], timeout=0.5)
    await asyncio.gather(ended, return_exceptions=True)
    writer.close()
    return time.monotonic() - start_s
