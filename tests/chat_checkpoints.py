"""Tokenizers as checkpoints bring them: the demo's with another template, with added tokens, or in older files."""

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from inference_server.chat.types import Message
from inference_server.demo_model import CHECKPOINT_DIR

_TEMPLATES = Path(__file__).parent / "chat_templates"
TEMPLATES = {path.stem: path.read_text() for path in sorted(_TEMPLATES.glob("*.jinja"))}


def write_tokenizer(
    directory: Path, template: str | None, *, added: tuple[AddedToken | str, ...] = (), **config: Any
) -> Path:
    """Writes the demo's tokenizer with this template, these added tokens and these fields of its configuration."""
    tokenizer = Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json"))
    for token in added:
        tokenizer.add_tokens([token])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    found = json.loads((CHECKPOINT_DIR / "tokenizer_config.json").read_text())
    found.pop("added_tokens_decoder")  # tokenizer.json has them
    found.pop("chat_template")
    found |= ({"chat_template": template} if template else {}) | config
    (directory / "tokenizer_config.json").write_text(json.dumps(found))
    shutil.copy(CHECKPOINT_DIR / "config.json", directory)
    return directory


def reference(directory: Path) -> PreTrainedTokenizerBase:
    """transformers' tokenizer of a checkpoint."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory)
    return tokenizer


def by_transformers(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """The ids that transformers gives a conversation."""
    turns = [
        {"role": one.role.value, "content": one.content} | ({"name": one.name} if one.name else {}) for one in messages
    ]
    return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
