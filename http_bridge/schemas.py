"""The JSON contract's request: OpenAI's, and a few fields more. What answers look like is in answers.py."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, FailFast, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError
from typing_extensions import TypeAliasType

from http_bridge.foreign_fields import NEUTRAL, NEUTRAL_IN_STREAM_OPTIONS, WITHOUT_EFFECT, schemas
from http_bridge.messages import Message, Strict, require_neutral, with_properties, without_nothing
from protos.chat.v1.ranges import (
    INNER_RANGES,
    MAX_LOGIT_BIASES,
    MAX_RESUMED_TOKEN_IDS,
    MAX_STOP_CHARACTERS,
    MAX_STOP_TEXTS,
    MAX_STOP_TOKEN_IDS,
    RANGES,
    TOKEN_IDS,
)


def _ranged(name: str, description: str) -> Any:
    return Field(default=None, ge=RANGES[name].low, le=RANGES[name].high, description=description)


StopTexts = TypeAliasType("StopTexts", Annotated[list[str], FailFast()])
TokenId = Annotated[int, Field(ge=TOKEN_IDS.low, le=TOKEN_IDS.high)]
TokenIds = TypeAliasType("TokenIds", Annotated[list[TokenId], FailFast()])
Bias = Annotated[float, Field(ge=INNER_RANGES["logit_bias[]"].low, le=INNER_RANGES["logit_bias[]"].high)]
_TOKEN_ID_AS_NAME = re.compile("0|[1-9][0-9]{0,9}", re.ASCII)


class StreamOptions(Strict):
    """How to stream."""

    model_config = ConfigDict(json_schema_extra=with_properties(schemas(NEUTRAL_IN_STREAM_OPTIONS, frozenset())))

    include_usage: bool | None = Field(default=None, description="Adds a last event that has the token counts.")
    continuous_usage_stats: bool | None = Field(default=None, description="Adds the counts so far to every event.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, options: object) -> object:
        require_neutral(options, NEUTRAL_IN_STREAM_OPTIONS)
        return without_nothing(cls, options)


def _one_as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _by_token_id(biases: object) -> object:
    """JSON has only texts as names."""
    if not isinstance(biases, dict):
        return biases
    if (count := len(biases)) > MAX_LOGIT_BIASES:
        raise PydanticKnownError(
            "too_long", {"field_type": "Dictionary", "max_length": MAX_LOGIT_BIASES, "actual_length": count}
        )
    if not all(_TOKEN_ID_AS_NAME.fullmatch(name) and int(name) in TOKEN_IDS for name in biases):
        raise PydanticCustomError("token_id_names", "names")
    return {int(name): bias for name, bias in biases.items()}


class Resume(Strict):
    """The beginning of an answer that another server of the same model made to the same request."""

    model_config = ConfigDict(json_schema_extra=with_properties({}))

    token_ids: TokenIds = Field(
        min_length=1, max_length=MAX_RESUMED_TOKEN_IDS, description="Every id generated so far."
    )
    seed: int | None = Field(
        default=None,
        ge=INNER_RANGES["resume.seed"].low,
        le=INNER_RANGES["resume.seed"].high,
        description="The seed that the other server used; needed here or in seed where temperature is not 0.",
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, resume: object) -> object:
        return without_nothing(cls, resume)


_EXAMPLE: Any = {
    "messages": [{"role": "user", "content": "你好，介绍一下你自己"}],
    "temperature": 0.7,
    "top_p": 0.8,
    "max_tokens": 1024,
    "stream": False,
}
_STOP_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}
_STOP = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_STOP_CHARACTERS},
        {"type": "array", "items": _STOP_TEXT, "maxItems": MAX_STOP_TEXTS},
        {"type": "null"},
    ]
}
_LOGIT_BIAS = {
    "anyOf": [
        {
            "type": "object",
            "propertyNames": {"pattern": f"^({_TOKEN_ID_AS_NAME.pattern})$"},
            "additionalProperties": {
                "type": "number",
                "minimum": INNER_RANGES["logit_bias[]"].low,
                "maximum": INNER_RANGES["logit_bias[]"].high,
            },
            "maxProperties": MAX_LOGIT_BIASES,
        },
        {"type": "null"},
    ]
}


class ChatCompletionRequest(Strict):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(json_schema_extra=with_properties(schemas(NEUTRAL, WITHOUT_EFFECT), examples=[_EXAMPLE]))

    messages: Annotated[list[Message], FailFast()] = Field(
        description="The conversation, oldest first. The server's own setting may allow more or fewer.",
        json_schema_extra={"minItems": 1, "maxItems": 1024},
    )
    model: str | None = Field(default=None, description="Name of the model; left out, it is the served one.")
    temperature: float | None = _ranged("temperature", "0 always takes the likeliest token.")
    top_p: float | None = _ranged("top_p", "Keeps the likeliest tokens whose probabilities reach this sum.")
    top_k: int | None = _ranged("top_k", "Keeps this many of the likeliest tokens; 0 and -1 keep all.")
    seed: int | None = _ranged("seed", "Equal seeds give equal answers.")
    min_p: float | None = _ranged("min_p", "Leaves out tokens below this share of the likeliest one's probability.")
    presence_penalty: float | None = _ranged("presence_penalty", "Against tokens that the answer already has.")
    frequency_penalty: float | None = _ranged("frequency_penalty", "The same, for each time that it has them.")
    repetition_penalty: float | None = _ranged("repetition_penalty", "Above 1: against tokens of prompt and answer.")
    logit_bias: Annotated[dict[TokenId, Bias] | None, BeforeValidator(_by_token_id), WithJsonSchema(_LOGIT_BIAS)] = (
        Field(default=None, description=f"Is added to the logits of at most {MAX_LOGIT_BIASES} tokens, by their ids.")
    )
    max_tokens: int | None = _ranged("max_tokens", "Most tokens of the answer; -1 is no limit.")
    max_completion_tokens: int | None = Field(
        default=None, ge=RANGES["max_tokens"].low, le=RANGES["max_tokens"].high, description="The same as max_tokens."
    )
    min_tokens: int | None = _ranged("min_tokens", "Fewest tokens of the answer, not over max_tokens.")
    stop: Annotated[StopTexts | None, BeforeValidator(_one_as_list), WithJsonSchema(_STOP)] = Field(
        default=None,
        description=f"Texts that end the answer: one, or a list of at most {MAX_STOP_TEXTS}, "
        f"of 1 to {MAX_STOP_CHARACTERS} characters.",
    )
    stop_token_ids: TokenIds | None = Field(
        default=None, max_length=MAX_STOP_TOKEN_IDS, description="Tokens that end the answer beside the model's own."
    )
    ignore_eos: bool | None = Field(default=None, description="Generates on after the model's own end, to max_tokens.")
    return_token_ids: bool | None = Field(default=None, description="Adds the generated ids to the choices.")
    logprobs: bool | None = Field(default=None, description="Adds how likely each generated token was.")
    top_logprobs: int | None = _ranged("top_logprobs", "How many of the likeliest tokens logprobs also has.")
    resume: Resume | None = Field(default=None, description="Continues an answer that another server began.")
    stream: bool | None = Field(default=None, description="Sends the answer as server-sent events while it is made.")
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, description="Accepted, without effect.")
    metadata: dict[str, Any] | None = Field(default=None, description="Accepted, without effect.")
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="Accepted, without effect.")
    safety_identifier: str | None = Field(default=None, description="Accepted, without effect.")
    prompt_cache_key: str | None = Field(default=None, description="Accepted, without effect.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: object) -> object:
        require_neutral(body, NEUTRAL)
        return without_nothing(cls, body)

    @model_validator(mode="after")
    def _agree(self) -> "ChatCompletionRequest":
        """Refuses fields that contradict each other."""
        if self.stream_options and any(self.stream_options.model_dump().values()) and not self.stream:
            problem = "only with stream true"
            raise PydanticCustomError("unsupported", "conflict", {"field": "stream_options", "problem": problem})
        if None not in (both := (self.max_tokens, self.max_completion_tokens)) and len(set(both)) > 1:
            problem = "must equal max_tokens where both are set"
            raise PydanticCustomError("unsupported", "conflict", {"field": "max_completion_tokens", "problem": problem})
        return self
