"""Whether a model runs through the compiled code. Asked once, when its weights are loaded."""

import logging
import math

import torch
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.attention.types import CacheShape
from inference_server.engine.draw import draw_from_sorted
from inference_server.engine.model_loader import LoadedModel
from inference_server.engine.model_runner import ModelRunner
from inference_server.engine.models.qwen3 import Qwen3
from inference_server.engine.native.draws import CompiledDraw
from inference_server.engine.native.library import BLOCK, MOST_HEAD, Library, available_variants, processor_flags
from inference_server.engine.native.runner import NativeRunner
from inference_server.engine.native.weights import PackedWeights
from inference_server.engine.types import NO_SAMPLING, Chunk, SamplingParams, Sequence

_log = logging.getLogger(__name__)
_TOLERANCE = 0.1  # of logits whose standard deviation is about 1; bfloat16 itself differs by 0.02


def choose_library(model: LoadedModel) -> Library | None:
    """The fastest code that fits model and processor and does what the slow path does; None for torch's operations."""
    if model.device.type != "cpu" or model.dtype is not torch.bfloat16:
        return None
    config = model.config
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
    if (
        config.hidden_size % 32 or config.intermediate_size % 16 or heads % key_heads
        or config.head_dim % 32 or config.head_dim > MOST_HEAD
    ):  # fmt: skip
        _log.warning("the compiled code does not know this model's sizes: it runs on torch's operations, slowly")
        return None
    if "amx_bf16" in processor_flags():  # oneDNN multiplies with it; the compiled code does not
        return None
    for variant in available_variants():
        try:
            library = Library(variant)
        except OSError as error:
            _log.warning("the compiled code for %s is not used: %s", variant, error)
            continue
        difference = difference_from_reference(library)
        if difference < _TOLERANCE:
            _log.info("compiled code for %s", variant)
            return library
        _log.warning("the compiled code for %s differs from its reference by %.3g", variant, difference)
    _log.warning("no compiled code for this processor: the model runs on torch's operations, slowly")
    return None


def choose_draw(device: torch.device) -> CompiledDraw | None:
    """The fastest compiled draw that does what the slow one does, of a model of any type; None: the slow one."""
    for variant in available_variants() if device.type == "cpu" else ():
        try:
            compiled = CompiledDraw(Library(variant))
        except OSError:  # said by choose_library
            continue
        if draws_as_the_reference(compiled):
            return compiled
        _log.warning("the compiled draw for %s differs from its reference", variant)
    return None


def draws_as_the_reference(compiled: CompiledDraw) -> bool:
    """Whether it draws the same tokens from random logits, with and without limits."""
    logits = 3 * torch.randn(len(_LIMITS), 1003, generator=torch.Generator().manual_seed(0))
    params = [SamplingParams(0.9, top_p, 0, 0, 1, min_p) for top_p, min_p in _LIMITS]
    keys = range(len(params))
    return torch.equal(compiled(logits, params, keys), draw_from_sorted(logits, params, keys))


_LIMITS = [(top_p, min_p) for top_p in (1.0, 0.9, 0.5, 0.1) for min_p in (0.0, 0.01)]


@torch.inference_mode()
def difference_from_reference(library: Library) -> float:
    """The largest difference of logits of a small random model, read in parts and together; NaN where one is NaN.

    Infinite where a sequence beside others gets other bits than alone.
    """
    config = Qwen3Config(
        hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=128, vocab_size=1100, rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    modules = [Qwen3(config).to(torch.bfloat16), Qwen3(config)]
    for name, parameter in modules[0].named_parameters():
        numbers = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(1 + numbers / 4 if parameter.dim() == 1 else numbers / parameter.shape[1] ** 0.5)
        modules[1].get_parameter(name).copy_(parameter)
    device, blocks = torch.device("cpu"), 8
    models = [LoadedModel(module, config, device, module.norm.weight.dtype, 0) for module in modules]
    shape = CacheShape(2, 2, 128, blocks, BLOCK, torch.float32, device)
    reference = ModelRunner(models[1], GatheredAttention(shape))
    native = NativeRunner(PackedWeights.of(models[0], library), blocks)
    tokens = torch.randint(config.vocab_size, (3, 80), generator=generator).tolist()
    sequences = [Sequence(tuple(ids), NO_SAMPLING, block_ids=own) for ids, own in zip(tokens, _BLOCK_IDS, strict=True)]
    worst = 0.0
    for places in _STEPS:
        chunks = [Chunk(sequence, *place) for sequence, place in zip(sequences, places, strict=False)]
        seen = native.forward(chunks).logits.clone()
        if not torch.equal(native.forward(chunks[:1]).logits, seen[:1]):
            return math.inf
        difference = (seen.float() - reference.forward(chunks).logits).abs().max().item()
        worst = max(worst, difference) if difference == difference else difference
    return worst


_BLOCK_IDS = ([3, 1, 6], [2, 7], [5, 4])
_STEPS = ([(0, 30), (0, 1), (0, 32)], [(30, 37), (1, 1), (32, 1)], [(67, 1), (2, 40)])  # start and count of each chunk
