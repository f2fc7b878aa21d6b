"""The JSON contract: what a request may say, what answers look like. OpenAI's, and a few fields more."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, FailFast, Field, Tag, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from protos.chat.v1.ranges import MAX_STOP_CHARACTERS, MAX_STOP_TEXTS, RANGES

# Fields of OpenAI's API that this service does not have, with the values that ask for nothing.
_UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    "audio": (None,), "frequency_penalty": (None, 0), "function_call": (None,), "functions": (None,),
    "logit_bias": (None, {}), "logprobs": (None, False), "min_p": (None, 0), "min_tokens": (None, 0),
    "modalities": (None, ["text"]), "moderation": (None,), "n": (None, 1), "parallel_tool_calls": (None, True),
    "prediction": (None,), "presence_penalty": (None, 0), "prompt_cache_retention": (None,),
    "reasoning_effort": (None,), "repetition_penalty": (None, 1), "response_format": (None, {"type": "text"}),
    "store": (None, False), "tool_choice": (None, "none", "auto"), "tools": (None, []), "top_logprobs": (None,),
    "verbosity": (None,), "web_search_options": (None,),
}  # fmt: skip


class _Strict(BaseModel):
    """No conversions, no unknown fields, no infinite numbers."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def _ranged(name: str, description: str) -> Any:
    return Field(default=None, ge=RANGES[name].low, le=RANGES[name].high, description=description)


class TextPart(_Strict):
    """A piece of a message's text."""

    type: Literal["text"]
    text: str


def _content_kind(content: object) -> str:
    return "<parts>" if isinstance(content, list) else "<text>"  # errors.py leaves these out


TextParts = TypeAliasType("TextParts", Annotated[list[TextPart], FailFast()])
StopTexts = TypeAliasType("StopTexts", Annotated[list[str], FailFast()])


# What OpenAI's SDK writes into an answer's message, and users send back with it, where there is nothing to say.
_UNSET_IN_MESSAGES: Final = ("annotations", "audio", "function_call", "name", "refusal", "tool_calls", "tool_call_id")


class Message(_Strict):
    """One turn of the conversation."""

    role: Literal["system", "user", "assistant", "tool"] = Field(description="Who speaks.")
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[TextParts, Tag("<parts>")],
        Discriminator(_content_kind),
    ] = Field(description="What is said: text, or text parts that are joined with nothing between.")

    @model_validator(mode="before")
    @classmethod
    def _drop_unset(cls, message: object) -> object:
        if not isinstance(message, dict):
            return message
        return {name: value for name, value in message.items() if value is not None or name not in _UNSET_IN_MESSAGES}


class StreamOptions(_Strict):
    """How to stream."""

    include_usage: bool | None = Field(default=None, description="Adds a last event that has the token counts.")
    include_obfuscation: Literal[False] | None = Field(default=None, description="Not supported.")


