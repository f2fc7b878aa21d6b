"""Counts a chat's fields on the wire, because upb makes an object of each of two million empty messages.

boundary.py calls it before the message is parsed. Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from inference_server.errors import InvalidField, TooManyFields

_FIELDS_BESIDE_MESSAGES: Final = 2**14  # 1,024 biases are 3,072, and ids that are not packed are one each
_FIELDS_OF_A_MESSAGE: Final = 4  # its own, and role, content and name
_INNER: Final = 0  # no field's number


def require_modest_fields(payload: bytes, kind: Any, max_messages: int) -> None:
    """Raises InvalidField or TooManyFields for more fields than a chat can have.

    kind: the message's descriptor. 20,000 fields take 15 to 40 ms. A payload too short for too many is not counted.
    """
    most = _FIELDS_OF_A_MESSAGE * max_messages + _FIELDS_BESIDE_MESSAGES
    if len(payload) <= 2 * most:  # a field has at least two bytes
        return
    counts = Counter(islice(_numbers(payload, kind), most + 1))
    if counts.total() <= most:
        return
    messages = kind.fields_by_name.get("messages")
    if messages and counts[messages.number] > max_messages:
        raise InvalidField("messages", f"expected 1 to {max_messages} messages, got more than {max_messages}")
    raise TooManyFields(most)


def _numbers(payload: bytes, kind: Any) -> Iterator[int]:
    """Yields each field's number, and _INNER for each of inner messages. Ends where upb will find a fault too."""
    for number, start, end in _fields(payload, 0, len(payload)):
        yield number
        field = kind.fields_by_number.get(number)
        if field and field.message_type and end > start:
            yield from (_INNER for _ in _numbers(payload[start:end], field.message_type))


def _fields(payload: bytes, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields number, start and end of each field's value. A group's tags are a field each."""
    while place < end:
        try:
            tag, place = _varint(payload, place)
            start = place
            match tag & 7:
                case 0:  # VARINT
                    _, place = _varint(payload, place)
                case 1:  # I64
                    place += 8
                case 2:  # LEN
                    length, start = _varint(payload, place)
                    place = start + length
                case 5:  # I32
                    place += 4
                case 6 | 7:
                    return
        except IndexError:
            return
        if place > end:
            return
        yield tag >> 3, start, place if tag & 7 == 2 else start


def _varint(payload: bytes, place: int) -> tuple[int, int]:
    """Its value and where it ends. Raises IndexError if it is longer than ten bytes, or than the payload."""
    value = 0
    for shift in range(0, 70, 7):
        byte = payload[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise IndexError
