"""Messages to prompt token ids, by the checkpoint's own tokenizer and chat template.

What a sender writes stays text: only the template can bring control tokens into a prompt.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from inference_server.chat.types import Message, Role
from inference_server.errors import StartupError

_NONCHARACTER = "\ufdd0"  # Unicode reserves it for a program's own use


class PromptEncoder:
    """Encodes conversations. Thread-safe: nothing changes after construction."""

    def __init__(self, checkpoint_dir: Path) -> None:
        if not (checkpoint_dir / "tokenizer.json").exists():  # transformers would go on with an empty one
            raise StartupError(f"{checkpoint_dir}: no tokenizer.json there")
        try:
            self._templater = AutoTokenizer.from_pretrained(checkpoint_dir, local_files_only=True)
        except Exception as error:  # a broken file raises many kinds in there
            raise StartupError(f"{checkpoint_dir}/tokenizer.json: cannot be read as a tokenizer") from error
        if not self._templater.chat_template:
            raise StartupError(f"{checkpoint_dir}: the tokenizer has no chat template")
        self.tokenizer: Tokenizer = self._templater.backend_tokenizer
        self.end_token_id: int | None = self._templater.eos_token_id
        added = self.tokenizer.get_added_tokens_decoder()  # id -> AddedToken
        self._control_ids = {token.content: token_id for token_id, token in added.items()}
        longest_first = sorted(self._control_ids, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)))
        self._text_tokenizer = _without_added_tokens(self.tokenizer)
        try:
            self.encode([Message(Role.USER, "")])
        except Exception as error:  # whatever a broken template does
            raise StartupError(f"{checkpoint_dir}: the chat template cannot be rendered") from error

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt's token ids, ending where the assistant's answer begins.

        The template is rendered with every control token in the messages cut in two by a marker. Then the rendering
        is split at the control tokens that are left, the template's own, and each run between two of them is
        tokenised whole with the marker taken out: ordinary conversations give the ids that the template gives.
        """
        marker = _absent_marker(message.content for message in messages)
        turns = [{"role": m.role.value, "content": self._cut_control_tokens(m.content, marker)} for m in messages]
        rendered = str(self._templater.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        token_ids: list[int] = []
        start = 0
        for control in self._control.finditer(rendered):
            token_ids += self._encode_text(rendered[start : control.start()].replace(marker, ""))
            token_ids.append(self._control_ids[control.group()])
            start = control.end()
        return token_ids + self._encode_text(rendered[start:].replace(marker, ""))

    def _cut_control_tokens(self, text: str, marker: str) -> str:
        return self._control.sub(lambda control: control.group()[0] + marker + control.group()[1:], text)

    def _encode_text(self, text: str) -> list[int]:
        # the batch call lets other threads run meanwhile, the single one holds Python's lock for seconds on long text
        [encoding] = self._text_tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """One over the same model that knows no control tokens: what looks like one is text. Nor does it cut or pad."""
    plain = Tokenizer(tokenizer.model)
    if tokenizer.normalizer is not None:
        plain.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        plain.pre_tokenizer = tokenizer.pre_tokenizer
    return plain


def _absent_marker(texts: Iterable[str]) -> str:
    """A string that is in none of the texts: one noncharacter more than their longest run of it."""
    runs = (run for text in texts for run in re.findall(f"{_NONCHARACTER}+", text))
    return _NONCHARACTER * (1 + max(map(len, runs), default=0))
