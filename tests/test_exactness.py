"""The same answer whatever else is running: in float32 every answer is what the request gets alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.kv_cache import KVCache
from inference_server.engine.model_loader import LoadedModel
from inference_server.engine.sampler import Sampler
from inference_server.engine.scheduler import Scheduler
from inference_server.engine.types import Computed, SamplingParams, Sequence
from tests.checkpoints import Shape, write_checkpoint
from tests.mixes import Mixes
from tests.model_engine import ALONE, EngineOptions, SteppedEngine, all_logits, load, tokens_of

GREEDY = SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=30, ignore_eos=True)
SAMPLED = dataclasses.replace(GREEDY, temperature=1.0, top_p=0.95, seed=11, frequency_penalty=0.5)
PROMPTS = [tuple((7 * i + 31 * j) % 290 + 1 for j in range(10 + 13 * i)) for i in range(6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = tmp_path_factory.mktemp("exact")
    write_checkpoint(directory, Shape())
    return load(directory)


def alone(model: LoadedModel, prompt: tuple[int, ...], params: SamplingParams) -> list[int]:
    options = dataclasses.replace(ALONE, attention=GatheredAttention)
    return tokens_of(SteppedEngine(model, options).answer(prompt, params))


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_batched_is_alone(model: LoadedModel, params: SamplingParams) -> None:
    engine = SteppedEngine(model, EngineOptions())
    sequences = []
    for prompt in PROMPTS:
        sequences.append(engine.add(prompt, params))
        engine.step()  # each joins while those before it decode
    while engine.is_busy:
        engine.step()
    for prompt, sequence in zip(PROMPTS, sequences, strict=True):
        assert tokens_of(engine.events[sequence]) == alone(model, prompt, params)


@pytest.mark.parametrize("budget", [4, 7, 33])
def test_prompt_in_chunks_is_the_whole(model: LoadedModel, budget: int) -> None:
    engine = SteppedEngine(model, EngineOptions(max_step_tokens=budget))
    assert tokens_of(engine.answer(PROMPTS[5], GREEDY)) == alone(model, PROMPTS[5], GREEDY)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_cached_is_recomputed(model: LoadedModel, params: SamplingParams) -> None:
    engine = SteppedEngine(model, EngineOptions())
    first = tokens_of(engine.answer(PROMPTS[3], params))
    prompt = (*PROMPTS[3], *first, 5, 6, 7)
    events = engine.answer(prompt, params)
    assert events[0].cached_count >= len(prompt) - 32
    assert tokens_of(events) == alone(model, prompt, params)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prefix_caching", [False, True])
def test_preempted_is_undisturbed(model: LoadedModel, params: SamplingParams, prefix_caching: bool) -> None:
    options = EngineOptions(block_count=44, block_size=4, prefix_caching=prefix_caching)
    engine = SteppedEngine(model, options)
    sequences = [engine.add(prompt, params) for prompt in PROMPTS]
    while engine.is_busy:
        engine.step()
    assert engine.scheduler.counts.preempted >= 2
    for prompt, sequence in zip(PROMPTS, sequences, strict=True):
        assert tokens_of(engine.events[sequence]) == alone(model, prompt, params)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("known", [1, 13, 29])
def test_resumed_continues_exactly(model: LoadedModel, params: SamplingParams, known: int) -> None:
    whole = alone(model, PROMPTS[2], params)
    engine = SteppedEngine(model, EngineOptions())
    assert tokens_of(engine.answer(PROMPTS[2], params, resumed=whole[:known])) == whole[known:]


def test_logprobs_are_the_log_softmax_of_the_reference(model: LoadedModel) -> None:
    params = dataclasses.replace(SAMPLED, top_logprobs=5, logit_bias=((9, 4.0),))
    events = SteppedEngine(model, EngineOptions()).answer(PROMPTS[1], params)
    tokens = tokens_of(events)
    expected = all_logits(model, (*PROMPTS[1], *tokens))[len(PROMPTS[1]) - 1 : -1].log_softmax(dim=-1)
    for event, row in zip(events, expected, strict=True):
        assert event.logprobs is not None
        assert event.logprobs.logprob == pytest.approx(float(row[event.token_id]), abs=1e-4)
        likeliest = row.topk(5)
        assert [pair[0] for pair in event.logprobs.top] == likeliest.indices.tolist()
        assert [pair[1] for pair in event.logprobs.top] == pytest.approx(likeliest.values.tolist(), abs=1e-4)


def run_mixes(model: LoadedModel, count: int) -> Mixes:
    mixes = Mixes(model)
    for seed in range(count):
        mixes.run(seed)
    print(f"seeds 0 to {count - 1}: {dict(mixes.counts)}")
    for happened in ("cancelled", "preempted", "cached_tokens", "resumed", "logprobs"):
        assert mixes.counts[happened], f"no mix had {happened}"
    return mixes


def test_random_mixes_give_what_each_request_gets_alone(model: LoadedModel) -> None:
    run_mixes(model, 60)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_two_thousand_random_mixes_give_what_each_request_gets_alone(model: LoadedModel) -> None:
    assert run_mixes(model, 2000).counts["near ties"] < 40


def _swap_two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sampler.sample

    def swapped(self: Sampler, computed: Computed, sequences: list[Sequence]) -> object:
        if len(sequences) > 1:
            order = [1, 0, *range(2, len(sequences))]
            logits = computed.logits[order] if len(computed.logits) else computed.logits
            computed = Computed([computed.likeliest[row] for row in order], logits)
        return sample(self, computed, sequences)

    monkeypatch.setattr(Sampler, "sample", swapped)


def _share_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests that look at the block alone, not at what comes before."""
    digests = KVCache._digests

    def short(self: KVCache, sequence: Sequence, count: int) -> list[bytes]:
        digests(self, sequence, count)
        return [str(sequence.tokens_from(i * self.block_size, 1)).encode() for i in range(count)]

    monkeypatch.setattr(KVCache, "_digests", short)


def _keep_what_was_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preempted sequence that believes its blocks are still there."""
    preempt = Scheduler._preempt

    def keeping(self: Scheduler, preempted: Sequence) -> None:
        computed = preempted.computed_count
        preempt(self, preempted)
        admit = self.cache.admit

        def believing(sequence: Sequence, spare_count: int) -> bool:
            admitted = admit(sequence, spare_count)
            if admitted and sequence is preempted:
                sequence.computed_count = computed
            return admitted

        monkeypatch.setattr(self.cache, "admit", believing)

    monkeypatch.setattr(Scheduler, "_preempt", keeping)


@pytest.mark.parametrize("fault", [_swap_two_rows, _share_what_differs, _keep_what_was_computed])
def test_the_mixes_find_a_faulty_engine(
    fault: Callable[[pytest.MonkeyPatch], None], model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        run_mixes(model, 60)


def test_share_of_identical_answers_in_bfloat16_is_told(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, dataclasses.replace(Shape(), dtype="bfloat16"))
    model = load(tmp_path)
    engine = SteppedEngine(model, EngineOptions())
    sequences = [engine.add(prompt, GREEDY) for prompt in PROMPTS]
    while engine.is_busy:
        engine.step()
    answers = [tokens_of(engine.events[sequence]) for sequence in sequences]
    same = sum(answer == alone(model, prompt, GREEDY) for prompt, answer in zip(PROMPTS, answers, strict=True))
    print(f"{same} of {len(PROMPTS)} answers of 30 tokens in bfloat16 are those that each request gets alone")
    assert all(len(answer) == 30 for answer in answers)
