"""The demo model asked many questions at once through transformers, the reference implementation."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3ForCausalLM

from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.types import Message, Role
from inference_server.demo_model import CHECKPOINT_DIR

Dialogue = list[tuple[str, str]]
"""Roles and texts, in the order of the conversation."""

LONGEST_ANSWER_TOKENS = 200
GREEDY: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
DEFAULT_SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
HOTTEST: dict[str, Any] = {"do_sample": True, "temperature": 1.5, "top_p": 1.0, "top_k": 0}
# A batch is padded to its longest prompt.
_BATCH_TOKENS, _BATCH_ROWS = 32_768, 256


@dataclass(frozen=True)
class Answer:
    """Control tokens are in the text. ended: whether the model itself ended it."""

    text: str
    token_count: int
    ended: bool


class DemoAsker:
    """Answers prompts in batches of similar length."""

    def __init__(self, checkpoint_dir: Path = CHECKPOINT_DIR) -> None:
        self.encoder = PromptEncoder(checkpoint_dir)
        self._model: Any = Qwen3ForCausalLM.from_pretrained(checkpoint_dir, dtype=torch.float32).eval()
        self._end, self._pad = (self.encoder.tokenizer.token_to_id(f"<|{name}|>") for name in ("im_end", "endoftext"))

    def prompt(self, dialogue: Iterable[tuple[str, str]]) -> list[int]:
        """The token ids of a conversation without tools."""
        return self.encoder.encode([Message(Role(role), text) for role, text in dialogue])

    def answers(self, prompts: Sequence[list[int]], seed: int = 0, **sampling: Any) -> list[Answer]:
        """One answer for each prompt, greedily unless told otherwise."""
        torch.manual_seed(seed)
        found: dict[int, Answer] = {}
        for places in _batches([len(prompt) for prompt in prompts]):
            found |= dict(zip(places, self._batch([prompts[at] for at in places], GREEDY | sampling), strict=True))
        return [found[at] for at in range(len(prompts))]

    def _batch(self, prompts: list[list[int]], sampling: dict[str, Any]) -> list[Answer]:
        width = max(map(len, prompts))
        rows = torch.tensor([[self._pad] * (width - len(prompt)) + prompt for prompt in prompts])  # [B, T]
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=rows, attention_mask=mask, max_new_tokens=LONGEST_ANSWER_TOKENS, **sampling
            )
        return [self._answer(row) for row in output[:, width:].tolist()]

    def _answer(self, token_ids: list[int]) -> Answer:
        ends = [at for at, token_id in enumerate(token_ids) if token_id in (self._end, self._pad)]
        said = token_ids[: ends[0]] if ends else token_ids
        return Answer(self.encoder.tokenizer.decode(said, skip_special_tokens=False), len(said), bool(ends))


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    places: list[int] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if places and (len(places) >= _BATCH_ROWS or (len(places) + 1) * lengths[at] > _BATCH_TOKENS):
            yield places
            places = []
        places.append(at)
    yield places
