"""The two hubs' ways of listing a repository's files and of addressing one; nothing about what is done with them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx2

from inference_server.download.types import DownloadError, RemoteFile

_ENDPOINTS = {"modelscope": "https://www.modelscope.cn", "huggingface": "https://huggingface.co"}
_OTHER = {"modelscope": "huggingface", "huggingface": "modelscope"}
_FILE_ROOMS = {"modelscope": "/models", "huggingface": ""}
_THIS_MACHINE = ("all://localhost", "all://127.0.0.1", "all://[::1]")
_CONNECT_S, _READ_S = 15.0, 30.0


@dataclass(frozen=True, slots=True)
class Hub:
    """One revision of one repository at a hub or its mirror."""

    source: str
    repository: str
    revision: str
    mirror: str | None = None

    @property
    def endpoint(self) -> str:
        return self.mirror or _ENDPOINTS[self.source]

    @property
    def host(self) -> str:
        return httpx2.URL(self.endpoint).netloc.decode()

    def url_of(self, path: str) -> str:
        """Where the bytes of a file are."""
        revision = quote(self.revision, safe="")
        return f"{self.endpoint}{_FILE_ROOMS[self.source]}/{self.repository}/resolve/{revision}/{quote(path)}"

    def unreachable(self, error: httpx2.RequestError) -> str:
        """What a person can do about a host that does not answer."""
        instead = f"use --source {_OTHER[self.source]}, or name a mirror with --endpoint"
        return f"cannot reach {host_of(error)} ({reason_of(error)}): check the network, {instead}"

    def missing(self, status: int) -> DownloadError:
        """Hubs say 401 or 403 of what is not there too."""
        login = ", or gives it to nobody without a login" if status in (401, 403) else ""
        return DownloadError(
            f"{self.host} has no repository {self.repository} with revision {self.revision}{login} ({status})"
        )


def new_client() -> httpx2.Client:
    """identity: a packed body could not be continued by byte. Raises DownloadError if a proxy cannot be used."""
    timeout = httpx2.Timeout(_READ_S, connect=_CONNECT_S)
    direct = dict.fromkeys(_THIS_MACHINE)  # None: without a proxy of the environment
    try:
        return httpx2.Client(
            follow_redirects=True, timeout=timeout, headers={"accept-encoding": "identity"}, mounts=direct
        )
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        raise DownloadError(
            "a proxy of the environment cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY may be http:// and "
            "https:// addresses; unset the others"
        ) from error


def host_of(error: httpx2.RequestError) -> str:
    """The host that failed: after a redirect it is not the hub's own."""
    return error.request.url.netloc.decode()


def reason_of(error: httpx2.RequestError) -> str:
    return str(error) or type(error).__name__


def list_files(hub: Hub, client: httpx2.Client) -> list[RemoteFile]:
    """All files of the repository. Refuses a listing with a path that would lead out of a directory."""
    try:
        files = _LISTINGS[hub.source](hub, client)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{hub.host} does not answer as {hub.source} does: check --source and --endpoint"
        ) from error
    for file in files:
        if not _is_safe(file.path):
            raise DownloadError(f"{hub.host} lists the unsafe path {file.path!r}: nothing was taken")
    return files


def _is_safe(path: str) -> bool:
    """Whether the path stays in the directory and can be shown."""
    parts = PurePosixPath(path).parts
    return bool(parts) and "/" not in parts and ".." not in parts and "\\" not in path and path.isprintable()


def _modelscope_files(hub: Hub, client: httpx2.Client) -> list[RemoteFile]:
    url = f"{hub.endpoint}/api/v1/models/{hub.repository}/repo/files"
    answer = _get(hub, client, url, {"Revision": hub.revision, "Recursive": "true"}).json()
    if answer["Code"] != 200:
        raise hub.missing(answer["Code"])
    blobs = [entry for entry in answer["Data"]["Files"] or [] if entry["Type"] == "blob"]
    return [_remote_file(entry["Path"], entry["Size"], entry.get("Sha256")) for entry in blobs]


def _huggingface_files(hub: Hub, client: httpx2.Client) -> list[RemoteFile]:
    url = f"{hub.endpoint}/api/models/{hub.repository}/tree/{quote(hub.revision, safe='')}?recursive=true"
    files: list[RemoteFile] = []
    while url:
        page = _get(hub, client, url)
        blobs = [entry for entry in page.json() if entry["type"] == "file"]
        files += [_remote_file(entry["path"], entry["size"], (entry.get("lfs") or {}).get("oid")) for entry in blobs]
        following = page.links.get("next", {}).get("url")
        url = str(page.url.join(following)) if following else ""
    return files


_LISTINGS: dict[str, Callable[[Hub, httpx2.Client], list[RemoteFile]]] = {
    "modelscope": _modelscope_files,
    "huggingface": _huggingface_files,
}


def _remote_file(path: Any, size_bytes: Any, sha256: Any) -> RemoteFile:
    if not isinstance(size_bytes, int) or size_bytes < 0:
        raise ValueError(size_bytes)
    return RemoteFile(str(path), size_bytes, str(sha256).lower() if sha256 else None)


def _get(hub: Hub, client: httpx2.Client, url: str, query: dict[str, str] | None = None) -> httpx2.Response:
    try:
        response = client.get(url, params=query)
    except httpx2.RequestError as error:
        raise DownloadError(hub.unreachable(error)) from error
    if response.status_code in (401, 403, 404):  # huggingface says 401 of what is not there
        raise hub.missing(response.status_code)
    if response.status_code != 200:
        raise DownloadError(f"{hub.host} answers {response.status_code} to a listing of {hub.repository}: try later")
    return response
