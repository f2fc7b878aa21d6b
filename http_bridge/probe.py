"""`python -m http_bridge.probe`: exit code 0 where the bridge answers, else 1. For the image's health check.

Takes the bridge's own settings and asks where it listens. It says nothing about the inference server; /health does.
"""

import sys
import urllib.request

import click

from http_bridge.config import Settings, command
from observability.addresses import host_and_port

_TIMEOUT_S = 5.0
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}


def probe(settings: Settings) -> None:
    """Prints the answer and exits."""
    host = _LOOPBACK.get(settings.host, settings.host)
    address = host_and_port(host, settings.port)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is for the outside
    try:
        with opener.open(f"http://{address}/livez", timeout=_TIMEOUT_S) as answer:
            print(answer.read().decode())
    except OSError as error:  # also every status but 200
        sys.exit(str(error))


if __name__ == "__main__":
    try:
        command(probe).main(standalone_mode=False)
    except click.ClickException as error:
        sys.exit(error.format_message())
