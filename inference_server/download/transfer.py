"""One file from a hub into the directory: continued where it broke off, checked, and only then given its name."""

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx2

from inference_server.download.byte_progress import ByteProgress
from inference_server.download.hubs import Hub, host_of, reason_of
from inference_server.download.local_files import part_bytes, part_of, sha256_of
from inference_server.download.types import DownloadError, RemoteFile, gigabytes

_log = logging.getLogger(__name__)
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0)
_PASSING_STATUSES = frozenset([408, 429, 500, 502, 503, 504])
_NOT_SATISFIABLE = 416
# What a file system that has no such call answers: NFS and SMB mounts, FUSE. Others (EIO, ENOSPC) are real.
_NOT_SUPPORTED = frozenset([errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS])
_PAGE_TYPES = ("text/html", "application/xhtml+xml")


class _Wrong(Exception):
    """What arrived is not the listed file."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Brings files of one hub into one directory. pauses_s: before each new try that follows one without a byte."""

    hub: Hub
    client: httpx2.Client
    directory: Path
    progress: ByteProgress
    pauses_s: tuple[float, ...] = PAUSES_S
    _warned: set[str] = field(default_factory=set)

    def fetch(self, file: RemoteFile) -> None:
        """Raises DownloadError if the hub does not give the file as it is listed."""
        self.progress.says(file.path)
        path = part_of(self.directory, file)
        with path.open("ab") as part:
            self._lock(part)
            part.truncate(part_bytes(self.directory, file))
            part.seek(0, os.SEEK_END)
            try:
                self._receive_and_check(file, part, path)
            except _Wrong as problem:  # a continued part may have been of another file, or a byte was lost on the way
                _log.warning("%s: %s; fetching it again from its beginning", file.path, problem)
                self._start_over(part)
                self._last_try(file, part, path)
            path.replace(self.directory / file.path)

    def _receive_and_check(self, file: RemoteFile, part: BinaryIO, path: Path) -> None:
        """Raises _Wrong."""
        self._receive(file, part)
        part.flush()
        self._where_supported("fsync", lambda: os.fsync(part.fileno()), "a power cut may lose what was downloaded")
        self.progress.says(f"checking {file.path}")
        _check(file, path)

    def _last_try(self, file: RemoteFile, part: BinaryIO, path: Path) -> None:
        """Deletes what is wrong again, for nothing could be continued from it."""
        try:
            self._receive_and_check(file, part, path)
        except _Wrong as problem:
            size = gigabytes(path.stat().st_size)
            path.unlink()
            raise DownloadError(
                f"{file.path}: {problem}, twice; its {size} are deleted, the other files are kept, run it again"
            ) from problem

    def _lock(self, part: BinaryIO) -> None:
        def lock() -> None:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)

        try:
            self._where_supported("flock", lock, "do not start a second download into this directory")
        except BlockingIOError as error:
            raise DownloadError(f"another download is writing to {self.directory}: wait for it") from error

    def _where_supported(self, call: str, make: Callable[[], None], consequence: str) -> None:
        """Makes a system call that some file systems refuse; says so once, and goes on."""
        try:
            make()
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            if call not in self._warned:
                self._warned.add(call)
                _log.warning(
                    "%s: no %s on this file system (%s): %s", self.directory, call, error.strerror, consequence
                )

    def _receive(self, file: RemoteFile, part: BinaryIO) -> None:
        failures, most_bytes, continues = 0, part.tell(), True
        while part.tell() < file.size_bytes:
            reason, continues = self._attempt(file, part, continues)
            if part.tell() >= file.size_bytes:
                return
            failures = 1 if part.tell() > most_bytes else failures + 1
            most_bytes = max(most_bytes, part.tell())
            if failures > len(self.pauses_s):
                gave_up = f"{file.path}: {failures} tries in a row brought nothing, the last one because {reason}"
                raise DownloadError(f"{gave_up}; running it again continues")
            time.sleep(self.pauses_s[failures - 1])

    def _attempt(self, file: RemoteFile, part: BinaryIO, continues: bool) -> tuple[str, bool]:
        """One request for all that is missing. Returns why it ended early, and whether the next may ask for a range."""
        headers = {"range": f"bytes={part.tell()}-"} if part.tell() and continues else {}
        try:
            with self.client.stream("GET", self.hub.url_of(file.path), headers=headers) as response:
                host = response.url.netloc.decode()  # after a redirect it is not the hub's own
                if response.status_code in _PASSING_STATUSES:
                    return f"{host} answers {response.status_code}", continues
                begins_at = _first_byte_of(self.hub, file, response)
                if begins_at is None:
                    return f"{host} gives no bytes from byte {part.tell()} on ({response.status_code})", False
                if begins_at != part.tell():
                    if response.status_code != 200:
                        return f"{host} answers with bytes that were not asked for", False
                    self._start_over(part)  # it ignores Range and sends all
                self._write(file, part, response)
        except httpx2.ConnectError as error:
            return f"{host_of(error)} cannot be reached ({reason_of(error)})", continues
        except httpx2.RequestError as error:
            return f"the connection to {host_of(error)} broke ({reason_of(error)})", continues
        return f"{self.hub.host} ended the file early", continues

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


def _first_byte_of(hub: Hub, file: RemoteFile, response: httpx2.Response) -> int | None:
    """Where in the file the body begins, None if there is no such range. Raises DownloadError if it is not this file.

    A portal between here and the hub answers every address with its login page and 200; a mirror may have another file.
    """
    status, host = response.status_code, response.url.netloc.decode()
    which = f"{file.path} of revision {hub.revision}"
    if status in (401, 403):
        raise DownloadError(f"{hub.host} lists {which} but {host} refuses it ({status}): it may want a login; {_KEPT}")
    if status not in (200, 206, _NOT_SATISFIABLE):
        raise DownloadError(f"{hub.host} lists {which} but {host} answers {status} to it; {_KEPT}")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _PAGE_TYPES and status != _NOT_SATISFIABLE:
        problem = f"{host} answers with a web page ({kind}) in place of {which}"
        raise DownloadError(f"{problem}: is there a login page or a proxy on the way? {_KEPT}")
    begins_at, total_bytes = _range_of(response)
    if total_bytes not in (None, file.size_bytes):
        problem = f"{host} answers with a file of {total_bytes} bytes in place of {which}"
        raise DownloadError(f"{problem}, which is listed with {file.size_bytes}; {_KEPT}")
    return begins_at


_KEPT = "what is there is kept, running it again continues"


def _range_of(response: httpx2.Response) -> tuple[int | None, int | None]:
    """The first byte of the body and the size of the whole file, as far as the answer says them."""
    if response.status_code != 200:
        matched = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
        first, total = (matched[1], matched[2]) if matched else (None, "*")
        return None if first is None else int(first), None if total == "*" else int(total)
    length = response.headers.get("content-length", "")
    is_packed = response.headers.get("content-encoding", "identity").lower() != "identity"
    return 0, int(length) if length.isdecimal() and not is_packed else None


_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")


def _check(file: RemoteFile, path: Path) -> None:
    """Raises _Wrong."""
    if path.stat().st_size != file.size_bytes:
        raise _Wrong(f"more than the {file.size_bytes} bytes that are listed arrived")
    if file.sha256:
        sha256 = sha256_of(path)
        if sha256 != file.sha256:
            raise _Wrong(f"sha256 is {sha256[:12]}... where {file.sha256[:12]}... is expected")
