"""Serves a program's metrics to Prometheus on a port of their own."""

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server

# Where an operator looks first: tens of milliseconds to minutes.
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


@contextlib.contextmanager
def exported(registry: CollectorRegistry, host: str, port: int) -> Iterator[int | None]:
    """Serves `/metrics` inside the block; port 0 serves nothing. Yields the port. Raises OSError where it is taken."""
    if not port:
        yield None
        return
    server, thread = start_http_server(port, addr=host, registry=registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
