"""Every setting of the inference server: its flag, its INFERENCE_ name, range and default.

The only reader of the command line and the environment; all others get the frozen Settings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

_ENVIRONMENT = "INFERENCE"


@dataclass(frozen=True, slots=True)
class Settings:
    """What was chosen, as `--help` describes it."""

    model: str
    served_model_name: str | None
    host: str
    port: int
    device: str
    dtype: str
    max_context_tokens: int | None
    max_messages: int
    max_message_bytes: int
    reflection: bool
    drain_timeout_s: int
    log_level: str


def _setting(name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One flag with its environment name, both shown in the help together with range and default."""
    variable = f"{_ENVIRONMENT}_{name.removeprefix('--').split('/')[0].replace('-', '_').upper()}"
    return click.option(name, envvar=variable, show_envvar=True, **({"show_default": True} | options))


def command(serve: Callable[[Settings], None]) -> click.Command:
    """The command line whose settings are given to `serve`."""

    @click.command(name="python -m inference_server", help="Serves Qwen3 chat over gRPC.")
    @_setting("--model", default="demo", help="Directory of a Qwen3 checkpoint; demo is the embedded demo model.")
    @_setting(
        "--served-model-name", default=None, help="Name in requests and answers.", show_default="the directory's name"
    )
    @_setting("--host", default="0.0.0.0", help="Address to listen on.")
    @_setting("--port", default=50051, type=click.IntRange(0, 65535), help="gRPC port; 0 takes a free one.")
    @_setting("--device", default="auto", type=click.Choice(["auto", "cuda", "cpu"]), help="auto is cuda if usable.")
    @_setting(
        "--dtype",
        default="auto",
        type=click.Choice(["auto", "bfloat16", "float32"]),
        help="Type of the weights; auto is bfloat16 on cuda, the checkpoint's own on cpu.",
    )
    @_setting(
        "--max-context-tokens",
        default=None,
        type=click.IntRange(min=16),
        help="Most tokens of prompt and answer together.",
        show_default="the model's own",
    )
    @_setting("--max-messages", default=1024, type=click.IntRange(1, 65536), help="Most messages of one request.")
    @_setting(
        "--max-message-bytes",
        default=4 * 2**20,
        type=click.IntRange(1024, 2**30),
        help="Most bytes of one request message.",
    )
    @_setting("--reflection/--no-reflection", default=True, help="gRPC reflection, for grpcurl and the like.")
    @_setting(
        "--drain-timeout-s",
        default=30,
        type=click.IntRange(0, 3600),
        help="How long running chats may go on after SIGTERM.",
    )
    @_setting(
        "--log-level",
        default="info",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="Least level shown.",
    )
    def run(**options: Any) -> None:
        serve(Settings(**options))

    return run
