"""How a gRPC target is written. The bridge and the client look at theirs before they start.

gRPC itself takes any text: what is no address fails later, with each call, and a name without a port is looked for at
port 443. https://grpc.github.io/grpc/core/md_doc_naming.html
"""

import ipaddress
import re

EXPECTED = (
    "expected HOST:PORT, [IPV6]:PORT, dns:///HOST:PORT, ipv4:ADDRESS:PORT,..., ipv6:[ADDRESS]:PORT,... or unix:PATH"
)
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract):(.+)", re.DOTALL)
_HTTP = re.compile(r"https?:", re.IGNORECASE)


def is_this_machine(host: str) -> bool:
    """Whether the host is the loopback interface, by name or address."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def problem_of_target(target: str) -> str | None:
    """What is wrong with it, as a line for the user; None if nothing is."""
    if _HTTP.match(target):
        return "this is an address of HTTP; the gRPC server's is HOST:PORT, as in localhost:50051"
    matched = _SCHEME.fullmatch(target)
    is_well_formed = _is_name_and_port(target) if not matched else _is_well_formed(matched[1], matched[2])
    return None if is_well_formed else EXPECTED


def _is_well_formed(scheme: str, place: str) -> bool:
    match scheme:
        case "dns":
            authority, _, name = place[2:].partition("/") if place.startswith("//") else ("", "", place)
            is_asked_there = not authority or _is_name_and_port(authority) or _is_host(authority)
            return is_asked_there and _is_name_and_port(name)
        case "ipv4" | "ipv6":
            version = int(scheme[-1])
            return all(_is_address_and_port(one, version) for one in place.removeprefix("///").split(","))
        case _:
            return place.isprintable() and (not place.startswith("//") or place.startswith("///"))


def _is_name_and_port(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return _is_port(port) and _is_host(host)


def _is_host(host: str) -> bool:
    return bool(_NAME.fullmatch(host)) or (host.startswith("[") and host.endswith("]") and _is_address(host[1:-1], 6))


def _is_address_and_port(text: str, version: int) -> bool:
    host, _, port = text.rpartition(":")
    if version == 6:
        return _is_port(port) and host[:1] + host[-1:] == "[]" and _is_address(host[1:-1], 6)
    return _is_port(port) and _is_address(host, 4)


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version  # of IPv6 also one with a scope, as in fe80::1%eth0
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and 0 < int(text) < 65536
