"""The gRPC server with its services, and what it lets clients do to it."""

from collections.abc import Callable
from functools import partial

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_server.boundary import ErrorBoundary, WellFormed
from inference_server.config import Settings
from inference_server.errors import StartupError
from inference_server.health import HealthServicer
from inference_server.reflection import add_reflection
from inference_server.service_state import ServiceState
from inference_server.servicer import ChatServicer
from inference_server.wire_format import require_modest_fields
from observability.addresses import host_and_port
from observability.descriptors import connection_limit
from protos.chat.v1 import chat_pb2, chat_pb2_grpc

CHAT_SERVICE = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
_CHANNEL_OPTIONS = (
    ("grpc.so_reuseport", 0),  # or two servers would share a port in silence
    # A bridge brings all its chats on one connection, and a new client's burst comes before it knows a limit. Calls
    # over these are reset without a word, between the first two at random; those below are refused in our own.
    ("grpc.server.max_pending_requests", 8192),
    ("grpc.server.max_pending_requests_hard_limit", 16_384),
    ("grpc.max_concurrent_streams", 4096),
    # as HPACK counts it; gRPC's own are 8 and 16 KiB, between which it refuses at random
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),  # a connection that says nothing; gRPC's own is 120 s
    ("grpc.max_connection_idle_ms", 10 * 60_000),
    ("grpc.max_connection_age_ms", 30 * 60_000),  # so that clients find new replicas
    ("grpc.max_connection_age_grace_ms", 3600_000),
    # a client that is gone without a word is found in 15 s; keepalive alone would take a minute
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client may send a keepalive ping each second, the least that gRPC's core allows it, and be early by half of it.
    # gRPC's own limit of 5 min would close its connection.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
)


def grpc_server(settings: Settings, servicer: ChatServicer, state: ServiceState) -> grpc.aio.Server:
    """A server with all services on it, not yet started."""
    options = (
        *_CHANNEL_OPTIONS,
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_allowed_incoming_connections", connection_limit()),  # others are closed at once
    )
    interceptors = [ErrorBoundary(), servicer.accounting, WellFormed(_checks(settings.max_messages))]
    server = grpc.aio.server(interceptors=interceptors, options=options)
    chat_pb2_grpc.add_ChatServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(state, CHAT_SERVICE), server)
    if settings.reflection:
        add_reflection(server, (CHAT_SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name))
    return server


def _checks(max_messages: int) -> dict[str, Callable[[bytes], None]]:
    """What the messages of each of the chat service's methods must pass."""
    return {
        f"/{CHAT_SERVICE}/{method.name}": partial(
            require_modest_fields, kind=method.input_type, max_messages=max_messages
        )
        for method in chat_pb2.DESCRIPTOR.services_by_name["ChatService"].methods
    }


def bind(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        return server.add_insecure_port(host_and_port(host, port))
    except RuntimeError as error:
        place = host_and_port(host, port)
        raise StartupError(
            f"--port {port}: cannot listen on {place}; the port is taken, or the address is not this machine's"
        ) from error
