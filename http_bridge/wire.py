"""HTTP/1.1 as RFC 9112 has it: h11, without what it takes that two parsers may read in two ways.

Whatever stands between a client and the bridge must see the same requests as the bridge does. protocol.py calls it.
"""

import re

import h11
from h11._receivebuffer import ReceiveBuffer

from http_bridge.hosts import authority_of

MAX_HEAD_BYTES = 16 * 1024
_MAX_HEADERS = 100
_VERSIONS = (b"1.0", b"1.1")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?")
_EMPTY_LINE = b"\r\n"
HEAD_TOO_LARGE = f"the request's headers are too large: at most {MAX_HEAD_BYTES} bytes and {_MAX_HEADERS} of them"


class Refused(h11.RemoteProtocolError):
    """A request that is not taken. Its words are fixed: nothing that was sent is repeated."""

    def __init__(self, words: str, status: int = 400) -> None:
        super().__init__(words, error_status_hint=status)


class _StrictBuffer(ReceiveBuffer):
    """Lines end with CRLF. h11 also takes a bare LF, which RFC 9112 allows (2.2) and other parsers do not."""

    def __init__(self) -> None:
        super().__init__()
        self._checked = 0  # so many bytes have been searched for the end of a line
        self.lines: list[bytearray] = []  # of the last head or trailer

    def _extract(self, count: int) -> bytearray:
        self._checked = 0
        return super()._extract(count)

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """The lines before an empty one: a request's head or a chunked body's trailer."""
        if self._data[:2] == _EMPTY_LINE:
            self._extract(2)
            return []
        blank = self._data.find(b"\r\n\r\n", max(0, self._checked - 3))
        self._require_crlf(len(self._data) if blank < 0 else blank + 4)
        if blank < 0:
            return None
        self.lines = self._extract(blank + 4)[:-4].split(b"\r\n")
        if any(line.startswith((b" ", b"\t")) for line in self.lines):  # RFC 9112, 5.2
            raise Refused("a header may not be folded over several lines")
        return self.lines

    def _require_crlf(self, end: int) -> None:
        newline = self._data.find(b"\n", self._checked, end)
        while newline >= 0:
            if not newline or self._data[newline - 1] != ord("\r"):
                raise Refused("lines of the request's head must end with CRLF")
            newline = self._data.find(b"\n", newline + 1, end)
        self._checked = end

    def maybe_extract_next_line(self) -> bytearray | None:
        """A chunk's header. h11 looks for its CRLF, and takes a CR before that."""
        newline = self._data.find(b"\n", self._checked)
        if newline < 0:
            self._checked = len(self._data)
            return None
        line = self._extract(newline + 1)
        if line.find(b"\r") != newline - 1:
            raise Refused("a chunk's header must end with CRLF")
        return line

    def skip_empty_line(self) -> bool:
        """Drops one before a request (RFC 9112, 2.2). Returns whether nothing but that has come."""
        if self._data in (b"\r", _EMPTY_LINE):
            return True
        if self._data[:2] == _EMPTY_LINE:
            self._extract(2)
        return False


class StrictConnection(h11.Connection):
    """Gives requests in origin-form with a valid Host. Counts whole heads too, which h11 does not."""

    refused_with = 400  # the status for the error that it raised
    refusal: str | None = None  # and what to say of it
    is_head_request = False

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self._receive_buffer: _StrictBuffer = _StrictBuffer()

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state is h11.IDLE and self._receive_buffer.skip_empty_line():
            return h11.NEED_DATA
        self.is_head_request = self.is_head_request and self.their_state is not h11.IDLE
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self.is_head_request = event.method == b"HEAD"
                _require_known_version(event)
                _require_modest_head(event)
                _require_one_framing(event)
                event = _in_origin_form(event)
        except h11.RemoteProtocolError as error:
            self.refused_with = error.error_status_hint
            if isinstance(error, Refused):
                self.refusal = str(error)
            elif self.refused_with == 501 and not _is_chunked_last(self._receive_buffer.lines):
                self.refused_with = 400
            raise
        return event


def _require_known_version(request: h11.Request) -> None:
    if request.http_version not in _VERSIONS:
        raise Refused("HTTP/1.1 and HTTP/1.0 are served, no other version", 505)


def _require_modest_head(request: h11.Request) -> None:
    line = len(request.method) + len(request.target) + len("  HTTP/1.1\r\n")
    size = line + sum(len(name) + len(value) + len(": \r\n") for name, value in request.headers) + len("\r\n")
    if size > MAX_HEAD_BYTES or len(request.headers) > _MAX_HEADERS:
        raise Refused(HEAD_TOO_LARGE, 431)


def _require_one_framing(request: h11.Request) -> None:
    """RFC 9112, 6.1: both fields together are an attempt at smuggling, and HTTP/1.0 has no transfer codings."""
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" not in names:
        return
    if b"content-length" in names:
        raise Refused("Content-Length: not together with Transfer-Encoding")
    if request.http_version == b"1.0":
        raise Refused("Transfer-Encoding: not in HTTP/1.0")


def _is_chunked_last(lines: list[bytearray]) -> bool:
    """Whether the body's end can be told (RFC 9112, 6.3): then an unknown coding is a 501, else it is a 400."""
    fields = [line.partition(b":") for line in lines[1:]]
    values = [value for name, _, value in fields if name.lower() == b"transfer-encoding"]
    codings = [coding.strip().lower() for coding in b",".join(map(bytes, values)).split(b",")]
    return codings[-1] == b"chunked" and codings.count(b"chunked") == 1


def _in_origin_form(request: h11.Request) -> h11.Request:
    """The request with its path as the target and its authority in Host (RFC 9112, 3.2)."""
    host = next((value for name, value in request.headers if name == b"host"), b"")
    if authority_of(host.decode("latin-1")) is None:
        raise Refused("Host: not a valid host with an optional port")
    target = request.target
    if request.method == b"CONNECT" or target == b"*":
        if request.method not in (b"CONNECT", b"OPTIONS"):
            raise Refused("* is a target of OPTIONS alone")
        return request
    if target.startswith(b"/") and b"#" not in target:
        return request
    return _without_authority(request)


def _without_authority(request: h11.Request) -> h11.Request:
    """A target in absolute-form, whose authority replaces Host (RFC 9112, 3.2.2)."""
    matched = _ABSOLUTE.fullmatch(request.target)
    authority = authority_of(matched[2].decode("latin-1")) if matched else None
    if not matched or authority is None or not authority.host:
        raise Refused("the request's target must be a path, or an address that begins with http://")
    if matched[1].lower() != b"http":
        raise Refused("the target's scheme is not served on this connection", 421)
    headers = [(name, value) for name, value in request.headers if name != b"host"]
    return h11.Request(
        method=request.method,
        target=(matched[3] or b"/") + (matched[4] or b""),
        headers=[(b"host", matched[2]), *headers],
        http_version=request.http_version,
    )
