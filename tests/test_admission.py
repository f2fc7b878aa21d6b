"""A full queue refuses at once and in words; what waits too long is never computed; nobody else notices."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import grpc
import httpx2
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_server.admission import Admission, Caller, Place, QueueLimits
from inference_server.errors import QueueFull
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import FakeRunner, InProcessService, engine_over, in_process_service, until
from tests.test_cancel import BODY, CHAT
from tests.test_engine import collect, greedy


def ask(max_tokens: int = 5, content: str = "Hello") -> chat_pb2.ChatCompletionRequest:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=content)
    return chat_pb2.ChatCompletionRequest(messages=[message], max_tokens=max_tokens)


THE_BRIDGES = (("chat-client", "127.0.0.1"),)


async def fill(
    service: InProcessService, stub: "chat_pb2_grpc.ChatServiceAsyncStub", waiting: int
) -> "list[asyncio.Task[chat_pb2.ChatCompletion]]":
    """One request that runs, which takes no step, and so many that wait; all of the client that asks the bridge."""

    def asking() -> "asyncio.Task[chat_pb2.ChatCompletion]":
        return asyncio.ensure_future(stub.CreateChatCompletion(ask(), metadata=THE_BRIDGES))

    calls = [asking()]
    await until(lambda: service.engine.use.running_count == 1)
    calls += [asking() for _ in range(waiting)]
    await until(lambda: service.state._chat_count == 1 + waiting)
    return calls


async def test_full_queue_is_refused_over_both_transports_with_a_time_to_come_again() -> None:
    async with (
        in_process_service(FakeRunner(gated=True), max_sequences=1, queue=QueueLimits(3, 10_000, 60)) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
        httpx2.AsyncClient(base_url=service.url, timeout=30) as http,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        calls = await fill(service, stub, waiting=3)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CreateChatCompletion(ask(), metadata=THE_BRIDGES)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(refused.value.details()).startswith("the queue is full: 4 requests are here")
        trailing = dict(refused.value.trailing_metadata() or ())
        assert trailing["grpc-retry-pushback-ms"] == "1000"
        details = trailing["grpc-status-details-bin"]
        assert isinstance(details, bytes)
        packed, _ = status_pb2.Status.FromString(details).details
        retry = error_details_pb2.RetryInfo()
        assert packed.Unpack(retry)
        assert retry.retry_delay.seconds == 1
        for body in (BODY, BODY | {"stream": True}):
            response = await http.post(CHAT, json=body)
            assert response.status_code == 429
            assert response.headers["Retry-After"] == "1"
            assert response.json()["error"]["code"] == "rate_limit_exceeded"
        service.runner.allow(1000)
        answers = await asyncio.gather(*calls)
        assert [answer.usage.completion_tokens for answer in answers] == [5] * 4
        assert (await stub.CreateChatCompletion(ask())).usage.completion_tokens == 5


async def test_queue_is_bounded_by_the_tokens_of_prompts_too() -> None:
    async with (
        in_process_service(FakeRunner(gated=True), max_sequences=1, queue=QueueLimits(100, 50, 60)) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        calls = await fill(service, stub, waiting=0)
        calls.append(
            asyncio.ensure_future(stub.CreateChatCompletion(ask(content="word " * 200), metadata=THE_BRIDGES))
        )  # the first that waits
        await until(lambda: service.engine.waiting_tokens > 50)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CreateChatCompletion(ask(), metadata=THE_BRIDGES)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "tokens of prompts wait" in str(refused.value.details())
        service.runner.allow(1000)
        await asyncio.gather(*calls)
        assert service.engine.use.waiting_tokens == 0
        assert (await stub.CreateChatCompletion(ask())).usage.completion_tokens == 5


async def test_waiting_tokens_are_given_back_by_cancels_and_preemptions() -> None:
    failures: list[BaseException] = []
    runner = FakeRunner(gated=True)
    engine = engine_over(runner, failures.append, max_sequences=1)
    asking = [asyncio.ensure_future(collect(engine, greedy(3), prompt=(index,) * 9)) for index in range(4)]
    await until(lambda: engine.use.running_count == 1)
    for waiting in asking[1:]:
        waiting.cancel()
    runner.allow(100)
    await asking[0]
    await until(lambda: engine.use.counts.cancelled == 3)
    assert engine.use.waiting_tokens == 0
    await engine.stop()


async def test_health_is_answered_while_the_queue_is_full() -> None:
    async with (
        in_process_service(FakeRunner(step_s=0.002), max_sequences=4, queue=QueueLimits(8, 10_000, 60)) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub, health = chat_pb2_grpc.ChatServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        ending, outcomes = asyncio.Event(), Counter[str]()

        async def press() -> None:
            while not ending.is_set():
                try:
                    await stub.CreateChatCompletion(ask(20))
                    outcomes["answered"] += 1
                except grpc.aio.AioRpcError as error:
                    outcomes[error.code().name] += 1

        pressing = [asyncio.ensure_future(press()) for _ in range(48)]  # four times what runs and waits
        for _ in range(200):
            asked = health_pb2.HealthCheckRequest(service="chat.v1.ChatService")
            answer = await health.Check(asked, timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        ending.set()
        await asyncio.gather(*pressing)
        assert set(outcomes) == {"answered", "RESOURCE_EXHAUSTED"}
        assert outcomes["answered"] >= 12


async def test_request_whose_deadline_passes_in_the_queue_is_never_computed() -> None:
    async with (
        in_process_service(FakeRunner(gated=True), max_sequences=1) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        [first] = await fill(service, stub, waiting=0)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub.CreateChatCompletion(ask(), timeout=0.2)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        service.runner.allow(100)
        await first
        await until(lambda: service.sequence_count == 0)
        counts = service.engine.use.counts
        assert (counts.started, counts.finished, counts.cancelled) == (2, 1, 1)
        assert counts.prompt_tokens == first.result().usage.prompt_tokens


async def test_answer_that_takes_longer_than_the_server_allows_ends() -> None:
    async with (
        in_process_service(FakeRunner(gated=True), max_request_s=1) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        service.runner.allow(2)
        stream = stub.StreamChatCompletion(ask(100))
        await stream.read()
        for call in (stub.CreateChatCompletion(ask(100)), drained(stream)):
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await call
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert late.value.details() == "the answer was not ready within the server's limit of 1 s"
        service.runner.allow(2)
        await until(lambda: service.sequence_count == 0)


async def drained(stream: "grpc.aio.UnaryStreamCall") -> None:  # type: ignore[type-arg]
    while await stream.read() is not grpc.aio.EOF:
        pass


@asynccontextmanager
async def admission_of(queue: QueueLimits, max_sequences: int = 2) -> AsyncIterator[Admission]:
    """Over an engine that does nothing, which is all that it asks about."""
    engine = engine_over(FakeRunner(), lambda _: None, max_sequences=max_sequences)
    yield Admission(queue, engine)
    await engine.stop()


def hold(stack: ExitStack, admission: Admission, *clients: str) -> list[Place]:
    return [stack.enter_context(admission.place(Caller(client))) for client in clients]


def learn(admission: Admission, seconds: float) -> None:
    """That requests run for so long."""
    with admission.place(Caller("earlier")) as place:
        place.running_since_s = time.perf_counter() - seconds


async def test_an_idle_server_takes_as_many_at_once_as_may_run_and_wait() -> None:
    async with (
        in_process_service(FakeRunner(step_s=0.01), max_sequences=8, queue=QueueLimits(16, 10_000, 60)) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        for _ in range(3):
            answers = await asyncio.gather(*(stub.CreateChatCompletion(ask(2)) for _ in range(24)))
            assert len(answers) == 24


async def test_a_full_queue_keeps_room_for_other_clients() -> None:
    async with admission_of(QueueLimits(6, 100, 60)) as admission:
        with ExitStack() as stack:
            hold(stack, admission, *["hog"] * 8)
            with pytest.raises(QueueFull, match="8 requests are here"):
                hold(stack, admission, "hog")
            hold(stack, admission, *["other"] * 4)  # half of 2 + 6
            with pytest.raises(QueueFull):
                hold(stack, admission, "other")
            hold(stack, admission, *["third"] * 2)
            with pytest.raises(QueueFull):
                hold(stack, admission, "third")
            hold(stack, admission, "fourth", "fourth")
            with pytest.raises(QueueFull, match="16 requests are here"):  # twice as many in all
                hold(stack, admission, "fifth")
        assert not admission._present


async def test_a_client_may_be_bounded_whatever_room_there_is() -> None:
    async with admission_of(QueueLimits(100, 100, 60, client_requests=3)) as admission:
        with ExitStack() as stack:
            hold(stack, admission, *["one"] * 3)
            with pytest.raises(QueueFull, match="this client has 3 requests here, its most"):
                hold(stack, admission, "one")
            hold(stack, admission, "two")


async def test_a_request_is_refused_if_its_wait_will_be_too_long() -> None:
    async with admission_of(QueueLimits(100, 100, wait_s=10)) as admission:
        learn(admission, 8.0)
        with ExitStack() as stack:
            hold(stack, admission, *["hog"] * 4)  # two run; two wait 4 s and 8 s
            with pytest.raises(QueueFull, match="a wait of 12 s is expected") as refused:
                hold(stack, admission, "hog")
            assert refused.value.retry_after_s in (2, 3)  # the clock went on after `learn`
            hold(stack, admission, "other")  # whose turn comes first


async def test_a_request_is_refused_at_once_if_its_deadline_comes_before_its_turn() -> None:
    async with admission_of(QueueLimits(100, 100, wait_s=100)) as admission:
        learn(admission, 8.0)
        with ExitStack() as stack:
            hold(stack, admission, "hog", "hog")
            with pytest.raises(QueueFull, match=r"a wait of 4\.0 s is expected, past the request's deadline"):
                stack.enter_context(admission.place(Caller("hog", remaining_s=3.0)))
            stack.enter_context(admission.place(Caller("hog", remaining_s=5.0)))


@pytest.mark.parametrize(
    ("metadata", "others"),
    [
        ((("chat-client", "a"),), (("chat-client", "b"),)),
        ((("authorization", "Bearer a"),), (("authorization", "Bearer b"),)),
        ((), (("chat-client", "b"),)),
    ],
)
async def test_clients_are_told_apart_by_what_they_send(
    metadata: tuple[tuple[str, str], ...], others: tuple[tuple[str, str], ...]
) -> None:
    queue = QueueLimits(100, 10_000, 60, client_requests=1)
    async with (
        in_process_service(FakeRunner(gated=True), queue=queue) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        calls = [asyncio.ensure_future(stub.CreateChatCompletion(ask(), metadata=metadata))]
        await until(lambda: service.state._chat_count == 1)
        with pytest.raises(grpc.aio.AioRpcError, match="this client has 1 requests here"):
            await stub.CreateChatCompletion(ask(), metadata=metadata)
        calls.append(asyncio.ensure_future(stub.CreateChatCompletion(ask(), metadata=others)))
        await until(lambda: service.state._chat_count == 2)
        service.runner.allow(1000)
        await asyncio.gather(*calls)
