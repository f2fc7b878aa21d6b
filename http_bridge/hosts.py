"""Which hosts and origins a request may name: the defence against DNS rebinding and against other sites' pages.

A page whose name is rebound to this machine's address is same-origin to the browser, but its requests still carry the
page's own name in Host. A public attacker can own neither an IP address literal nor a name that public DNS cannot hold.
"""

import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass

from http_bridge.cors import is_allowed

_REGISTERED_NAME = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
_IP_LITERAL = r"\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\]"
_AUTHORITY = re.compile(rf"({_IP_LITERAL}|{_REGISTERED_NAME})(?::0*([0-9]{{0,5}}))?")
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_WITHOUT_DOT = re.compile(r"[a-z0-9_-]{1,63}")
# RFC 6761, RFC 6762, RFC 8375 and ICANN's resolution of 2024: none of these can be registered in public DNS.
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Authority:
    """A host, in lower case and without brackets or a final dot, and its port if there is one."""

    host: str
    port: int | None

    @property
    def is_ip_address(self) -> bool:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def authority_of(value: str) -> Authority | None:
    """RFC 3986's host with an optional port, as Host has it (RFC 9110, 7.2); None if the value is not one."""
    matched = _AUTHORITY.fullmatch(value)
    if not matched:
        return None
    host, port = matched[1].lower(), matched[2]
    if port and int(port) >= 2**16:
        return None
    if host.startswith("["):
        host = host[1:-1]
        if not host.startswith("v") and not _is_ipv6(host):
            return None
    return Authority(host.removesuffix("."), int(port) if port else None)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


class AllowedHosts:
    """Names that requests may be addressed to."""

    def __init__(self, chosen: Collection[str]) -> None:
        """chosen: names, `*.NAME` for all names below one, `*` for any."""
        self._is_any = "*" in chosen
        self._names = {name for name in chosen if not name.startswith("*")} | {socket.gethostname().lower()}
        self._suffixes = (*(name[1:] for name in chosen if name.startswith("*.")), *_PRIVATE_SUFFIXES)

    def allows(self, authority: Authority) -> bool:
        """No host at all, as in HTTP/1.0, is fine: every browser sends one."""
        host = authority.host
        return (
            self._is_any
            or not host
            or authority.is_ip_address
            or bool(_WITHOUT_DOT.fullmatch(host))
            or host in self._names
            or host.endswith(self._suffixes)
        )


def problem_of_allowed_host(name: str) -> str | None:
    """What is wrong with an entry of the list, None if nothing is."""
    if name == "*" or _NAME.fullmatch(name.removeprefix("*.")):
        return None
    authority = authority_of(name)
    if authority and authority.port is None and authority.is_ip_address:
        return None
    return "expected names such as chat.example.com, *.example.com for all names below one, or * for any"


def allows_origin(origin: str, host: Authority, cors_origins: Collection[str]) -> bool:
    """Whether a page of this origin may use the service: its own pages, those that CORS admits, and programs.

    Web pages have http, https or the opaque origin `null`. Other schemes (app:, vscode-webview:, chrome-extension:)
    belong to programs that the user installed.
    """
    if is_allowed(origin, cors_origins):
        return True
    matched = _ORIGIN.fullmatch(origin)
    if not matched:
        return False
    scheme = matched[1].lower()
    if scheme not in _DEFAULT_PORTS:
        return True
    page, default = authority_of(matched[2]), _DEFAULT_PORTS[scheme]
    if page is None or not page.host:
        return False
    # a proxy may pass the host without its port, such as nginx's $host
    return page.host == host.host and host.port in (None, page.port or default)
