"""grpc.health.v1 over the service's state, for probes and load balancers.

Its own servicer because the package's waits for every watcher while it changes a status: one client that reads
nothing would keep the server from ever saying NOT_SERVING.
"""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_server.service_state import Phase, ServiceState

_Context = grpc.aio.ServicerContext[Any, Any]


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """`""` is alive unless the engine has failed; the chat service's name is SERVING only when chats are answered."""

    def __init__(self, state: ServiceState, chat_service_name: str) -> None:
        self._state = state
        self._chat_service_name = chat_service_name

    async def Check(self, request: health_pb2.HealthCheckRequest, context: _Context) -> health_pb2.HealthCheckResponse:
        """The status now; NOT_FOUND for a service that is not here."""
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: _Context) -> None:
        """The status now and after every change of it."""
        sent = None
        while True:
            change = self._state.next_change  # taken before the look, so that none is missed
            status = self._status(request.service)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            await change.wait()

    async def List(self, request: health_pb2.HealthListRequest, context: _Context) -> health_pb2.HealthListResponse:
        """Both statuses now."""
        statuses = {
            name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in ("", self._chat_service_name)
        }
        return health_pb2.HealthListResponse(statuses=statuses)

    def _status(self, service: str) -> int:
        phase = self._state.phase
        if service == "":
            serving = phase is not Phase.FAILED
        elif service == self._chat_service_name:
            serving = phase is Phase.READY
        else:
            return int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        return int(health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING)
