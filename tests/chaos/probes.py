"""What a bystander sees and what the programs hold, sampled while something else happens."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.chaos.http_load import HttpClient, quantile
from tests.chaos.service import DEADLINE_S, Service

_EVERY_S = 0.02


@dataclass(slots=True)
class Seen:
    """Health's answers in seconds, how many of them were false, and memory in MB above what it was before."""

    grpc_health_s: list[float] = field(default_factory=list)
    http_health_s: list[float] = field(default_factory=list)
    false_count: int = 0
    most_mb: float = 0.0

    @property
    def health_p99_ms(self) -> float:
        """The worse of both transports'."""
        return 1e3 * max(quantile(self.grpc_health_s, 0.99), quantile(self.http_health_s, 0.99))


@asynccontextmanager
async def bystander(service: Service) -> AsyncIterator[Seen]:
    """Asks for health over both transports, on connections of its own, and looks at the memory."""
    seen, before_mb = Seen(), service.resident_mb
    async with grpc.aio.insecure_channel(service.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        tasks = [asyncio.create_task(one) for one in (
            _grpc_health(channel, seen), _http_health(service.http_port, seen), _memory(service, before_mb, seen)
        )]  # fmt: skip
        try:
            yield seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _grpc_health(channel: grpc.aio.Channel, seen: Seen) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    while True:
        started_s = time.perf_counter()
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="chat.v1.ChatService"), timeout=DEADLINE_S)
        seen.grpc_health_s.append(time.perf_counter() - started_s)
        seen.false_count += answer.status != health_pb2.HealthCheckResponse.SERVING
        await asyncio.sleep(_EVERY_S)


async def _http_health(port: int, seen: Seen) -> None:
    client = HttpClient(port)
    while True:
        outcome = await client.get("/health")
        seen.http_health_s.append(outcome.total_s)
        seen.false_count += outcome.status != 200
        await asyncio.sleep(_EVERY_S)


async def _memory(service: Service, before_mb: float, seen: Seen) -> None:
    while True:
        seen.most_mb = max(seen.most_mb, service.resident_mb - before_mb)
        await asyncio.sleep(_EVERY_S)
