"""A random-weight bfloat16 checkpoint of a published Qwen3 shape, without a download.

usage: python -m benchmarks.checkpoint SHAPE [--tokenizer DIR]

Speed does not depend on what weights say. The tokenizer is the one of tokenizer.py, or that of a real checkpoint. What
has been written is used again; delete it to have it written anew.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from benchmarks.tokenizer import make_tokenizer
from inference_server.demo_model.checkpoint_files import write_tokenizer

CHECKPOINTS_DIR = Path(__file__).parent / "checkpoints"
_END_OF_TEXT, _END_OF_TURN = 151_643, 151_645
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a dense Qwen3."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate: int


SHAPES = {
    "tiny": Shape(hidden=128, layers=2, heads=2, key_value_heads=1, head_size=64, intermediate=256),
    "0.6b": Shape(hidden=1024, layers=28, heads=16, key_value_heads=8, head_size=128, intermediate=3072),
    "1.7b": Shape(hidden=2048, layers=28, heads=16, key_value_heads=8, head_size=128, intermediate=6144),
    "4b": Shape(hidden=2560, layers=36, heads=32, key_value_heads=8, head_size=128, intermediate=9728),
}


def checkpoint(shape: str, tokenizer_dir: Path | None = None) -> Path:
    """The directory of the checkpoint, which is written where it is not there yet."""
    name = f"{shape}-{tokenizer_dir.resolve().name}" if tokenizer_dir else shape
    directory = CHECKPOINTS_DIR / name
    if not directory.exists():
        unfinished = CHECKPOINTS_DIR / f"{name}.unfinished"
        unfinished.mkdir(parents=True, exist_ok=True)
        write_checkpoint(unfinished, shape, tokenizer_dir)
        unfinished.rename(directory)
    return directory


def write_checkpoint(directory: Path, shape: str, tokenizer_dir: Path | None = None) -> None:
    """Writes the files of the published layout."""
    config = _config(SHAPES[shape])
    weights = track(list(_weights(config)), f"writing random weights of {shape}", console=Console(stderr=True))
    generator = torch.Generator().manual_seed(0)
    save_file(
        {name: _random(name, size, generator) for name, size in weights},
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )
    config.save_pretrained(directory)
    stops = [_END_OF_TURN, _END_OF_TEXT]
    GenerationConfig(eos_token_id=stops, pad_token_id=_END_OF_TEXT).save_pretrained(directory)
    if tokenizer_dir:
        for name in _TOKENIZER_FILES:
            shutil.copyfile(tokenizer_dir / name, directory / name)
    else:
        write_tokenizer(directory, make_tokenizer())


def _config(shape: Shape) -> Qwen3Config:
    return Qwen3Config(
        architectures=["Qwen3ForCausalLM"], vocab_size=151_936, hidden_size=shape.hidden,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_size, intermediate_size=shape.intermediate, max_position_embeddings=40_960,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}, rms_norm_eps=1e-6,
        bos_token_id=_END_OF_TEXT, eos_token_id=_END_OF_TURN, tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip


def _weights(config: Qwen3Config) -> Iterator[tuple[str, torch.Size]]:
    """Published names and shapes; the output layer is the embedding."""
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    for name, parameter in model.named_parameters():
        yield name, parameter.shape


def _random(name: str, size: torch.Size, generator: torch.Generator) -> torch.Tensor:
    weight = torch.empty(size, dtype=torch.bfloat16)
    return weight.fill_(1.0) if "norm" in name else weight.normal_(0.0, 0.02, generator=generator)


@click.command(help=__doc__)
@click.argument("shape", type=click.Choice(list(SHAPES)))
@click.option(
    "--tokenizer",
    "tokenizer_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkpoint whose tokenizer files are taken.",
)
def main(shape: str, tokenizer_dir: Path | None) -> None:
    click.echo(checkpoint(shape, tokenizer_dir))


if __name__ == "__main__":
    main()
