"""Long prompts beside the event loop: shortest first, none for a caller that has left, none to its end in vain."""

import asyncio
import gc
import threading
from collections.abc import Iterator, Sequence

import grpc
import pytest

from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.text_tokenizer import _MOST_PIECE_CHARACTERS
from inference_server.chat.types import Message, Role
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.encode_queue import EncodeQueue
from inference_server.errors import InvalidField, PromptTooLong
from protos.chat.v1 import chat_pb2_grpc
from tests.fakes import FakeRunner, in_process_service, until
from tests.test_admission import ask

LONG, SHORT = 100_000, 10_000


def of(characters: int) -> list[Message]:
    return [Message(Role.USER, "x" * characters)]


class GatedEncoder:
    """Gives one list of ids for each that is allowed; remembers whom it has begun with."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.allowed = threading.Semaphore(0)

    def pieces(self, messages: Sequence[Message]) -> Iterator[list[int]]:
        self.begun.append(len(messages[0].content))
        for _ in range(3):
            self.allowed.acquire()
            yield [1, 2, 3]


def queue_of(encoder: GatedEncoder, max_tokens: int = 100) -> EncodeQueue:
    return EncodeQueue(encoder, max_tokens)  # type: ignore[arg-type]


async def test_one_long_prompt_is_encoded_at_a_time_and_the_shortest_comes_first() -> None:
    encoder = GatedEncoder()
    queue = queue_of(encoder)
    calls = [asyncio.ensure_future(queue.encode(of(LONG + more), None)) for more in (0, 3, 1, 2)]
    await until(lambda: bool(encoder.begun))
    encoder.allowed.release(12)
    assert await asyncio.gather(*calls) == [(1, 2, 3) * 3] * 4
    assert encoder.begun == [LONG, LONG + 1, LONG + 2, LONG + 3]


async def test_a_short_prompt_does_not_wait_for_long_ones() -> None:
    encoder = GatedEncoder()
    queue = queue_of(encoder)
    long = [asyncio.ensure_future(queue.encode(of(LONG), None)) for _ in range(2)]
    await until(lambda: encoder.begun == [LONG])
    short = asyncio.ensure_future(queue.encode(of(SHORT), None))
    await until(lambda: encoder.begun == [LONG, SHORT])
    encoder.allowed.release(9)
    await asyncio.gather(short, *long)


async def test_a_prompt_whose_caller_has_left_is_dropped_where_it_is() -> None:
    encoder = GatedEncoder()
    queue = queue_of(encoder)
    running, waiting, last = (asyncio.ensure_future(queue.encode(of(LONG + more), None)) for more in (0, 1, 2))
    await until(lambda: bool(encoder.begun))
    running.cancel()
    waiting.cancel()
    encoder.allowed.release(1 + 3)  # the running one's piece at hand, and all of the last one
    assert await asyncio.wait_for(last, 10) == (1, 2, 3) * 3
    assert encoder.begun == [LONG, LONG + 2]


async def test_a_failure_is_its_callers_alone() -> None:
    class Failing(GatedEncoder):
        def pieces(self, messages: Sequence[Message]) -> Iterator[list[int]]:
            if len(messages[0].content) == LONG:
                raise InvalidField("messages", "bad")
            yield [7]

    queue = queue_of(Failing())
    bad, good = (asyncio.ensure_future(queue.encode(of(LONG + more), None)) for more in (0, 1))
    with pytest.raises(InvalidField, match="bad"):
        await bad
    assert await good == (7,)


async def test_a_prompt_is_counted_no_further_than_its_first_piece_beyond_the_context() -> None:
    encoder = GatedEncoder()
    encoder.allowed.release(3)
    with pytest.raises(PromptTooLong, match=r"maximum context length is 5 tokens.*at least 16 tokens \(at least 6 in"):
        await queue_of(encoder, max_tokens=5).encode(of(LONG), 10)
    assert encoder.allowed.acquire(blocking=False)


@pytest.mark.parametrize("run", ["a", " ", "/", "中", "ส", "\n"])
def test_text_that_cannot_be_divided_is_refused_before_it_is_tokenised(run: str) -> None:
    encoder = PromptEncoder(CHECKPOINT_DIR)
    with pytest.raises(InvalidField, match=rf"^messages: expected at most {_MOST_PIECE_CHARACTERS} letters"):
        encoder.encode([Message(Role.USER, run * (_MOST_PIECE_CHARACTERS + 1))])
    encoder.encode([Message(Role.USER, run * 10_000)])


@pytest.mark.parametrize("script", ["สวัสดี ", "שלום, ", "مرحبا. ", "नमत, ", "Ωμέγα; ", "héé, "])
async def test_long_text_of_any_script_is_divided(script: str) -> None:
    encoder = PromptEncoder(CHECKPOINT_DIR)
    with pytest.raises(PromptTooLong):
        await EncodeQueue(encoder, 1000).encode([Message(Role.USER, script * 300_000)], None)


@pytest.mark.parametrize("text", ["hello world, ", "a"])
async def test_nothing_is_left_of_a_large_request_that_was_refused(text: str) -> None:
    """Without help of the collector of cycles, which comes seldom."""
    async with (
        in_process_service(FakeRunner()) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        gc.disable()
        try:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.CreateChatCompletion(ask(1, text * (3 * 2**20 // len(text))))
            await until(lambda: not any(is_long_message(one) for one in gc.get_objects()))
        finally:
            gc.enable()


def is_long_message(one: object) -> bool:
    return type(one) is Message and len(one.content) > 2**20
