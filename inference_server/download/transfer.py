"""One file from a hub into the directory: continued where it broke off, checked, and only then given its name."""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx2

from inference_server.download.byte_progress import ByteProgress
from inference_server.download.hubs import Hub, host_of, reason_of
from inference_server.download.local_files import part_bytes, part_of, sha256_of
from inference_server.download.types import DownloadError, RemoteFile, gigabytes

PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0)
_PASSING_STATUSES = frozenset([408, 429, 500, 502, 503, 504])


@dataclass(frozen=True, slots=True)
class Transfer:
    """Brings files of one hub into one directory. pauses_s: before each new try that follows one without a byte."""

    hub: Hub
    client: httpx2.Client
    directory: Path
    progress: ByteProgress
    pauses_s: tuple[float, ...] = PAUSES_S

    def fetch(self, file: RemoteFile) -> None:
        """Raises DownloadError where the hub does not give the file as it is listed."""
        self.progress.says(file.path)
        path = part_of(self.directory, file)
        with path.open("ab") as part:
            self._lock(part)
            part.truncate(part_bytes(self.directory, file))
            part.seek(0, os.SEEK_END)
            self._receive(file, part)
            part.flush()
            os.fsync(part.fileno())  # the name says that the bytes are on the disk
            self.progress.says(f"checking {file.path}")
            _check(file, path)
            path.replace(self.directory / file.path)

    def _lock(self, part: BinaryIO) -> None:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"another download is writing to {self.directory}: wait for it") from error

    def _receive(self, file: RemoteFile, part: BinaryIO) -> None:
        failures, most_bytes = 0, part.tell()
        while part.tell() < file.size_bytes:
            reason = self._attempt(file, part)
            if part.tell() >= file.size_bytes:
                return
            failures = 1 if part.tell() > most_bytes else failures + 1
            most_bytes = max(most_bytes, part.tell())
            if failures > len(self.pauses_s):
                gave_up = f"{file.path}: {failures} tries in a row brought nothing, the last one because {reason}"
                raise DownloadError(f"{gave_up}; running it again continues")
            time.sleep(self.pauses_s[failures - 1])

    def _attempt(self, file: RemoteFile, part: BinaryIO) -> str:
        """One request for all that is missing. Returns why it ended, for the case that bytes are missing still."""
        headers = {"range": f"bytes={part.tell()}-"} if part.tell() else {}
        try:
            with self.client.stream("GET", self.hub.url_of(file.path), headers=headers) as response:
                if response.status_code in _PASSING_STATUSES:
                    return f"{self.hub.host} answers {response.status_code}"
                self._check_status(file, response)
                if not _continues(response, part.tell()):
                    self._start_over(part)
                self._write(file, part, response)
        except httpx2.ConnectError as error:
            return f"{host_of(error)} cannot be reached ({reason_of(error)})"
        except httpx2.RequestError as error:
            return f"the connection to {self.hub.host} broke ({reason_of(error)})"
        return f"{self.hub.host} ended the file early"

    def _check_status(self, file: RemoteFile, response: httpx2.Response) -> None:
        if response.status_code not in (200, 206):
            which = f"{file.path} of revision {self.hub.revision}"
            raise DownloadError(f"{self.hub.host} lists {which} but answers {response.status_code} to it")

    def _start_over(self, part: BinaryIO) -> None:
        self.progress.advance(-part.tell())
        part.seek(0)
        part.truncate()

    def _write(self, file: RemoteFile, part: BinaryIO, response: httpx2.Response) -> None:
        for chunk in response.iter_bytes():
            part.write(chunk)
            self.progress.advance(len(chunk))
            if part.tell() > file.size_bytes:
                return


def _continues(response: httpx2.Response, offset_bytes: int) -> bool:
    """Whether the body begins where the part ends. A server may ignore Range and send all."""
    begins = f"bytes {offset_bytes}-"
    return response.status_code == 206 and response.headers.get("content-range", "").startswith(begins)


def _check(file: RemoteFile, path: Path) -> None:
    """Deletes what is not the listed file, for nothing could be continued from it."""
    size_bytes = path.stat().st_size
    problem = (
        None if size_bytes == file.size_bytes else f"more than the {file.size_bytes} bytes that are listed arrived"
    )
    if not problem and file.sha256:
        sha256 = sha256_of(path)
        if sha256 != file.sha256:
            problem = f"sha256 is {sha256[:12]}... where {file.sha256[:12]}... is expected"
    if problem:
        path.unlink()
        raise DownloadError(f"{file.path}: {problem}; its {gigabytes(size_bytes)} are deleted, run it again")
