"""Turns conversations into token ids and says which of them the model learns to produce."""

import re

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from inference_server.demo_model.corpus_types import Conversation
from inference_server.demo_model.tokenizer import CONTROL_TOKENS

# Cuts control tokens that a user typed, while the template is rendered; a private character that no text has.
_MARKER = "\ue000"


class ConversationEncoder:
    """Renders with the checkpoint's chat template; a user's text never becomes control tokens."""

    def __init__(self, templated: PreTrainedTokenizerBase, plain: Tokenizer, control_ids: dict[str, int]) -> None:
        self._templated = templated
        self._plain = plain
        self._control_ids = control_ids
        self._control = re.compile("(" + "|".join(map(re.escape, CONTROL_TOKENS)) + ")")
        self._end_id = control_ids["<|im_end|>"]
        self._header = self._token_ids("<|im_start|>assistant\n")

    def encode(self, conversation: Conversation) -> tuple[list[int], list[bool]]:
        """Returns the token ids, and for each whether an assistant says it (its final `<|im_end|>` included)."""
        messages = [
            message | {"content": self._control.sub(_cut, message["content"])} if message["role"] == "user" else message
            for message in conversation.messages
        ]
        tools = [dict(tool) for tool in conversation.tools] or None
        rendered = self._templated.apply_chat_template(messages, tools=tools, tokenize=False)  # type: ignore[arg-type]
        token_ids = self._token_ids(str(rendered))
        return token_ids, self._spoken(token_ids)

    def _token_ids(self, rendered: str) -> list[int]:
        token_ids: list[int] = []
        for at, run in enumerate(self._control.split(rendered)):
            text = run.replace(_MARKER, "")
            token_ids += [self._control_ids[run]] if at % 2 else self._plain.encode(text).ids
        return token_ids

    def _spoken(self, token_ids: list[int]) -> list[bool]:
        spoken = [False] * len(token_ids)
        header = self._header
        speaking = False
        for at, token_id in enumerate(token_ids):
            spoken[at] = speaking
            if speaking:
                speaking = token_id != self._end_id
            else:
                speaking = token_id == header[-1] and token_ids[max(at + 1 - len(header), 0) : at + 1] == header
        return spoken


def _cut(control: re.Match[str]) -> str:
    return control.group()[0] + _MARKER + control.group()[1:]
