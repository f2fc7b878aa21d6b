"""The fields of a chat's message are counted before it is parsed. Bytes are put together as protobuf's guide says."""

import random
from typing import Any

import grpc
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from inference_server.errors import InvalidField, TooManyFields
from inference_server.wire_format import _numbers, require_modest_fields
from protos.chat.v1 import chat_pb2
from tests.conftest import Service

KIND = chat_pb2.ChatCompletionRequest.DESCRIPTOR
MAX_BYTES = 4 * 2**20
MOST = 4 * 1024 + 2**14
HELLO = b"\x12\x05\x08\x02\x12\x01x"  # messages: role user, content "x"
TOO_MANY_MESSAGES = "messages: expected 1 to 1024 messages, got more than 1024"
TOO_MANY_FIELDS = f"the request has more than {MOST} fields on the wire"


def varint(number: int) -> bytes:
    return (bytes([number & 0x7F | 0x80]) + varint(number >> 7)) if number > 0x7F else bytes([number])


def inner(tag: int, content: bytes) -> bytes:
    """A field of a message, a text or packed numbers."""
    return varint(tag << 3 | 2) + varint(len(content)) + content


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty messages": (b"\x12\x00" * (MAX_BYTES // 2 - 8), TOO_MANY_MESSAGES),
    "60,000 messages": (HELLO * 60_000, TOO_MANY_MESSAGES),
    "empty biases": (HELLO + b"\x7a\x00" * 2_000_000, TOO_MANY_FIELDS),
    "empty resumes": (HELLO + b"\xa2\x01\x00" * 1_000_000, TOO_MANY_FIELDS),
    "stop texts": (HELLO + b"\x42\x00" * 2_000_000, TOO_MANY_FIELDS),
    "ids that are not packed": (HELLO + b"\x88\x01\x01" * 1_000_000, TOO_MANY_FIELDS),
    "unknown fields": (HELLO + b"\xa8\x06\x00" * 1_000_000, TOO_MANY_FIELDS),
    "unknown groups": (HELLO + b"\xab\x06\xac\x06" * 1_000_000, TOO_MANY_FIELDS),
    "unknown fields of one message": (inner(2, b"\x08\x02" + b"\x20\x00" * 1_000_000), TOO_MANY_FIELDS),
    "resumed ids that are not packed": (HELLO + inner(20, b"\x08\x01" * 1_000_000), TOO_MANY_FIELDS),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_chat_of_too_many_fields_is_refused(name: str) -> None:
    payload, words = HOSTILE[name]
    with pytest.raises((InvalidField, TooManyFields)) as raised:
        require_modest_fields(payload, KIND, 1024)
    assert str(raised.value).startswith(words)


async def test_the_server_refuses_it_before_it_is_parsed(service: Service) -> None:
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        for method in ("CreateChatCompletion", "GetModel"):
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                f"/chat.v1.ChatService/{method}", request_serializer=bytes
            )
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"\x12\x00" * 1_000_000)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            words = TOO_MANY_MESSAGES if method == "CreateChatCompletion" else TOO_MANY_FIELDS
            assert str(raised.value.details()).startswith(words)


def test_the_largest_chats_are_let_through() -> None:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="x" * 3000, name="n" * 256)
    ids = list(range(2**18))
    request = chat_pb2.ChatCompletionRequest(
        model="m", messages=[message] * 1024, temperature=1, top_p=1, seed=-1, stop=["x"] * 4,
        logit_bias={token_id: 1.0 for token_id in range(1024)}, stop_token_ids=ids[:64],
        resume=chat_pb2.Resume(token_ids=ids, seed=-1), continuous_usage=True,
    )  # fmt: skip
    require_modest_fields(request.SerializeToString(), KIND, 1024)
    few = chat_pb2.ChatCompletionRequest(messages=[message] * 4000)
    require_modest_fields(few.SerializeToString(), KIND, 1024)  # convert.py counts these exactly


def some_fields(chosen: random.Random) -> bytes:
    number = chosen.choice((1, 3, 100, 2**28))  # of no inner message
    values = [varint(chosen.randrange(2**63)), bytes(8), inner(0, bytes(chosen.randrange(300)))[1:], b"", b"", bytes(4)]
    kind = chosen.choice((0, 1, 2, 5))
    group = varint(number << 3 | 3), varint(number << 3 | 4)
    return varint(number << 3 | kind) + values[kind] if chosen.random() < 0.8 else group[0] + group[1]


def test_fields_are_counted_as_protobuf_counts_them() -> None:
    """To GetModelRequest every field is unknown, and protobuf lists those. A group's two tags are two here."""
    chosen = random.Random(1)
    for _ in range(200):
        payload = b"".join(some_fields(chosen) for _ in range(chosen.randrange(20)))
        known: Any = UnknownFieldSet(chat_pb2.GetModelRequest.FromString(payload))
        numbers = [number for one in known for number in [one.field_number] * (2 if one.wire_type == 3 else 1)]
        assert list(_numbers(payload, KIND)) == numbers


@pytest.mark.parametrize(
    "payload",
    [b"\xff" * MAX_BYTES, HELLO + b"\x12" + b"\xff" * MAX_BYTES, b"\x12\xff\xff\xff\xff\x7f" + b"\0" * MAX_BYTES],
)
def test_malformed_bytes_are_left_to_protobuf(payload: bytes) -> None:
    require_modest_fields(payload, KIND, 1024)
    chosen, reader = random.Random(2), chat_pb2.ChatCompletionRequest
    for _ in range(300):
        changed = bytearray(HELLO * 4 + inner(20, inner(1, b"\x05\x06")))
        changed[chosen.randrange(len(changed))] = chosen.randrange(256)
        assert len(list(_numbers(bytes(changed), KIND))) <= len(changed)
    assert _is_malformed(reader, payload)


def _is_malformed(kind: Any, payload: bytes) -> bool:
    try:
        kind.FromString(payload)
    except Exception:
        return True
    return False
