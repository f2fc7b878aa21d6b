"""`python -m http_bridge`: settings to server."""

import logging
import os
import socket
import sys
from types import FrameType

import click
import uvicorn

from http_bridge.app import create_app
from http_bridge.config import Settings, command

_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn whose second signal ends the process at once, whatever still runs."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(1)
        self.should_exit = True


def run(settings: Settings) -> None:
    """Serves until told to stop. A bad start is one line and exit code 2."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn.error").setLevel("WARNING")  # its steps of starting and ending are no news
    config = uvicorn.Config(
        create_app(settings),
        http="h11",  # it bounds headers, httptools does not
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )
    listener = _listen(settings.host, settings.port)
    _log.info("HTTP on %s:%d for %s", settings.host, listener.getsockname()[1], settings.target)
    server = _Server(config)
    server.run(sockets=[listener])
    _log.info("ended")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        print(f"http_bridge: --port {port}: cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # without it each answer waits 40 ms for an ACK
    return listener


def main() -> None:
    """The command line, with errors of one line."""
    try:
        command(run).main(standalone_mode=False)
    except click.ClickException as error:
        print(f"http_bridge: {error.format_message()}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
