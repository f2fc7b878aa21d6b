"""Requests as RFC 9112 has them, byte by byte: what two parsers could read in two ways is refused, and closed."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable

import pytest

from tests.fake_upstream import fake_upstream
from tests.fakes import InProcessBridge, in_process_bridge

CHAT = "/v1/chat/completions"
BODY = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
CHUNKED_BODY = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LIVEZ = (200, b'{"status":"ok"}')
GENEROUS_S = 12.0


@pytest.fixture
async def bridge() -> AsyncIterator[InProcessBridge]:
    async with fake_upstream() as upstream, in_process_bridge(upstream.address, max_body_bytes=2048) as bridge:
        yield bridge


def get(
    target: str = "/livez", version: str = "1.1", method: str = "GET", host: str | None = "x", more: str = ""
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", *([] if host is None else [f"Host: {host}"]), more]
    return "".join(f"{line}\r\n" for line in lines if line).encode("latin-1") + b"\r\n"


def post(*headers: str, body: bytes = b"", version: str = "1.1") -> bytes:
    lines = [f"POST {CHAT} HTTP/{version}", "Host: x", "Content-Type: application/json", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


async def talk(bridge: InProcessBridge, sent: bytes, piece_bytes: int | None = None) -> bytes:
    """Everything that comes back until the connection ends, or until it has nothing more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    received = b""
    try:
        for start in range(0, len(sent), piece_bytes or len(sent)):
            writer.write(sent[start : start + (piece_bytes or len(sent))])
            await asyncio.sleep(0)  # a packet of its own, as the bridge sees it
        async with asyncio.timeout(GENEROUS_S):
            while piece := await reader.read(2**16):
                received += piece
                if _is_whole(received):
                    return received
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    return received


def _is_whole(received: bytes) -> bool:
    """Whether answers that keep the connection are all there."""
    head, _, body = received.partition(b"\r\n\r\n")
    keeps = b"connection: close" not in head.lower()
    return keeps and b"content-length" in head.lower() and len(body) >= _length(head)


def _length(head: bytes) -> int:
    return int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def answer_of(received: bytes) -> tuple[int, bytes]:
    """Status and body of the only answer."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert len(body) == _length(head), received
    return int(head.split()[1]), body


def refusal_of(received: bytes) -> tuple[int, str]:
    """Status and message of an answer in OpenAI's form, behind which the connection has ended."""
    status, body = answer_of(received)
    assert b"connection: close" in received.lower(), received
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return status, error["message"]


