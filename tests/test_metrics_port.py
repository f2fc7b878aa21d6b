"""The metrics' port: what it answers, and that no client takes it or the program's descriptors away from others."""

import contextlib
import gzip
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from http_bridge.metrics import Metrics as BridgeMetrics
from inference_server.metrics import Metrics as ServerMetrics
from inference_server.service_state import ServiceState
from observability import exporter
from observability.descriptors import connection_limit, raise_descriptor_limit
from observability.exporter import exported
from tests.fakes import FakeRunner, in_process_service
from tests.programs import ROOT, Program
from tests.test_log_stream import free_ports

ENCODINGS = ["identity", "gzip"]
LIMIT = 256


@pytest.fixture
def url() -> Iterator[str]:
    registry = CollectorRegistry()
    Counter("visits", "Visits.", registry=registry).inc(3)
    Counter("leaves", "Leaves.", registry=registry)
    with exported(registry, "127.0.0.1", free_ports(1)[0]) as port:
        yield f"http://127.0.0.1:{port}"


def get(url: str, method: str = "GET", **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.request(method, url, headers=named, trust_env=False, timeout=30)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_prometheus_gets_text_or_openmetrics_plain_or_compressed(url: str, encoding: str) -> None:
    plain = get(f"{url}/metrics", Accept_Encoding=encoding)
    assert plain.status_code == 200
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert plain.headers.get("Content-Encoding", "identity") == encoding
    [visits] = [one for one in text_string_to_metric_families(plain.text) if one.name == "visits"]
    assert visits.samples[0].value == 3
    wanted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"  # as Prometheus asks
    other = get(f"{url}/metrics", Accept=wanted, Accept_Encoding=encoding)
    assert other.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert {one.name for one in open_metrics(other.text)}  # type: ignore[no-untyped-call]


def test_head_is_get_without_the_body_and_a_name_chooses(url: str) -> None:
    whole, head = get(f"{url}/metrics"), get(f"{url}/metrics", "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == whole.headers
    chosen = get(f"{url}/metrics?name[]=visits_total").text
    assert "visits_total 3.0" in chosen
    assert "leaves" not in chosen


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/Metrics", "//metrics", "/x?/metrics"])
def test_other_paths_are_404(url: str, path: str) -> None:
    assert get(url + path).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"])
def test_other_methods_are_405_with_those_that_are_allowed(url: str, method: str) -> None:
    answer = get(f"{url}/metrics", method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",  # without Host
        b"GET http://[/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n",
        b"GET /" + b"x" * 70_000,
    ],
)
def test_broken_requests_are_refused_and_the_next_one_is_answered(url: str, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30) as asking:
        asking.sendall(sent)
        assert re.match(rb"HTTP/1.1 4\d\d ", asking.makefile("rb").readline())
    assert get(f"{url}/metrics").status_code == 200


def test_head_in_pieces_is_answered(url: str) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30) as asking:
        for byte in b"GET http://any/metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n":
            asking.send(bytes([byte]))
            time.sleep(0.001)
        head, _, body = asking.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"visits_total 3.0" in gzip.decompress(body)


def test_silent_connections_take_neither_threads_nor_the_port(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(exporter, "_CONNECTION_S", 1000.0)  # the bound alone, not the time
    threads, port = threading.active_count(), int(url.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        silent = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(400)]
        for one in silent:
            stack.enter_context(one)
        assert get(f"{url}/metrics").status_code == 200
        assert threading.active_count() == threads
        for oldest in silent[:360]:
            with contextlib.suppress(ConnectionResetError):
                assert oldest.recv(1) == b""
        silent[-1].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert silent[-1].recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("trickles", [False, True])
def test_connection_without_a_request_is_closed_in_time(
    monkeypatch: pytest.MonkeyPatch, url: str, trickles: bool
) -> None:
    monkeypatch.setattr(exporter, "_CONNECTION_S", 0.5)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30) as silent:
        with contextlib.suppress(ConnectionError):
            while trickles:
                silent.send(b"G")
                time.sleep(0.05)
        with contextlib.suppress(ConnectionError):
            assert silent.recv(1) == b""


def test_any_address_of_ipv6_takes_ipv4_too() -> None:
    with exported(CollectorRegistry(), "::", free_ports(1)[0]) as port:
        for host in ("127.0.0.1", "[::1]"):
            assert get(f"http://{host}:{port}/metrics").status_code == 200


