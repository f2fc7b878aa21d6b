"""What of the files is in the directory already, and whether the disk has room for the rest."""

import hashlib
import shutil
from pathlib import Path

from inference_server.download.types import DownloadError, RemoteFile, gigabytes

_SPARE_BYTES = 100_000_000


def part_of(directory: Path, file: RemoteFile) -> Path:
    """Where a file is until it is whole and checked."""
    return directory / f"{file.path}.part"


def is_finished(directory: Path, file: RemoteFile) -> bool:
    """Whether exactly this file is there. Checkpoints of one shape have one size, so the size alone says little.

    A file without a checksum is small on both hubs, and is fetched again.
    """
    path = directory / file.path
    right_size = path.is_file() and path.stat().st_size == file.size_bytes
    return right_size and file.sha256 is not None and sha256_of(path) == file.sha256


def sha256_of(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def part_bytes(directory: Path, file: RemoteFile) -> int:
    """How much can be continued; nothing where no checksum would tell whether the pieces fit together."""
    path = part_of(directory, file)
    size_bytes = path.stat().st_size if path.is_file() and file.sha256 else 0
    return size_bytes if size_bytes <= file.size_bytes else 0


def check_room(directory: Path, total_bytes: int, there_bytes: int) -> None:
    """Refuses to begin what could not be finished."""
    needed_bytes = total_bytes - there_bytes + _SPARE_BYTES
    free_bytes = shutil.disk_usage(directory).free
    if needed_bytes > free_bytes:
        parts = f"{gigabytes(total_bytes)} - {gigabytes(there_bytes)} there + {gigabytes(_SPARE_BYTES)} to spare"
        raise DownloadError(
            f"the disk of {directory} is too small: {parts} = {gigabytes(needed_bytes)}, free are "
            f"{gigabytes(free_bytes)}: make room, or choose another --directory"
        )
