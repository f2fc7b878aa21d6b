"""A model hub of our own on 127.0.0.1, which can break in every way that a real one does."""

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import urlsplit

from inference_server.download import pinned
from inference_server.download.types import RemoteFile

REPOSITORY = "Someone/Tiny-Qwen3"
SHARD = "model-00001-of-00001.safetensors"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"model": "BPE"}',
    "tokenizer_config.json": b"{}\n",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    SHARD: random.Random(1).randbytes(300_000),
    "LICENSE": b"Apache License",
}
NOT_NEEDED = {
    "README.md": b"# Tiny",
    "pytorch_model.bin": b"pickle",
    "vocab.json": b"{}",
    "onnx/model.safetensors": b"other",
}


def remote_file(path: str, content: bytes) -> RemoteFile:
    """What an honest listing says of it."""
    return RemoteFile(path, len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Answer:
    """What is not the file; without its length, if that is not measured."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_measured: bool = True


@dataclass
class FakeHub:
    """Speaks both hubs' listings; what it does wrong is set by the test."""

    files: dict[str, bytes] = field(default_factory=lambda: FILES | NOT_NEEDED)
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)  # what the listing says otherwise, by path
    breaks_after: list[int] = field(default_factory=list)  # bytes of the shard that each of the next requests gives
    instead: list["Answer"] = field(default_factory=list)  # of the shard to each of the next requests
    ignores_range: bool = False
    stalls: bool = False
    listing: bytes | None = None
    page_length: int = 1000  # huggingface's listing goes on at the address in a header
    requests: list[tuple[str, str]] = field(default_factory=list)  # path of a file, its Range
    url: str = ""

    def list_as(self, source: str) -> bytes:
        if self.listing is not None:
            return self.listing
        files = [self._listed(path, content) for path, content in self.files.items()]
        if source == "modelscope":
            entries = [{"Path": f.path, "Size": f.size_bytes, "Sha256": f.sha256, "Type": "blob"} for f in files]
            return json.dumps({"Code": 200, "Data": {"Files": [*entries, {"Path": "onnx", "Type": "tree"}]}}).encode()
        return json.dumps([self._huggingface_entry(file) for file in files]).encode()

    def _huggingface_entry(self, file: RemoteFile) -> dict[str, Any]:
        entry = {"type": "file", "path": file.path, "size": file.size_bytes, "oid": "of git"}
        is_large = file.path.endswith((".safetensors", "tokenizer.json"))
        return entry | ({"lfs": {"oid": file.sha256, "size": file.size_bytes}} if is_large else {})

    def _listed(self, path: str, content: bytes) -> RemoteFile:
        return replace(remote_file(path, content), **self.listed.get(path, {}))

    def ranges_of(self, path: str) -> list[str]:
        return [asked for name, asked in self.requests if name == path]


class Answers(BaseHTTPRequestHandler):
    """GET of both hubs' addresses; of huggingface's with the redirect that it has for every file."""

    def do_GET(self) -> None:
        hub = cast("HubServer", self.server).hub
        path = urlsplit(self.path).path
        known = f"{REPOSITORY}/" in path or f"{pinned.REPOSITORY}/" in path
        if not known:
            self._send(404, b"{}")
        elif path.endswith("/repo/files"):
            self._send(200, hub.list_as("modelscope"))
        elif "/tree/" in path:
            self._send_page(hub, json.loads(hub.list_as("huggingface")))
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            self.send_response(302)
            self.send_header("location", f"/models{path}")
            self.end_headers()
        else:
            self._send_file(hub, path.split("/resolve/")[1].split("/", 1)[1])

    def _send_page(self, hub: FakeHub, entries: list[Any]) -> None:
        path, _, query = self.path.partition("?")
        begin = int(query.partition("cursor=")[2] or 0)
        end = begin + hub.page_length
        following = f'<{hub.url}{path}?recursive=true&cursor={end}>; rel="next"' if end < len(entries) else ""
        self._send(200, json.dumps(entries[begin:end]).encode(), following)

    def _send_file(self, hub: FakeHub, path: str) -> None:
        asked = self.headers.get("range", "")
        hub.requests.append((path, asked))
        if path == SHARD and hub.instead:
            self._send_instead(hub.instead.pop(0))
            return
        content = hub.files[path]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and not hub.ignores_range else 0
        body = content[start:]
        given = hub.breaks_after.pop(0) if path == SHARD and hub.breaks_after else len(body)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:given])
        if hub.stalls and given < len(body):
            threading.Event().wait(20)

    def _send_instead(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.is_measured:
            self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _send(self, status: int, body: bytes, link: str = "") -> None:
        self.send_response(status)
        self.send_header("link", link)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class HubServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # an answer that stalls is not waited for
    hub: FakeHub

    def handle_error(self, *_: Any) -> None:
        pass  # a client that goes away is part of the tests


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """On a free port until the block ends."""
    with HubServer(("127.0.0.1", 0), Answers) as server:
        server.hub = FakeHub(url=f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.hub
        server.shutdown()
