"""The ranges of the request's fields: to their ends, over both transports, and as documented."""

import math

import grpc
import httpx2
import pytest

from http_bridge.schemas import ChatCompletionRequest
from http_bridge.translate import to_grpc
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from protos.chat.v1.ranges import INNER_RANGES, RANGES
from tests.test_contract import CHAT, HELLO, field_of


def hello() -> chat_pb2.ChatCompletionRequest:
    return to_grpc(ChatCompletionRequest.model_validate({"messages": HELLO}))


@pytest.mark.parametrize("field", RANGES)
async def test_ends_of_every_range_are_allowed(field: str, http: httpx2.AsyncClient) -> None:
    low, high = RANGES[field].low, RANGES[field].high
    inside = [math.nextafter(low, high), math.nextafter(high, low)] if isinstance(low, float) else [low + 1, high - 1]
    for value in (low, *inside, high):
        body = {"messages": HELLO, "max_tokens": 1, "logprobs": True} | {field: value}
        response = await http.post(CHAT, json=body)
        too_long = field in ("max_tokens", "min_tokens") and value > 2**30
        assert response.status_code == (400 if too_long else 200), response.text


NOT_FINITE = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("field", [name for name, allowed in RANGES.items() if isinstance(allowed.low, float)])
async def test_number_that_is_not_finite_is_refused(
    field: str, value: float, stub: "chat_pb2_grpc.ChatServiceAsyncStub"
) -> None:
    asked = hello()
    setattr(asked, field, value)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateChatCompletion(asked)
    assert raised.value.details() == f"{field}: expected {RANGES[field]}, got {value}"
    assert field_of(raised.value) == field


@pytest.mark.parametrize("value", NOT_FINITE)
async def test_bias_that_is_not_finite_is_refused(value: float, stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    asked = hello()
    asked.logit_bias[5] = value
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateChatCompletion(asked)
    assert raised.value.details() == f"logit_bias[5]: expected a number from -100.0 to 100.0, got {value}"


async def test_negative_token_id_of_a_bias_is_refused(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    asked = hello()
    asked.logit_bias[-1] = 1.0
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateChatCompletion(asked)
    assert field_of(raised.value) == "logit_bias[-1]"


async def test_documented_ranges_are_the_ones_that_are_enforced(http: httpx2.AsyncClient) -> None:
    schema = (await http.get("/openapi.json")).json()["components"]["schemas"]["ChatCompletionRequest"]
    for field, allowed in RANGES.items():
        documented = next(kind for kind in schema["properties"][field]["anyOf"] if "minimum" in kind)
        assert (documented["minimum"], documented["maximum"]) == (allowed.low, allowed.high)
    [biases] = [kind for kind in schema["properties"]["logit_bias"]["anyOf"] if kind.get("type") == "object"]
    bias = biases["additionalProperties"]
    allowed = INNER_RANGES["logit_bias[]"]
    assert (bias["minimum"], bias["maximum"]) == (allowed.low, allowed.high)
