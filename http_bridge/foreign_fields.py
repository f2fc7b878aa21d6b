"""Fields of OpenAI's, vLLM's, SGLang's, TGI's and llama.cpp's APIs that this service does not have.

A value that asks for nothing is accepted: a client that sends its API's defaults is served. Any other value would
change the answer and is refused by name. Fields in no table here are unknown; ignored_fields.py deals with them.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from http_bridge.neutral_values import NOTHING, Values, is_one_of, schema_of
from http_bridge.neutral_values import nothing_or as _or

_SCHEMA: Final[Values] = (False, "", "none", [], None)  # {} is a schema that any JSON meets, and switches web search on
_ON: Final[Values] = ("", "none", [], {}, None, True)  # on by default, so `false` asks for something
_THINKS: Final[Values] = (None,)  # a model that thinks by default would not stop for `false`

# By field, the values that leave the answer as it is.
NEUTRAL: Final[Mapping[str, Values]] = {
    # OpenAI
    "audio": NOTHING, "function_call": _or("auto"), "functions": NOTHING, "modalities": _or(["text"]),
    "moderation": NOTHING, "n": _or(1), "parallel_tool_calls": _or(True), "prediction": NOTHING,
    "reasoning_effort": NOTHING, "response_format": _or({"type": "text"}), "store": NOTHING,
    "tool_choice": _or("auto"), "tools": NOTHING, "verbosity": _or("medium"), "web_search_options": _SCHEMA,
    # vLLM
    "add_generation_prompt": _ON, "add_special_tokens": NOTHING, "allowed_token_ids": NOTHING,
    "bad_words": NOTHING, "best_of": _or(1), "cache_salt": NOTHING, "chat_template": NOTHING,
    "chat_template_kwargs": NOTHING, "continue_final_message": NOTHING, "documents": NOTHING, "early_stopping": NOTHING,
    "echo": NOTHING, "guided_choice": NOTHING, "guided_grammar": NOTHING, "guided_json": _SCHEMA,
    "guided_regex": NOTHING, "include_reasoning": _ON, "include_stop_str_in_output": NOTHING,
    "kv_transfer_params": NOTHING, "length_penalty": _or(1), "logits_processors": NOTHING,
    "media_io_kwargs": NOTHING, "mm_processor_kwargs": NOTHING, "priority": _or(0),
    "prompt_logprobs": NOTHING, "repetition_detection": NOTHING, "return_tokens_as_token_ids": NOTHING,
    "skip_special_tokens": _ON, "structural_tag": NOTHING, "structured_outputs": NOTHING,
    "thinking_token_budget": _or(-1), "truncate_prompt_tokens": NOTHING, "use_beam_search": NOTHING,
    "vllm_xargs": NOTHING,
    # SGLang
    "custom_logit_processor": NOTHING, "custom_params": NOTHING, "ebnf": NOTHING, "input_ids": NOTHING,
    "json_schema": _SCHEMA, "lora_path": NOTHING, "no_stop_trim": NOTHING, "regex": NOTHING,
    "return_hidden_states": NOTHING, "session_params": NOTHING, "stop_regex": NOTHING,
    # TGI and transformers
    "adapter_id": NOTHING, "decoder_input_details": NOTHING, "do_sample": _ON, "guideline": NOTHING,
    "max_new_tokens": NOTHING, "num_beams": _or(1), "return_full_text": NOTHING, "top_n_tokens": _or(0),
    "truncate": NOTHING, "watermark": NOTHING,
    # llama.cpp and those that are built on it
    "dry_multiplier": _or(0), "dynatemp_range": _or(0), "epsilon_cutoff": _or(0), "eta_cutoff": _or(0),
    "format": NOTHING, "grammar": NOTHING, "lora": NOTHING, "min_keep": _or(1, 0), "mirostat": _or(0),
    "n_cmpl": _or(1), "n_predict": _or(-1), "n_probs": _or(0), "num_predict": _or(-1),
    "post_sampling_probs": NOTHING, "reasoning_budget_tokens": _or(-1), "reasoning_format": _or("auto"),
    "repeat_last_n": _or(0, 64, -1), "repeat_penalty": _or(1), "samplers": NOTHING,
    "smoothing_factor": _or(0), "t_max_predict_ms": _or(0, -1), "tfs_z": _or(1), "top_a": _or(0),
    "top_n_sigma": _or(0, -1), "typical_p": _or(1), "xtc_probability": _or(0),
    # Others' names for the prompt, the end and the choice of tokens
    "adapter_name": NOTHING, "bad_words_ids": NOTHING, "data_sources": NOTHING, "force_words_ids": NOTHING,
    "images": NOTHING, "max_output_tokens": NOTHING, "min_length": _or(0), "min_new_tokens": _or(0),
    "no_repeat_ngram_size": _or(0), "options": NOTHING, "random_seed": NOTHING, "response_schema": _SCHEMA,
    "stop_sequences": NOTHING, "suppress_tokens": NOTHING, "system": NOTHING, "typical": _or(1),
    # Whether a model thinks
    "enable_thinking": _THINKS, "reasoning": NOTHING, "think": _THINKS, "thinking": _THINKS,
}  # fmt: skip

# No value of these changes the answer: bookkeeping, hints, and what only matters beside a field that is refused.
WITHOUT_EFFECT: Final = frozenset({
    "cache_prompt", "dry_allowed_length", "dry_base", "dry_penalty_last_n", "dry_sequence_breakers",
    "dynatemp_exponent", "guided_decoding_backend", "guided_whitespace_pattern", "id_slot", "mirostat_eta",
    "mirostat_tau", "n_keep", "prompt_cache_options", "prompt_cache_retention", "request_id", "rid",
    "spaces_between_special_tokens", "truncation_side", "xtc_threshold",
})  # fmt: skip

# What users send back of answers, from here and from elsewhere.
NEUTRAL_IN_MESSAGES: Final[Mapping[str, Values]] = {
    "audio": NOTHING, "function_call": NOTHING, "images": NOTHING, "partial": NOTHING, "prefix": NOTHING,
    "tool_calls": NOTHING,
}  # fmt: skip
WITHOUT_EFFECT_IN_MESSAGES: Final = frozenset({
    "annotations", "cache_control", "created_at", "id", "provider_specific_fields", "reasoning", "reasoning_content",
    "reasoning_details", "refusal", "thinking_blocks", "tool_call_id",
})  # fmt: skip
NEUTRAL_IN_STREAM_OPTIONS: Final[Mapping[str, Values]] = {"include_obfuscation": (*NOTHING[1:], False)}
WITHOUT_EFFECT_IN_PARTS: Final = frozenset({"annotations", "cache_control", "prompt_cache_breakpoint"})

_INSTEAD: Final[Mapping[str, str]] = {
    "functions": 'leave it out or send function_call "none"', "max_new_tokens": "use max_tokens",
    "max_output_tokens": "use max_tokens", "min_new_tokens": "use min_tokens", "random_seed": "use seed",
    "stop_sequences": "use stop", "system": "send a message with role system",
    "n_predict": "use max_tokens", "num_predict": "use max_tokens", "repeat_penalty": "use repetition_penalty",
    "tools": 'leave it out or send tool_choice "none"',
}  # fmt: skip
# Tools that must not be called are as good as none.
_SWITCHED_OFF_BY: Final = {"functions": ("function_call", "tool_choice"), "tools": ("tool_choice",)}


def refusals(fields: Mapping[str, Any], neutral: Mapping[str, Values]) -> Iterator[tuple[str, str]]:
    """Yields each field whose value would change the answer, and what to do about it."""
    for name in fields:
        if name in neutral and not _is_neutral(fields[name], neutral[name]) and not _is_switched_off(name, fields):
            instead = _INSTEAD.get(name, f"leave it out or send {json.dumps(neutral[name][-1])}")
            yield name, f"not supported; {instead}"


def _is_neutral(value: object, neutral: Values) -> bool:
    """A member that is null is as good as none."""
    if isinstance(value, dict):
        value = {name: member for name, member in value.items() if member is not None}
    return is_one_of(value, neutral)


def _is_switched_off(name: str, fields: Mapping[str, Any]) -> bool:
    return any(fields.get(switch) == "none" for switch in _SWITCHED_OFF_BY.get(name, ()))


def schemas(neutral: Mapping[str, Values], without_effect: frozenset[str]) -> dict[str, Any]:
    """The fields' JSON schemas, for the API's description."""
    neutral_alone = "Not supported: only values that ask for nothing are accepted."
    refused = {name: schema_of(values) | {"description": neutral_alone} for name, values in neutral.items()}
    return refused | {name: {"description": "Accepted, without effect."} for name in sorted(without_effect)}