def promtool(page: str) -> "subprocess.CompletedProcess[str]":
    tool = shutil.which("promtool")
    if not tool:
        pytest.skip("promtool is not installed (Debian's package `prometheus` has it)")
    return subprocess.run([tool, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60)


async def test_promtool_accepts_what_both_programs_export() -> None:
    async with in_process_service(FakeRunner()) as service:
        for registry in (service.metrics.registry, BridgeMetrics().registry, ServerMetrics(ServiceState()).registry):
            with exported(registry, "127.0.0.1", free_ports(1)[0]) as port:
                page = httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            checked = promtool(page)
            assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


async def test_no_series_tells_only_when_another_was_created() -> None:
    async with in_process_service(FakeRunner()) as service:
        for registry in (service.metrics.registry, BridgeMetrics().registry):
            assert [
                sample for family in registry.collect() for sample in family.samples if "_created" in sample.name
            ] == []


def test_promtool_finds_a_counter_without_its_suffix() -> None:
    assert promtool("# HELP a_seconds A.\n# TYPE a_seconds counter\na_seconds 1\n").returncode != 0


@contextlib.contextmanager
def few_descriptors(tmp_path: Path, module: str, code: str = "") -> Iterator[tuple[Program, int]]:
    """The program with 256 descriptors and its port."""
    runs = (
        f"import resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, ({LIMIT}, {LIMIT})); {code}"
        f"from {module}.__main__ import main; main()"
    )
    program = Program(sys.executable, "-c", runs, "--host", "127.0.0.1", "--port", "0", "--metrics-port", "0", cwd=ROOT)
    try:
        yield program, int(program.wait_for(r"(?:gRPC|HTTP) on 127\.0\.0\.1:(\d+)").group(1))
    finally:
        assert program.stop() == 0


@contextlib.contextmanager
def silent_connections(port: int, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        yield


def test_bridge_answers_others_while_silent_connections_want_every_descriptor(tmp_path: Path) -> None:
    with (
        few_descriptors(tmp_path, "http_bridge") as (program, port),
        httpx2.Client(trust_env=False, timeout=30) as kept,
    ):
        url = f"http://127.0.0.1:{port}/livez"
        assert kept.get(url).status_code == 200
        with silent_connections(port, 400):
            for _ in range(5):
                assert get(url).status_code == 200
            assert len(os.listdir(f"/proc/{program.process.pid}/fd")) < LIMIT
        assert kept.get(url).status_code == 200
    warnings = [line for line in program.lines if "WARNING" in line]
    assert "Traceback" not in program.output
    assert len([line for line in warnings if "which is the limit" in line]) == 1
    assert len(warnings) <= 2


@pytest.mark.slow
def test_bridge_out_of_descriptors_logs_one_line_and_recovers(tmp_path: Path) -> None:
    """Without its bound on connections, as where other files take the descriptors."""
    code = "import observability.descriptors as d; d.connection_limit = lambda: 10_000; "
    with few_descriptors(tmp_path, "http_bridge", code) as (program, port):
        with silent_connections(port, 400):
            program.wait_for("cannot accept connections: Too many open files")
            time.sleep(3)  # for a few more attempts
        assert get(f"http://127.0.0.1:{port}/livez").status_code == 200
    assert "Traceback" not in program.output
    assert len([line for line in program.lines if "WARNING" in line]) == 1


@pytest.mark.slow
def test_server_keeps_descriptors_for_itself(tmp_path: Path) -> None:
    with few_descriptors(tmp_path, "inference_server") as (program, port):
        program.wait_for("ready: demo")
        with silent_connections(port, 400):
            time.sleep(1)
            assert len(os.listdir(f"/proc/{program.process.pid}/fd")) < LIMIT - 20
    assert "Traceback" not in program.output


@pytest.mark.parametrize(
    ("soft", "expected"), [(256, 192), (64, 32), (1024, 960), (2**20, 16_384), (resource.RLIM_INFINITY, 16_384)]
)
def test_connections_leave_descriptors_free(monkeypatch: pytest.MonkeyPatch, soft: int, expected: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, soft))
    assert connection_limit() == expected


def test_the_limit_of_descriptors_is_raised_as_far_as_the_system_lets(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS: the hard limit is infinite and setrlimit refuses it with EINVAL; OPEN_MAX is what it takes."""
    taken: list[tuple[int, int]] = []

    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        if limits[0] > 10_240 or limits[0] == resource.RLIM_INFINITY:
            raise ValueError("current limit exceeds maximum limit")
        taken.append(limits)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    raise_descriptor_limit()
    assert taken == [(10_240, resource.RLIM_INFINITY)]
