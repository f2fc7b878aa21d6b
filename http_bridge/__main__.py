"""`python -m http_bridge`: settings to server."""

import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from http_bridge.config import Settings, command
from observability.addresses import host_and_port, usable_host
from observability.descriptors import raise_descriptor_limit
from observability.logs import configure_logs
from observability.signals import ENDING
from observability.stream import leave, unblock

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def run(settings: Settings) -> None:
    """Serves until told to stop. A bad start is one line and exit code 2."""
    configure_logs(settings.log_level, settings.log_format)
    logging.getLogger("uvicorn.error").setLevel("WARNING")  # its steps of starting and ending are no news
    # imported here because FastAPI takes a second, in which --help should be shown and SIGTERM should end it
    from http_bridge.metrics import Metrics
    from http_bridge.server import BridgeServer, listen
    from observability.exporter import exported

    host, port, metrics = usable_host(settings.host), settings.port, Metrics()
    with contextlib.ExitStack() as stack:
        listener = _opened("--port", host, port, lambda: listen(host, port))
        exporting = exported(metrics.registry, host, settings.metrics_port)
        metrics_port = _opened("--metrics-port", host, settings.metrics_port, lambda: stack.enter_context(exporting))
        _log.info("HTTP on %s for %s", host_and_port(host, listener.getsockname()[1]), settings.target)
        if metrics_port:
            _log.info("metrics on %s", host_and_port(host, metrics_port))
        server = BridgeServer(settings, metrics)
        gc.freeze()  # nobody looks for garbage in what has been imported
        gc.enable()
        server.run(sockets=[listener])
        for number in ENDING:  # Python's end gives the others back to the system, where they kill
            signal.signal(number, signal.SIG_IGN)
    _log.info("ended")


def _opened(setting: str, host: str, port: int, open_port: Callable[[], _T]) -> _T:
    try:
        return open_port()
    except OSError as error:
        place = host_and_port(host, port)
        print(f"http_bridge: {setting} {port}: cannot listen on {place}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def main() -> None:
    """The command line, with errors of one line."""
    unblock()
    raise_descriptor_limit()
    # until the server has its own: a container's first process gets no signal that it does not handle
    for number in ENDING:
        signal.signal(number, lambda number, frame: leave(0))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's core writes lines of its own, in no format of ours
    gc.disable()  # until it serves: what a start makes stays
    try:
        command(run).main(standalone_mode=False)
    except click.ClickException as error:
        print(f"http_bridge: {error.format_message()}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
