"""Server-sent events as they are written. What they say is translate.py's business."""

import json
from typing import Any, Final

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


def _json(content: dict[str, Any] | str) -> str:
    text = _ENCODER.encode(content)
    return text if text.isascii() else text.translate(_LINE_ENDS)
