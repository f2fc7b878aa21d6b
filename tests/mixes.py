"""Random mixes of requests on one engine, each compared with what the request gets alone."""

import dataclasses
import random
from collections import Counter
from dataclasses import dataclass

import torch

from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.attention.in_place import InPlaceAttention
from inference_server.engine.model_loader import LoadedModel
from inference_server.engine.native.library import BLOCK
from inference_server.engine.sampler import Sampler, greedy_tokens
from inference_server.engine.types import Computed, SamplingParams, Sequence, TokenEvent
from tests.model_engine import ALONE, STOP_IDS, EngineOptions, NativeModel, SteppedEngine, all_logits, tokens_of

NEAR = 1e-5  # logits that close may change places where sums are taken in another order
_VOCABULARY = 300  # tokens that prompts are made of


@dataclass(frozen=True)
class Request:
    """One of a mix. resumed: how many tokens of its own answer it is given."""

    prompt: tuple[int, ...]
    params: SamplingParams
    arrival_step: int
    cancel_step: int | None
    resumed: int
    client: str


def random_params(rng: random.Random) -> SamplingParams:
    """Half of them greedy; each other parameter is off in most."""

    def at_times(share: float, value: float, otherwise: float) -> float:
        return value if rng.random() < share else otherwise

    max_tokens = rng.randint(1, 28)
    return SamplingParams(
        temperature=rng.choice([0.0, 0.0, 0.7, 1.3]),
        top_p=at_times(0.4, rng.uniform(0.3, 0.99), 1.0),
        top_k=int(at_times(0.4, rng.randint(1, 40), 0)),
        seed=rng.randrange(-(2**63), 2**63),
        max_tokens=max_tokens,
        min_p=at_times(0.2, rng.uniform(0.01, 0.3), 0.0),
        repetition_penalty=at_times(0.2, rng.uniform(0.5, 2.0), 1.0),
        presence_penalty=at_times(0.2, rng.uniform(-2, 2), 0.0),
        frequency_penalty=at_times(0.2, rng.uniform(-2, 2), 0.0),
        logit_bias=((rng.randrange(_VOCABULARY), rng.uniform(-5, 5)),) if rng.random() < 0.2 else (),
        min_tokens=rng.randint(0, max_tokens) if rng.random() < 0.2 else 0,
        stop_token_ids=frozenset(rng.sample(range(1, _VOCABULARY), 20)) if rng.random() < 0.3 else frozenset(),
        ignore_eos=rng.random() < 0.2,
        top_logprobs=rng.choice([0, 3]) if rng.random() < 0.2 else None,
    )


def random_options(rng: random.Random) -> EngineOptions:
    """Mostly caches that are too small for all at once."""
    block_size = rng.choice([4, 16])
    return EngineOptions(
        block_count=rng.randint(100, 150) // block_size + 1,
        block_size=block_size,
        max_sequences=rng.randint(1, 8),
        max_step_tokens=rng.choice([4, 9, 32, 128]),
        prefix_caching=rng.random() < 0.7,
        attention=InPlaceAttention if rng.random() < 0.9 else GatheredAttention,
    )


def native_options(rng: random.Random) -> EngineOptions:
    """The same, with blocks of the only size that the compiled code has."""
    return dataclasses.replace(random_options(rng), block_size=BLOCK, block_count=rng.choice([4, 4, 5]))


def random_requests(rng: random.Random) -> list[Request]:
    """Several begin alike, as turns of conversations do."""
    stems = [tuple(rng.choices(range(1, _VOCABULARY), k=rng.randint(8, 40))) for _ in range(2)]
    requests = []
    for _ in range(rng.randint(3, 8)):
        tail = tuple(rng.choices(range(1, _VOCABULARY), k=rng.randint(1, 30)))
        prompt = rng.choice(stems) + tail if rng.random() < 0.6 else tail
        cancel = rng.randint(0, 30) if rng.random() < 0.15 else None
        resumed = rng.randint(1, 10) if rng.random() < 0.2 else 0
        requests.append(Request(prompt, random_params(rng), rng.randint(0, 12), cancel, resumed, rng.choice("AAAB")))
    return requests


