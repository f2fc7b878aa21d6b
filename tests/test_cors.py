"""CORS: which pages may read answers. Expected headers are those of the Fetch standard."""

import json
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import httpx2
import pytest

from http_bridge.cors import is_allowed, problem_of_origin
from tests.fake_upstream import FakeUpstream, fake_upstream
from tests.fakes import in_process_bridge
from tests.programs import start_bridge, start_server

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
PAGE = "https://chat.example.com"
ORIGINS = (PAGE, "http://localhost:*")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000", "http://[::1]:*", "http://localhost:*", "*", "null"])
def test_an_origin_is_taken(origin: str) -> None:
    assert problem_of_origin(origin) is None


@pytest.mark.parametrize(
    "origin", ["chat.example.com", f"{PAGE}/path", "http://a b", "http://*.example.com", "http://a:0", "http://a:65536"]
)
def test_what_is_no_origin_is_refused_in_words(origin: str) -> None:
    assert "expected origins such as" in (problem_of_origin(origin) or "")


@pytest.mark.parametrize("origin", ["https://chat.example.com:443", "http://localhost:80", "http://[::1]:80"])
def test_a_default_port_which_no_browser_sends_is_refused_in_words(origin: str) -> None:
    """The serialization of an origin in the HTML standard has no port where it is the scheme's default."""
    assert problem_of_origin(origin) == f"browsers leave out the default port: write {origin.rpartition(':')[0]}"
    assert problem_of_origin(origin.replace("http:", "app:").replace("https:", "http:")) is None


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (PAGE, True), ("http://localhost:1", True), ("http://localhost", True), ("https://localhost:3000", False),
        ("http://localhost.evil.example", False), ("http://localhost:3000.evil.example", False),
        (f"{PAGE}.evil.example", False), ("https://chatXexample.com", False), (f"{PAGE}:8443", False), ("null", False),
        ("", False),
    ],
)  # fmt: skip
def test_origins_match_as_a_whole(origin: str, allowed: bool) -> None:
    assert is_allowed(origin, ORIGINS) is allowed


@pytest.fixture
async def served() -> AsyncIterator[tuple[FakeUpstream, httpx2.AsyncClient]]:
    async with (
        fake_upstream() as upstream,
        in_process_bridge(upstream.address, cors_origins=ORIGINS) as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=10) as client,
    ):
        yield upstream, client


async def test_a_preflight_allows_the_page_and_what_it_asks_for(
    served: tuple[FakeUpstream, httpx2.AsyncClient],
) -> None:
    asked = "authorization,content-type,x-request-timeout,x-stainless-lang"
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    answer = await served[1].options(CHAT, headers={"Origin": PAGE} | ask)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert {name.strip() for name in answer.headers["Access-Control-Allow-Headers"].split(",")} == set(asked.split(","))
    assert "Origin" in answer.headers["Vary"]
    refused = await served[1].options(CHAT, headers={"Origin": "https://evil.example"} | ask)
    assert refused.status_code == 400
    assert "Access-Control-Allow-Origin" not in refused.headers


async def test_a_public_page_may_reach_a_private_network_if_it_was_chosen(
    served: tuple[FakeUpstream, httpx2.AsyncClient],
) -> None:
    """The draft on private network access, which Chrome 104 to 141 follows."""
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
    answer = await served[1].options(CHAT, headers={"Origin": PAGE} | ask)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
    foreign = await served[1].options(CHAT, headers={"Origin": "https://evil.example"} | ask)
    assert foreign.status_code == 400
    assert "Access-Control-Allow-Origin" not in foreign.headers


async def test_every_answer_to_the_page_carries_the_headers(served: tuple[FakeUpstream, httpx2.AsyncClient]) -> None:
    upstream, client = served
    page = {"Origin": PAGE}
    answers = [
        await client.post(CHAT, json=BODY, headers=page),
        await client.post(CHAT, json=BODY | {"stream": True}, headers=page),
        await client.post(CHAT, json={}, headers=page),
        await client.post(CHAT, content=b"{", headers=page),
        await client.get("/nothing", headers=page),
        await client.get("/health", headers=page),
    ]
    upstream.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", 1.0)
    answers.append(await client.post(CHAT, json=BODY, headers=page))
    assert [answer.status_code for answer in answers] == [200, 200, 400, 415, 404, 200, 429]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
    foreign = await client.post(CHAT, json=BODY, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert "Access-Control-Allow-Origin" not in foreign.headers


async def test_a_fault_of_the_bridge_is_readable_for_the_page(
    served: tuple[FakeUpstream, httpx2.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("http_bridge.app.to_completion", failing)
    answer = await served[1].post(CHAT, json=BODY, headers={"Origin": PAGE})
    assert answer.status_code == 500
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["X-Request-Id"] in answer.json()["error"]["message"]
    assert "secret" not in answer.text


async def test_without_the_setting_no_page_of_another_origin_is_served() -> None:
    async with (
        fake_upstream() as upstream,
        in_process_bridge(upstream.address) as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=10) as client,
    ):
        answer = await client.get("/health", headers={"Origin": PAGE})
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert (await client.options(CHAT, headers={"Origin": PAGE})).status_code == 405


SCRIPT = """<script type="module">
const told = {};
try {
  const answer = await fetch(URL_OF_CHAT, {
    method: "POST",
    headers: {"Content-Type": "application/json", "Authorization": "Bearer any", "X-Request-Id": "from-the-page"},
    body: JSON.stringify({messages: [{role: "user", content: "Hello"}], temperature: 0, stream: true}),
  });
  told.status = answer.status;
  told.requestId = answer.headers.get("X-Request-Id");
  told.text = "";
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) told.text += piece;
} catch (error) { told.error = error.name; }
await fetch("/told", {method: "POST", body: JSON.stringify(told)});
</script>"""


@contextmanager
def page_of(chat_url: str) -> Iterator[tuple[int, "Queue[dict[str, Any]]"]]:
    """A web server with one page that asks the service. Yields its port and what the page tells."""
    told: Queue[dict[str, Any]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(SCRIPT.replace("URL_OF_CHAT", json.dumps(chat_url)).encode())

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, told
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def chromium(url: str, profile: Path) -> Iterator[None]:
    flags = (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={profile}",
        "remote-debugging-port=0",
    )  # fmt: skip
    assert CHROMIUM
    command = [CHROMIUM, *(f"--{flag}" for flag in flags), url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_page_in_chromium_streams_an_answer_and_a_foreign_one_is_kept_out(tmp_path: Path) -> None:
    server, grpc_port = start_server()
    bridge, http_port = start_bridge(f"127.0.0.1:{grpc_port}", "--cors-origins", "http://localhost:*")
    server.wait_for("ready: demo")
    with page_of(f"http://127.0.0.1:{http_port}{CHAT}") as (page_port, told):
        with chromium(f"http://localhost:{page_port}/", tmp_path / "allowed"):
            answer = told.get(timeout=60)
        with chromium(f"http://127.0.0.1:{page_port}/", tmp_path / "foreign"):
            foreign = told.get(timeout=60)
    assert bridge.stop() == 0
    assert server.stop() == 0
    assert (answer["status"], answer["requestId"]) == (200, "from-the-page")
    assert answer["text"].endswith("data: [DONE]\n\n")
    assert foreign == {"error": "TypeError"}
