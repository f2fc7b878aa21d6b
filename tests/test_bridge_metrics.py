"""The bridge's metrics: every request counted once, in series that no request can add to."""

import asyncio
import random
import socket
import string
from collections.abc import Iterator

import grpc
import httpx2
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from http_bridge.app import create_app
from http_bridge.drain import Drain
from http_bridge.metrics import Metrics
from tests.fake_upstream import fake_upstream
from tests.fakes import bridge_settings, in_process_bridge, until
from tests.programs import start_bridge
from tests.test_bridge_upstream import BODY, CHAT
from tests.test_life import ended

Labels = tuple[tuple[str, str], ...]


def samples(registry: CollectorRegistry) -> dict[tuple[str, Labels], float]:
    """What a scrape would say, but for the process's own figures."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.startswith("bridge_")
    }


def by_status(registry: CollectorRegistry, route: str = CHAT) -> dict[str, float]:
    return {
        dict(labels)["status"]: value
        for (name, labels), value in samples(registry).items()
        if name == "bridge_requests_total" and dict(labels)["route"] == route and value
    }


async def test_each_request_is_counted_once() -> None:
    async with (
        fake_upstream() as upstream,
        in_process_bridge(upstream.address) as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client,
    ):
        registry = bridge.metrics.registry
        await asyncio.gather(*(client.post(CHAT, json=BODY | {"stream": bool(i % 2)}) for i in range(10)))
        await client.post(CHAT, json=BODY | {"temperature": 9})
        await client.get(CHAT)
        await client.get("/v1/models")
        await client.get("/v1/models/Qwen/fake")
        await client.get("/no/such/path")
        upstream.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 1.0)
        for stream in (False, True):
            await client.post(CHAT, json=BODY | {"stream": stream})
        upstream.refusal = None
        upstream.open.clear()
        running = [asyncio.create_task(client.post(CHAT, json=BODY | {"stream": bool(i % 2)})) for i in range(4)]
        await until(lambda: upstream.running == 4)
        before = samples(registry)
        assert before["bridge_requests_in_progress", ()] == 4
        assert by_status(registry) == {"200": 10, "400": 1, "405": 1, "429": 2}
        running[0].cancel()  # a whole answer, and then a stream
        running[1].cancel()
        await until(lambda: upstream.running == 2)
        upstream.open.set()
        await asyncio.gather(*running, return_exceptions=True)
        await until(lambda: samples(registry)["bridge_requests_in_progress", ()] == 0)
        after = samples(registry)
    assert by_status(registry) == {"200": 13, "400": 1, "405": 1, "429": 2, "499": 1}
    assert by_status(registry, "/v1/models/{model_id:path}") == {"200": 1}
    assert by_status(registry, "other") == {"404": 1}
    assert after["bridge_request_duration_seconds_count", (("route", CHAT),)] == 18
    assert after["bridge_time_to_first_chunk_seconds_count", ()] == 7
    assert after["bridge_upstream_errors_total", (("code", "RESOURCE_EXHAUSTED"),)] == 2


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_random_paths_models_and_users_add_no_series(count: int) -> None:
    """Into the application itself, without a socket."""
    draw, metrics = random.Random(7), Metrics()
    app = create_app(bridge_settings("127.0.0.1:1"), metrics, Drain(1))
    transport = httpx2.ASGITransport(app=app)
    async with (
        httpx2.AsyncClient(transport=transport, base_url="http://bridge") as client,
        app.router.lifespan_context(app),
    ):
        await _ask_randomly(client, draw, 20)
        series = set(samples(metrics.registry))
        await _ask_randomly(client, draw, count)
        assert set(samples(metrics.registry)) == series


async def _ask_randomly(client: httpx2.AsyncClient, draw: random.Random, count: int) -> None:
    def word() -> str:
        return "".join(draw.choices(string.ascii_letters + string.digits, k=12))

    for number in range(count):
        if number % 2:
            await client.request(draw.choice(["GET", "POST", "PUT", "DELETE"]), f"/{word()}/{word()}")
        else:
            body = BODY | {"model": word(), "user": word(), "metadata": {word(): word()}, word(): 1}
            await client.post(CHAT, json=body, headers={"X-Request-Id": word(), "User-Agent": word()})


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        yield int(busy.getsockname()[1])


async def test_metrics_are_served_on_a_port_of_their_own(free_port: int) -> None:
    async with fake_upstream() as upstream:
        bridge, port = start_bridge(upstream.address, "--metrics-port", str(free_port))
        try:
            async with httpx2.AsyncClient(timeout=30) as client:
                await client.post(f"http://127.0.0.1:{port}{CHAT}", json=BODY)
                scraped = await client.get(f"http://127.0.0.1:{free_port}/metrics")
                families = {one.name: one for one in text_string_to_metric_families(scraped.raise_for_status().text)}
                assert {"bridge_requests", "bridge_requests_in_progress", "process_resident_memory_bytes"} <= set(
                    families
                )
                [counted] = [one for one in families["bridge_requests"].samples if one.value]
                assert (counted.labels, counted.value) == ({"route": CHAT, "status": "200"}, 1)
                assert "Hello" not in scraped.text
                assert (await client.get(f"http://127.0.0.1:{port}/metrics")).status_code == 404
        finally:
            assert bridge.stop() == 0
    assert f"metrics on 127.0.0.1:{free_port}" in bridge.output


def test_busy_metrics_port_is_one_line_and_exit_code_2(busy_port: int) -> None:
    code, output = ended("http_bridge", "--host", "127.0.0.1", "--port", "0", "--metrics-port", str(busy_port))
    assert code == 2
    assert len(output.splitlines()) == 1
    assert f"--metrics-port {busy_port}: cannot listen" in output


async def test_every_error_series_begins_with_0_so_that_the_first_error_shows_in_a_rate() -> None:
    async with fake_upstream() as upstream, in_process_bridge(upstream.address) as bridge:
        begun = {key for key, value in samples(bridge.metrics.registry).items() if value == 0}
        for code in grpc.StatusCode:
            labels = (("code", code.name),)
            assert (("bridge_upstream_errors_total", labels) in begun) == (code is not grpc.StatusCode.OK)
        for route in (CHAT, "/v1/models", "/health", "/livez", "other"):
            for status in ("400", "404", "429", "499", "500", "503", "504"):
                assert ("bridge_requests_total", (("route", route), ("status", status))) in begun
        before = set(samples(bridge.metrics.registry))
        async with httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client:
            for code in grpc.StatusCode:
                if code is not grpc.StatusCode.OK:
                    upstream.refusal = (code, "no", None)
                    await client.post(CHAT, json=BODY)
        assert set(samples(bridge.metrics.registry)) == before


async def test_the_bridge_tells_whether_a_server_is_ready() -> None:
    async with fake_upstream() as upstream, in_process_bridge(upstream.address) as bridge:
        await until(lambda: samples(bridge.metrics.registry)["bridge_upstream_ready", ()] == 1)
    async with in_process_bridge("127.0.0.1:1") as bridge:
        assert samples(bridge.metrics.registry)["bridge_upstream_ready", ()] == 0
