"""What Prometheus can ask the server for. Names follow vLLM's where it has one for the same thing, with `chat_` before.

Labels are of fixed sets: nothing that a client sends becomes one.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import Counter, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference_server.engine.types import EngineUse
from inference_server.service_state import Phase, ServiceState
from observability.registry import LATENCY_BUCKETS_S, program_registry

# stalled: the client read nothing for too long; unread: the call ended before a handler had its message; unimplemented:
# a method that the chat service does not have.
OUTCOMES = (
    "stop", "length", "cancelled", "deadline", "stalled", "failed", "invalid", "refused", "unread", "unimplemented",
)  # fmt: skip
_STEP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_TOKEN_BUCKETS = tuple(step * 10**power for power in range(6) for step in (1, 2, 5))  # to 500,000, as vLLM's are
_PACKAGES = ("torch", "transformers", "grpcio")


class Metrics:
    """Everything that is measured; the event loop's, but for `observe_step`, which the engine's thread calls.

    What the engine does before `start_counting` is its warm-up and does not count.
    """

    def __init__(self, state: ServiceState) -> None:
        self.registry = program_registry("chat", _PACKAGES)
        self.requests = Counter("chat_requests", "Chats that have ended, by how.", ["outcome"], registry=self.registry)
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        self.queue_s = self._latency("chat_request_queue_time_seconds", "From arrival to the first step.")
        self.first_token_s = self._latency("chat_time_to_first_token_seconds", "From arrival to the first token.")
        self.end_to_end_s = self._latency("chat_e2e_request_latency_seconds", "From arrival to the end of an answer.")
        self.prompt_tokens = self._length("chat_request_prompt_tokens", "Prompt tokens of answers that ended well.")
        self.generation_tokens = self._length("chat_request_generation_tokens", "Tokens of answers that ended well.")
        self.gap_s = Histogram(
            "chat_inter_token_latency_seconds", "From a token to the next of its answer.", buckets=_STEP_BUCKETS_S,
            registry=self.registry,
        )  # fmt: skip
        self.step_s = Histogram(
            "chat_engine_step_seconds", "Steps of the engine.", buckets=_STEP_BUCKETS_S, registry=self.registry
        )
        self._counts = False
        self._engine: _EngineCollector | None = None
        self._model = Info("chat_model", "What is served.", registry=self.registry)
        self.registry.register(_StateCollector(state))

    def describe(self, model: Mapping[str, str], use: Callable[[], EngineUse]) -> None:
        """To be called once, when the model is loaded. use: asked whenever Prometheus asks."""
        self._model.info(dict(model))
        self._engine = _EngineCollector(use)
        self.registry.register(self._engine)

    def start_counting(self) -> None:
        """To be called once, after `describe`, when the engine is warm."""
        assert self._engine
        self._engine.forget_warm_up()
        self._counts = True

    def observe_step(self, seconds: float) -> None:
        if self._counts:
            self.step_s.observe(seconds)

    def observe_gap(self, seconds: float) -> None:
        if self._counts:
            self.gap_s.observe(seconds)

    def _latency(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=LATENCY_BUCKETS_S, registry=self.registry)

    def _length(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_TOKEN_BUCKETS, registry=self.registry)


class _StateCollector(Collector):
    """Whether chats are answered."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        ready = float(self._state.phase is Phase.READY)
        yield GaugeMetricFamily("chat_ready", "1 where chats are answered.", value=ready)
        yield GaugeMetricFamily("chat_load_percent", "How much of the weights is loaded.", self._state.load_percent)


class _EngineCollector(Collector):
    """The engine's own numbers, read when they are asked for: nothing is counted twice."""

    def __init__(self, use: Callable[[], EngineUse]) -> None:
        self._use = use
        self._warm_up: Mapping[str, int] | None = None  # what each counter had reached then

    def forget_warm_up(self) -> None:
        self._warm_up = {name: value for name, (value, _) in _counters(self._use()).items()}

    def collect(self) -> Iterable[Metric]:
        use, warm_up = self._use(), self._warm_up
        for name, (value, text) in _gauges(use).items():
            yield GaugeMetricFamily(name, text, value=value)
        for name, (count, text) in _counters(use).items():
            yield CounterMetricFamily(name, text, value=count - warm_up[name] if warm_up else 0)


def _gauges(use: EngineUse) -> Mapping[str, tuple[float, str]]:
    cache = use.cache
    return {
        "chat_num_requests_running": (use.running_count, "Chats that are being computed."),
        "chat_num_requests_waiting": (use.waiting_count, "Chats that wait for their turn."),
        "chat_num_tokens_waiting": (use.waiting_tokens, "Tokens of the chats that wait."),
        "chat_kv_cache_usage_ratio": (cache.used_blocks / cache.total_blocks, "Share of blocks that chats hold."),
        "chat_kv_cache_blocks": (cache.total_blocks, "Blocks of the KV cache."),
        "chat_kv_cache_used_blocks": (cache.used_blocks, "Blocks that running chats hold."),
        "chat_kv_cache_cached_blocks": (cache.cached_blocks, "Free blocks with beginnings that may come again."),
    }


def _counters(use: EngineUse) -> Mapping[str, tuple[int, str]]:
    counts, cache = use.counts, use.cache
    return {
        "chat_engine_started": (counts.started, "Answers that the engine took in."),
        "chat_engine_finished": (counts.finished, "Answers that came to their end in the engine."),
        "chat_engine_cancelled": (counts.cancelled, "Answers that their callers ended early."),
        "chat_engine_failed": (counts.failed, "Answers that an error of their own ended."),
        "chat_num_preemptions": (counts.preempted, "Times that an answer gave its blocks back."),
        "chat_prompt_tokens": (counts.prompt_tokens, "Prompt tokens of answers that were begun."),
        "chat_generation_tokens": (counts.generated_tokens, "Generated tokens."),
        "chat_prefix_cache_queries": (cache.queried_tokens, "Tokens looked up in the prefix cache."),
        "chat_prefix_cache_hits": (cache.hit_tokens, "Tokens that were there."),
    }
