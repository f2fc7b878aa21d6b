"""Server-sent events as they are written. translate.py decides what they say."""

import json
from typing import Any, Final

from http_bridge.schemas import ChatCompletionRequest
from http_bridge.translate import ChunkTranslator
from protos.chat.v1 import chat_pb2

DONE: Final = "data: [DONE]\n\n"
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
# Some clients end a line at these too, within an event; JSON allows them to be written as escapes.
_LINE_ENDS: Final = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
_NO_TEXT: Final = '"content":""'


def event(content: dict[str, Any]) -> str:
    """One event."""
    return f"data: {_json(content)}\n\n"


class TextEvents:
    """Events of which nothing but the text changes. Writing each whole takes three to nine times as long."""

    def __init__(self, empty: dict[str, Any]) -> None:
        """empty: such an event without text. Quotes in its other fields are escaped, so the text is found."""
        self._before, _, self._after = event(empty).partition(_NO_TEXT)

    def event(self, text: str) -> str:
        """What `event` makes of the event with this text."""
        return f'{self._before}"content":{_json(text)}{self._after}'


class EventWriter:
    """One stream's chunks as events."""

    def __init__(self, body: ChatCompletionRequest) -> None:
        self._body = body
        self._translator: ChunkTranslator | None = None
        self._texts: TextEvents

    def written(self, chunk: chat_pb2.ChatCompletionChunk) -> str:
        """The chunk's events, before the first one's the event that names the role."""
        if self._translator:
            return self._events(self._translator, chunk)
        self._translator = translator = ChunkTranslator(chunk, self._body)
        self._texts = TextEvents(translator.text(""))
        return event(translator.opening()) + self._events(translator, chunk)

    def _events(self, translator: ChunkTranslator, chunk: chat_pb2.ChatCompletionChunk) -> str:
        text = translator.text_alone(chunk)
        return self._texts.event(text) if text else "".join(map(event, translator.events(chunk)))


def _json(content: dict[str, Any] | str) -> str:
    text = _ENCODER.encode(content)
    return text if text.isascii() else text.translate(_LINE_ENDS)
