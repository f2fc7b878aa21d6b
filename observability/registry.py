"""What both programs tell Prometheus of themselves: process, build and log. Names follow Prometheus's conventions."""

from collections.abc import Iterable
from importlib.metadata import version
from platform import python_version

from prometheus_client import CollectorRegistry, Info, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from observability.stream import dropped_line_count

# Where an operator looks first: tens of milliseconds to minutes.
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


def program_registry(prefix: str, packages: Iterable[str]) -> CollectorRegistry:
    """Return a registry with `process_*`, `PREFIX_build_info` and `PREFIX_log_lines_dropped_total`.

    packages: those whose versions the build information tells. There are no `_created` series.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Info(f"{prefix}_build", "Versions of what runs.", registry=registry).info(_build(packages))
    registry.register(_LogCollector(prefix))
    return registry


def _build(packages: Iterable[str]) -> dict[str, str]:
    return {"python_version": python_version()} | {f"{name}_version": version(name) for name in packages}


class _LogCollector(Collector):
    """Read when it is asked for: the stream of the log knows no metrics."""

    def __init__(self, prefix: str) -> None:
        self._name = f"{prefix}_log_lines_dropped"

    def collect(self) -> Iterable[Metric]:
        text = "Log lines dropped because stderr was not read or could not be written."
        yield CounterMetricFamily(self._name, text, value=dropped_line_count())
