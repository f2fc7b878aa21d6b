"""Four times as many chats as there is machine, over each transport."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import grpc

from protos.chat.v1 import chat_pb2_grpc
from tests.chaos.figures import Figure, at_least, at_most
from tests.chaos.http_load import HttpClient, Outcome, quantile
from tests.chaos.probes import Seen, bystander
from tests.chaos.service import DEADLINE_S, Service, ask, running_service

_TOKENS = 16
_PEAK_S, _OPEN_S = 8.0, 30.0
_CONCURRENCIES = (32, 64, 128)
_TIMES_MORE = 4
Chat = Callable[[int], Awaitable[Outcome]]


def over_http() -> list[Figure]:
    with running_service() as service:
        return asyncio.run(_measured(service, lambda: _http_chats(service)))


def over_grpc() -> list[Figure]:
    with running_service() as service:
        return asyncio.run(_measured(service, lambda: _grpc_chats(service)))


async def _measured(service: Service, chats: Callable[[], Chat]) -> list[Figure]:
    await _closed(chats(), 4, 2.0)
    peak = max([await _closed(chats(), count, _PEAK_S) for count in _CONCURRENCIES])
    calm, calm_rate, _ = await _open(service, chats(), peak)
    outcomes, rate, seen = await _open(service, chats(), _TIMES_MORE * peak)
    statuses = Counter(outcome.status for outcome in outcomes)
    first_s, calm_first_s = (
        quantile([one.first_s for one in some if one.status == 200], 0.99) for some in (outcomes, calm)
    )
    rejected_ms = [1e3 * one.total_s for one in outcomes if one.status == 429]
    return [
        at_least(f"goodput, of {max(peak, calm_rate):.0f} chats/s at most", 100 * rate / max(peak, calm_rate), 90, "%"),
        at_most("rejections p99", quantile(rejected_ms, 0.99), 100, "ms"),
        at_most(f"first token p99, to {calm_first_s:.2f} s at capacity", first_s / max(calm_first_s, 1e-3), 3, "times"),
        at_most("health p99", seen.health_p99_ms, 250, "ms"),
        at_most("health false", seen.false_count, 0),
        at_most("neither answered nor rejected", statuses.total() - statuses[200] - statuses[429], 0),
    ]


async def _closed(chat: Chat, count: int, seconds: float) -> float:
    """Chats a second of so many clients, each of which asks again when it has its answer."""
    started_s, done = time.perf_counter(), 0

    async def keep_asking(number: int) -> None:
        nonlocal done
        while time.perf_counter() - started_s < seconds:
            outcome = await chat(number + done * count)
            done += outcome.status == 200

    await asyncio.gather(*(keep_asking(number) for number in range(count)))
    return done / (time.perf_counter() - started_s)


async def _open(service: Service, chat: Chat, rate: float) -> tuple[list[Outcome], float, Seen]:
    """Chats that arrive at a rate, whatever becomes of them. Returns them, those answered a second, and health."""
    async with bystander(service) as seen:
        started_s = time.perf_counter()
        calls: list[asyncio.Future[Outcome]] = []
        while (now_s := time.perf_counter() - started_s) < _OPEN_S:
            while len(calls) < now_s * rate:
                calls.append(asyncio.ensure_future(chat(len(calls))))
            await asyncio.sleep(0.002)
        within = sum(call.done() and call.result().status == 200 for call in calls)
        outcomes = [await call for call in calls]
    return outcomes, within / _OPEN_S, seen


def _http_chats(service: Service) -> Chat:
    client = HttpClient(service.http_port)

    async def chat(number: int) -> Outcome:
        message = {"role": "user", "content": f"Hello, number {number}, how are you doing?"}
        return await client.chat({"messages": [message], "max_tokens": _TOKENS, "ignore_eos": True, "stream": True})

    return chat


def _grpc_chats(service: Service) -> Chat:
    channel = grpc.aio.insecure_channel(service.address, options=[("grpc.use_local_subchannel_pool", 1)])
    stub = chat_pb2_grpc.ChatServiceStub(channel)

    async def chat(number: int) -> Outcome:
        started_s, outcome = time.perf_counter(), Outcome(200)
        question = ask(f"Hello, number {number}, how are you doing?", _TOKENS, ignore_eos=True)
        try:
            async for _ in stub.StreamChatCompletion(question, timeout=DEADLINE_S):
                outcome.first_s = outcome.first_s or time.perf_counter() - started_s
        except grpc.aio.AioRpcError as error:
            outcome.status = 429 if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else 0
        outcome.total_s = time.perf_counter() - started_s
        return outcome

    return chat
