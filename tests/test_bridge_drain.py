"""SIGTERM at the bridge: running answers end by themselves, new ones are refused, nobody keeps it from ending."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.fake_upstream import FakeUpstream, fake_upstream
from tests.fakes import InProcessBridge, in_process_bridge, until
from tests.programs import start_bridge
from tests.test_bridge_upstream import BODY, CHAT, events

STREAM = BODY | {"stream": True}


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as fake:
        fake.open.clear()
        yield fake


def drain(bridge: InProcessBridge) -> None:
    bridge.server.handle_exit(signal.SIGTERM, None)


async def test_running_answers_end_and_new_ones_are_refused(upstream: FakeUpstream) -> None:
    async with (
        in_process_bridge(upstream.address, drain_timeout_s=60) as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client,
    ):
        whole = asyncio.create_task(client.post(CHAT, json=BODY))
        streamed = asyncio.create_task(client.post(CHAT, json=STREAM))
        await until(lambda: upstream.running == 2)
        drain(bridge)
        for attempt in range(3):
            health = await client.get("/health")
            assert (health.status_code, health.json()) == (503, {"status": "draining"})
            refused = await client.post(CHAT, json=STREAM if attempt else BODY)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert refused.headers["Connection"] == "close"
            assert "draining" in refused.json()["error"]["message"]
            assert (await client.get("/livez")).status_code == 200
            await asyncio.sleep(0.2)
        assert not bridge.serving.done()
        upstream.open.set()
        assert (await whole).json()["response"] == "xxx"
        assert events((await streamed).text)[-1] == "[DONE]"
        await asyncio.wait_for(bridge.serving, 5)


async def test_answers_that_take_too_long_end_with_an_error(upstream: FakeUpstream) -> None:
    async with (
        in_process_bridge(upstream.address, drain_timeout_s=1) as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client,
    ):
        whole = asyncio.create_task(client.post(CHAT, json=BODY))
        streamed = asyncio.create_task(client.post(CHAT, json=STREAM))
        await until(lambda: upstream.running == 2)
        drain(bridge)
        answer = await whole
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["error"]["code"] == "unavailable"
        *content, last = events((await streamed).text)
        assert len(content) == 2
        assert json.loads(last)["error"]["code"] == "unavailable"
        await asyncio.wait_for(bridge.serving, 5)
        await until(lambda: upstream.running == 0)


async def test_clients_that_do_not_read_cannot_hold_it(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.open.set()
    upstream.chunk_text, upstream.chunk_count = "x" * 50_000, 1000
    async with in_process_bridge(upstream.address, drain_timeout_s=1) as bridge:
        deaf = [_asks(bridge.port, STREAM) for _ in range(4)]
        half_heads = [_connected(bridge.port, b"POST /v1/ch") for _ in range(4)]
        half_bodies = [_connected(bridge.port, _request(BODY)[:-5]) for _ in range(4)]
        whole = _asks(bridge.port, BODY)  # 50 MB in one piece
        await until(lambda: len(bridge.server._unsent()) == 5)
        drain(bridge)
        await asyncio.wait_for(bridge.serving, 1 + 3)
        await until(lambda: upstream.running == 0)
        for client in (*deaf, *half_heads, *half_bodies, whole):
            client.close()
        assert not [record for record in caplog.records if record.name == "uvicorn.error"]


async def test_idle_connections_do_not_delay_the_end(upstream: FakeUpstream) -> None:
    async with (
        in_process_bridge(upstream.address, drain_timeout_s=60) as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client,
    ):
        await client.get("/livez")  # and the connection is kept
        silent = [_connected(bridge.port, b"") for _ in range(3)]
        drain(bridge)
        await asyncio.wait_for(bridge.serving, 3)
        for one in silent:
            assert one.recv(1) == b""
            one.close()


async def test_slow_reader_gets_its_whole_answer(upstream: FakeUpstream) -> None:
    upstream.open.set()
    upstream.chunk_text, upstream.chunk_count = "x" * 50_000, 100
    async with in_process_bridge(upstream.address, drain_timeout_s=60) as bridge:
        client = _asks(bridge.port, BODY)
        await until(lambda: bridge.server._unsent())
        drain(bridge)
        await asyncio.sleep(1.5)  # longer than anything that is not waited for
        assert not bridge.serving.done()
        received = await asyncio.to_thread(_read_to_the_end, client)
        assert json.loads(received.split(b"\r\n\r\n")[1])["response"] == "x" * 50_000 * 100
        await asyncio.wait_for(bridge.serving, 5)


async def test_the_program_ends_with_0_after_one_signal_and_with_1_after_two(upstream: FakeUpstream) -> None:
    for signals, code in ((1, 0), (2, 1)):
        upstream.open.clear()
        bridge, port = start_bridge(upstream.address)
        try:
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                streamed = asyncio.create_task(client.post(CHAT, json=STREAM))
                await until(lambda: upstream.running == 1)
                bridge.signal()
                await asyncio.to_thread(bridge.wait_for, "draining: 1 running")
                assert (await client.get("/health")).json() == {"status": "draining"}
                if signals == 2:
                    await asyncio.sleep(0.5)  # at once it would be the same signal
                    bridge.signal()
                    assert await asyncio.to_thread(bridge.wait, 5) == code
                    assert json.loads(events((await streamed).text)[-1])["error"]["code"] == "unavailable"
                else:
                    upstream.open.set()
                    assert events((await streamed).text)[-1] == "[DONE]"
                    assert await asyncio.to_thread(bridge.wait, 5) == code
        finally:
            bridge.stop()
        assert "Traceback" not in bridge.output


def _request(body: object) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _connected(port: int, sent: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(sent)
    return client


def _asks(port: int, body: object) -> socket.socket:
    """A client that asks, and does not read."""
    return _connected(port, _request(body))


def _read_to_the_end(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(2**16), b""))
