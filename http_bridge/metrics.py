"""What the bridge counts, for Prometheus. Labels come from the code alone, never from a request."""

import contextlib
from collections.abc import Iterable, Iterator

import grpc
from prometheus_client import Counter, Gauge, Histogram

from observability.registry import LATENCY_BUCKETS_S, program_registry

# Every status of an answer to a whole request head; protocol.py answers the others. Their series begin with 0, so that
# rate() sees the first error too.
_STATUSES = (200, 400, 401, 403, 404, 405, 408, 413, 415, 421, 429, 499, 500, 501, 503, 504)
_PACKAGES = ("fastapi", "uvicorn", "grpcio")
OTHER_ROUTE = "other"


class Metrics:
    """One program's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = program_registry("bridge", _PACKAGES)
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
        self.upstream_ready = Gauge(
            "bridge_upstream_ready", "1 while any server reports that it serves chats.", registry=self.registry
        )
        for code in grpc.StatusCode:
            if code is not grpc.StatusCode.OK:
                self._upstream_errors.labels(code.name)

    def know_routes(self, routes: Iterable[str]) -> None:
        """Begins the series of these routes, and of requests that fit none."""
        for route in (*routes, OTHER_ROUTE):
            self._duration.labels(route)
            for status in _STATUSES:
                self._requests.labels(route, str(status))

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
