"""Which names and pages the bridge answers: a page whose name is rebound to this machine gets nothing."""

import socket
from collections.abc import AsyncIterator

import click
import httpx2
import pytest

from http_bridge.config import Settings, command
from http_bridge.hosts import AllowedHosts, allows_origin, authority_of
from tests.fake_upstream import fake_upstream
from tests.fakes import InProcessBridge, in_process_bridge

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}]}
OWN = [
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    "app.localhost",
    "127.0.0.1",
    "127.8.8.8:80",
    "[::1]:8000",
    "10.1.2.3",
]
OWN += ["[fd00::1]", "192.168.0.9:30800", "203.0.113.5", "bridge:8000", "chat_bridge", "nas.local", "vm.internal", ""]
FOREIGN = ["evil.example", "evil.example:8000", "EVIL.example.", "localhost.evil.example", "127.0.0.1.evil.example"]
FOREIGN += [
    "evil-localhost.example",
    "notlocalhost.com",
    "x.local.evil.example",
    "1.2.3.4.5",
    "local.",
    "a,b.c",
    "%6cocalhost.x",
]


def allows(host: str, *chosen: str) -> bool:
    authority = authority_of(host)
    assert authority
    return AllowedHosts(chosen).allows(authority)


def test_by_default_addresses_and_names_that_nobody_can_register_are_allowed() -> None:
    assert [host for host in [*OWN, socket.gethostname()] if not allows(host)] == []
    assert [host for host in FOREIGN if allows(host) and host != "local."] == []


def test_what_is_set_is_allowed_beside_them() -> None:
    chosen = ("chat.example.com", "*.svc.cluster.local.example")
    for host in (*OWN, "chat.example.com:443", "Chat.Example.com.", "a.b.svc.cluster.local.example"):
        assert allows(host, *chosen), host
    for host in (*FOREIGN[:-2], "example.com", "x.chat.example.com", "svc.cluster.local.example"):
        assert not allows(host, *chosen) or host == "local.", host
    assert all(allows(host, "*") for host in OWN + FOREIGN)


@pytest.mark.parametrize(
    ("origin", "host", "cors_origins", "allowed"),
    [
        ("http://localhost:8000", "localhost:8000", (), True),
        ("http://LOCALHOST:8000", "localhost:8000", (), True),
        ("http://chat.example.com", "chat.example.com", (), True),
        ("http://chat.example.com", "chat.example.com:80", (), True),
        ("https://chat.example.com", "chat.example.com", (), True),  # behind a proxy that ends TLS
        ("https://chat.example.com", "chat.example.com:443", (), True),
        ("http://[::1]:8000", "[::1]:8000", (), True),
        ("http://localhost:8080", "localhost", (), True),  # behind a proxy that passes the host without its port
        ("app://obsidian.md", "localhost:8000", (), True),
        ("vscode-webview://1a2b", "localhost:8000", (), True),
        ("chrome-extension://abc", "localhost:8000", (), True),
        ("https://chat.example.com", "localhost:8000", ("https://chat.example.com",), True),
        ("https://evil.example", "localhost:8000", ("*",), True),
        ("null", "localhost:8000", ("null",), True),
        ("null", "localhost:8000", (), False),
        ("http://evil.example", "localhost:8000", (), False),
        ("https://evil.example", "localhost:8000", ("https://chat.example.com",), False),
        ("http://localhost:3000", "localhost:8000", (), False),
        ("http://localhost", "localhost:8000", (), False),
        ("http://localhost:8000.evil.example", "localhost:8000", (), False),
        ("http://localhost:8000@evil.example", "localhost:8000", (), False),
        ("http://localhost:8000, http://evil.example", "localhost:8000", (), False),
        ("http://evil.example http://localhost:8000", "localhost:8000", (), False),
        ("http://", "", (), False),
        ("", "localhost:8000", (), False),
        ("localhost:8000", "localhost:8000", (), False),
    ],
)
def test_an_origin_is_its_own_or_one_that_cors_admits(
    origin: str, host: str, cors_origins: tuple[str, ...], allowed: bool
) -> None:
    authority = authority_of(host)
    assert authority
    assert allows_origin(origin, authority, cors_origins) is allowed


@pytest.fixture
async def bridge() -> AsyncIterator[InProcessBridge]:
    async with fake_upstream() as upstream, in_process_bridge(upstream.address) as bridge:
        yield bridge


@pytest.fixture
async def client(bridge: InProcessBridge) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client:
        yield client


async def test_a_rebound_name_gets_nothing_from_any_path(client: httpx2.AsyncClient) -> None:
    for method, path in (
        ("POST", CHAT), ("GET", "/v1/models"), ("GET", "/health"), ("GET", "/docs"), ("GET", "/openapi.json"),
        ("GET", "/nope"), ("OPTIONS", CHAT), ("HEAD", "/livez"),
    ):  # fmt: skip
        headers = {"Host": "evil.example", "Origin": "http://evil.example"}  # same-origin, as the browser sees it
        answer = await client.request(method, path, headers=headers, json=BODY if method == "POST" else None)
        assert answer.status_code == 421  # RFC 9110, 15.5.20
        assert answer.headers["x-request-id"]
        if method != "HEAD":
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("invalid_request_error", "host_not_allowed")
            assert "--allowed-hosts (BRIDGE_ALLOWED_HOSTS)" in error["message"]
    assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_another_sites_page_is_refused_and_a_program_is_not(client: httpx2.AsyncClient) -> None:
    for origin, status in (("http://evil.example", 403), ("null", 403), ("app://x", 200), (str(client.base_url), 200)):
        answer = await client.post(CHAT, json=BODY, headers={"Origin": origin.rstrip("/")})
        assert answer.status_code == status
        if status == 403:
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("permission_error", "origin_not_allowed")
            assert "--cors-origins" in error["message"]
    twice = [("Origin", str(client.base_url).rstrip("/")), ("Origin", "http://evil.example")]
    assert (await client.post(CHAT, json=BODY, headers=twice)).status_code == 403


@pytest.mark.parametrize("names", ["http://x", "a b", "x:80", "*x", "*.", "a/", "ä"])
def test_a_name_that_is_none_is_one_line(names: str) -> None:
    with pytest.raises(click.BadParameter, match=r"expected names such as chat\.example\.com"):
        command(print).main(["--allowed-hosts", f"chat.example.com,{names}"], standalone_mode=False)


def test_names_are_taken_as_people_write_them() -> None:
    taken: list[Settings] = []
    names = " Chat.Example.COM. , *.example.org,10.0.0.1,[::1],"
    command(taken.append).main(["--allowed-hosts", names], standalone_mode=False)
    assert taken[0].allowed_hosts == ("chat.example.com", "*.example.org", "10.0.0.1", "[::1]")


@pytest.mark.parametrize("port", ["65536", "999999", "9" * 4400, "-1", "8x"])
def test_a_port_that_cannot_be_is_no_authority(port: str) -> None:
    """RFC 9110, 4.2.1 with the 16 bits of TCP's ports."""
    assert authority_of(f"localhost:{port}") is None
    host = authority_of("localhost:8000")
    assert host
    assert not allows_origin(f"http://localhost:{port}", host, ())


def test_ports_may_have_leading_zeros() -> None:
    assert authority_of("localhost:0065535") == authority_of("localhost:65535")
