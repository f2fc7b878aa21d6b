"""Which web pages may read answers: CORS (the Fetch standard) by origins that are exact or have any port."""

import re
from collections.abc import Collection
from typing import Any

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?:[0-9]{1,5}|\*))?")
_EXPOSED = ("Retry-After", "X-Ignored-Fields", "X-Request-Id")
_MAX_AGE_S = 600
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def problem_of_origin(origin: str) -> str | None:
    """What is wrong with an entry of the list, None if nothing is."""
    if origin in ("*", "null"):
        return None
    matched = _ORIGIN.fullmatch(origin)
    port = (matched[3] or "")[1:] if matched else ""
    if matched and port == _DEFAULT_PORTS.get(matched[1]):
        return f"browsers leave out the default port: write {origin.rpartition(':')[0]}"
    if matched and (port in ("", "*") or 0 < int(port) < 2**16):
        return None
    return "expected origins such as https://chat.example.com, http://localhost:* for any port, null, or * for any"


def is_allowed(origin: str, allowed: Collection[str]) -> bool:
    """Whether a page of this origin is one of those that were chosen."""
    return "*" in allowed or (bool(origin) and re.fullmatch(_pattern(allowed), origin) is not None)


def cors_options(allowed: Collection[str]) -> dict[str, Any]:
    """What Starlette's CORSMiddleware takes. Credentials (cookies) are never allowed: the service has none."""
    origins = {"allow_origins": ["*"]} if "*" in allowed else {"allow_origin_regex": _pattern(allowed)}
    return origins | {
        "allow_methods": ["GET", "HEAD", "POST"],
        "allow_headers": ["*"],  # those that the page asks for
        "expose_headers": _EXPOSED,
        "max_age": _MAX_AGE_S,
        "allow_private_network": True,  # Chrome 104 to 141 asks; else a public page that was chosen would be refused
    }


def _pattern(allowed: Collection[str]) -> str:
    return "|".join(re.escape(origin).replace(r":\*", r"(?::[0-9]+)?") for origin in allowed)
