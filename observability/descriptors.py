"""Bound connections by the process's file descriptors, and say once a minute when there are too few.

Sources: RLIMIT_NOFILE in getrlimit(2); asyncio reports each failed accept to the loop's exception handler.
"""

import asyncio
import errno
import logging
import resource
import time
from typing import Any

_log = logging.getLogger(__name__)
_RESERVED = 64  # for metrics, upstream connections, the model's files and pages of documentation
_MAX_CONNECTIONS = 16_384
_ROUNDS, _MAX_CONNECTIONS_A_ROUND = 8, 256
_OPEN_MAX = 10_240  # macOS's
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SAY_EVERY_S = 60.0


def raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard one. The usual 1,024 is there for programs that call select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (hard, _OPEN_MAX):  # macOS refuses its own hard limit, which is infinite: setrlimit(2), COMPATIBILITY
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (ValueError, OSError):
            continue
        return
    _log.warning("the limit of %d file descriptors could not be raised", soft)


def connection_limit() -> int:
    """Return how many clients may be connected so that descriptors are left for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(1, min(max(soft - _RESERVED, soft // 2), _MAX_CONNECTIONS))


def accepted_at_once() -> int:
    """Return how many connections may be accepted in one round of the loop.

    Some rounds pass before a connection over the limit is closed: together fewer than descriptors are kept free.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft - connection_limit()
    return max(1, min(spare // _ROUNDS, _MAX_CONNECTIONS_A_ROUND))


class MinuteLog:
    """Logs the first warning, and then at most one a minute, with the number of those between."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said_s = -_SAY_EVERY_S
        self._count = 0

    def warning(self, message: str, *arguments: object) -> None:
        self._count += 1
        now_s = time.monotonic()
        if now_s - self._said_s >= _SAY_EVERY_S:
            self._logger.warning(message + " (%d times)", *arguments, self._count)
            self._said_s, self._count = now_s, 0


class LoopErrors:
    """An event loop's exception handler: failed accepts are one line a minute, anything else is asyncio's to log."""

    def __init__(self) -> None:
        self._accepts = MinuteLog(_log)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES and "socket" in context:
            said = "cannot accept connections: %s; they wait until others close"
            self._accepts.warning(said, error.strerror)
        else:
            loop.default_exception_handler(context)
