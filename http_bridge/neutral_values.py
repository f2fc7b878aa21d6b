"""Values that ask for nothing: a field that has one is as good as left out. Clients send them for what is not set.

Of the service's own fields here, of others' in foreign_fields.py.
"""

from collections.abc import Mapping
from typing import Any, Final

Values = tuple[Any, ...]

NOTHING: Final[Values] = (False, "", "none", [], {}, None)  # whatever the field; [] is PHP's empty object
_OF_TEXTS: Final[Values] = (False, "", [], {}, None)  # "none" may be a text that is meant


def nothing_or(*values: object) -> Values:
    """NOTHING, and these too."""
    return (*NOTHING, *values)


# The service's optional fields for which it is not NOTHING.
_OWN: Final[Mapping[str, Values]] = {
    "max_tokens": nothing_or(-1), "max_completion_tokens": nothing_or(-1),  # llama.cpp's: no limit
    "model": _OF_TEXTS, "name": _OF_TEXTS, "prompt_cache_key": _OF_TEXTS, "safety_identifier": _OF_TEXTS,
    "stop": _OF_TEXTS, "user": _OF_TEXTS,
}  # fmt: skip


def is_one_of(value: object, allowed: Values) -> bool:
    """Python's equality, in which true is 1 and false is 0, without that."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)


def asks_for_nothing(value: object) -> bool:
    """Whether it is one of NOTHING; as quick as may be, for values of unknown fields."""
    return value is None or value is False or value in ("", "none") or value == [] or value == {}


def own_is_left_out(name: str, value: object) -> bool:
    """Whether an optional field of the service asks for nothing."""
    return is_one_of(value, _OWN.get(name, NOTHING))


def own_schema(name: str) -> dict[str, Any]:
    """The JSON schema of the values with which an optional field of the service is as good as left out."""
    return {"enum": list(_OWN.get(name, NOTHING))}


def schema_of(values: Values) -> dict[str, Any]:
    """The JSON schema of these values, and of objects among them that have members of null beside."""
    objects = [
        {
            "type": "object",
            "properties": {name: {"const": inner} for name, inner in value.items()},
            "required": list(value),
            "additionalProperties": {"type": "null"},
        }
        for value in values
        if isinstance(value, dict)
    ]
    return {"anyOf": [{"enum": list(values)}, *objects]} if objects else {"enum": list(values)}
