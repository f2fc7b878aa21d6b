"""What a connection may send, and how long it may take: answered in OpenAI's form where an answer can still be sent."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from http_bridge.protocol import BoundedProtocol
from http_bridge.wire import MAX_HEAD_BYTES
from tests.fake_upstream import FakeUpstream, fake_upstream
from tests.fakes import InProcessBridge, in_process_bridge, until
from tests.test_bridge_upstream import BODY, CHAT

CONTENT = json.dumps(BODY).encode()
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
LENGTH = f"Content-Length: {len(CONTENT)}\r\n\r\n".encode()
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
GENEROUS_S = 12.0  # of which the tests' bridge allows 1


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as fake:
        yield fake


@pytest.fixture
async def bridge(upstream: FakeUpstream) -> AsyncIterator[InProcessBridge]:
    async with in_process_bridge(upstream.address, read_timeout_s=1) as bridge:
        yield bridge


class Connection:
    """A client that sends bytes as they are given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, sent: bytes) -> None:
        self.writer.write(sent)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), GENEROUS_S)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def end(self) -> bytes:
        """Everything up to the end of the connection, which has to come."""
        try:
            return await asyncio.wait_for(self.reader.read(), GENEROUS_S)
        except ConnectionResetError:
            return b""

    async def trickle(self, sent: bytes) -> None:
        """A byte now and then, until the other side has had enough."""
        for number in range(len(sent)):
            if self.reader.at_eof():
                return
            try:
                await self.send(sent[number : number + 1])
            except ConnectionError:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("all of it was taken")


Connect = Callable[[bytes], Awaitable[Connection]]


@pytest.fixture
async def connect(bridge: InProcessBridge) -> AsyncIterator[Connect]:
    """Opens a connection that has sent some bytes."""
    opened = []

    async def open_one(sent: bytes) -> Connection:
        opened.append(Connection(*await asyncio.open_connection("127.0.0.1", bridge.port)))
        await opened[-1].send(sent)
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.writer.close()
        with contextlib.suppress(ConnectionError):
            await connection.writer.wait_closed()


def error_of(status_and_body: tuple[int, bytes], status: int) -> str:
    assert status_and_body[0] == status
    error = json.loads(status_and_body[1])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


@pytest.mark.parametrize("begun", [b"", b"POST /v1", HEAD, HEAD + b"X: " + b"x" * 1000])
async def test_slow_head_ends_whether_it_trickles_or_not(connect: Connect, begun: bytes) -> None:
    silent, trickling = await connect(begun), await connect(begun or b"P")
    sending = asyncio.create_task(trickling.trickle(b"x" * 1000))
    for one, has_begun in ((silent, bool(begun)), (trickling, True)):
        said = await one.end()
        assert (b"408 Request Timeout" in said) == has_begun
        assert (b"took too long" in said) == has_begun
    await sending


async def test_slow_body_is_a_408_whether_it_trickles_or_not(connect: Connect) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for head, piece in ((HEAD + LENGTH, b"{"), (chunked, b"1\r\n{\r\n")):
        silent, trickling = await connect(head + piece), await connect(head)
        sending = asyncio.create_task(trickling.trickle(piece[:-1] + b" " * 1000 if head is chunked else CONTENT))
        for one in (silent, trickling):
            answer = await one.answer()
            if head is not chunked or one is silent:
                assert "body: not received within 1 s" in error_of(answer, 408)
            await one.end()
        await sending


