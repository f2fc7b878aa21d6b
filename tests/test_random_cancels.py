"""Clients that leave at any moment, over both transports: nothing stays behind and nobody else notices."""

import asyncio
import contextlib
import logging
import random
from collections import Counter

import grpc
import httpx2
import pytest

from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import FakeRunner, InProcessService, in_process_service, until

CHAT = "/v1/chat/completions"
AT_ONCE = 16
# a small window: a client that does not read blocks the server's writes after some 120 messages (measured)
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))


def request_of(rng: random.Random, max_tokens: int) -> chat_pb2.ChatCompletionRequest:
    """One prompt in three takes several steps to read."""
    content = "x" * (400 if rng.random() < 0.3 else rng.randint(0, 20))
    hello = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=content)
    return chat_pb2.ChatCompletionRequest(messages=[hello], max_tokens=max_tokens)


def body_of(request: chat_pb2.ChatCompletionRequest, stream: bool) -> dict[str, object]:
    messages = [{"role": "user", "content": request.messages[0].content}]
    return {"messages": messages, "max_tokens": request.max_tokens, "stream": stream}


class Leavers:
    """Sends requests and leaves in a random phase of each."""

    def __init__(self, service: InProcessService, seed: int) -> None:
        self.left: Counter[str] = Counter()
        self._service = service
        self._rng = random.Random(seed)

    async def run(self, count: int) -> None:
        async with (
            httpx2.AsyncClient(base_url=self._service.url, timeout=60) as http,
            grpc.aio.insecure_channel(self._service.grpc_address, options=SMALL_WINDOW) as channel,
        ):
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            ways = [lambda: self._grpc(stub), lambda: self._http(http, True), lambda: self._http(http, False)]
            turn = asyncio.Semaphore(AT_ONCE)

            async def one() -> None:
                async with turn:
                    await self._rng.choice(ways)()

            await asyncio.gather(*(one() for _ in range(count)))

    async def _grpc(self, stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
        phase = self._rng.choice(["at once", "soon", "while it streams", "while a write is blocked", "after the last"])
        length = 20_000 if phase == "while a write is blocked" else self._rng.randint(1, 300)
        call = stub.StreamChatCompletion(request_of(self._rng, length))
        try:
            match phase:
                case "soon":
                    await asyncio.sleep(self._rng.random() * 0.03)
                case "while it streams":
                    await call.read()
                case "while a write is blocked":
                    await call.read()
                    await asyncio.sleep(0.1)  # the rest waits in the window and behind it
                case "after the last":
                    while await call.read() is not grpc.aio.EOF:
                        pass
        finally:
            call.cancel()
        self.left[f"gRPC {phase}"] += 1

    async def _http(self, client: httpx2.AsyncClient, stream: bool) -> None:
        phase = self._rng.choice(["at once", "soon", "while it streams"])
        request = request_of(self._rng, self._rng.randint(1, 300))

        async def ask() -> None:
            async with client.stream("POST", CHAT, json=body_of(request, stream)) as response:
                await anext(response.aiter_lines())

        asking = asyncio.create_task(ask())
        if phase == "while it streams":
            await asking
        else:
            await asyncio.sleep(0 if phase == "at once" else self._rng.random() * 0.03)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        self.left[f"HTTP {phase}"] += 1


async def ask_over_and_over(service: InProcessService, ending: asyncio.Event) -> int:
    """A neighbour, whose every answer must be whole. Returns how many it got."""
    answers = 0
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        while not ending.is_set():
            request = request_of(random.Random(answers), 30)
            request.return_token_ids = True
            answer = await stub.CreateChatCompletion(request)
            assert len(answer.choices[0].token_ids) == answer.usage.completion_tokens == 30
            answers += 1
    return answers


async def leave(count: int, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    async with in_process_service(FakeRunner(step_s=0.001), max_sequences=8) as service:
        await Leavers(service, seed).run(3)
        await asyncio.wait_for(service.state.idle(), 30)
        async with httpx2.AsyncClient(base_url=service.url, timeout=60) as http:  # so the bridge watches health
            await http.post(CHAT, json=body_of(request_of(random.Random(seed), 3), stream=False))
        await until(lambda: any("Health/Watch" in task.get_name() for task in asyncio.all_tasks()))
        baseline = len(asyncio.all_tasks())
        ending, leavers = asyncio.Event(), Leavers(service, seed)
        neighbour = asyncio.create_task(ask_over_and_over(service, ending))
        await leavers.run(count)
        ending.set()
        assert await neighbour > 0
        await asyncio.wait_for(service.state.idle(), 30)
        await until(lambda: service.sequence_count == 0)
        use = service.engine.use
        print(f"seed {seed}: {dict(leavers.left)}; {use.counts}")
        assert use.cache.used_blocks == 0
        assert len(leavers.left) == 8
        assert use.counts.cancelled > count // 8
        assert use.counts.started == use.counts.finished + use.counts.cancelled + use.counts.failed
        assert use.counts.failed == 0
        await until(lambda: len(asyncio.all_tasks()) <= baseline + 1)
        ours = [record for record in caplog.records if record.name.startswith("inference_server")]
        assert not [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


async def test_clients_that_leave_at_any_moment_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    await leave(100, 1, caplog)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_thousand_clients_that_leave_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    await leave(1000, 2, caplog)
