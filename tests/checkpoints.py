"""Small random Qwen3 checkpoints, written as transformers writes them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.engine.model_loader import LoadedModel, build_model, module_places, read_weights


@dataclass(frozen=True)
class Shape:
    """What tells checkpoints apart. The head size is not the hidden size over the heads."""

    layers: int = 3
    hidden: int = 48
    heads: int = 6
    key_value_heads: int = 2
    head_size: int = 16
    intermediate: int = 80
    tied: bool = True
    shards: int = 1
    rope_theta: float = 1_000_000.0
    dtype: str = "float32"
    vocabulary: int = 0  # 0: the tokenizer's


SHAPES = {
    "grouped heads": Shape(),
    "one layer": Shape(layers=1),
    "five layers, untied": Shape(layers=5, tied=False),
    "all heads have keys": Shape(heads=4, key_value_heads=4, head_size=12),
    "one key head, three shards": Shape(key_value_heads=1, head_size=32, shards=3),
    "wide heads, theta of the 2507 models": Shape(heads=2, key_value_heads=1, head_size=64, rope_theta=5_000_000.0),
    "untied, three shards": Shape(layers=3, tied=False, shards=3),
}


def write_checkpoint(directory: Path, shape: Shape, seed: int = 0) -> Qwen3ForCausalLM:
    """Writes it with the demo model's tokenizer and returns transformers' model of it.

    The weights are scaled so that greedy answers keep changing, and the norms so that leaving one out shows.
    """
    vocabulary = shape.vocabulary or json.loads((CHECKPOINT_DIR / "config.json").read_text())["vocab_size"]
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_value_heads, head_dim=shape.head_size,
        intermediate_size=shape.intermediate, tie_word_embeddings=shape.tied, max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta}, dtype=shape.dtype,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    model.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1.0 + 0.5 * noise if "norm" in name else noise * weight.shape[-1] ** -0.5 * 1.5)
    model.to(getattr(torch, shape.dtype))
    size = sum(weight.nbytes for weight in model.parameters())
    model.save_pretrained(directory, max_shard_size=size // shape.shards + 1)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(CHECKPOINT_DIR / name, directory / name)
    return model


def load_model(
    checkpoint_dir: Path, config: Qwen3Config, device: str, dtype: str, on_progress: Callable[[float], None]
) -> LoadedModel:
    """`build_model`, with its weights in its modules. on_progress as `read_weights` has it."""
    model = build_model(checkpoint_dir, config, device, dtype)
    read_weights(module_places(model), checkpoint_dir, config, on_progress)
    return model
