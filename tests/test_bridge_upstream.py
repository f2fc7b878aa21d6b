"""What the bridge makes of the server's refusals, of deadlines and of clients that leave."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import httpx2
import pytest

from tests.fake_upstream import FakeUpstream, fake_upstream
from tests.fakes import InProcessBridge, in_process_bridge, until

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}]}
REFUSALS = [
    (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "rate_limit_error"),
    (grpc.StatusCode.UNAVAILABLE, 503, "server_error"),
]


@dataclass(frozen=True)
class Pair:
    """A bridge and what stands behind it."""

    upstream: FakeUpstream
    bridge: InProcessBridge
    client: httpx2.AsyncClient


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with (
        fake_upstream() as upstream,
        in_process_bridge(upstream.address) as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client,
    ):
        yield Pair(upstream, bridge, client)


def events(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.split("\n\n") if line]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("delay_s", "retry_after"), [(0.0, "1"), (0.3, "1"), (2.0, "2"), (2.5, "3")])
@pytest.mark.parametrize(("code", "status", "kind"), REFUSALS)
async def test_refusal_is_plain_http_with_retry_after(
    pair: Pair, stream: bool, delay_s: float, retry_after: str, code: grpc.StatusCode, status: int, kind: str
) -> None:
    pair.upstream.refusal = (code, "the queue is full", delay_s)
    answer = await pair.client.post(CHAT, json=BODY | {"stream": stream})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Retry-After"] == retry_after
    error = answer.json()["error"]
    assert (error["message"], error["type"]) == ("the queue is full", kind)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "values"),
    [
        (400, ["0", "-1", "nan", "inf", "1e3", "1_0", "315360000", "86400.1", "9" * 400, ""]),
        (504, ["0.000001", "0.000000001", "0.0001"]),
        (200, ["86400", "60.5", "29.987654321098765"]),
    ],
)
async def test_timeout_is_refused_or_kept(pair: Pair, stream: bool, status: int, values: list[str]) -> None:
    for value in values:
        asked = BODY | {"stream": stream}
        answer = await pair.client.post(CHAT, json=asked, headers={"X-Request-Timeout": value})
        assert answer.status_code == status, value
        assert ("error" in answer.text) == (status != 200)


async def test_late_whole_answer_is_a_504(pair: Pair) -> None:
    pair.upstream.open.clear()
    answer = await pair.client.post(CHAT, json=BODY, headers={"X-Request-Timeout": "0.2"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    await until(lambda: pair.upstream.running == 0)


async def test_deadline_within_a_stream_is_an_event_without_done(pair: Pair) -> None:
    pair.upstream.open.clear()
    answer = await pair.client.post(CHAT, json=BODY | {"stream": True}, headers={"X-Request-Timeout": "0.3"})
    assert answer.status_code == 200
    *_, last = events(answer.text)
    assert json.loads(last)["error"]["code"] == "deadline_exceeded"
    await until(lambda: pair.upstream.running == 0)


@pytest.mark.parametrize("chunk_count", [0, 3])
async def test_what_came_before_a_failure_at_the_very_end_is_sent(pair: Pair, chunk_count: int) -> None:
    pair.upstream.chunk_count, pair.upstream.failure_at_end = chunk_count, grpc.StatusCode.DEADLINE_EXCEEDED
    answer = await pair.client.post(CHAT, json=BODY | {"stream": True})
    *sent, last = map(json.loads, events(answer.text))
    choices = [choice for one in sent for choice in one["choices"]]
    assert sum("x" in choice["delta"].get("content", "") for choice in choices) == chunk_count
    assert choices[-1]["finish_reason"] == "stop"
    assert last["error"]["code"] == "deadline_exceeded"


async def test_deadline_counts_from_the_request_not_from_its_last_byte(pair: Pair) -> None:
    body = json.dumps(BODY).encode()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:5]
        await asyncio.sleep(0.5)
        yield body[5:]

    headers = {"X-Request-Timeout": "0.4", "Content-Type": "application/json"}
    assert (await pair.client.post(CHAT, content=slowly(), headers=headers)).status_code == 504


@pytest.mark.parametrize("stream", [False, True])
async def test_call_ends_soon_after_its_client(pair: Pair, stream: bool) -> None:
    pair.upstream.open.clear()
    asking = asyncio.create_task(pair.client.post(CHAT, json=BODY | {"stream": stream}))
    await until(lambda: pair.upstream.running == 1)
    asking.cancel()
    gone_s = time.monotonic()
    await until(lambda: pair.upstream.running == 0)
    assert time.monotonic() - gone_s < 1