def _one_as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ChatCompletionRequest(_Strict):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "messages": [{"role": "user", "content": "你好，介绍一下你自己"}],
                    "temperature": 0.7,
                    "top_p": 0.8,
                    "max_tokens": 1024,
                    "stream": False,
                }
            ]
        }
    )

    messages: Annotated[list[Message], FailFast()] = Field(description="The conversation, oldest first.")
    model: str | None = Field(default=None, description="Name of the model; left out, it is the served one.")
    temperature: float | None = _ranged("temperature", "0 always takes the likeliest token.")
    top_p: float | None = _ranged("top_p", "Keeps the likeliest tokens whose probabilities reach this sum.")
    top_k: int | None = _ranged("top_k", "Keeps this many of the likeliest tokens; 0 and -1 keep all.")
    seed: int | None = _ranged("seed", "Equal seeds give equal answers.")
    max_tokens: int | None = _ranged("max_tokens", "Most tokens of the answer.")
    max_completion_tokens: int | None = Field(
        default=None, ge=RANGES["max_tokens"].low, le=RANGES["max_tokens"].high, description="The same as max_tokens."
    )
    stop: Annotated[StopTexts | None, BeforeValidator(_one_as_list)] = Field(
        default=None,
        description=f"Texts that end the answer: one, or a list of at most {MAX_STOP_TEXTS}, "
        f"of 1 to {MAX_STOP_CHARACTERS} characters.",
    )
    ignore_eos: bool | None = Field(default=None, description="Generates on after the model's own end, to max_tokens.")
    return_token_ids: bool | None = Field(default=None, description="Adds the generated ids to the choices.")
    stream: bool | None = Field(default=None, description="Sends the answer as server-sent events while it is made.")
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, description="Accepted, without effect.")
    metadata: dict[str, str] | None = Field(default=None, description="Accepted, without effect.")
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="Accepted, without effect.")
    safety_identifier: str | None = Field(default=None, description="Accepted, without effect.")
    prompt_cache_key: str | None = Field(default=None, description="Accepted, without effect.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: object) -> object:
        """Names what is not supported; a value that asks for nothing is as good as none."""
        if not isinstance(body, dict):
            return body
        for field in (field for field in _UNSUPPORTED if field in body):
            asked = body[field]
            if not any(
                asked == value and isinstance(asked, bool) == isinstance(value, bool) for value in _UNSUPPORTED[field]
            ):
                raise PydanticCustomError("unsupported", "unsupported", {"field": field, "problem": "not supported"})
        return {field: value for field, value in body.items() if field not in _UNSUPPORTED}

    @model_validator(mode="after")
    def _agree(self) -> "ChatCompletionRequest":
        """Refuses fields that contradict each other."""
        if self.stream_options is not None and not self.stream:
            problem = "only with stream true"
            raise PydanticCustomError("unsupported", "conflict", {"field": "stream_options", "problem": problem})
        if None not in (both := (self.max_tokens, self.max_completion_tokens)) and len(set(both)) > 1:
            problem = "must equal max_tokens where both are set"
            raise PydanticCustomError("unsupported", "conflict", {"field": "max_completion_tokens", "problem": problem})
        return self


class Usage(BaseModel):
    """Token counts."""

    prompt_tokens: int = Field(description="Tokens of the prompt as the model saw it.")
    completion_tokens: int = Field(description="Generated tokens, a final end token included.")
    total_tokens: int = Field(description="Sum of both.")


class Timings(BaseModel):
    """Where the time went inside the server."""

    queue_ms: float
    prefill_ms: float
    time_to_first_token_ms: float
    decode_ms: float
    tokens_per_second: float


class AnswerMessage(BaseModel):
    """The answer's turn."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None
    token_ids: list[int] | None = Field(default=None, description="Where return_token_ids asks for them.")


_ANSWER: Final[dict[str, Any]] = {
    "id": "chatcmpl-6450c89ded9b463d957f76a5189d67d6",
    "object": "chat.completion",
    "created": 1795438924,
    "model": "Qwen3-4B-Instruct-2507",
    "response": "你好！我是 Qwen3。",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "你好！我是 Qwen3。"},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 13, "completion_tokens": 8, "total_tokens": 21},
    "seed": 6252585028277354,
    "timings": {
        "queue_ms": 0.573,
        "prefill_ms": 6.994,
        "time_to_first_token_ms": 7.567,
        "decode_ms": 150.388,
        "tokens_per_second": 46.546,
    },
}


class ChatCompletion(BaseModel):
    """OpenAI's chat completion, and `response`: the first choice's text."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ANSWER]})

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    response: str
    choices: list[Choice]
    usage: Usage
    seed: int
    timings: Timings


class Health(BaseModel):
    """Whether the service can answer."""

    status: Literal["ok", "loading", "draining", "unavailable"]
    model: str | None = None
    notice: str | None = Field(default=None, description="What a person should know about this model.")
    progress: int | None = Field(default=None, description="How much of the model is loaded, 0 to 100.")


class ModelCard(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "local"
    max_model_len: int = Field(description="Most tokens of prompt and answer together; 0 while the model loads.")


class ModelList(BaseModel):
    """What is served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every error's body."""

    error: ErrorDetail
