"""The HTTP server: uvicorn with bounded requests and a drain that keeps the port open until the last answer is sent."""

import asyncio
import logging
import socket
import sys
import threading
import time
from functools import partial
from types import FrameType
from typing import Any

import h11
import uvicorn

from http_bridge.app import create_app
from http_bridge.config import Settings
from http_bridge.connections import Crowd, CrowdedProtocol
from http_bridge.drain import Drain
from http_bridge.metrics import Metrics
from observability.descriptors import LoopErrors, accepted_at_once, connection_limit
from observability.signals import EndSignals
from observability.stream import leave

_log = logging.getLogger(__name__)
_LAST_WORDS_S = 1.0  # for the error events of the answers that were ended
_HURRIED_WORDS_S = 0.5  # for the same after a second signal
_LAST_LINES_S = 0.2  # for the log, after a second signal
_ARRIVING_S = 1.0  # for requests that were on their way when the drain began; they are refused in words
_BACKLOG = 2048
_MOST_UNSENT_BYTES = 64 * 1024
_TICKS_A_SECOND = 10  # uvicorn's
# Longer than clients keep idle connections (httpx 5 s, load balancers 60): a request that is sent just when the
# bridge closes its connection is lost.
_KEEP_ALIVE_S = 75


class BridgeServer(uvicorn.Server):
    """The first signal drains. A later one ends running answers with an error event, then the process, within 0.5 s."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.drain = Drain(settings.drain_timeout_s)
        self._crowd = Crowd(connection_limit(), settings.write_timeout_s)
        protocol: Any = partial(CrowdedProtocol, crowd=self._crowd, read_timeout_s=settings.read_timeout_s)
        config = uvicorn.Config(
            create_app(settings, metrics, self.drain),
            http=protocol,
            ws="none",
            access_log=False,
            log_config=None,
            workers=1,  # or uvicorn reads WEB_CONCURRENCY, which may be no number
            server_header=False,
            backlog=accepted_at_once(),
            timeout_graceful_shutdown=1,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        super().__init__(config)
        self._is_told = False
        self._is_hurried = False
        self._end_signals = EndSignals(self.drain.begin, self._hurry)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(LoopErrors())
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_BACKLOG)  # uvicorn's is also how many connections are accepted before any is looked at

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._end_signals.on_signal(sig, frame)

    def _hurry(self) -> None:
        if self._is_hurried:
            leave(1, _LAST_LINES_S)
        self._is_hurried = True
        threading.Timer(_HURRIED_WORDS_S, leave, (1, _LAST_LINES_S)).start()  # also if the loop is blocked

    async def on_tick(self, counter: int) -> bool:
        """Every 0.1 s: whether to end."""
        if counter % _TICKS_A_SECOND == 0:
            self._crowd.close_stalled(time.monotonic())
        if self._is_hurried:
            self.drain.end()
            await asyncio.sleep(0)
            if not self.drain.is_busy and not self._unsent():
                leave(1, _LAST_LINES_S)
        return await super().on_tick(counter) or (self.drain.is_draining and self._is_drained())

    def _is_drained(self) -> bool:
        drain = self.drain
        if not self._is_told:  # a signal's handler must not log
            self._is_told = True
            _log.info("draining: %d running answers may go on", drain.chat_count)
        if not drain.is_busy and not self._unsent() and not (drain.lasts_s < _ARRIVING_S and self._arriving()):
            return True
        if drain.left_s <= 0 and not drain.is_over:
            _log.warning("drain timeout: %d answers are ended", drain.chat_count)
            drain.end()
        return drain.left_s <= -_LAST_WORDS_S

    def _unsent(self) -> list[Any]:
        """Connections with bytes that their client has not taken."""
        return [one for one in self._connections() if one.transport.get_write_buffer_size()]

    def _arriving(self) -> list[Any]:
        """Connections with a request whose body is not all there."""
        return [one for one in self._connections() if one.conn.their_state is h11.SEND_BODY]

    def _connections(self) -> list[Any]:
        return list(self.server_state.connections)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, after letting go of those that it would wait for in vain."""
        self.drain.end()
        for connection in (*self._unsent(), *self._arriving()):
            connection.transport.abort()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Listens there; `::` is every address of IPv6 and IPv4, as in gRPC. Raises OSError if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::")
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # without it each answer waits 40 ms for an ACK
    if sys.platform == "linux":  # or the system takes megabytes for a client that reads nothing
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MOST_UNSENT_BYTES)
    return listener
