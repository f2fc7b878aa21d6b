"""The prefix cache: beginnings that were computed once are found again, and only where all before them is equal."""

from inference_server.engine.kv_cache import KVCache
from inference_server.engine.types import Sequence
from tests.test_scheduler import greedy, run, scheduler_of, step


def test_second_turn_computes_only_what_is_new() -> None:
    scheduler = scheduler_of(block_count=100, budget=1000)
    first = run(scheduler, Sequence(tuple(range(40)), greedy(9)))
    prompt = (*first.prompt_token_ids, *first.token_ids, 5, 6, 7)
    second = Sequence(prompt, greedy(3))
    scheduler.add(second)
    [chunk] = step(scheduler)
    assert (chunk.start, chunk.count) == (48, 4)  # 12 blocks of 4; the last answer token was never computed
    assert second.cached_count == 48
    assert scheduler.cache.use.hit_tokens == 48


def test_whole_prompt_in_the_cache_leaves_a_block_to_compute() -> None:
    scheduler = scheduler_of(block_count=100, budget=1000)
    run(scheduler, Sequence(tuple(range(8)), greedy(1)))
    again = Sequence(tuple(range(8)), greedy(1))
    scheduler.add(again)
    [chunk] = step(scheduler)
    assert (chunk.start, chunk.count) == (4, 4)


def test_blocks_are_shared_only_where_everything_before_is_equal() -> None:
    scheduler = scheduler_of(block_count=100, budget=1000)
    run(scheduler, Sequence((1, 1, 1, 1, 2, 2, 2, 2, 3), greedy(1)))
    other = Sequence((9, 1, 1, 1, 2, 2, 2, 2, 3), greedy(1))
    scheduler.add(other)
    [chunk] = step(scheduler)
    assert chunk.start == 0


def test_a_salt_of_its_own_makes_other_digests() -> None:
    digests = []
    for salt in (b"a", b"b"):
        sequence = Sequence(tuple(range(9)), greedy(1))
        KVCache(10, 4, salt).admit(sequence, 0)
        digests.append(sequence.block_digests)
    assert digests[0] != digests[1]
    assert all(len(digest) == 32 for digest in digests[0])


def test_the_least_recently_used_prefix_is_evicted_first() -> None:
    scheduler = scheduler_of(block_count=8, block_size=4, budget=1000)
    prompts = [tuple(range(start, start + 9)) for start in (0, 100, 200)]  # two full blocks each
    for prompt in prompts:
        run(scheduler, Sequence(prompt, greedy(1)))
    run(scheduler, Sequence(prompts[0], greedy(1)))  # used again: the second is the oldest now
    run(scheduler, Sequence(tuple(range(300, 313)), greedy(1)))  # four blocks: two more than are free
    cached = {}
    for index in (1, 2, 0):
        sequence = Sequence(prompts[index], greedy(1))
        cached[index] = len(scheduler.cache._known_blocks(sequence))
    assert cached[1] < 2
    assert (cached[0], cached[2]) == (2, 2)
