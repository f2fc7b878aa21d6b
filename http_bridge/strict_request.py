"""A request body as JSON, strictly: UTF-8, no duplicate names, no NaN, bounded size. FastAPI checks the rest.

All of it runs on the event loop, so other tasks get their turn between the steps on a large body.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from itertools import chain
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from http_bridge.errors import ApiError
from http_bridge.exchange import CHAT_PATH, NOBODY_READS_IT, exchange_of
from http_bridge.ignored_fields import ignored_fields
from http_bridge.value_count import MAX_VALUES, has_too_many_values

_MAX_INTEGER_DIGITS = 40
_MAX_DEPTH = 64
_MAX_NAMES = 256
_LARGE_BYTES = 64 * 1024  # each step on a smaller body takes less than 15 ms
# Parameters say nothing, charset neither (RFC 8259, section 11); with +json it is JSON too (RFC 6839, section 3.1).
_JSON_TYPE = re.compile(r"application/([\w.-]+\+)?json\s*(;.*)?", re.IGNORECASE | re.ASCII)
_LARGEST_EXACT = 2**53  # a larger number with a point may not be what was written
_ESCAPED_SURROGATES = ("\\ud", "\\uD")


class StrictRequest(Request):
    """Reads the body itself, counting, so that an endless one is refused in time."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            self._require_json_type()
            timeout_s: float = self.app.state.read_timeout_s
            try:
                async with asyncio.timeout(timeout_s):
                    self._body = await self._received()
            except TimeoutError as error:
                problem = f"body: not received within {timeout_s} s"
                raise ApiError(408, problem, code="request_timeout", headers={"Connection": "close"}) from error
            except ClientDisconnect as error:
                raise ApiError(NOBODY_READS_IT, "the client has left", code="client_gone") from error
        return self._body

    async def _received(self) -> bytes:
        limit: int = self.app.state.max_body_bytes
        too_large = ApiError(413, f"body: at most {limit} bytes", code="request_too_large")
        if int(self.headers.get("content-length", 0)) > limit:  # before anything is read: no 100 Continue
            raise too_large
        received = bytearray()
        async for piece in self.stream():
            received += piece
            if len(received) > limit:
                raise too_large
        if not received:
            raise ApiError(400, "body: expected an object, got nothing")
        return bytes(received)

    async def json(self) -> Any:
        body = await self.body()
        if await has_too_many_values(body):
            raise ApiError(400, f"body: more than {MAX_VALUES} values")
        value, may_have_surrogates = parse_json(body)
        await self.give_way()
        require_modest(value, may_have_surrogates)
        await self.give_way()
        self._parsed = value
        return value

    async def give_way(self) -> None:
        """Lets other tasks run if the body is large. To be called between two steps that look at all of it."""
        if len(self._body) > _LARGE_BYTES:
            await asyncio.sleep(0)

    def note_ignored_fields(self) -> None:
        """For a body that is valid. Raises ApiError 400 instead if the bridge is set to refuse unknown fields."""
        found = ignored_fields(self._parsed)
        del self._parsed
        if found and self.app.state.refuses_unknown_fields:
            field = next(iter(found.values()))
            raise ApiError(400, f"{field}: not a field of this service", param=field)
        self.app.state.ignored_fields_log.note(found)
        exchange_of(self.scope).ignored_fields = tuple(found.values())

    def _require_json_type(self) -> None:
        if not _JSON_TYPE.fullmatch(self.headers.get("content-type", "")):
            raise ApiError(415, "Content-Type: expected application/json")
        if self.headers.get("content-encoding", "").lower() not in ("", "identity"):
            raise ApiError(415, "Content-Encoding: not supported")


class StrictRoute(APIRoute):
    """A route whose handler gets a StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.scope["path"] == CHAT_PATH:
                _take_in(request)
            return await handler(StrictRequest(request.scope, request.receive))

        return handle


def _take_in(request: Request) -> None:
    """Before anything of a chat is read. Raises ApiError 429 while the server is known to be full."""
    exchange, overload = exchange_of(request.scope), request.app.state.overload
    overload.enter(exchange.client)
    exchange.at_end.append(partial(overload.leave, exchange.client))


def parse_json(body: bytes) -> tuple[Any, bool]:
    """Return the value, and whether its strings may have halves of surrogate pairs.

    Raises ApiError 400 for whatever is not one JSON value in UTF-8.
    """
    try:
        text = body.decode("utf-8-sig")  # RFC 8259, section 8.1: a byte order mark may be ignored
    except UnicodeDecodeError as error:
        raise ApiError(400, "body: not valid UTF-8") from error
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer, parse_float=_number
        )
    except json.JSONDecodeError as error:
        raise ApiError(400, f"body: not valid JSON at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ApiError(400, f"body: nested deeper than {_MAX_DEPTH} levels") from error
    return value, any(escape in text for escape in _ESCAPED_SURROGATES)


def require_modest(body: object, may_have_surrogates: bool) -> None:
    """Raises ApiError 400 for objects of many names, for deep nesting and for halves of surrogate pairs."""
    counted_later = body.get("logit_bias") if isinstance(body, dict) else None
    level = [body]
    for _ in range(_MAX_DEPTH + 1):
        objects = [item for item in level if type(item) is dict]
        lists = [item for item in level if type(item) is list]
        if any(len(item) > _MAX_NAMES and item is not counted_later for item in objects):
            raise ApiError(400, f"body: an object of more than {_MAX_NAMES} names")
        if may_have_surrogates:
            _require_characters(level, objects)
        if not objects and not lists:
            return
        level = [*chain.from_iterable(item.values() for item in objects), *chain.from_iterable(lists)]
    raise ApiError(400, f"body: nested deeper than {_MAX_DEPTH} levels")


def _require_characters(values: Iterable[object], objects: Iterable[dict[str, Any]]) -> None:
    texts = chain((value for value in values if isinstance(value, str)), chain.from_iterable(objects))
    try:
        "".join(texts).encode()  # UTF-8 has no surrogates
    except UnicodeEncodeError as error:
        raise ApiError(400, "body: a string has half of a surrogate pair") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ApiError(400, "body: an object has the same name twice")
    return found


def _no_constant(name: str) -> float:
    raise ApiError(400, f"body: {name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS:
        raise ApiError(400, f"body: a number of more than {_MAX_INTEGER_DIGITS} digits")
    return int(digits)


def _number(digits: str) -> float:
    """An integer that is written with a point or an exponent is an integer, as in JSON Schema."""
    number = float(digits)
    if number.is_integer():
        return int(number) if abs(number) < _LARGEST_EXACT else number
    if math.isinf(number):
        raise ApiError(400, "body: a number is too large")
    return number
