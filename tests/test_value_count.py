"""How many values a body may have: counted before it is parsed, between the turns of other tasks."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from http_bridge import app, schemas, strict_request, value_count
from http_bridge.value_count import MAX_VALUES, has_too_many_values
from tests.fake_upstream import fake_upstream
from tests.fakes import in_process_bridge

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
HELLO = '[{"role": "user", "content": "x"}]'
MAX_BYTES = 4 * 2**20
TEXTS = ("", "a", ",", '"', "\\", '\\"', "[{,:}]", "\\\\", 'a\\",[', "你,", "\n\t", "\ud83d\ude00")
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        fake_upstream() as upstream,
        in_process_bridge(upstream.address) as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=60) as client,
    ):
        yield client


def counted(value: Any) -> int:
    """The number of values, an empty list or object as two."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 1 if inner is None else 1 + (sum(map(counted, inner)) if inner else 1)


def some_value(chosen: random.Random, depth: int = 0) -> Any:
    kind = chosen.randrange(7 if depth < 4 else 5)
    if kind == 5:
        return [some_value(chosen, depth + 1) for _ in range(chosen.randrange(4))]
    if kind == 6:
        return {chosen.choice(TEXTS) + str(n): some_value(chosen, depth + 1) for n in range(chosen.randrange(4))}
    return (chosen.choice(TEXTS), 1.5, None, True, -3)[kind]


async def test_the_count_is_that_of_the_parsed_value_wherever_slices_end(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = random.Random(1)
    for _ in range(300):
        value = some_value(chosen)
        body = json.dumps(value, ensure_ascii=chosen.random() < 0.5, indent=chosen.choice((None, 1)))
        monkeypatch.setattr(value_count, "_SLICE_BYTES", chosen.randrange(1, 9))
        encoded = body.encode(errors="replace")
        monkeypatch.setattr(value_count, "MAX_VALUES", counted(value))
        assert not await has_too_many_values(encoded), body
        monkeypatch.setattr(value_count, "MAX_VALUES", counted(value) - 1)
        assert await has_too_many_values(encoded), body


HOSTILE = {
    "messages": '{"messages": [' + ",".join(['{"role":"user","content":""}'] * 100_000) + "]}",
    "parts": '{"messages": [{"role":"user","content":[' + ",".join(['{"type":"text","text":""}'] * 100_000) + "]}]}",
    "lists": f'{{"messages": {HELLO}, "metadata": {{"a": [' + ",".join(["[]"] * 1_000_000) + "]}}",
    "deep lists": f'{{"messages": {HELLO}, "metadata": {{"a": [' + ",".join(["[" * 60 + "]" * 60] * 30_000) + "]}}",
    "ids": f'{{"messages": {HELLO}, "stop_token_ids": [' + ",".join(["1"] * 1_000_000) + "]}",
    "texts": f'{{"messages": {HELLO}, "metadata": {{"a": [' + ",".join(['""'] * 1_000_000) + "]}}",
    "names": f'{{"messages": {HELLO}, "metadata": {{' + ",".join(f'"{n}":1' for n in range(300_000)) + "}}",
    "equal names": f'{{"messages": {HELLO}, "metadata": {{' + ",".join(['"a":1'] * 300_000) + "}}",
    "not closed": "[" + ",".join(["[]"] * 1_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_body_of_too_many_values_is_refused_and_never_parsed(
    name: str, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(HOSTILE[name]) <= MAX_BYTES
    monkeypatch.setattr(strict_request, "parse_json", None)
    response = await client.post(CHAT, content=HOSTILE[name], headers=JSON)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"body: more than {MAX_VALUES} values"


async def test_other_tasks_run_while_marks_in_texts_are_passed_over() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": ',[{"' * (MAX_BYTES // 5)}]}).encode()
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    assert not await has_too_many_values(body)
    other.cancel()
    assert turns >= len(body) // 2**16


STEPS = (
    (strict_request, "parse_json"), (strict_request, "require_modest"), (schemas, "require_neutral"),
    (strict_request, "ignored_fields"), (app, "to_grpc"),
)  # fmt: skip


async def test_other_tasks_run_between_the_steps_on_a_large_body(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, began = 0, {}

    def noted(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            began[name] = turns
            return step(*arguments)

        return run

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for module, name in STEPS:
        monkeypatch.setattr(module, name, noted(name, getattr(module, name)))
    other = asyncio.create_task(take_turns())
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 5}] * 1024}
    assert (await client.post(CHAT, json=body)).status_code == 200
    other.cancel()
    assert list(began) == [name for _, name in STEPS]
    assert len(set(began.values())) == len(STEPS)


async def test_long_conversations_and_large_objects_are_served(client: httpx2.AsyncClient) -> None:
    text = '[{"a": "b", "c": [1, 2, {}]}], \\ "quoted", ' * 70
    messages = [{"role": "user", "content": text}] * 1024
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"enum": list(range(2000))}}}] * 5
    body = {"messages": messages, "metadata": {"a": [{"b": [1, 2, 3]}] * 3000}, "tools": tools, "tool_choice": "none"}
    content = json.dumps(body)
    assert MAX_BYTES * 0.8 < len(content) <= MAX_BYTES
    assert (await client.post(CHAT, content=content, headers=JSON)).status_code == 200


@pytest.mark.parametrize("escapes", ["\\ud83d\\ude00", "\\uD83D\\uDE00", "\\\\ud800", "\\\\\\\\uD800 \\ud83d\\ude00"])
async def test_whole_pairs_of_surrogates_are_served(escapes: str, client: httpx2.AsyncClient) -> None:
    content = f'{{"messages": [{{"role": "user", "content": "{escapes}"}}], "metadata": {{"{escapes}": []}}}}'
    assert (await client.post(CHAT, content=content, headers=JSON)).status_code == 200


@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "\\ude00\\ud83d", "\\ud83d\\\\ude00", "x\\uD83d"])
@pytest.mark.parametrize("place", ['"{}"', '["{}"]', '{{"{}": 1}}', '[[{{"a": ["\\ud83d", "{}"]}}]]'])
async def test_half_of_a_surrogate_pair_is_refused_anywhere(half: str, place: str, client: httpx2.AsyncClient) -> None:
    content = f'{{"messages": {HELLO}, "metadata": {{"a": {place.format(half)}}}}}'
    response = await client.post(CHAT, content=content, headers=JSON)
    assert response.json()["error"]["message"] == "body: a string has half of a surrogate pair"
