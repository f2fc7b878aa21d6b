"""Every setting of the download: its flag, its DOWNLOAD_ name and default.

The only reader of the command line and the environment; all others get the frozen Settings.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx2

from inference_server.download.pinned import REPOSITORY, REVISIONS, revision_of

_ENVIRONMENT = "DOWNLOAD"


@dataclass(frozen=True, slots=True)
class Settings:
    """What was chosen, as `--help` describes it; endpoint None is the source's own."""

    repository: str
    source: str
    endpoint: str | None
    revision: str
    directory: Path

    @property
    def is_pinned(self) -> bool:
        """Whether the files must be the ones whose checksums are known."""
        return self.repository == REPOSITORY and self.revision == REVISIONS[self.source]


def _setting(name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One flag with its environment name, both shown in the help together with the default."""
    variable = f"{_ENVIRONMENT}_{name.removeprefix('--').replace('-', '_').upper()}"
    return click.option(name, envvar=variable, show_envvar=True, **({"show_default": True} | options))


def _checked_repository(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", value):
        raise click.BadParameter(f'expected OWNER/NAME, got "{value}"')
    return value


def _checked_endpoint(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        address = httpx2.URL(value)
    except httpx2.InvalidURL:
        address = httpx2.URL()
    if address.scheme not in ("http", "https") or not address.host or address.query or address.fragment:
        raise click.BadParameter(f'expected an address like https://HOST, got "{value}"')
    return value.rstrip("/")


def command(download: Callable[[Settings], None]) -> click.Command:
    """The command line whose settings are given to `download`."""

    @click.command(
        name="python -m inference_server.download",
        help="Downloads a Qwen3 checkpoint. What is broken off continues when it is run again.",
    )
    @_setting("--repository", default=REPOSITORY, callback=_checked_repository, help="OWNER/NAME on the hub.")
    @_setting("--source", default="modelscope", type=click.Choice(list(REVISIONS)), help="The hub.")
    @_setting(
        "--endpoint",
        default=None,
        callback=_checked_endpoint,
        help="Address of a mirror that speaks as the source does.",
        show_default="the source's own",
    )
    @_setting(
        "--revision",
        default=None,
        help="Commit, tag or branch.",
        show_default="a pinned commit for the default repository, else the newest",
    )
    @_setting("--directory", default=None, help="Where the files go.", show_default="models/NAME")
    def run(repository: str, source: str, endpoint: str | None, revision: str | None, directory: str | None) -> None:
        revision = revision or revision_of(repository, source)
        place = Path(directory or f"models/{repository.split('/')[1]}")
        download(Settings(repository, source, endpoint, revision, place))

    return run
