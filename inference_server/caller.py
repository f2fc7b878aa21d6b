"""Who sent a call: for turns and limits by client, not for what it may do.

A bridge names its own callers in metadata. Any direct client could do so too: it would only get turns of its own, which
it also gets by opening connections from several addresses.
"""

import hashlib
from typing import Any

import grpc

from inference_server.admission import Caller

CLIENT_KEY = "chat-client"  # a bridge's name for its caller
_MOST_CHARACTERS = 128


def caller_of(context: "grpc.aio.ServicerContext[Any, Any]") -> Caller:
    """By the name that a bridge gives, else by the key that the call brings, else by its address."""
    metadata = dict(context.invocation_metadata() or ())
    peer = str(context.peer())
    if isinstance(name := metadata.get(CLIENT_KEY), str):
        name = f"bridged {name[:_MOST_CHARACTERS]}"
    elif isinstance(key := metadata.get("authorization"), str):
        name = f"key {hashlib.sha256(key.encode()).hexdigest()}"
    else:
        name = peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
    return Caller(name, context.time_remaining())
