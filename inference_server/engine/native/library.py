"""The compiled code as Python sees it: its structures, field by field, and its functions."""

import ctypes
import platform
from array import array
from pathlib import Path

import torch

from inference_server.engine.native.build import VARIANTS, library_path, source_digest

_CPU_INFO = Path("/proc/cpuinfo")
BLOCK = 32  # tokens of a cache block, columns of a panel
MOST_HEAD = 256


class LayerParts(ctypes.Structure):
    """Addresses; `Layer` of model.h."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            "attention_norm", "query_norm", "key_norm", "mlp_norm", "query_key_value", "attention_output", "gate_up",
            "down", "keys", "values",
        )
    ]  # fmt: skip


class ModelParts(ctypes.Structure):
    """`Model` of model.h."""

    _fields_ = [
        *((name, ctypes.c_long) for name in (
            "layer_count", "hidden", "heads", "key_heads", "head_size", "intermediate", "vocabulary",
        )),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("embedding", "norm", "frequencies", "output", "known")),
        ("layers", ctypes.POINTER(LayerParts)),
    ]  # fmt: skip


class StepParts(ctypes.Structure):
    """`Step` of model.h."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("tokens", "chunk_count", "most_keys")),
        *((name, ctypes.c_void_p) for name in (
            "token_ids", "chunks", "block_ids", "scratch", "logits", "likeliest",
        )),
    ]  # fmt: skip


class RowParts(ctypes.Structure):
    """`Row` of draw.h."""

    _fields_ = [
        ("logits", ctypes.c_void_p),
        ("vocabulary", ctypes.c_long),
        *((name, ctypes.c_double) for name in ("best", "temperature", "top_p", "log_min_p")),
        ("key", ctypes.c_uint64),
    ]  # fmt: skip


class Library:
    """One variant of the compiled code, and the threads that it runs on: torch's own.

    A pool of its own would wait for cores on which torch's threads spin.
    """

    def __init__(self, variant: str) -> None:
        """Raises OSError where it cannot be loaded or is of other sources."""
        self.variant = variant
        library = ctypes.CDLL(str(library_path(variant)))
        try:
            compiled_from = ctypes.c_char.in_dll(library, "source_digest")
        except ValueError:
            raise OSError("it does not say what it was compiled from") from None
        if ctypes.string_at(ctypes.addressof(compiled_from)).decode() != source_digest():
            raise OSError("it was compiled from other sources; `make` compiles it anew")
        self._forward, self._scratch_bytes, self._pack = library.forward, library.scratch_bytes, library.pack_rows
        model = ctypes.POINTER(ModelParts)
        self._scratch_bytes.restype = ctypes.c_long
        self._scratch_bytes.argtypes = (model, *[ctypes.c_long] * 4)
        self._forward.restype = None
        self._forward.argtypes = (model, ctypes.POINTER(StepParts), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)
        self._pack.restype = None
        self._pack.argtypes = (
            ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_long,
        )  # fmt: skip
        self._draw_rows = library.draw_rows
        self._draw_rows.restype = None
        self._draw_rows.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_long)
        self._parallel, self._team_size = _openmp()

    def pack(self, weight: torch.Tensor, panels: int, begin: int, run: int) -> None:
        """Puts a weight where products read it, as pack.h says; Python's lock is free meanwhile.

        weight: [O, I] bfloat16. panels: the address of room for all columns of the product.
        """
        assert weight.dtype is torch.bfloat16
        weight = weight.contiguous()
        self._pack(weight.data_ptr(), *weight.shape, panels, begin, run)

    def draw(self, rows: "ctypes.Array[RowParts]") -> list[int]:
        """Draw a token for each row, -1 for a row that the slow path has to decide. The GIL is released meanwhile."""
        tokens = array("q", bytes(8 * len(rows)))
        address = tokens.buffer_info()[0]
        self._draw_rows(rows, address, len(rows), self._parallel, torch.get_num_threads())
        return tokens.tolist()

    def scratch_bytes(self, model: ModelParts, step: StepParts) -> int:
        """How much memory a step wants beside the cache."""
        threads = torch.get_num_threads()
        wanted: int = self._scratch_bytes(model, step.tokens, step.chunk_count, step.most_keys, threads)
        return wanted

    def forward(self, model: ModelParts, step: StepParts) -> None:
        """Returns when all threads have; Python's lock is free meanwhile."""
        self._forward(model, step, self._parallel, self._team_size, torch.get_num_threads())


def available_variants() -> list[str]:
    """What this processor can run and is compiled, fastest first."""
    flags = processor_flags()
    variants = VARIANTS.get(platform.machine(), ())
    return [name for name, needed, _ in variants if needed <= flags and library_path(name).is_file()]


def processor_flags() -> set[str]:
    """What the processor can do, in the words of Linux; nothing where another system runs."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return set()
    told = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return set(next(told, "").split())


def _openmp() -> tuple[int | None, int | None]:
    """The addresses of two functions of torch's OpenMP library; none where it has them not.

    Source: https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html; LLVM's library has both too.
    """
    try:
        library = ctypes.CDLL(torch._C.__file__)
        functions = library.GOMP_parallel, library.omp_get_num_threads
    except (AttributeError, OSError):
        return None, None
    parallel, team_size = (ctypes.cast(function, ctypes.c_void_p).value for function in functions)
    return parallel, team_size
