"""Where a client or the bridge is sent: the form is looked at first, and this machine is reached without a proxy."""

import subprocess
import sys
from pathlib import Path

import grpc
import pytest

import clients.config
import http_bridge.config
from protos.chat.v1.target import is_this_machine, problem_of_target
from tests.chat_terminal import TIMEOUT_S, clean_environment
from tests.conftest import Service
from tests.hub import REPOSITORY, running_hub
from tests.programs import ROOT, Program, start_bridge

GOOD = [
    "localhost:50051", "LOCALHOST:50051", "inference:50051", "inference.qwen3-chat.svc.cluster.local:50051",
    "a_b.c:1", "127.0.0.1:50051", "[::1]:50051", "[fe80::1%eth0]:50051", "host.:50051", "dns:localhost:50051",
    "dns:///inference:50051", "dns:///[::1]:50051", "dns://10.0.0.10/inference:50051",
    "dns://10.0.0.10:53/inference:50051", "ipv4:127.0.0.1:50051", "ipv4:127.0.0.1:50051,127.0.0.2:50052",
    "ipv6:[::1]:50051", "ipv6:[::1]:50051,[fd00::1]:50051", "unix:chat.sock", "unix:/run/chat.sock",
    "unix:///run/chat.sock", "unix-abstract:chat",
]  # fmt: skip
BAD = [
    "", " ", "localhost", "localhost:", ":50051", "localhost:http", "localhost:0", "localhost:65536", "localhost:-1",
    "localhost:50051/v1", "local host:50051", "localhost:50051 ", "::1:50051", "[::1]", "[::g]:50051",
    "[127.0.0.1]:50051", "user@localhost:50051", "a:1,b:2", "dns:", "dns:///", "dns:///inference",
    "dns:/inference:50051", "dns://inference:50051", "ipv4:localhost:50051", "ipv4:127.0.0.1", "ipv4:[::1]:50051",
    "ipv4:1.2.3.4:5,", "ipv6:::1:50051", "ipv6:127.0.0.1:1", "unix:", "unix://host/x", "tcp://localhost:50051",
    "ftp://x", "http:localhost", "http://localhost:50051", "https://localhost:50051", "-a:50051", "a..b:50051",
    "a" * 64 + ":50051", "ä:50051", "localhost:50051\n",
]  # fmt: skip
SOCKS = {name: "socks5://127.0.0.1:9" for name in ("ALL_PROXY", "all_proxy")}
BROKEN = [SOCKS, {"ALL_PROXY": "foo://127.0.0.1:9"}, {"HTTP_PROXY": "http://[::1"}, {"https_proxy": "socks4://x"}]
ELSEWHERE = {
    name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "grpc_proxy")
}


def test_targets_that_grpc_can_resolve_are_taken() -> None:
    assert [target for target in GOOD if problem_of_target(target)] == []
    for target in GOOD:  # gRPC itself refuses what it cannot read when the channel is made or first used
        grpc.insecure_channel(target).close()


@pytest.mark.parametrize("module", [http_bridge.config, clients.config])
def test_a_target_of_another_form_is_refused_at_the_start(module: object) -> None:
    assert [target for target in BAD if not problem_of_target(target)] == []
    for name, target in (("BRIDGE_TARGET", "localhost"), ("CHAT_TARGET", "http:/x")):
        program = "http_bridge" if name == "BRIDGE_TARGET" else "clients.chat"
        done = Program(sys.executable, "-m", program, env={name: target})
        assert done.wait() == 2
        [line] = done.lines
        assert name in line
        assert target in line
        assert "HOST:PORT" in line


def chat(target: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clients.chat", "--target", target]
    return subprocess.run(
        command, cwd=ROOT, env=clean_environment() | environment, input="Hello\n", capture_output=True, text=True,
        timeout=TIMEOUT_S,
    )  # fmt: skip


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999", "http://x:0", "http://x?y", "http://x#y", "http://x:y"])
def test_an_address_of_http_that_is_none_is_one_line(address: str) -> None:
    done = chat(address, {})
    assert done.returncode == 2
    assert done.stderr.startswith(f"clients.chat: --target {address}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("environment", [*BROKEN, ELSEWHERE], ids=str)
def test_the_client_reaches_this_machine_whatever_the_proxy(service: Service, environment: dict[str, str]) -> None:
    for target in (service.grpc_address, service.url, service.url.replace("127.0.0.1", "localhost")):
        done = chat(target, environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize("environment", BROKEN, ids=str)
def test_a_proxy_that_cannot_be_used_is_one_line(environment: dict[str, str]) -> None:
    done = chat("http://chat.invalid:8000", environment)
    assert done.returncode == 2
    assert done.stderr.startswith("clients.chat: a proxy of the environment cannot be used")
    assert done.stderr.count("\n") == 1
    program = Program(sys.executable, "-m", "inference_server.download", env=environment)
    assert program.wait() == 2
    [line] = program.lines
    assert line.startswith("inference_server.download: a proxy of the environment cannot be used")


def test_the_download_reaches_this_machine_without_a_proxy(tmp_path: Path) -> None:
    with running_hub() as hub:
        for host in ("127.0.0.1", "localhost"):
            chosen = ("--endpoint", hub.url.replace("127.0.0.1", host), "--directory", str(tmp_path / host))
            program = Program(
                sys.executable, "-m", "inference_server.download", *chosen, "--repository", REPOSITORY, env=ELSEWHERE
            )
            assert program.wait() == 0, program.output


def test_the_bridge_reaches_its_server_whatever_the_proxy(service: Service) -> None:
    bridge, port = start_bridge(service.grpc_address, env=SOCKS | ELSEWHERE)
    try:
        done = chat(f"http://127.0.0.1:{port}", {})
        assert done.returncode == 0, done.stderr
    finally:
        bridge.stop()


def test_this_machine_is_known_by_name_and_address() -> None:
    here = ["localhost", "LocalHost.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"]
    assert all(map(is_this_machine, here))
    assert not any(map(is_this_machine, ["localhost.example", "10.0.0.1", "example.com", "", "128.0.0.1", "fd00::1"]))
