"""What the bridge counts, for Prometheus. Labels come from the code alone, never from a request."""

import contextlib
from collections.abc import Iterator

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from observability.exporter import LATENCY_BUCKETS_S


class Metrics:
    """One program's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "bridge_requests", "Answered HTTP requests.", ["route", "status"], registry=self.registry
        )
        self._in_progress = Gauge(
            "bridge_requests_in_progress", "HTTP requests whose answer is not complete.", registry=self.registry
        )
        self._duration = Histogram(
            "bridge_request_duration_seconds",
            "From a request's head to its answer's last byte.",
            ["route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._first_chunk = Histogram(
            "bridge_time_to_first_chunk_seconds",
            "From a streaming chat's head to its first event.",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._upstream_errors = Counter(
            "bridge_upstream_errors", "gRPC calls that failed, by status.", ["code"], registry=self.registry
        )

    @contextlib.contextmanager
    def in_progress(self) -> Iterator[None]:
        """Counts a request while it lasts."""
        self._in_progress.inc()
        try:
            yield
        finally:
            self._in_progress.dec()

    def request_ended(self, route: str, status: int, duration_s: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._duration.labels(route).observe(duration_s)

    def first_chunk(self, after_s: float) -> None:
        self._first_chunk.observe(after_s)

    def upstream_failed(self, code: grpc.StatusCode) -> None:
        self._upstream_errors.labels(code.name).inc()