@pytest.mark.parametrize("path", ["/nope", "/livez", CHAT])
async def test_body_that_nobody_waits_for_ends_too(connect: Connect, path: str) -> None:
    method = "GET" if path == "/livez" else "POST"
    one = await connect(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n".encode())
    status, _ = await one.answer()
    assert status == {"/nope": 404, "/livez": 200, CHAT: 415}[path]
    await one.trickle(b"x" * 4000)  # longer than the keep-alive's time, which any byte restarts


async def test_request_that_takes_its_time_within_the_limit_is_answered(connect: Connect) -> None:
    one = await connect(b"")
    for _ in range(3):  # on a kept connection, each with the whole time
        for piece in (HEAD[:20], HEAD[20:], LENGTH, CONTENT[:5], CONTENT[5:]):
            await asyncio.sleep(0.15 if piece is not LENGTH else 0.4)
            await one.send(piece)
        assert (await one.answer())[0] == 200
        await asyncio.sleep(1.2)  # longer than the limit: idle is not slow


async def test_a_connection_is_kept_for_longer_than_clients_keep_it(connect: Connect) -> None:
    """What a client has just sent would be lost with a connection that the bridge closes at that moment."""
    connection = await connect(LIVEZ + b"\r\n")
    assert (await connection.answer())[0] == 200
    await asyncio.sleep(httpx2.Limits().keepalive_expiry + 0.5)  # type: ignore[operator]
    await connection.send(LIVEZ + b"\r\n")
    assert (await connection.answer())[0] == 200


async def test_long_answer_is_not_a_slow_request(upstream: FakeUpstream, bridge: InProcessBridge) -> None:
    upstream.open.clear()
    async with httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client:
        asking = [asyncio.create_task(client.post(CHAT, json=BODY | {"stream": stream})) for stream in (False, True)]
        await asyncio.sleep(2.5)
        upstream.open.set()
        assert [(await one).status_code for one in asking] == [200, 200]


async def test_pipelined_requests_are_answered_in_order_and_a_slow_one_among_them_ends(
    upstream: FakeUpstream, connect: Connect
) -> None:
    upstream.open.clear()
    one = await connect(HEAD + LENGTH + CONTENT + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD)
    await asyncio.sleep(2.5)  # what waits behind a long answer is not slow
    upstream.open.set()
    assert (await one.answer())[0] == 200
    assert await one.answer() == (200, b'{"status":"ok"}')
    assert "took too long" in error_of(await one.answer(), 408)
    await one.end()


def filler(size: int) -> bytes:
    return b"X-Filler: " + b"x" * (size - 12) + b"\r\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (filler(12 * 1024), 200),
        (filler(MAX_HEAD_BYTES - len(LIVEZ) - 2), 200),
        (filler(MAX_HEAD_BYTES - len(LIVEZ) - 1), 431),
        (filler(17 * 1024), 431),
        (filler(2**20), 431),
        (b"".join(b"X-%d: x\r\n" % number for number in range(99)), 200),
        (b"".join(b"X-%d: x\r\n" % number for number in range(100)), 431),
        (b"".join(b"X-%d: x\r\n" % number for number in range(2000)), 431),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, bytes) else str(value),
)
@pytest.mark.parametrize("whole", [True, False])
async def test_head_is_bounded(connect: Connect, headers: bytes, status: int, whole: bool) -> None:
    request = LIVEZ + headers + b"\r\n"
    one = await connect(b"")
    for piece in [request] if whole else [request[i : i + 4096] for i in range(0, len(request), 4096)]:
        one.writer.write(piece)
        await asyncio.sleep(0)
    answer = await one.answer()
    if status == 431:
        assert "headers are too large" in error_of(answer, 431)
        await one.end()
    else:
        assert answer == (200, b'{"status":"ok"}')


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01",  # TLS
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /a\r\nb HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
async def test_what_is_not_http_is_refused_in_openais_form(connect: Connect, sent: bytes) -> None:
    one = await connect(sent)
    assert error_of(await one.answer(), 400) == "not a valid HTTP/1.1 request"
    await one.end()


async def test_upgrade_is_not_taken_and_not_logged(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    one = await connect(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (await one.answer())[0] == 200
    assert not caplog.records


async def test_client_that_resets_while_it_is_refused_is_no_fault(
    bridge: InProcessBridge, caplog: pytest.LogCaptureFixture
) -> None:
    client = socket.create_connection(("127.0.0.1", bridge.port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    await until(lambda: len(bridge.server._connections()) == 1)
    [protocol] = bridge.server._connections()
    write = protocol.transport.write

    def write_and_be_reset(answer: bytes) -> None:
        write(answer)
        if b"not a valid" in answer:
            client.close()

    protocol.transport.write = write_and_be_reset
    client.send(LIVEZ + b"\r\n\x16\x03\x01")  # refused while the application still sends its answer
    await until(lambda: not bridge.server._connections())
    assert client.fileno() == -1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_connections_leave_nothing_behind(bridge: InProcessBridge, connect: Connect) -> None:
    for sent in (b"", b"GET /li", HEAD + LENGTH, filler(2**15)):
        one = await connect(sent)
        one.writer.close()
    await until(lambda: not bridge.server.server_state.connections)
    await until(lambda: not bridge.server.server_state.tasks)


async def test_tiny_chunks_are_taken_a_little_at_a_time(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """h11 takes some 15 us for each chunk, and asyncio would read 40,000 of them at once."""
    taken: list[int] = []
    take = BoundedProtocol.data_received

    def noted(protocol: BoundedProtocol, data: bytes) -> None:
        taken.append(len(data))
        take(protocol, data)

    monkeypatch.setattr(BoundedProtocol, "data_received", noted)
    padded = CONTENT.ljust(30_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in padded) + b"0\r\n\r\n"
    connection = await connect(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert (await connection.answer())[0] == 200
    assert sum(taken) > len(chunks)
    assert max(taken) <= 16 * 1024
