"""An HTTP client that costs little: it shares two cores with what it measures."""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Outcome:
    """One request. status: 0 if the connection failed. Times are seconds from its sending."""

    status: int
    first_s: float = 0.0
    total_s: float = 0.0
    tokens: int = 0


class HttpClient:
    """Keeps connections and uses the one that was idle for the shortest time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def chat(self, body: dict[str, Any]) -> Outcome:
        """A chat, streamed or whole. first_s is the first event with text."""
        return await self.send(json.dumps(body).encode())

    async def send(self, payload: bytes) -> Outcome:
        """A chat whose body is anything."""
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return await self._ask(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)

    async def get(self, path: str) -> Outcome:
        return await self._ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    async def _ask(self, request: bytes) -> Outcome:
        started_s = time.perf_counter()
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(request)
            outcome = await self._answer(reader, started_s)
        except (OSError, asyncio.IncompleteReadError):
            return Outcome(0, 0.0, time.perf_counter() - started_s)
        self._idle.append((reader, writer))
        return outcome

    async def _answer(self, reader: asyncio.StreamReader, started_s: float) -> Outcome:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        outcome = Outcome(int(head[9:12]))
        if b"transfer-encoding: chunked" in head:
            received, tail = 0, b""
            while not tail.endswith(b"\r\n0\r\n\r\n"):
                piece = await reader.read(65536)
                if not piece:
                    raise asyncio.IncompleteReadError(tail, None)
                received += piece.count(b"data: ")
                if not outcome.first_s and b'"content":"' in piece.replace(b'"content":""', b""):
                    outcome.first_s = time.perf_counter() - started_s
                tail = (tail + piece)[-16:]
            outcome.tokens = received
        else:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            outcome.first_s = time.perf_counter() - started_s
        outcome.total_s = time.perf_counter() - started_s
        return outcome

    def close(self) -> None:
        for _, writer in self._idle:
            with contextlib.suppress(OSError):
                writer.close()


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of them lies; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
