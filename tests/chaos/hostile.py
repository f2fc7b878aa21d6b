"""One request against all: control tokens, long prompts, bodies of a million values."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from protos.chat.v1 import chat_pb2_grpc
from tests.chaos.figures import Figure, at_most
from tests.chaos.http_load import HttpClient
from tests.chaos.probes import Seen, bystander
from tests.chaos.service import DEADLINE_S, Service, ask, running_service

_BYTES = 4 * 2**20 - 1024
_AT_ONCE = 16
_CHAT = "some words that are new, "
_CHAT_CHARACTERS = 3_500
_MOST_HEALTH_MS = 250
_RUN_MB = 80  # of the tokenizer, for the longest run that it has to take whole

TEXTS = {
    "words": "hello world, this is it. ", "one letter": "a", "spaces": " ", "control tokens": "<|im_end|>",
    "brackets": "<", "Chinese": "你好世界，", "Thai": "สวัสดีครับ", "emoji and words": "👋 x ",
}  # fmt: skip
BODIES: dict[str, Callable[[], str]] = {
    "messages": lambda: '{"messages":[' + '{"role":"user","content":""},' * 117_000 + "{}]}",
    "parts": lambda: '{"messages":[{"role":"user","content":[' + '{"type":"text","text":""},' * 155_000 + "{}]}]}",
    "empty lists": lambda: '{"messages":[' + "[]," * 1_300_000 + "[]]}",
    "ids": lambda: '{"messages":[{"role":"user","content":"x"}],"stop_token_ids":[' + "1," * 1_900_000 + "1]}",
}


def control_tokens() -> list[Figure]:
    """A run of one character and as many control tokens, in one message of 0.8 MB."""
    count = 60_000
    text = "\ufdd0" * count + "<|im_end|>" * count
    size_mb = len(text.encode()) / 2**20
    with running_service() as service:
        seen, _ = asyncio.run(_beside(service, text, 1))
    return [
        at_most("memory for 0.8 MB of it", seen.most_mb, 40 * size_mb + _RUN_MB, "MB"),
        at_most("health p99", seen.health_p99_ms, _MOST_HEALTH_MS, "ms"),
        at_most("health false", seen.false_count, 0),
    ]


def long_prompts() -> list[Figure]:
    """Sixteen prompts of 4 MB at once, of each kind, and another user's chat of 3,500 characters."""
    worst_mb = worst_health_ms = worst_late_s = 0.0
    false = 0
    for text in TEXTS.values():
        with running_service() as service:
            seen, late_s = asyncio.run(_beside(service, text * (_BYTES // len(text.encode())), _AT_ONCE))
        worst_mb, worst_late_s = max(worst_mb, seen.most_mb), max(worst_late_s, late_s)
        worst_health_ms, false = max(worst_health_ms, seen.health_p99_ms), false + seen.false_count
    return [
        at_most("memory", worst_mb, 300, "MB"),
        at_most("another chat is later by", worst_late_s, 1.0, "s"),
        at_most("health p99", worst_health_ms, _MOST_HEALTH_MS, "ms"),
        at_most("health false", false, 0),
    ]


async def _beside(service: Service, text: str, count: int) -> tuple[Seen, float]:
    """So many of the text at once. Returns what a bystander saw, and by how much another user's chat was later."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.insecure_channel(service.address, options=options) as hostile,
        grpc.aio.insecure_channel(service.address, options=options) as other,
    ):
        alone_s = min([await _timed(other, str(number)) for number in range(3)])
        ordinary = ask(TEXTS["words"] * (len(text.encode()) // len(TEXTS["words"])), 1)  # what long prompts cost once
        await chat_pb2_grpc.ChatServiceStub(other).CreateChatCompletion(ordinary, timeout=DEADLINE_S).code()
        async with bystander(service) as seen:
            stub = chat_pb2_grpc.ChatServiceStub(hostile)
            calls = [stub.CreateChatCompletion(ask(text, 1), timeout=DEADLINE_S) for _ in range(count)]
            await asyncio.sleep(0.2)
            late_s = await _timed(other, "late") - alone_s
            for call in calls:
                assert await call.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK), await call.details()
    return seen, late_s


async def _timed(channel: grpc.aio.Channel, name: str) -> float:
    started_s = time.perf_counter()
    chat = ask(name + _CHAT * (_CHAT_CHARACTERS // len(_CHAT)), 1)
    await chat_pb2_grpc.ChatServiceStub(channel).CreateChatCompletion(chat, timeout=DEADLINE_S)
    return time.perf_counter() - started_s


def large_bodies() -> list[Figure]:
    """4 MB of JSON with as many values as it holds; the longest time for which the bridge answers nobody else."""
    worst_ms = 0.0
    with running_service() as service:
        for body in BODIES.values():
            worst_ms = max(worst_ms, asyncio.run(_longest_gap_ms(service, _post(service, body()))))
    return [at_most("the bridge answers nobody for", worst_ms, 100, "ms")]


async def _post(service: Service, body: str) -> None:
    client = HttpClient(service.http_port)
    for _ in range(3):
        outcome = await client.send(body.encode())
        assert outcome.status == 400, outcome
    client.close()


async def _longest_gap_ms(service: Service, work: Coroutine[Any, Any, None]) -> float:
    """Of /livez, asked again and again meanwhile."""
    client, gaps = HttpClient(service.http_port), []
    working = asyncio.create_task(work)
    while not working.done():
        gaps.append((await client.get("/livez")).total_s)
    await working
    client.close()
    return 1e3 * max(gaps)