class Mixes:
    """Runs mixes and counts what happened in them."""

    def __init__(self, model: LoadedModel | NativeModel) -> None:
        """The compiled code is its own reference: its answers have to be the same bits."""
        self.counts: Counter[str] = Counter()
        self._model = model
        is_native = isinstance(model, NativeModel)
        self._options = native_options if is_native else random_options
        reference = dataclasses.replace(ALONE, attention=GatheredAttention)
        self._alone = SteppedEngine(model, dataclasses.replace(ALONE, block_size=BLOCK) if is_native else reference)

    def run(self, seed: int) -> None:
        """One mix; fails where an answer is not what the request gets alone."""
        rng = random.Random(seed)
        engine, requests = SteppedEngine(self._model, self._options(rng)), random_requests(rng)
        expected = [self._alone.answer(request.prompt, request.params) for request in requests]
        sequences: dict[int, tuple[Sequence, int]] = {}
        cancelled: set[int] = set()
        for step in range(10_000):
            for index, request in enumerate(requests):
                if request.arrival_step == step:
                    known = min(request.resumed, len(expected[index]) - 1)
                    given = tokens_of(expected[index][:known])
                    sequences[index] = engine.add(request.prompt, request.params, given, request.client), known
                if request.cancel_step is not None and request.arrival_step + request.cancel_step == step:
                    cancelled.add(index)
                    engine.scheduler.cancel(sequences[index][0])
            if len(sequences) == len(requests) and not engine.is_busy:
                break
            if engine.is_busy:
                engine.step()
        use = engine.scheduler.cache.use
        assert use.used_blocks == 0
        for index, (sequence, known) in sequences.items():
            self._compare(requests[index], expected[index], known, engine.events[sequence], index in cancelled)
        self.counts.update(
            mixes=1, requests=len(requests), cancelled=engine.scheduler.counts.cancelled,
            preempted=engine.scheduler.counts.preempted, cached_tokens=use.hit_tokens,
        )  # fmt: skip

    def _compare(
        self, request: Request, expected: list[TokenEvent], known: int, events: list[TokenEvent], cancelled: bool
    ) -> None:
        wanted = expected[known : known + len(events)] if cancelled else expected[known:]
        self.counts.update(tokens=len(events), resumed=int(known > 0))
        for place, (event, reference) in enumerate(zip(events, wanted, strict=False)):
            if event.token_id != reference.token_id:
                before = tokens_of(expected[: known + place])
                assert self._is_near(request, before, {event.token_id, reference.token_id}), (
                    f"token {known + place} is {event.token_id}, alone it is {reference.token_id}: {request}"
                )
                self.counts["near ties"] += 1
                return
            assert event.finish_reason == reference.finish_reason
            _compare_logprobs(event, reference, 0.0 if isinstance(self._model, NativeModel) else 1e-3)
            self.counts["logprobs"] += int(event.logprobs is not None)
        assert len(events) == len(wanted), f"{len(events)} tokens, alone it is {len(wanted)}: {request}"

    def _is_near(self, request: Request, before: list[int], both: set[int]) -> bool:
        """Whether the reference itself gives either token when its logits are moved by less than 1e-5."""
        if isinstance(self._model, NativeModel):
            return False
        sequence = Sequence(request.prompt, request.params, list(before))
        logits = all_logits(self._model, (*request.prompt, *before))[-1:]  # [1, V]
        noise = (torch.rand(64, logits.shape[1], generator=torch.Generator().manual_seed(0)) * 2 - 1) * NEAR
        moved = logits + noise
        tokens = Sampler(STOP_IDS).sample(Computed(greedy_tokens(moved), moved), [sequence] * 64)
        return both <= {token.token_id for token in tokens if token}


def _compare_logprobs(event: TokenEvent, reference: TokenEvent, most: float) -> None:
    assert (event.logprobs is None) == (reference.logprobs is None)
    if event.logprobs and reference.logprobs:
        assert abs(event.logprobs.logprob - reference.logprobs.logprob) <= most
        pairs = zip(event.logprobs.top, reference.logprobs.top, strict=True)
        assert all(abs(mine[1] - alone[1]) <= most for mine, alone in pairs)
