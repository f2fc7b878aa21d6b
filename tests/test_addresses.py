"""Listening: every address of both families, one family alone, and a machine without IPv6."""

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from http_bridge.server import listen
from observability.addresses import usable_host
from tests.programs import Program

pytestmark = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}


def reaches(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "reached", "not_reached"),
    [
        ("::", ["127.0.0.1", "::1"], []),
        ("::1", ["::1"], ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"], ["::1"]),
        ("127.0.0.1", ["127.0.0.1"], ["::1"]),
    ],
)
def test_an_address_is_listened_on_with_its_families(host: str, reached: list[str], not_reached: list[str]) -> None:
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert [address for address in reached if not reaches(address, port)] == []
        assert [address for address in not_reached if reaches(address, port)] == []


def test_a_machine_without_ipv6_is_said_once_and_served_by_ipv4(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    assert [usable_host(host) for host in ("::", "::1", "127.0.0.1")] == ["0.0.0.0", "::1", "127.0.0.1"]
    [record] = caplog.records
    assert record.getMessage() == "this machine has no IPv6: listening on 0.0.0.0 in place of ::"


def free_port() -> int:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def service(host: str, target: str) -> Iterator[tuple[int, int]]:
    """HTTP and metrics ports of both programs on this host."""
    metrics = [free_port(), free_port()]
    server = Program(
        sys.executable, "-m", "inference_server", "--host", host, "--port", "0", "--metrics-port", str(metrics[0])
    )
    programs = [server]
    try:
        grpc_port = server.wait_for(r"gRPC on \S+:(\d+), loading").group(1)
        bridge = Program(
            sys.executable, "-m", "http_bridge", "--host", host, "--port", "0", "--metrics-port", str(metrics[1]),
            "--target", f"{target}:{grpc_port}",
        )  # fmt: skip
        programs.append(bridge)
        http_port = bridge.wait_for(rf"HTTP on {re.escape(f'[{host}]')}:(\d+) for").group(1)
        server.wait_for("ready: demo")
        yield int(http_port), metrics[1]
    finally:
        assert [program.stop() for program in programs] == [0] * len(programs)


@pytest.mark.parametrize(
    ("host", "target", "addresses"), [("::", "localhost", ["127.0.0.1", "[::1]"]), ("::1", "[::1]", ["[::1]"])]
)
def test_both_programs_serve_ipv6(host: str, target: str, addresses: list[str]) -> None:
    with service(host, target) as (http_port, metrics_port):
        for address in addresses:
            answer = httpx2.post(f"http://{address}:{http_port}/v1/chat/completions", json=HELLO, timeout=30)
            assert answer.status_code == 200
            assert httpx2.get(f"http://{address}:{metrics_port}/metrics", timeout=30).status_code == 200
