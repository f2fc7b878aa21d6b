"""The address that a program listens on, as both programs take it and show it."""

import logging
import socket

_log = logging.getLogger(__name__)


def usable_host(host: str) -> str:
    """`::` is every address of IPv6 and IPv4; on a machine without IPv6 it becomes 0.0.0.0, which is said."""
    if host != "::" or socket.has_dualstack_ipv6():
        return host
    _log.warning("this machine has no IPv6: listening on 0.0.0.0 in place of ::")
    return "0.0.0.0"


def host_and_port(host: str, port: int) -> str:
    """With brackets around an address of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
