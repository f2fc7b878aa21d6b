"""What a checkpoint says about generating with it: its end tokens and its sampling defaults. Called by `loading`."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from inference_server.completion import SamplingDefaults
from inference_server.errors import StartupError
from protos.chat.v1.ranges import RANGES


def read_generation_config(checkpoint_dir: Path) -> GenerationConfig:
    """generation_config.json; empty if there is none. Raises StartupError."""
    if not (checkpoint_dir / "generation_config.json").is_file():
        return GenerationConfig()
    try:
        return GenerationConfig.from_pretrained(checkpoint_dir, local_files_only=True)
    except Exception as error:  # its checks raise many kinds
        raise StartupError(f"{checkpoint_dir}/generation_config.json: cannot be read") from error


def end_token_ids(
    checkpoint_dir: Path,
    generation: GenerationConfig,
    config: Qwen3Config,
    tokenizers_end_token_id: int | None,
    last_token_id: int,
) -> frozenset[int]:
    """The tokens that end an answer: all that any of the three files names, for fine-tunes often change only one.

    Ids that the tokenizer does not have, which some files use for none, are left out. Raises StartupError.
    """
    said = {
        "generation_config.json": generation.eos_token_id,
        "config.json": config.eos_token_id,
        "tokenizer_config.json": tokenizers_end_token_id,
    }
    found: set[int] = set()
    for name, value in said.items():
        token_ids: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(token_id) is int for token_id in token_ids):
            raise StartupError(f"{checkpoint_dir}/{name}: eos_token_id: expected an id or a list of ids, got {value!r}")
        found.update(token_ids)
    return frozenset(token_id for token_id in found if 0 <= token_id <= last_token_id)


def sampling_defaults(checkpoint_dir: Path, generation: GenerationConfig) -> SamplingDefaults:
    """What requests get that do not set these fields. Raises StartupError.

    do_sample false is a default temperature of 0: a request samples if it sets a temperature above 0.
    """
    chosen = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    for name in chosen:
        value = getattr(generation, name)
        if value is None:
            continue
        if type(value) not in (int, float) or value not in RANGES[name]:
            raise StartupError(f"{checkpoint_dir}/generation_config.json: {name}: expected {RANGES[name]}, got {value}")
        chosen[name] = value
    if generation.do_sample is False:
        chosen["temperature"] = 0.0
    top_k = int(chosen.pop("top_k"))
    return SamplingDefaults(top_k=top_k, **chosen)
