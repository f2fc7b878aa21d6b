"""Clients have fair turns: one with hundreds of requests keeps another from nothing."""

from collections import Counter

from inference_server.engine.scheduler import Scheduler
from inference_server.engine.types import Sequence
from inference_server.engine.waiting import WaitingLines
from tests.test_scheduler import check_blocks, greedy, scheduler_of, step


def sequence(client: str, prompt_tokens: int = 4, max_tokens: int = 50) -> Sequence:
    return Sequence((1,) * prompt_tokens, greedy(max_tokens), client=client)


def running_by_client(scheduler: Scheduler) -> Counter[str]:
    return Counter(one.client for one in scheduler._running)


def steps_until_done(scheduler: Scheduler, wanted: Sequence) -> int:
    for steps in range(1, 1000):
        step(scheduler)
        if wanted not in scheduler._running and wanted not in list(scheduler._waiting):
            return steps
    raise AssertionError("never done")


def test_turns_go_about_between_clients_and_each_clients_requests_stay_in_order() -> None:
    lines = WaitingLines()
    arrived = [sequence(client) for client in "AAABBC"]
    for one in arrived:
        lines.add(one)
    taken = []
    while following := lines.next({}):
        lines.take(following)
        taken.append(following)
    assert [one.client for one in taken] == list("ABCABA")
    for client in "ABC":
        assert [one for one in taken if one.client == client] == [one for one in arrived if one.client == client]
    assert (len(lines), lines.tokens) == (0, 0)


def test_the_client_with_the_fewest_running_comes_first() -> None:
    lines = WaitingLines()
    for client in "AB":
        lines.add(sequence(client))
    following = lines.next({"A": 3, "B": 1})
    assert following
    assert following.client == "B"


def test_a_newcomer_among_hundreds_of_long_requests_runs_at_once() -> None:
    scheduler = scheduler_of(block_count=4000, max_sequences=8, budget=64)
    for _ in range(384):
        scheduler.add(sequence("hog", max_tokens=3000))
    for _ in range(20):
        step(scheduler)
    assert running_by_client(scheduler) == {"hog": 8}
    newcomer = sequence("other", max_tokens=5)
    scheduler.add(newcomer)
    assert steps_until_done(scheduler, newcomer) <= 6
    assert scheduler.counts.preempted == 1


def test_a_newcomer_finds_blocks_though_the_cache_is_full_of_anothers() -> None:
    scheduler = scheduler_of(block_count=64, max_sequences=8, budget=64)
    for _ in range(8):
        scheduler.add(sequence("hog", prompt_tokens=20, max_tokens=200))
    while scheduler.cache.available_count > 2:
        step(scheduler)
    newcomer = sequence("other", prompt_tokens=30, max_tokens=3)
    scheduler.add(newcomer)
    assert steps_until_done(scheduler, newcomer) <= 5


def test_shares_become_equal_and_then_nobody_is_preempted_for_turns() -> None:
    scheduler = scheduler_of(block_count=4000, max_sequences=9, budget=64)
    for client in "ABC":
        for _ in range(20):
            scheduler.add(sequence(client, max_tokens=3000))
        step(scheduler)
    for _ in range(20):
        step(scheduler)
    assert running_by_client(scheduler) == {"A": 3, "B": 3, "C": 3}
    preempted = scheduler.counts.preempted
    for _ in range(50):
        step(scheduler)
    assert scheduler.counts.preempted == preempted


def test_one_client_alone_is_served_in_order_and_never_preempted_for_turns() -> None:
    scheduler = scheduler_of(block_count=4000, max_sequences=2, budget=64)
    requests = [sequence("only", max_tokens=4) for _ in range(6)]
    for one in requests:
        scheduler.add(one)
    done: list[Sequence] = []
    while len(done) < 6:
        step(scheduler)
        done += [one for one in requests if one not in done and len(one.token_ids) == 4]
    assert done == requests
    assert scheduler.counts.preempted == 0
    check_blocks(scheduler, [])
