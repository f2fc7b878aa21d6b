"""Messages to prompt token ids, by the checkpoint's own tokenizer and chat template.

What a sender writes stays text: only the template can bring control tokens into a prompt, except those that
`control_tokens.py` allows in a role.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from inference_server.chat.added_tokens import AddedTokens
from inference_server.chat.control_tokens import ControlTokens
from inference_server.chat.template import ChatTemplate
from inference_server.chat.text_tokenizer import TextTokenizer
from inference_server.chat.types import Message, Role
from inference_server.errors import TemplateRefused

_Turns = list[dict[str, str]]


class PromptEncoder:
    """Encodes conversations. Thread-safe: nothing changes after construction."""

    def __init__(self, checkpoint_dir: Path) -> None:
        self._template = ChatTemplate(checkpoint_dir)
        self.tokenizer = self._template.tokenizer
        self.end_token_id = self._template.end_token_id
        added = self.tokenizer.get_added_tokens_decoder()  # id -> AddedToken
        self._control = ControlTokens(added.values(), self._template.literals)
        by_content = {token.content: (token_id, token) for token_id, token in added.items()}
        self._finder = AddedTokens({content: by_content[content] for content in self._control.contents})
        self._text_tokenizer = TextTokenizer(self.tokenizer, self._control.contents)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt's token ids, ending where the assistant's answer begins. Raises what `pieces` raises."""
        return [token_id for ids in self.pieces(messages) for token_id in ids]

    def pieces(self, messages: Sequence[Message]) -> Iterator[list[int]]:
        """Yield the prompt's token ids in lists to be joined, each made when it is asked for.

        The template is rendered, the rendering is split at the control tokens that it or a role may bring, and each run
        between two of them is tokenised whole: ordinary conversations give the ids that the template gives.
        Raises TemplateRefused, and InvalidField for text that cannot be tokenised in pieces.
        """
        marked = self._render(messages)
        text = self._control.unmask(marked)  # character by character: places in one are places in the other
        start = 0
        for span in self._finder.spans(marked):
            yield from self._text_tokenizer.encode(text[start : span.start])
            yield [span.token_id]
            start = span.stop
        yield from self._text_tokenizer.encode(text[start:])

    def _render(self, messages: Sequence[Message]) -> str:
        """The prompt's text, in which what looks like a control token and is text is masked.

        A rendering of what people wrote says what the prompt is, and one in which no control token can begin or end in
        a message says what is text. If they differ, the template's own logic reads the characters that were masked:
        then only whole control tokens are masked, provided that this brings no others than the template's.
        """
        written = _turns(messages, lambda text, role: text)
        edges_masked = _turns(messages, self._control.mask_edges)
        rendering = self._template.render(written)
        if edges_masked == written:
            return rendering
        safe = self._render_masked(edges_masked)
        if self._control.unmask(safe) == rendering:
            return safe
        tokens_masked = self._render_masked(_turns(messages, self._control.mask))
        return tokens_masked if self._control_ids(tokens_masked) == self._control_ids(safe) else safe

    def _render_masked(self, turns: _Turns) -> str:
        try:
            return self._template.render(turns)
        except TemplateRefused as error:  # its words may quote what is masked
            raise TemplateRefused(self._control.unmask(error.words)) from error

    def _control_ids(self, rendering: str) -> list[int]:
        return [span.token_id for span in self._finder.spans(rendering)]


def _turns(messages: Sequence[Message], change: Callable[[str, Role | None], str]) -> _Turns:
    """What the template sees. The keys are the template's names."""
    turns = []
    for message in messages:
        turn = {"role": message.role.value, "content": change(message.content, message.role)}
        if message.name:
            turn["name"] = change(message.name, None)
        turns.append(turn)
    return turns
