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
    max_sequences: int
    max_step_tokens: int | None
    kv_cache_gib: float | None
    gpu_memory_fraction: float
    prefix_caching: bool
    stall_timeout_s: int
    max_queued_requests: int
    max_queued_tokens: int
    max_queue_wait_s: int
    max_client_requests: int
    max_request_s: int
    write_timeout_s: int
    max_chunk_delay_ms: int
    max_messages: int
    max_message_bytes: int
    reflection: bool
    drain_timeout_s: int
    metrics_port: int
    log_format: str
    log_level: str


class _Number(click.FloatRange):
    """click's own takes NaN, which is in no range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is not a number.", param, ctx)
        return number


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
        show_default="what the KV cache holds for one request, up to the model's own",
    )
    @_setting("--max-sequences", default=128, type=click.IntRange(1, 1024), help="Most requests that run at once.")
    @_setting(
        "--max-step-tokens",
        default=None,
        type=click.IntRange(4, 65536),
        help="Budget of one step: decode tokens, and prompt tokens in what they leave (at least a quarter).",
        show_default="512 on cuda, 64 to 512 on cpu by the model's size",
    )
    @_setting(
        "--kv-cache-gib",
        default=None,
        type=_Number(0.001, 4096),
        help="Memory of the KV cache on a CPU.",
        show_default="4, at most half of what is free and 8 longest requests",
    )
    @_setting(
        "--gpu-memory-fraction",
        default=0.9,
        type=_Number(0.1, 1.0),
        help="Share of the GPU's memory for weights, KV cache and work.",
    )
    @_setting(
        "--prefix-caching/--no-prefix-caching", default=True, help="Keeps the KV cache of beginnings seen before."
    )
    @_setting(
        "--stall-timeout-s",
        default=5,
        type=click.IntRange(1, 3600),
        help="Seconds without a completed step, while work is pending, before health is NOT_SERVING; four times the "
        "expected time of a step if that is longer. Waits for a processor do not count. The server exits after three "
        "times this.",
    )
    @_setting(
        "--max-queued-requests",
        default=256,
        type=click.IntRange(1, 100_000),
        help="Most requests that wait for their turn; more are refused.",
    )
    @_setting(
        "--max-queued-tokens",
        default=2**20,
        type=click.IntRange(1, 2**40),
        help="Most tokens of their prompts together.",
    )
    @_setting(
        "--max-queue-wait-s",
        default=60,
        type=click.IntRange(1, 24 * 3600),
        help="Longest expected wait: a request is refused if the ones before it will take longer.",
    )
    @_setting(
        "--max-client-requests",
        default=0,
        type=click.IntRange(0, 100_000),
        help="Most requests of one client that run or wait; 0 sets no limit, but a full queue keeps room for others.",
    )
    @_setting(
        "--max-request-s",
        default=3600,
        type=click.IntRange(1, 7 * 24 * 3600),
        help="Longest time for one answer, whatever deadline the client sets.",
    )
    @_setting(
        "--write-timeout-s",
        default=30,
        type=click.IntRange(1, 3600),
        help="How long a client may read nothing of a streamed answer before the call ends.",
    )
    @_setting(
        "--max-chunk-delay-ms",
        default=100,
        type=click.IntRange(0, 10_000),
        help="How long a token may wait for the next ones of its answer where many are streamed; 0: each goes at once.",
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
        "--metrics-port",
        default=9464,
        type=click.IntRange(0, 65535),
        help="Port of /metrics for Prometheus; 0 is off.",
    )
    @_setting("--log-format", default="text", type=click.Choice(["text", "json"]), help="Form of the log lines.")
    @_setting(
        "--log-level",
        default="info",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="Least level shown.",
    )
    def run(**options: Any) -> None:
        serve(Settings(**options))

    return run
