"""What Prometheus can ask the server for. Names follow vLLM's where it has one for the same thing, with `chat_` before.

Labels are of fixed sets: nothing that a client sends becomes one.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference_server.engine.types import EngineUse
from inference_server.service_state import Phase, ServiceState
from observability.exporter import LATENCY_BUCKETS_S

OUTCOMES = ("stop", "length", "cancelled", "deadline", "failed", "invalid", "refused")
_STEP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Everything that is measured; the event loop's, but for `step_s`, which the engine's thread observes."""

    def __init__(self, state: ServiceState) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("chat_requests", "Chats that have ended, by how.", ["outcome"], registry=self.registry)
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        self.queue_s = self._latency("chat_request_queue_time_seconds", "From arrival to the first step.")
        self.first_token_s = self._latency("chat_time_to_first_token_seconds", "From arrival to the first token.")
        self.end_to_end_s = self._latency("chat_e2e_request_latency_seconds", "From arrival to the end of an answer.")
        self.gap_s = Histogram(
            "chat_inter_token_latency_seconds", "From a token to the next of its answer.", buckets=_STEP_BUCKETS_S,
            registry=self.registry,
        )  # fmt: skip
        self.step_s = Histogram(
            "chat_engine_step_seconds", "Steps of the engine.", buckets=_STEP_BUCKETS_S, registry=self.registry
        )
        self._model = Info("chat_model", "What is served.", registry=self.registry)
        self.registry.register(_StateCollector(state))

    def describe(self, model: Mapping[str, str], use: Callable[[], EngineUse]) -> None:
        """To be called once, when the model is loaded. use: asked whenever Prometheus asks."""
        self._model.info(dict(model))
        self.registry.register(_EngineCollector(use))

    def _latency(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=LATENCY_BUCKETS_S, registry=self.registry)


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

    def collect(self) -> Iterable[Metric]:
        use = self._use()
        counts, cache = use.counts, use.cache
        gauges = {
            "chat_num_requests_running": (use.running_count, "Chats that are being computed."),
            "chat_num_requests_waiting": (use.waiting_count, "Chats that wait for their turn."),
            "chat_num_tokens_waiting": (use.waiting_tokens, "Tokens of the chats that wait."),
            "chat_kv_cache_usage_ratio": (cache.used_blocks / cache.total_blocks, "Share of blocks that chats hold."),
            "chat_kv_cache_blocks": (cache.total_blocks, "Blocks of the KV cache."),
            "chat_kv_cache_used_blocks": (cache.used_blocks, "Blocks that running chats hold."),
            "chat_kv_cache_cached_blocks": (cache.cached_blocks, "Free blocks with beginnings that may come again."),
        }
        counters = {
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
        for name, (value, text) in gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
        for name, (value, text) in counters.items():
            yield CounterMetricFamily(name, text, value=value)
