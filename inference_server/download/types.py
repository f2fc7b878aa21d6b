"""What the rooms of the download speak of."""

from dataclasses import dataclass


class DownloadError(Exception):
    """The download cannot be finished. The message is one line that says what to change."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as a hub lists it. sha256 is lower-case hex, None where the hub does not say."""

    path: str
    size_bytes: int
    sha256: str | None


def gigabytes(byte_count: int) -> str:
    """For people: 10**9 bytes each."""
    return f"{byte_count / 1e9:.2f} GB"
