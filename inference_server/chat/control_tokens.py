"""Which added tokens control the model, and where the text of a message may bring them.

Control tokens are: special tokens; Qwen's own; all of the form `<|...|>`; bracketed ones that the chat template names.
The text of a message brings none of them, with two exceptions. Qwen's tags (`<think>`, `<tool_call>`) that are not
special are tokens in system and assistant turns. `<tool_response>` is one around a whole user turn.

All others are masked: each character is replaced by a surrogate, which no valid text holds, so that nothing around it
makes a token of it again. Knows no template and no ids.
"""

import re
from collections.abc import Callable, Iterable

from tokenizers import AddedToken

from inference_server.chat.added_tokens import any_of
from inference_server.chat.types import Role
from inference_server.errors import StartupError

_SURROGATES = range(0xD800, 0xE000)
_OPEN_RESPONSE, _CLOSE_RESPONSE = "<tool_response>", "</tool_response>"
_TAGS = ("<tool_call>", "</tool_call>", _OPEN_RESPONSE, _CLOSE_RESPONSE, "<think>", "</think>")
# What Qwen3 comes with and does not flag as special. Its templates do not name all of it.
_QWEN_CONTROL = frozenset(
    [*_TAGS]
    + [f"<|{name}|>" for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")]
)
_MARKER = re.compile(r"<\|.*\|>", re.DOTALL)
_BRACKETED = re.compile(r"<.*>|\[.*\]|\{.*\}", re.DOTALL)
_TRUSTED_ROLES = (Role.SYSTEM, Role.ASSISTANT)  # written by the application and by the model


class ControlTokens:
    """The control tokens among a tokenizer's added tokens. Nothing changes after construction."""

    def __init__(self, added: Iterable[AddedToken], template_literals: str) -> None:
        """template_literals: the text that the template itself can write."""
        tokens = {token.content: token for token in added if _is_control(token, template_literals)}
        self.contents = frozenset(tokens)
        characters = sorted(set("".join(tokens)))
        if len(characters) > len(_SURROGATES):
            raise StartupError(f"the tokenizer's control tokens have more than {len(_SURROGATES)} different characters")
        self._masks = {one: chr(code) for one, code in zip(characters, _SURROGATES, strict=False)}
        self._characters = {mask: one for one, mask in self._masks.items()}
        self._masked = {content: "".join(self._masks[one] for one in content) for content in tokens}
        self._control = re.compile(any_of(tokens))
        self._edges = sorted({one for content in tokens for one in (content[0], content[-1])})
        tags = [content for content, token in tokens.items() if not token.special and content in _TAGS]
        self._tags = re.compile(f"({any_of(tags)})")
        self._response = _response_pattern() if {_OPEN_RESPONSE, _CLOSE_RESPONSE} <= set(tags) else None

    def mask(self, text: str, role: Role | None) -> str:
        """Replace each control token that a text of this role may not bring. Role None may bring none."""
        return self._outside_allowed(text, role, self._mask_tokens)

    def mask_edges(self, text: str, role: Role | None) -> str:
        """Replace each character with which a control token begins or ends, except in the tokens that are allowed.

        No control token can begin or end in such a text, however the template cuts it and what it puts beside it.
        """
        return self._outside_allowed(text, role, self._mask_edges)

    def unmask(self, text: str) -> str:
        """Return the text with each surrogate replaced by the character that it stands for."""
        for mask, one in self._characters.items():  # linear in C, however many there are in the text
            text = text.replace(mask, one)
        return text

    def _outside_allowed(self, text: str, role: Role | None, change: Callable[[str], str]) -> str:
        if (allowed := self._allowed(text, role)) is None:
            return change(text)
        parts = allowed.split(text)  # what is allowed has the odd places
        parts[::2] = map(change, parts[::2])
        return "".join(parts)

    def _allowed(self, text: str, role: Role | None) -> re.Pattern[str] | None:
        if role in _TRUSTED_ROLES:
            return self._tags
        if role is Role.USER and self._response:
            stripped = text.strip()
            if stripped.startswith(_OPEN_RESPONSE) and stripped.endswith(_CLOSE_RESPONSE):
                return self._response
        return None

    def _mask_tokens(self, text: str) -> str:
        return self._control.sub(lambda match: self._masked[match.group()], text)

    def _mask_edges(self, text: str) -> str:
        for one in self._edges:
            text = text.replace(one, self._masks[one])
        return text


def _is_control(token: AddedToken, template_literals: str) -> bool:
    """A marker such as `<|user|>` is one even if the template puts its name together; other brackets if it is named."""
    content = token.content
    if token.special or content in _QWEN_CONTROL or _MARKER.fullmatch(content):
        return bool(content)
    return content in template_literals and bool(_BRACKETED.fullmatch(content))


def _response_pattern() -> re.Pattern[str]:
    """The tags of a user turn that is one tool response or several, as templates write them. No tag inside of one."""
    start, between = rf"\A\s*{_OPEN_RESPONSE}", rf"{_CLOSE_RESPONSE}\s*{_OPEN_RESPONSE}"
    return re.compile(rf"({start}|{between}|{_CLOSE_RESPONSE}\s*\Z)")
