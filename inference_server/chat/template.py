"""A checkpoint's tokenizer as its files have it, and its chat template. Knows no ids and no control tokens."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from inference_server.errors import StartupError, TemplateRefused

_log = logging.getLogger(__name__)
_FILE, _OLDER_FILES = "tokenizer.json", ("vocab.json", "merges.txt")
# What transformers' class for Qwen2 and Qwen3 takes for a token that tokenizer_config.json does not name.
_QWEN2_CLASSES = (None, "Qwen2Tokenizer", "Qwen2TokenizerFast")
_QWEN2_DEFAULT, _QWEN2_DEFAULTED = "<|endoftext|>", ("eos_token", "unk_token", "pad_token")


class ChatTemplate:
    """Renders conversations. Thread-safe: nothing changes after construction."""

    def __init__(self, checkpoint_dir: Path) -> None:
        """`tokenizer` and `end_token_id` are the checkpoint's, `literals` is the text that the template can write."""
        self._templater = _read_tokenizer(checkpoint_dir)
        self._templater.chat_template = _choose_template(self._templater.chat_template, checkpoint_dir)
        self.tokenizer: Tokenizer = self._templater.backend_tokenizer
        self.end_token_id: int | None = self._templater.eos_token_id
        try:
            tokens = list(jinja2.Environment().lexer.tokenize(self._templater.chat_template))
            self._render([{"role": "user", "content": "Hello"}])
        except Exception as error:  # whatever a broken template does
            if not _is_refusal(error):
                raise StartupError(f"{checkpoint_dir}: the chat template cannot be rendered: {error}") from error
        self.literals = "\0".join(str(token.value) for token in tokens if token.type in ("data", "string"))

    def render(self, turns: Sequence[Mapping[str, str]]) -> str:
        """The prompt's text, ending where the assistant's answer begins. Raises TemplateRefused."""
        try:
            return self._render(turns)
        except jinja2.TemplateError as error:
            if _is_refusal(error) or isinstance(error, jinja2.UndefinedError):  # undefined: not in this conversation
                raise TemplateRefused(str(error)) from error
            raise
        except (TypeError, ValueError, KeyError, ArithmeticError) as error:  # it has rendered another conversation
            _log.warning("the chat template cannot render a conversation", exc_info=error)
            raise TemplateRefused("the model's chat template cannot render this conversation") from error

    def _render(self, turns: Sequence[Mapping[str, str]]) -> str:
        conversation = [dict(turn) for turn in turns]
        return str(self._templater.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))


def _is_refusal(error: Exception) -> bool:
    """Whether the template itself called raise_exception(), which raises no subclass."""
    return type(error) is jinja2.TemplateError


def _read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that tokenizer.json describes.

    transformers' class for Qwen2 and Qwen3 would take only the vocabulary from that file and put rules of its own in
    the place of the file's. It is right for the two older files, which hold no rules.
    """
    has_file = (directory / _FILE).exists()
    if not has_file and not all((directory / name).exists() for name in _OLDER_FILES):
        raise StartupError(f"{directory}: no {_FILE} there, and not {' and '.join(_OLDER_FILES)} either")
    kind = PreTrainedTokenizerFast if has_file else Qwen2Tokenizer
    try:
        tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # a broken file raises many kinds in there
        name = _FILE if has_file else _OLDER_FILES[0]
        raise StartupError(f"{directory}/{name}: cannot be read as a tokenizer") from error
    config = _read_json(directory / "tokenizer_config.json") or {}
    if has_file and config.get("tokenizer_class") in _QWEN2_CLASSES and _QWEN2_DEFAULT in tokenizer.get_vocab():
        for name in _QWEN2_DEFAULTED:
            if name not in config and getattr(tokenizer, name) is None:
                setattr(tokenizer, name, _QWEN2_DEFAULT)
    return tokenizer


def _choose_template(found: Any, directory: Path) -> str:
    """The template for conversations without tools, from those that transformers found or from chat_template.json."""
    if not found:
        found = (_read_json(directory / "chat_template.json") or {}).get("chat_template")
    if isinstance(found, list):
        if not all(isinstance(one, dict) and {"name", "template"} <= one.keys() for one in found):
            raise StartupError(
                f"{directory}: chat_template: expected a text, or a list of objects with name and template"
            )
        found = {one["name"]: one["template"] for one in found}
    if isinstance(found, dict):
        if "default" not in found:
            names = ", ".join(sorted(found))
            raise StartupError(f"{directory}: expected a chat template named default, got {names}")
        found = found["default"]
    if not found:
        raise StartupError(f"{directory}: the tokenizer has no chat template")
    return str(found)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StartupError(f"{path}: not valid JSON") from error
    if not isinstance(content, dict):
        raise StartupError(f"{path}: expected a JSON object")
    return content
