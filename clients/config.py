"""Every setting of the terminal client: its flag, its CHAT_ name, range and default.

The only reader of the command line and the environment; all others get the frozen Settings.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from clients.conversation import encodable
from protos.chat.v1.ranges import RANGES
from protos.chat.v1.target import problem_of_target

_ENVIRONMENT = "CHAT"
_HELP = """Chats with a model in the terminal.

In a pipe it reads one message a line and writes nothing but the answers to stdout."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was chosen, as `--help` describes it."""

    target: str
    model: str | None
    system: str | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    seed: int | None
    history_file: Path
    export_svg: Path | None


class _Number(click.FloatRange):
    """click takes NaN for a number within any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


def _number(field: str) -> click.ParamType[float]:
    return _Number(RANGES[field].low, RANGES[field].high)


def _integer(field: str) -> click.ParamType[int]:
    return click.IntRange(int(RANGES[field].low), int(RANGES[field].high))


def is_http(target: str) -> bool:
    """Whether the target is the bridge's address; else it is a gRPC server's."""
    return target.lower().startswith(("http://", "https://"))


def _checked_target(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """An http:// address is looked at by the transport that takes it."""
    problem = None if is_http(value) else problem_of_target(value)
    if problem:
        raise click.BadParameter(f'{problem}; got "{value}"; the bridge is reached at http://HOST:PORT')
    return value


def _default_history_file() -> str:
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return f"{state}/qwen3-chat/history"


def _setting(
    name: str, show_default: bool | str = True, **options: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One flag with its environment name, both shown in the help together with range and default."""
    variable = f"{_ENVIRONMENT}_{name.removeprefix('--').replace('-', '_').upper()}"
    return click.option(name, envvar=variable, show_envvar=True, show_default=show_default, **options)


def command(chat: Callable[[Settings], None]) -> click.Command:
    """The command line whose settings are given to `chat`."""

    @click.command(name="python -m clients.chat", help=_HELP)
    @_setting(
        "--target",
        default="localhost:50051",
        callback=_checked_target,
        help="The service: HOST:PORT is gRPC, an http:// address is the bridge.",
    )
    @_setting("--model", show_default="the served one", help="Name of the model that shall answer.")
    @_setting("--system", help="Instructions for the whole conversation.")
    @_setting("--temperature", type=_number("temperature"), show_default="the model's", help="Sampling temperature.")
    @_setting(
        "--top-p", type=_number("top_p"), show_default="the model's", help="Probability that the kept tokens reach."
    )
    @_setting("--max-tokens", type=_integer("max_tokens"), show_default="no limit", help="Most tokens of an answer.")
    @_setting("--seed", type=_integer("seed"), show_default="the server's choice", help="Makes answers repeatable.")
    @_setting(
        "--history-file",
        default=_default_history_file,
        show_default="~/.local/state/qwen3-chat/history, below $XDG_STATE_HOME where that is set",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where typed lines are kept.",
    )
    @_setting(
        "--export-svg",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Writes a picture of the session here when it ends.",
    )
    def run(**options: Any) -> None:
        texts = {name: encodable(value) for name, value in options.items() if isinstance(value, str)}
        settings: dict[str, Any] = options | texts
        chat(Settings(**settings))

    return run
