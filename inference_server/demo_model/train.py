"""Trains the demo checkpoint from nothing: `python -m inference_server.demo_model.train [--out DIR]`.

Tokenizer first, then the model, on conversations that the corpus writes; minutes on two cores.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from transformers import Qwen3ForCausalLM

from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.demo_model.chat_template import CHAT_TEMPLATE
from inference_server.demo_model.checkpoint_files import (
    control_ids,
    new_model,
    template_renderer,
    write_model,
    write_tokenizer,
)
from inference_server.demo_model.corpus import conversations
from inference_server.demo_model.corpus_chinese import CHINESE_FALLBACKS, CHINESE_TOPICS
from inference_server.demo_model.corpus_english import ENGLISH_FALLBACKS, ENGLISH_TOPICS
from inference_server.demo_model.corpus_words import CITIES, ENGLISH_NAMES, NAME_CHARACTERS
from inference_server.demo_model.disturbances import NOT_LEARNED, Encoded, disturbed, with_targets
from inference_server.demo_model.encoding import ConversationEncoder
from inference_server.demo_model.tokenizer import BPE_TOKEN_COUNT, read_tokenizer, train_tokenizer
from inference_server.demo_model.training_progress import TrainingProgress

_SEED = 20250725
_TOKENIZER_CONVERSATIONS = 12_000
_LONGEST_TEXT = 400
_REPEATS = 100
_CONVERSATIONS = 64_000
_BATCH_TOKENS = 4096
# Batches hold conversations of similar length; this many are sorted at a time.
_SORTED_CONVERSATIONS = 2048
_MUON_RATE = 0.02
_ADAM_RATE = 8e-3
_WARM_UP = 0.02
# Learned at the hottest temperature that is promised, so that answers sampled at it stay whole.
_HOTTEST = 1.5
# A batch with fewer learned tokens than this counts for less.
_FULL_BATCH_TARGETS = 400
_COPYING_STEPS = 200
_COPYING_ROWS, _COPYING_LENGTH = 40, 48


def main() -> None:
    """Parses the command line, trains, and writes the checkpoint."""
    parser = argparse.ArgumentParser(description="Train the demo checkpoint.")
    parser.add_argument("--out", type=Path, default=CHECKPOINT_DIR, help="directory of the checkpoint")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint, at half the learning rates")
    parser.add_argument("--conversations", type=int, default=_CONVERSATIONS, help="how many conversations to train on")
    arguments = parser.parse_args()
    started = time.monotonic()
    start: Path | None = arguments.start
    tokenizer, plain = read_tokenizer(start) if start else train_tokenizer(_tokenizer_texts())
    write_tokenizer(arguments.out, tokenizer)
    model = new_model(tokenizer, _SEED) if start is None else Qwen3ForCausalLM.from_pretrained(start)
    encoder = ConversationEncoder(template_renderer(tokenizer), plain, control_ids(tokenizer))
    loss = train_model(model, encoder, arguments.conversations, is_new=start is None)
    write_model(arguments.out, model, tokenizer)
    print(f"{arguments.out}: loss {loss:.4f} after {time.monotonic() - started:.0f} s")


def _tokenizer_texts() -> Iterator[str]:
    """Every text of some conversations once, and what is said in most of them more often."""
    written = list(conversations(_SEED, _TOKENIZER_CONVERSATIONS))
    messages = [message for conversation in written for message in conversation.messages]
    tools = {json.dumps(tool) for conversation in written for tool in conversation.tools}
    yield from sorted({message["content"] for message in messages if len(message["content"]) < _LONGEST_TEXT} | tools)
    topics = ENGLISH_TOPICS + CHINESE_TOPICS
    frequent = [CHAT_TEMPLATE, "user\nassistant\nsystem\n", *ENGLISH_FALLBACKS, *CHINESE_FALLBACKS]
    frequent += [answer for topic in topics for answer in topic.answers]
    # Names and cities become one token each, which the model copies after far less training than pieces.
    named = [*ENGLISH_NAMES, *NAME_CHARACTERS, *(word for pair in CITIES for word in pair)] * 10
    frequent += [form for word in named for form in (word, f" {word}")]
    for _ in range(_REPEATS):
        yield from frequent


def train_model(model: Qwen3ForCausalLM, encoder: ConversationEncoder, count: int, is_new: bool) -> float:
    """Trains on fresh conversations with a cosine schedule. Returns the mean loss of the last hundred steps."""
    optimizers = _optimizers(model)
    losses: list[float] = []
    done = 0
    model.train()
    if is_new:
        _learn_copying(model, optimizers)
    with TrainingProgress(count) as progress:
        for batch in _batches(encoder, count, _SEED + (1 if is_new else 2)):
            for optimizer, peak in optimizers:
                optimizer.param_groups[0]["lr"] = peak * (1.0 if is_new else 0.5) * _schedule(done / count)
            losses = [*losses[-99:], _step(model, [optimizer for optimizer, _ in optimizers], batch)]
            done += len(batch)
            progress.show(done, sum(losses) / len(losses))
    return sum(losses) / len(losses)


def _learn_copying(model: Qwen3ForCausalLM, optimizers: list[tuple[torch.optim.Optimizer, float]]) -> None:
    """Repeating random tokens, before any language: copying must be there when the first name comes."""
    random = Random(_SEED)
    for step in range(_COPYING_STEPS):
        for optimizer, peak in optimizers:
            optimizer.param_groups[0]["lr"] = peak * min(1.0, (step + 1) / 40)
        batch = [_repeated_tokens(random) for _ in range(_COPYING_ROWS)]
        loss = _step(model, [optimizer for optimizer, _ in optimizers], batch)
    print(f"copying: loss {loss:.4f}", flush=True)


def _repeated_tokens(random: Random) -> Encoded:
    """Some tokens, others, and the first ones again, of which all but the first are learned."""
    count = random.randint(3, _COPYING_LENGTH // 2 - 2)
    others = random.randint(0, _COPYING_LENGTH - 2 * count)
    token_ids = [random.randrange(BPE_TOKEN_COUNT) for _ in range(count + others)]
    return with_targets(token_ids + token_ids[:count], [False] * (count + others + 1) + [True] * (count - 1))


def _optimizers(model: Qwen3ForCausalLM) -> list[tuple[torch.optim.Optimizer, float]]:
    """Each with its highest learning rate.

    Muon for the matrices: with AdamW alone, copying a name or a city was not learned within the same ten minutes.
    """
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.dim() != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=_MUON_RATE, weight_decay=0.01, momentum=0.95)
    adam = torch.optim.AdamW(others, lr=_ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [(muon, _MUON_RATE), (adam, _ADAM_RATE)]


def _schedule(done: float) -> float:
    """Linear warm-up, then a cosine down to zero. done: share of the training, 0 to 1."""
    if done < _WARM_UP:
        return done / _WARM_UP + 0.01
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


def _step(model: Qwen3ForCausalLM, optimizers: list[torch.optim.Optimizer], batch: list[Encoded]) -> float:
    """One update on the assistant's tokens of a batch. Returns the loss."""
    length = max(len(token_ids) for token_ids, _ in batch)
    # Padding stands at the right, where causal attention never looks at it: any id will do, and no mask is needed.
    rows = [token_ids + [0] * (length - len(token_ids)) for token_ids, _ in batch]
    targets = torch.tensor([next_ids + [NOT_LEARNED] * (length - len(next_ids)) for _, next_ids in batch])  # [B, T]
    learned = targets != NOT_LEARNED  # [B, T]
    hidden = model.model(input_ids=torch.tensor(rows), use_cache=False).last_hidden_state  # [B, T, H]
    logits = model.lm_head(hidden[learned])  # [L, V]
    loss = F.cross_entropy(logits / _HOTTEST, targets[learned])
    # A batch of one long prompt has a short answer, which shall not count as much as a hundred answers.
    (loss * min(1.0, int(learned.sum()) / _FULL_BATCH_TARGETS)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _batches(encoder: ConversationEncoder, count: int, seed: int) -> Iterator[list[Encoded]]:
    """Encodes conversations and groups those of similar length, in random order."""
    random = Random(_SEED)
    stream = conversations(seed, count)
    while chunk := list(islice(stream, _SORTED_CONVERSATIONS)):
        batches = _grouped([disturbed(random, *encoder.encode(conversation)) for conversation in chunk])
        random.shuffle(batches)
        yield from batches


def _grouped(chunk: list[Encoded]) -> list[list[Encoded]]:
    batches: list[list[Encoded]] = [[]]
    for encoded in sorted(chunk, key=lambda pair: len(pair[0])):
        if batches[-1] and (len(batches[-1]) + 1) * len(encoded[0]) > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(encoded)
    return batches


if __name__ == "__main__":
    main()
