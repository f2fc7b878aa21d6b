"""The files of the checkpoint in the published Qwen3 layout: tokenizer, template, configuration, weights."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from inference_server.demo_model.chat_template import CHAT_TEMPLATE
from inference_server.demo_model.initial_weights import lay_out_copying
from inference_server.demo_model.tokenizer import CONTROL_TOKENS, SPECIAL_TOKENS

_CONTEXT_LENGTH = 32768
# Rows beyond the last token keep the output layer's width even, as in the published model.
_VOCABULARY_MULTIPLE = 64


def write_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Writes tokenizer.json and tokenizer_config.json with the chat template in it."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token in SPECIAL_TOKENS,
        }
        for token in CONTROL_TOKENS
    }
    _write_json(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
            "bos_token": None,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": _CONTEXT_LENGTH,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )


def template_renderer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer of transformers that renders the checkpoint's chat template."""
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE)


def control_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The id of every control token."""
    return {token.content: token_id for token_id, token in tokenizer.get_added_tokens_decoder().items()}


def new_model(tokenizer: Tokenizer, seed: int) -> Qwen3ForCausalLM:
    """A model of about one million parameters, not yet trained."""
    torch.manual_seed(seed)
    settings = _model_settings(tokenizer)
    model = Qwen3ForCausalLM(Qwen3Config(**{key: value for key, value in settings.items() if key != "architectures"}))
    lay_out_copying(model, settings["rope_theta"])
    return model


def write_model(directory: Path, model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> None:
    """Writes config.json, generation_config.json and model.safetensors (the tied output layer is left out)."""
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", _model_settings(tokenizer))
    end_of_turn, end_of_text = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    _write_json(
        directory / "generation_config.json",
        {
            "bos_token_id": end_of_text,
            "do_sample": True,
            "eos_token_id": [end_of_turn, end_of_text],
            "pad_token_id": end_of_text,
            "temperature": 0.7,
            "top_k": 20,
            "top_p": 0.8,
        },
    )
    weights = {name: weight.detach().contiguous() for name, weight in model.state_dict().items()}
    weights.pop("lm_head.weight")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def _model_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """The configuration with the keys of the published models."""
    rows = -(-tokenizer.get_vocab_size() // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.04,
        "intermediate_size": 384,
        "max_position_embeddings": _CONTEXT_LENGTH,
        "max_window_layers": 4,
        "model_type": "qwen3",
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": rows,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
