"""Every setting of the bridge: its flag, its BRIDGE_ name, range and default.

The only reader of the command line and the environment; all others get the frozen Settings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from http_bridge.cors import problem_of_origin
from http_bridge.hosts import problem_of_allowed_host
from protos.chat.v1.target import problem_of_target

_ENVIRONMENT = "BRIDGE"


@dataclass(frozen=True, slots=True)
class Settings:
    """What was chosen, as `--help` describes it."""

    target: str
    host: str
    port: int
    allowed_hosts: tuple[str, ...]
    cors_origins: tuple[str, ...]
    max_body_bytes: int
    unknown_fields: str
    read_timeout_s: int
    write_timeout_s: int
    sse_keepalive_s: int
    drain_timeout_s: int
    metrics_port: int
    log_level: str
    log_format: str


def _setting(name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One flag with its environment name, both shown in the help together with range and default."""
    variable = f"{_ENVIRONMENT}_{name.removeprefix('--').replace('-', '_').upper()}"
    return click.option(name, envvar=variable, show_envvar=True, **({"show_default": True} | options))


def _checked_target(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if problem := problem_of_target(value):
        raise click.BadParameter(f'{problem}; got "{value}"')
    return value


def _names(problem_of: Callable[[str], str | None]) -> Callable[..., tuple[str, ...]]:
    """A callback for names with commas between. problem_of: what is wrong with one, None if nothing is."""

    def checked(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
        names = tuple(name.strip().lower() for name in (value or "").split(",") if name.strip())
        for name in names:
            if problem := problem_of(name):
                raise click.BadParameter(f'{problem}; got "{name}"')
        return tuple(name.removesuffix(".") for name in names)

    return checked


def command(serve: Callable[[Settings], None]) -> click.Command:
    """The command line whose settings are given to `serve`."""

    @click.command(name="python -m http_bridge", help="Serves OpenAI's chat JSON over HTTP from a chat.v1 gRPC server.")
    @_setting(
        "--target",
        default="localhost:50051",
        callback=_checked_target,
        help="The gRPC server, as HOST:PORT or a gRPC name such as dns:///HOST:PORT.",
    )
    @_setting("--host", default="0.0.0.0", help="Address to listen on.")
    @_setting("--port", default=8000, type=click.IntRange(0, 65535), help="HTTP port; 0 takes a free one.")
    @_setting(
        "--allowed-hosts",
        default=None,
        callback=_names(problem_of_allowed_host),
        show_default="IP addresses, names without a dot, .localhost, .local, .internal, .home.arpa, this machine's",
        help="More names that requests may be addressed to, with commas between: NAME, *.NAME, or * for any.",
    )
    @_setting(
        "--cors-origins",
        default=None,
        callback=_names(problem_of_origin),
        show_default="none",
        help="Origins whose web pages may use the service, with commas between: https://chat.example.com, "
        "http://localhost:* for any port, null for pages from files, or * for any.",
    )
    @_setting(
        "--max-body-bytes", default=4 * 2**20, type=click.IntRange(1024, 2**30), help="Most bytes of one request body."
    )
    @_setting(
        "--unknown-fields",
        default="ignore",
        type=click.Choice(["ignore", "refuse"]),
        help="Request fields that the service does not know: name them in X-Ignored-Fields, or answer 400.",
    )
    @_setting(
        "--read-timeout-s",
        default=10,
        type=click.IntRange(1, 3600),
        help="How long a request's headers, and then its body, may take to arrive.",
    )
    @_setting(
        "--write-timeout-s",
        default=30,
        type=click.IntRange(1, 3600),
        help="How long a client may read nothing of its answer before its connection is closed.",
    )
    @_setting(
        "--sse-keepalive-s",
        default=10,
        type=click.IntRange(0, 3600),
        help="Seconds without an event after which a stream sends a comment, so that proxies and clients keep the "
        "connection; 0 sends none.",
    )
    @_setting(
        "--drain-timeout-s",
        default=30,
        type=click.IntRange(1, 3600),
        help="How long running answers may go on after SIGTERM.",
    )
    @_setting(
        "--metrics-port", default=9465, type=click.IntRange(0, 65535), help="Port of Prometheus' /metrics; 0 is off."
    )
    @_setting(
        "--log-level",
        default="info",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="Least level shown.",
    )
    @_setting("--log-format", default="text", type=click.Choice(["text", "json"]), help="Log lines as text or JSON.")
    def run(**options: Any) -> None:
        serve(Settings(**options))

    return run
