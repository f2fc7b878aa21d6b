"""`python -m inference_server.download`: settings to a directory that can be served."""

import logging
import shlex
import sys
from pathlib import Path

import click
import httpx2

from inference_server.download.byte_progress import shown_bytes
from inference_server.download.config import Settings, command
from inference_server.download.hubs import Hub, list_files, new_client
from inference_server.download.local_files import check_room, is_finished, part_bytes
from inference_server.download.selection import needed, pinned
from inference_server.download.transfer import Transfer
from inference_server.download.types import DownloadError, RemoteFile, gigabytes

_log = logging.getLogger("inference_server.download")
_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


def download(settings: Settings) -> None:
    """Lists, fetches what is missing, and says how to serve it."""
    hub = Hub(settings.source, settings.repository, settings.revision, settings.endpoint)
    with new_client() as client:
        files = needed(list_files(hub, client), f"{hub.repository} at {hub.host}")
        if settings.is_pinned:
            files = pinned(files, hub.host)
        _log.info("%s, revision %s, from %s", hub.repository, hub.revision, hub.host)
        settings.directory.mkdir(parents=True, exist_ok=True)
        _fetch_missing(files, hub, client, settings.directory)
    print(f"{settings.directory} is complete. Serve it with: make run MODEL={shlex.quote(str(settings.directory))}")


def _fetch_missing(files: list[RemoteFile], hub: Hub, client: httpx2.Client, directory: Path) -> None:
    total_bytes = sum(file.size_bytes for file in files)
    _log.info("%d files, %s: looking at what is there already", len(files), gigabytes(total_bytes))
    missing = [file for file in files if not is_finished(directory, file)]
    missing_bytes = sum(file.size_bytes - part_bytes(directory, file) for file in missing)
    check_room(directory, total_bytes, total_bytes - missing_bytes)
    _log.info("%d files, %s to fetch", len(missing), gigabytes(missing_bytes))
    with shown_bytes(total_bytes, total_bytes - missing_bytes) as progress:
        transfer = Transfer(hub, client, directory, progress)
        for file in missing:
            transfer.fetch(file)


def run(settings: Settings) -> None:
    """Whatever ends the download early is one line."""
    try:
        download(settings)
    except DownloadError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot write to {settings.directory}: {error.strerror}")
    except KeyboardInterrupt:
        _fail("interrupted; running it again continues", _INTERRUPTED)


def main() -> None:
    """The command line, with errors of one line."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("inference_server").setLevel(logging.INFO)  # not the HTTP client's line for each request
    try:
        command(run).main(standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())


def _fail(line: str, exit_code: int = 2) -> None:
    print(f"inference_server.download: {line}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
