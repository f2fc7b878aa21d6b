"""What /openapi.json says beyond what FastAPI finds in the routes: errors, headers, streams, HEAD."""

import copy
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI

from http_bridge.answers import ANSWER, ErrorBody
from http_bridge.exchange import CHAT_PATH
from http_bridge.value_count import MAX_VALUES

# Seconds above 0 and at most 86400, without leading zeros.
TIMEOUT_PATTERN: Final = (
    r"^(0\.0{0,19}[1-9][0-9]{0,19}"
    r"|([1-9][0-9]{0,3}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2})(\.[0-9]{1,20})?"
    r"|86400(\.0{1,20})?)$"
)
_Json = dict[str, Any]
_EVERYWHERE: Final = (400, 403, 405, 421, 431, 500)
_OF_CHATS: Final = (404, 408, 413, 415, 429, 501, 503, 504)
_UPSTREAM: Final = (404, 503)
_EVENTS: Final = (
    "With `stream` true, each event: a `chat.completion.chunk` as JSON, at last `[DONE]`. "
    "An error on the way is an event with the error object, and then there is no `[DONE]`."
)
_BODY: Final = (
    f"JSON in UTF-8 of at most {MAX_VALUES} values: texts, numbers, `true`, `false`, `null`, lists and objects. "
    "An empty list or object counts as two."
)
_EVENT: Final[_Json] = {
    "type": "object",
    "description": _EVENTS,
    "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["data"],
}


def describe(app: FastAPI) -> None:
    """Makes the app's description say the rest too."""
    found = app.openapi

    @cache
    def openapi() -> _Json:
        description = found()
        _describe_components(description["components"]["schemas"])
        for path, operations in description["paths"].items():
            for operation in operations.values():
                _describe_answers(path, operation)
            if path == CHAT_PATH:
                _describe_chat(operations["post"])
            if "get" in operations:
                operations["head"] = _head_of(operations["get"])
        return description

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_components(schemas: _Json) -> None:
    for unused in ("HTTPValidationError", "ValidationError"):  # of FastAPI's own errors
        schemas.pop(unused, None)
    schemas["ChatCompletion"]["examples"] = [ANSWER]  # FastAPI has dropped its nulls
    error = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= error.pop("$defs") | {"ErrorBody": error}
    _make_bounds_exact(schemas)


def _make_bounds_exact(schema: object) -> None:
    """FastAPI makes floats of all bounds, and int64's last number is none."""
    if isinstance(schema, dict) and schema.get("type") == "integer":
        for bound in schema.keys() & {"minimum", "maximum"}:
            schema[bound] = min(int(schema[bound]), 2**63 - 1)
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _make_bounds_exact(inner)


def _describe_answers(path: str, operation: _Json) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    of_path = {CHAT_PATH: _OF_CHATS, "/v1/models": _UPSTREAM, "/v1/models/{model_id}": _UPSTREAM}.get(path, ())
    for status in sorted((*_EVERYWHERE, *of_path)):
        responses.setdefault(str(status), _error(status))
    for status, response in responses.items():
        response["headers"] = {"X-Request-Id": _header("The request's own id if it brought a fit one.", required=True)}
        if status in ("429", "503"):
            response["headers"]["Retry-After"] = _header("Seconds.", pattern="^[0-9]+$", required=path != "/health")


def _error(status: int) -> _Json:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _header(description: str, required: bool = False, pattern: str = "") -> _Json:
    schema = {"type": "string"} | ({"pattern": pattern} if pattern else {})
    return {"description": description, "required": required, "schema": schema}


def _describe_chat(operation: _Json) -> None:
    answer = operation["responses"]["200"]
    answer["content"]["text/event-stream"] = {"schema": _EVENT}
    ignored = "Fields of the request that this service does not know, at most 32, parted by commas."
    answer["headers"]["X-Ignored-Fields"] = _header(ignored)
    operation["requestBody"]["description"] = _BODY
    [timeout] = operation["parameters"]
    timeout["name"] = "X-Request-Timeout"
    timeout["schema"] = {"type": "string", "pattern": TIMEOUT_PATTERN, "examples": ["30", "2.5"]}


def _head_of(get: _Json) -> _Json:
    """The same answers without their bodies."""
    head = copy.deepcopy(get)
    head["operationId"] += "_head"
    for response in head["responses"].values():
        response.pop("content", None)
    return head
