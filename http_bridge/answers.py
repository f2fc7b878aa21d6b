"""The JSON contract's answers: OpenAI's, and a few fields more. FastAPI documents them; translate.py makes them."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field


class PromptTokensDetails(BaseModel):
    """What became of the prompt's tokens."""

    cached_tokens: int = Field(description="Tokens of the prompt that came from the cache.")


class Usage(BaseModel):
    """Token counts."""

    prompt_tokens: int = Field(description="Tokens of the prompt as the model saw it.")
    completion_tokens: int = Field(description="Generated tokens, a final end token and resumed ones included.")
    total_tokens: int = Field(description="Sum of both.")
    prompt_tokens_details: PromptTokensDetails


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
    refusal: None = Field(description="Always null.")


class TopLogprob(BaseModel):
    """One of the likeliest tokens in a place."""

    token: str = Field(description="The token's text; a special token's name.")
    logprob: float = Field(description="Of the raw log-softmax; -9999.0 stands for anything below it.")
    bytes: list[int] = Field(description="The token's bytes, which may be a part of a character.")


class TokenLogprob(TopLogprob):
    """How likely a generated token was."""

    top_logprobs: list[TopLogprob] = Field(description="The likeliest tokens in its place, likeliest first.")


class ChoiceLogprobs(BaseModel):
    """How likely the generated tokens were."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: ChoiceLogprobs | None = Field(description="Where logprobs asks for them.")
    token_ids: list[int] | None = Field(default=None, description="Where return_token_ids asks for them.")


ANSWER: Final[dict[str, Any]] = {
    "id": "chatcmpl-6450c89ded9b463d957f76a5189d67d6",
    "object": "chat.completion",
    "created": 1795438924,
    "model": "Qwen3-4B-Instruct-2507",
    "response": "你好！我是 Qwen3。",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "你好！我是 Qwen3。", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {
        "prompt_tokens": 13,
        "completion_tokens": 8,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
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

    model_config = ConfigDict(json_schema_extra={"examples": [ANSWER]})

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
