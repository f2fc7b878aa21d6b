"""What no JSON schema says of a request: fields that must agree, the tokenizer's ids, how much the test waits for.

Schemathesis loads it beside /openapi.json. Only values that the schema allows are changed, into others that it allows,
so what was generated to be refused still is.
"""

import re
from typing import Any, TypeGuard

import schemathesis

from http_bridge.neutral_values import own_is_left_out
from http_bridge.openapi import TIMEOUT_PATTERN
from protos.chat.v1.ranges import MAX_RESUMED_TOKEN_IDS, MAX_STOP_TOKEN_IDS, RANGES, TOKEN_IDS

MAX_TOKENS = 8
KNOWN_TOKEN_IDS = 2500
Json = dict[str, Any]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Schemathesis' name for it."""
    timeout_s = (case.headers or {}).get("X-Request-Timeout")
    if isinstance(timeout_s, str) and re.fullmatch(TIMEOUT_PATTERN, timeout_s) and float(timeout_s) < 60:
        case.headers["X-Request-Timeout"] = "60"
    if isinstance(case.body, dict):
        _shorten(case.body)
        _keep_to_the_tokenizer(case.body)
        _agree(case.body)


def _is_whole(value: object, name: str) -> bool:
    return _is_integer(value) and value in RANGES[name]


def _is_integer(value: object) -> TypeGuard[float]:
    """JSON Schema's: 1.0 is one, true is none."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _shorten(body: Json) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        if _is_whole(body.get(name), "max_tokens"):
            body[name] = MAX_TOKENS
    if own_is_left_out("max_tokens", body.get("max_tokens")):
        body["max_tokens"] = MAX_TOKENS
    if _is_whole(body.get("min_tokens"), "min_tokens"):
        body["min_tokens"] = min(body["min_tokens"], MAX_TOKENS)


def _keep_to_the_tokenizer(body: Json) -> None:
    if _are_token_ids(body.get("stop_token_ids"), MAX_STOP_TOKEN_IDS):
        body["stop_token_ids"] = [token_id % KNOWN_TOKEN_IDS for token_id in body["stop_token_ids"]]
    biases = body.get("logit_bias")
    if isinstance(biases, dict) and all(re.fullmatch("0|[1-9][0-9]{0,9}", name, re.ASCII) for name in biases):
        body["logit_bias"] = {str(int(name) % KNOWN_TOKEN_IDS): bias for name, bias in biases.items()}


def _are_token_ids(value: object, most: int) -> bool:
    return (
        isinstance(value, list) and len(value) <= most and all(_is_integer(one) and one in TOKEN_IDS for one in value)
    )


def _agree(body: Json) -> None:
    if _is_whole(body.get("top_logprobs"), "top_logprobs") and own_is_left_out("logprobs", body.get("logprobs")):
        body["logprobs"] = True
    options = body.get("stream_options")
    if isinstance(options, dict) and any(options.values()) and own_is_left_out("stream", body.get("stream")):
        body["stream"] = True
    resume = body.get("resume")
    if isinstance(resume, dict) and _are_token_ids(resume.get("token_ids"), MAX_RESUMED_TOKEN_IDS):
        resume["token_ids"] = [token_id % KNOWN_TOKEN_IDS for token_id in resume["token_ids"][:MAX_TOKENS]]
        if own_is_left_out("seed", resume.get("seed")):
            resume["seed"] = 1
        if _is_whole(resume["seed"], "seed") and _is_whole(body.get("seed"), "seed"):
            body["seed"] = resume["seed"]
