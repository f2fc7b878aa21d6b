"""The health checks of the images, as Docker runs them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.conftest import Service
from tests.programs import ROOT


def probe(module: str, *flags: str) -> tuple[int, str]:
    """Exit code and output."""
    command = [sys.executable, "-m", f"{module}.probe", "--host", "127.0.0.1", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, (done.stdout + done.stderr).strip()


def test_server_that_answers_chats_is_healthy(service: Service) -> None:
    assert probe("inference_server", "--port", service.grpc_address.split(":")[1]) == (0, "SERVING")


def test_bridge_that_answers_is_healthy(service: Service) -> None:
    code, said = probe("http_bridge", "--port", service.url.rsplit(":", 1)[1])
    assert code == 0, said


def test_server_that_answers_no_chats_is_not_healthy() -> None:
    servicer = health.HealthServicer()
    servicer.set("chat.v1.ChatService", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert probe("inference_server", "--port", str(port)) == (1, "NOT_SERVING")
    server.stop(None).wait()


@pytest.mark.parametrize(("module", "said"), [("inference_server", "UNAVAILABLE"), ("http_bridge", "refused")])
def test_where_nothing_listens_nothing_is_healthy(module: str, said: str) -> None:
    code, output = probe(module, "--port", "1")
    assert code == 1
    assert said in output


@pytest.mark.parametrize("module", ["inference_server", "http_bridge"])
def test_bad_setting_is_not_healthy(module: str) -> None:
    code, output = probe(module, "--port", "many")
    assert code == 1
    assert "'--port'" in output


@pytest.mark.parametrize("module", ["inference_server", "http_bridge"])
def test_probe_starts_fast_because_it_imports_little(module: str) -> None:
    heavy = ("torch", "transformers", "fastapi", "pydantic")
    code = f"import {module}.probe, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
