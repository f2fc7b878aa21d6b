"""`python -m inference_server`: settings to server."""

import asyncio
import gc
import os
import signal
import sys

import click

from inference_server.checkpoint.check import require_usable
from inference_server.config import Settings, command
from inference_server.errors import StartupError
from observability.descriptors import raise_descriptor_limit
from observability.logs import configure_logs
from observability.signals import ENDING
from observability.stream import leave, unblock

# After a step's computation the engine's thread wants Python's lock back from those that serve its tokens: 5 ms, which
# Python gives them, are half a step of a small model.
_SWITCH_INTERVAL_S = 0.0002


def run(settings: Settings) -> None:
    """Serves until told to stop. A bad start is one line and exit code 2."""
    configure_logs(settings.log_level, settings.log_format)
    try:
        require_usable(settings.model)
        exit_code = _served(settings)
    except StartupError as error:
        print(f"inference_server: {error}", file=sys.stderr)
        exit_code = 2
    leave(exit_code)  # a load or a step that is stuck must not keep the process


def _served(settings: Settings) -> int:
    """Returns the exit code. Raises StartupError."""
    # imported after settings and checkpoint are known to be good: errors and --help should not wait for it
    from inference_server.progress import restore_cursor
    from inference_server.server import serve

    try:
        return asyncio.run(serve(settings))
    finally:
        restore_cursor()


def main() -> None:
    """The command line, with errors of one line."""
    unblock()
    raise_descriptor_limit()
    # until the server has its own: a container's first process gets no signal that it does not handle
    for number in ENDING:
        signal.signal(number, lambda number, frame: leave(0))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's core writes lines of its own about a busy port
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch on the CPU takes memory in large pages
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # between steps others want the cores: threads sleep after 30 us
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.disable()  # until ready: what a start makes stays, and to look through it again and again takes a second
    try:
        command(run).main(standalone_mode=False)
    except click.ClickException as error:
        print(f"inference_server: {error.format_message()}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
