"""Fields of a request that this service does not know: found, named in a response header and, once an hour, logged."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, Final
from urllib.parse import quote

from http_bridge.foreign_fields import (
    NEUTRAL,
    NEUTRAL_IN_MESSAGES,
    NEUTRAL_IN_STREAM_OPTIONS,
    WITHOUT_EFFECT,
    WITHOUT_EFFECT_IN_MESSAGES,
    WITHOUT_EFFECT_IN_PARTS,
)
from http_bridge.messages import Message, RefusalPart, TextPart
from http_bridge.neutral_values import asks_for_nothing
from http_bridge.schemas import ChatCompletionRequest, Resume, StreamOptions
from observability.descriptors import MinuteLog

MAX_FIELDS: Final = 32  # named of one request; the rest is ignored without a name
_MAX_NAME_CHARACTERS: Final = 64
_LOG_AGAIN_S: Final = 3600.0
_MAX_LOGGED_NAMES: Final = 512  # a client that invents names must not fill memory or log

_BODY: Final = ChatCompletionRequest.model_fields.keys() | NEUTRAL.keys() | WITHOUT_EFFECT
_MESSAGE: Final = Message.model_fields.keys() | NEUTRAL_IN_MESSAGES.keys() | WITHOUT_EFFECT_IN_MESSAGES
_PART: Final = TextPart.model_fields.keys() | RefusalPart.model_fields.keys() | WITHOUT_EFFECT_IN_PARTS
_INNER: Final[Mapping[str, Set[str]]] = {
    "stream_options": StreamOptions.model_fields.keys() | NEUTRAL_IN_STREAM_OPTIONS.keys(),
    "resume": Resume.model_fields.keys(),
}

_log = logging.getLogger(__name__)


def ignored_fields(body: object) -> dict[str, str]:
    """Return at most MAX_FIELDS unknown fields: `messages[].color` with its first place, `messages[0].color`.

    A value that asks for nothing is not told of. Both are fit for a header and a log line, whatever was sent.
    """
    first: dict[tuple[str, str], str] = {}
    for kind, place, name in _unknown(body) if isinstance(body, dict) else ():
        if (kind, name) not in first:
            first[kind, name] = place
            if len(first) == MAX_FIELDS:
                break
    return {f"{kind}{_shown(name)}": f"{place}{_shown(name)}" for (kind, name), place in first.items()}


def _unknown(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields each unknown field's kind of place, its place and its name."""
    yield from _beside(body, _BODY, "", "")
    for field, known in _INNER.items():
        yield from _beside(body.get(field), known, f"{field}.", f"{field}.")
    messages = body.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if not isinstance(message, dict):
            continue
        if not message.keys() <= _MESSAGE:  # looked at here too, because there may be a million
            yield from _beside(message, _MESSAGE, "messages[].", f"messages[{index}].")
        content = message.get("content")
        for place, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict) and not part.keys() <= _PART:
                yield from _beside(part, _PART, "messages[].content[].", f"messages[{index}].content[{place}].")


def _beside(fields: object, known: Set[str], kind: str, place: str) -> Iterator[tuple[str, str, str]]:
    for name, value in fields.items() if isinstance(fields, dict) else ():
        if name not in known and not asks_for_nothing(value):
            yield kind, place, name


def _shown(name: str) -> str:
    cut = "..." if len(name) > _MAX_NAME_CHARACTERS else ""
    return quote(name[:_MAX_NAME_CHARACTERS], safe="") + cut or '""'


class IgnoredFieldsLog:
    """Logs each name once an hour, and once a minute how many there was no room for."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._logged_s: dict[str, float] = {}  # oldest first
        self._left_out = MinuteLog(_log)

    def note(self, names: Iterable[str]) -> None:
        """Takes names without places, as ignored_fields gives them."""
        for name in names:
            self._forget_old()
            if name in self._logged_s:
                continue
            if len(self._logged_s) == _MAX_LOGGED_NAMES:
                said = "unknown field of a chat request ignored, its name left out: %d other names within the hour"
                self._left_out.warning(said, _MAX_LOGGED_NAMES)
                continue
            self._logged_s[name] = self._now_s()
            _log.info("unknown field of a chat request ignored: %s (told once an hour)", name)

    def _forget_old(self) -> None:
        while self._logged_s:
            oldest = next(iter(self._logged_s))
            if self._now_s() - self._logged_s[oldest] < _LOG_AGAIN_S:
                return
            del self._logged_s[oldest]
