"""`python -m inference_server.probe`: exit code 0 where chats are answered, else 1. For the image's health check.

Takes the server's own settings and asks where it listens. Runs every few seconds, so it imports neither torch nor
transformers.
"""

import os
import sys

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_server.config import Settings, command
from observability.addresses import host_and_port
from protos.chat.v1 import chat_pb2

_TIMEOUT_S = 5.0
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}
_CHAT_SERVICE = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name


def probe(settings: Settings) -> None:
    """Prints the status and exits."""
    status = _status(_LOOPBACK.get(settings.host, settings.host), settings.port)
    print(status)
    sys.exit(0 if status == "SERVING" else 1)


def _status(host: str, port: int) -> str:
    """A name of grpc.health.v1, or the status code of a call that failed."""
    with grpc.insecure_channel(host_and_port(host, port), options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=_CHAT_SERVICE)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        command(probe).main(standalone_mode=False)
    except click.ClickException as error:
        sys.exit(error.format_message())
