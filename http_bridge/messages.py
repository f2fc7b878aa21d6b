"""The messages of the JSON contract's request, and what all of its objects have in common. schemas.py has the rest."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, FailFast, Field, Tag, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from http_bridge.foreign_fields import (
    NEUTRAL_IN_MESSAGES,
    WITHOUT_EFFECT_IN_MESSAGES,
    WITHOUT_EFFECT_IN_PARTS,
    refusals,
    schemas,
)
from http_bridge.neutral_values import Values, own_is_left_out, own_schema
from protos.chat.v1.ranges import MAX_NAME_CHARACTERS


class Strict(BaseModel):
    """No conversions, no infinite numbers. Unknown fields are ignored here and told of by ignored_fields.py."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def with_properties(properties: dict[str, Any], **more: Any) -> Callable[[dict[str, Any]], None]:
    """Adds to a model's JSON schema, and to its optional fields the values that ask for nothing."""

    def add(schema: dict[str, Any]) -> None:
        for name, described in schema["properties"].items():
            if {"type": "null"} in (kinds := described.get("anyOf", [])):
                kinds[kinds.index({"type": "null"})] = own_schema(name)
        schema["properties"] |= properties
        schema |= more

    return add


def require_neutral(fields: object, neutral: Mapping[str, Values]) -> None:
    """Names what is not supported; a value that asks for nothing is as good as none."""
    for field, problem in refusals(fields, neutral) if isinstance(fields, dict) else ():
        raise PydanticCustomError("unsupported", "unsupported", {"field": field, "problem": problem})


def without_nothing(model: type[BaseModel], fields: object) -> object:
    """The fields without those optional ones of the model that ask for nothing."""
    if not isinstance(fields, dict):
        return fields
    optional = {name for name, field in model.model_fields.items() if not field.is_required()}
    return {name: value for name, value in fields.items() if not (name in optional and own_is_left_out(name, value))}


class TextPart(Strict):
    """A piece of a message's text."""

    model_config = ConfigDict(json_schema_extra=with_properties(schemas({}, WITHOUT_EFFECT_IN_PARTS)))

    type: Literal["text"]
    text: str


class RefusalPart(Strict):
    """A piece of an answer that was a refusal."""

    model_config = ConfigDict(json_schema_extra=with_properties(schemas({}, WITHOUT_EFFECT_IN_PARTS)))

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


# errors.py leaves these kinds out of a field's name
def _content_kind(content: object) -> str:
    return "<parts>" if isinstance(content, list) else "<text>"


def _part_kind(part: object) -> str:
    return "<refusal part>" if isinstance(part, dict) and part.get("type") == "refusal" else "<text part>"


Part = Annotated[
    Annotated[TextPart, Tag("<text part>")] | Annotated[RefusalPart, Tag("<refusal part>")],
    Discriminator(_part_kind),
]
Parts = TypeAliasType("Parts", Annotated[list[Part], Field(min_length=1), FailFast()])
_LOOKED_AT: Final = NEUTRAL_IN_MESSAGES.keys() | {"name", "refusal"}


class Message(Strict):
    """One turn of the conversation."""

    model_config = ConfigDict(
        json_schema_extra=with_properties(schemas(NEUTRAL_IN_MESSAGES, WITHOUT_EFFECT_IN_MESSAGES))
    )

    role: Literal["system", "user", "assistant", "tool", "developer"] = Field(
        description="Who speaks; developer is system."
    )
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[Parts, Tag("<parts>")],
        Discriminator(_content_kind),
    ] = Field(description="What is said: text, or parts of text or of a refusal that are joined with nothing between.")
    name: str | None = Field(
        default=None,
        description=f"Name of the speaker, at most {MAX_NAME_CHARACTERS} characters.",
        json_schema_extra={"maxLength": MAX_NAME_CHARACTERS},
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, message: object) -> object:
        """An answer that was a refusal has its words in `refusal`, and no content."""
        if not isinstance(message, dict) or message.keys().isdisjoint(_LOOKED_AT):  # there may be many
            return message
        require_neutral(message, NEUTRAL_IN_MESSAGES)
        if own_is_left_out("name", message.get("name")):
            message = message | {"name": None}
        if message.get("content") is None and message.get("role") == "assistant":
            refusal = message.get("refusal")
            return message | {"content": refusal} if refusal and isinstance(refusal, str) else message
        return message
