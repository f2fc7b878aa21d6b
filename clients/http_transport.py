"""The way to the HTTP bridge: OpenAI's JSON and server-sent events."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import httpx2

from clients.conversation import Turn
from clients.transports import AnswerEnd, AnswerOptions, ServedModel, ServiceError
from protos.chat.v1.target import is_this_machine

_SHORT_S = 5.0
_TIMEOUT = httpx2.Timeout(_SHORT_S, read=None)  # a long prompt may take its time
_EVENT = b"data: "
_DONE = b"[DONE]"
_STATES = {"draining": "is shutting down", "unavailable": "cannot reach its inference server"}

Json = dict[str, Any]


class HttpTransport:
    """A connection pool to the bridge. An address with the /v1 that SDKs want is taken too."""

    def __init__(self, url: str, options: AnswerOptions) -> None:
        """Raises ServiceError where the url is none."""
        _check(url)
        self._url = url.rstrip("/").removesuffix("/v1")
        self.place = f"{self._url} over HTTP"
        self._options = {name: value for name, value in asdict(options).items() if value is not None}
        self._client = _client(self._url)

    async def close(self) -> None:
        await self._client.aclose()

    async def model(self) -> ServedModel:
        try:
            health = (await self._client.get("/health", timeout=_SHORT_S)).json()
            if (state := health["status"]) in _STATES:
                raise ServiceError(f"the bridge at {self._url} {_STATES[state]}")
            cards = (await self._client.get("/v1/models", timeout=_SHORT_S)).raise_for_status().json()
            context_tokens = cards["data"][0]["max_model_len"]
            return ServedModel(
                name=health["model"],
                load_percent=health.get("progress", 0) if state == "loading" else None,
                notice=health.get("notice", ""),
                facts=[f"context {context_tokens:,} tokens"] if context_tokens else [],
            )
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        except (ValueError, LookupError, TypeError) as error:
            raise ServiceError(f"{self._url} does not answer as a chat server") from error

    async def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[str | AnswerEnd]:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        body = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}} | self._options
        try:
            async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.is_error:
                    await response.aread()
                    raise _refusal(response)
                async with aclosing(_pieces(response)) as pieces:
                    async for piece in pieces:
                        yield piece
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx2.HTTPError) -> ServiceError:
        if isinstance(error, httpx2.TimeoutException):
            return ServiceError(f"{self._url} does not answer")
        return ServiceError(f"no HTTP server can be reached at {self._url}")


def _check(url: str) -> None:
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ServiceError(f"--target {url}: {error}") from error
    if not address.host:
        raise ServiceError(f"--target {url}: no host in it")
    if address.port is not None and not 0 < address.port < 65536:
        raise ServiceError(f"--target {url}: expected a port from 1 to 65535")
    if address.query or address.fragment:
        raise ServiceError(f"--target {url}: expected an address without ? and #, such as http://localhost:8000")


def _client(url: str) -> httpx2.AsyncClient:
    """Raises ServiceError if the environment names a proxy that cannot be used. This machine is reached without one."""
    direct = httpx2.AsyncHTTPTransport() if is_this_machine(httpx2.URL(url).host) else None
    try:
        return httpx2.AsyncClient(base_url=url, timeout=_TIMEOUT, transport=direct)
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        raise ServiceError(
            "a proxy of the environment cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY may be http:// and "
            "https:// addresses; unset the others"
        ) from error


async def _pieces(response: httpx2.Response) -> AsyncGenerator[str | AnswerEnd]:
    """Text comes in events; what belongs to the end is spread over the last two."""
    end: Json = {}
    async with aclosing(_events(response)) as events:
        async for event in events:
            if "error" in event:
                raise ServiceError(event["error"]["message"])
            for choice in event["choices"]:
                if content := choice["delta"].get("content"):
                    yield content
                if choice["finish_reason"]:
                    end |= {"finish_reason": choice["finish_reason"]} | event["timings"]
            end |= event["usage"] or {}
    yield AnswerEnd(**{name: end[name] for name in AnswerEnd.__slots__})


async def _events(response: httpx2.Response) -> AsyncGenerator[Json]:
    """Every event before [DONE]. httpx2's aiter_lines would also cut at U+2028, which stands in JSON as it is."""
    waiting = b""
    async for received in response.aiter_bytes():
        *lines, waiting = (waiting + received).split(b"\n")
        for line in lines:
            if line.removeprefix(_EVENT).strip() == _DONE:
                return
            if line.startswith(_EVENT):
                yield json.loads(line.removeprefix(_EVENT))
    raise ServiceError("the answer broke off")


def _refusal(response: httpx2.Response) -> ServiceError:
    try:
        return ServiceError(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return ServiceError(f"the service refused with HTTP status {response.status_code}")
