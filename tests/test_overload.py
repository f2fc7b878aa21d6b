"""The bridge refuses in the server's name while the server is full or behind, and nobody else's chats."""

import asyncio
from collections.abc import Iterator

import httpx2
import pytest

from http_bridge.errors import ApiError
from http_bridge.overload import _BEHIND_CHATS, _BEHIND_S, _KNOWN_S, _TRIAL_S, Overload
from inference_server.admission import QueueLimits
from observability.descriptors import accepted_at_once
from tests.fakes import FakeRunner, in_process_service, until
from tests.test_cancel import BODY, CHAT


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def overload(clock: Clock) -> Overload:
    return Overload(clock)


def full() -> ApiError:
    error = ApiError(429, "the queue is full: 3 requests are here", code="rate_limit_exceeded")
    error.is_queue_full = True
    return error


def refuse(overload: Overload, client: str) -> None:
    """One more chat of this client, which the server refuses."""
    overload.enter(client)
    with pytest.raises(ApiError), overload.asked(client):
        raise full()
    overload.leave(client)


def take(overload: Overload, client: str) -> None:
    """One more chat of this client, which the server takes in."""
    overload.enter(client)
    with overload.asked(client) as taken_in:
        taken_in()


def is_let_in(overload: Overload, client: str) -> bool:
    try:
        overload.enter(client)
    except ApiError as error:
        return not (error.status_code == 429 and error.code == "rate_limit_exceeded")
    return True


def test_a_client_that_was_refused_is_refused_here_until_one_of_its_chats_ends(overload: Overload) -> None:
    take(overload, "hog")
    take(overload, "hog")
    refuse(overload, "hog")
    assert not is_let_in(overload, "hog")
    overload.leave("hog")
    assert is_let_in(overload, "hog")
    assert not is_let_in(overload, "hog")


def test_a_refusal_concerns_its_client_alone(overload: Overload) -> None:
    take(overload, "hog")
    refuse(overload, "hog")
    assert is_let_in(overload, "other")
    refuse(overload, "new")  # one that has no chats here, as all others that have none
    assert not is_let_in(overload, "newer")
    assert is_let_in(overload, "other")


def test_some_are_let_through_to_see_whether_there_is_room_again(overload: Overload, clock: Clock) -> None:
    take(overload, "hog")
    refuse(overload, "hog")
    clock.now_s += 1.5 * _TRIAL_S
    take(overload, "hog")  # and there is
    assert not is_let_in(overload, "hog")
    overload.leave("hog")
    assert is_let_in(overload, "hog")


def test_a_refusal_is_forgotten(overload: Overload, clock: Clock) -> None:
    take(overload, "hog")
    refuse(overload, "hog")
    clock.now_s += 1.01 * _KNOWN_S
    assert all(is_let_in(overload, "hog") for _ in range(20))
    assert not overload._refusals


def test_a_server_that_takes_nothing_in_gets_no_more(overload: Overload, clock: Clock) -> None:
    calls = [waiting(overload, str(number)) for number in range(_BEHIND_CHATS)]
    for call in calls:
        next(call)
    assert is_let_in(overload, "in time")
    clock.now_s += 1.01 * _BEHIND_S
    assert is_let_in(overload, "a trial")
    assert not is_let_in(overload, "one more")
    next(calls[0])  # the server takes one in
    assert is_let_in(overload, "one more")


def waiting(overload: Overload, client: str) -> Iterator[None]:
    overload.enter(client)
    with overload.asked(client) as taken_in:
        yield
        taken_in()
        yield


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_server_is_asked_seldom_and_the_answer_says_the_same(stream: bool) -> None:
    async with (
        in_process_service(FakeRunner(gated=True), max_sequences=1, queue=QueueLimits(1, 10_000, 60)) as service,
        httpx2.AsyncClient(base_url=service.url, timeout=30) as http,
    ):
        body = BODY | {"stream": stream, "max_tokens": 5}
        held = [asyncio.ensure_future(http.post(CHAT, json=body)) for _ in range(2)]
        await until(lambda: service.state._chat_count == 2)
        refused = [await http.post(CHAT, json=body) for _ in range(20)]
        assert {answer.status_code for answer in refused} == {429}
        assert len({answer.text for answer in refused}) == 1
        assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
        outcomes = service.metrics.registry.get_sample_value("chat_requests_total", {"outcome": "refused"})
        assert outcomes is not None
        assert 1 <= outcomes < 20
        service.runner.allow(1000)
        assert {answer.status_code for answer in await asyncio.gather(*held)} == {200}
        assert (await http.post(CHAT, json=body)).status_code == 200


@pytest.mark.parametrize(("soft", "most"), [(256, 8), (1024, 8), (4096, 64), (1_048_576, 256)])
def test_connections_accepted_in_a_round_leave_descriptors_free(
    soft: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (soft, soft))
    assert 1 <= accepted_at_once() <= most