SMUGGLED = get("/smuggled")
# what is sent, and the status that the RFC has for it
REFUSED: dict[str, tuple[bytes, int]] = {
    # RFC 9112, 6.1 and 6.3: framing
    "length then chunked": (post("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED), 400),
    "chunked then length": (post("Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED), 400),
    "length 0 and chunked": (post("Content-Length: 0", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    "names in capitals": (post("CONTENT-LENGTH: 5", "TRANSFER-ENCODING: CHUNKED", body=b"0\r\n\r\n"), 400),
    "chunked in HTTP/1.0": (post("Transfer-Encoding: chunked", body=CHUNKED_BODY, version="1.0"), 400),
    "chunked is not last": (post("Transfer-Encoding: chunked, gzip", body=CHUNKED_BODY), 400),
    "never chunked": (post("Transfer-Encoding: gzip", body=BODY), 400),
    "identity": (post("Transfer-Encoding: identity", body=BODY), 400),
    "chunked twice": (post("Transfer-Encoding: chunked, chunked", body=CHUNKED_BODY), 400),
    "chunked on two lines": (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=CHUNKED_BODY), 400),
    "chunked with a parameter": (post("Transfer-Encoding: chunked;a=b", body=CHUNKED_BODY), 400),
    "a coding that is not known": (post("Transfer-Encoding: gzip, chunked", body=CHUNKED_BODY), 501),
    "codings on two lines": (post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=CHUNKED_BODY), 501),
    "a space before the colon": (post("Transfer-Encoding : chunked", body=CHUNKED_BODY), 400),
    "lengths that differ": (post("Content-Length: 5", "Content-Length: 6"), 400),
    "a list of lengths that differ": (post("Content-Length: 5, 6"), 400),
    "a signed length": (post("Content-Length: +5"), 400),
    "a length that is no number": (post("Content-Length: 0x5"), 400),
    "an empty length": (post("Content-Length: "), 400),
    # 5.2: a server must refuse a folded header or unfold it
    "folded with a space": (get(more="X: a\r\n b"), 400),
    "folded with a tab": (get(more="X: a\r\n\tb"), 400),
    "folded to nothing": (get(more="X: a\r\n "), 400),
    "folded Host": (get(host="x\r\n y"), 400),
    "folded Transfer-Encoding": (post("Transfer-Encoding:\r\n chunked", body=CHUNKED_BODY), 400),
    "space before the first header": (b"GET /livez HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    # 2.2: a bare LF may be taken for a line's end, and a parser in front may not take it
    "bare LF everywhere": (get().replace(b"\r\n", b"\n"), 400),
    "bare LF behind the request line": (get().replace(b"\r\n", b"\n", 1), 400),
    "bare LF behind a header": (b"GET /livez HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
    "bare LF for the empty line": (b"GET /livez HTTP/1.1\r\nHost: x\r\n\n", 400),
    "bare LF and nothing more": (b"GET /livez HTTP/1.1\n", 400),
    "LF first": (b"\n" + get(), 400),
    "bare CR in a header": (get(more="X: a\rb"), 400),
    "bare CR in the request line": (b"GET /livez\r HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "NUL in a header": (get(more="X: a\0b"), 400),
    "two empty lines first": (b"\r\n\r\n" + get(), 400),
    # 7.1: chunks
    "bare LF behind a chunk's size": (post("Transfer-Encoding: chunked", body=b"5\nhello\r\n0\r\n\r\n"), 400),
    "bare LF behind a chunk's extension": (post("Transfer-Encoding: chunked", body=b"5;a=b\nhello\r\n0\r\n\r\n"), 400),
    "bare CR in a chunk's extension": (post("Transfer-Encoding: chunked", body=b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
    "bare LF behind a chunk": (post("Transfer-Encoding: chunked", body=b"5\r\nhello\n0\r\n\r\n"), 400),
    "bare LF behind the last chunk": (post("Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\n\n"), 400),
    "bare LF for the last line": (post("Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\n"), 400),
    "bare LF in a trailer": (post("Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\nX: y\n\r\n"), 400),
    "a folded trailer": (post("Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"), 400),
    "a size that is no number": (post("Transfer-Encoding: chunked", body=b"-5\r\nhello\r\n0\r\n\r\n"), 400),
    "a size with a prefix": (post("Transfer-Encoding: chunked", body=b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    "a size too small": (post("Transfer-Encoding: chunked", body=b"4\r\nhello\r\n0\r\n\r\n"), 400),
    "an empty size": (post("Transfer-Encoding: chunked", body=b"\r\nhello\r\n0\r\n\r\n"), 400),
    # RFC 9110, 15.6.6, and RFC 9112, 2.3: versions
    "HTTP/1.2": (get(version="1.2"), 505),
    "HTTP/1.2 without Host": (get(version="1.2", host=None), 505),
    "HTTP/1.9": (get(version="1.9"), 505),
    "HTTP/2.0": (get(version="2.0"), 505),
    "HTTP/3.0": (get(version="3.0"), 505),
    "HTTP/0.9": (get(version="0.9"), 505),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1": (get(version="1"), 400),
    "HTTP/1.10": (get(version="1.10"), 400),
    "HTTP/01.1": (get(version="01.1"), 400),
    "small letters": (get().replace(b"HTTP/", b"http/"), 400),
    "no version": (b"GET /livez\r\nHost: x\r\n\r\n", 400),
    "two spaces": (get().replace(b"GET ", b"GET  "), 400),
    # RFC 9112, 3.2: Host
    "no Host": (get(host=None), 400),
    "two Hosts": (get(more="Host: y"), 400),
    "two equal Hosts": (get(more="Host: x"), 400),
    "two Hosts in HTTP/1.0": (get(version="1.0", more="Host: x"), 400),
    **{
        f"Host: {host}": (get(host=host), 400)
        for host in (
            "a/?x=", "a/", "a?b", "a#b", "a b", "a, b", "a\\b", "u@a", "u:p@a", "a:b", "a:1:2", "a:-1", "http://a",
            "::1", "[::1", "::1]", "[::1]x", "[::1]:x", "[1::2::3]", "[::g]", "[127.0.0.1]", "[::1%25lo]", "[]", "\xe9",
            "a\x7f", '"a"', "<a>", "a|b", "{a}", "a^b", "a`b", "%", "%zz",
        )
    },
    # 3.2: targets
    "no path": (get("livez"), 400),
    "a fragment": (get("/livez#x"), 400),
    "* of GET": (get("*"), 400),
    "an authority of GET": (get("x:80"), 400),
    "an absolute address without a host": (get("http:///livez"), 400),
    "an absolute address with a user": (get("http://u:p@x/livez"), 400),
    "an absolute address with a wrong host": (get("http://a|b/livez"), 400),
    "an absolute address with a fragment": (get("http://x/livez#y"), 400),
    "an absolute address with a wrong Host beside it": (get("http://x/livez", host="a/?x="), 400),
    "an absolute address without Host beside it": (get("http://x/livez", host=None), 400),
    "https without TLS": (get("https://x/livez"), 421),
    "another scheme": (get("ftp://x/livez"), 421),
}  # fmt: skip


PIECES = (None, 1, 7)  # bytes of a packet; None is all of them


async def answers(bridge: InProcessBridge, requests: Iterable[bytes]) -> list[list[bytes]]:
    """What is said to each, sent in pieces of each length."""
    asking = [[talk(bridge, sent, piece_bytes) for piece_bytes in PIECES] for sent in requests]
    return [await asyncio.gather(*one) for one in asking]


async def test_what_the_rfc_refuses_is_refused_whole_and_byte_by_byte(bridge: InProcessBridge) -> None:
    received = await answers(bridge, (sent for sent, _ in REFUSED.values()))
    found = {name: {refusal_of(answer) for answer in said} for name, said in zip(REFUSED, received, strict=True)}
    assert {name: {status for status, _ in said} for name, said in found.items()} == {
        name: {status} for name, (_, status) in REFUSED.items()
    }
    assert {name: said for name, said in found.items() if len(said) > 1} == {}


SERVED: dict[str, bytes] = {
    "HTTP/1.1": get(),
    "HTTP/1.0": get(version="1.0"),
    "HTTP/1.0 without Host": get(version="1.0", host=None),
    "an empty line first": b"\r\n" + get(),
    "an empty Host": get(host=""),
    "tabs and spaces around a value": get(more="X: \t a \t "),
    "a value with a tab": get(more="X: a\tb"),
    "equal lengths": get(more="Content-Length: 0\r\nContent-Length: 0"),
    "a list of equal lengths": get(more="Content-Length: 0, 0"),
    "a query": get("/livez?a=b?c/d"),
    "an absolute address": get("http://x/livez"),
    "an absolute address with a port": get("http://x:8000/livez"),
    "an absolute address of IPv6": get("http://[::1]:8000/livez"),
    "an absolute address in capitals": get("HTTP://X/livez"),
    "an absolute address with a query": get("http://x/livez?a=b"),
    "an absolute address and another Host": get("http://x/livez", host="evil.example"),
    "an absolute address in HTTP/1.0": get("http://x/livez", version="1.0", host=None),
    **{f"Host: {host}": get(host=host) for host in (
        "x", "x:", "x:8000", "LocalHost", "localhost.", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000",
        "[::ffff:1.2.3.4]",
    )},
}  # fmt: skip


async def test_what_the_rfc_allows_is_served_whole_and_byte_by_byte(bridge: InProcessBridge) -> None:
    received = await answers(bridge, SERVED.values())
    found = {name: [answer_of(answer) for answer in said] for name, said in zip(SERVED, received, strict=True)}
    assert found == dict.fromkeys(SERVED, [LIVEZ] * len(PIECES))


@pytest.mark.parametrize(
    "body",
    [
        CHUNKED_BODY,
        b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
        b"%X;name=value\r\n%b\r\n000;last\r\nX-Sum: 1\r\n\r\n" % (len(BODY), BODY.replace(b" ", b"\n")),
    ],
)
@pytest.mark.parametrize("target", [CHAT, f"http://x{CHAT}"])
async def test_chunked_bodies_are_read_and_the_connection_is_kept(
    bridge: InProcessBridge, body: bytes, target: str
) -> None:
    sent = post("Transfer-Encoding: chunked", body=body).replace(CHAT.encode(), target.encode())
    for piece_bytes in (None, 1, 7):
        received = await talk(bridge, sent, piece_bytes)
        assert answer_of(received)[0] == 200
        assert b"connection: close" not in received.lower()


async def test_the_smuggled_request_is_not_answered(bridge: InProcessBridge) -> None:
    for headers in (["Content-Length: 5", "Transfer-Encoding: chunked"], ["Transfer-Encoding: gzip"]):
        received = await talk(bridge, post(*headers, body=b"0\r\n\r\n" + get()))
        assert received.count(b"HTTP/1.1 4") == received.count(b"\r\n\r\n") == 1


async def test_a_refused_head_request_has_no_body(bridge: InProcessBridge) -> None:
    for more in ("Content-Length: 0\r\nTransfer-Encoding: chunked", "X: " + "x" * 17_000):
        received = await talk(bridge, get(method="HEAD", more=more))
        head, _, body = received.partition(b"\r\n\r\n")
        assert int(head.split()[1]) in (400, 431)
        assert body == b""


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_asked_for(bridge: InProcessBridge) -> None:
    """RFC 9110, 10.1.1: a final status in place of 100 Continue, and whether the connection is kept."""
    for length in (2049, 2**40, 10**19):
        received = await talk(bridge, post(f"Content-Length: {length}", "Expect: 100-continue"))
        status, message = refusal_of(received)
        assert (status, message) == (413, "body: at most 2048 bytes")
        assert b"100 Continue" not in received


async def test_every_answer_in_place_of_100_continue_closes(bridge: InProcessBridge) -> None:
    expecting = post("Content-Length: 10", "Expect: 100-continue")
    for sent, status in (
        (expecting.replace(b"application/json", b"text/plain"), 415),
        (expecting.replace(CHAT.encode(), b"/nope"), 404),
        (expecting.replace(b"Host: x", b"Host: evil.example"), 421),
    ):
        received = await talk(bridge, sent)
        assert refusal_of(received)[0] == status
        assert b"100 Continue" not in received


async def test_a_body_within_the_limit_is_asked_for(bridge: InProcessBridge) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(post(f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
    async with asyncio.timeout(GENEROUS_S):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 Continue")
        writer.write(BODY)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_a_large_body_that_is_sent_at_once_is_refused_in_words(bridge: InProcessBridge) -> None:
    """Most clients send all of it before they read."""
    received = await talk(bridge, post("Content-Length: 1000000", body=b" " * 1_000_000))
    assert answer_of(received)[0] == 413
