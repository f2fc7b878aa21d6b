"""Attention for the decode tokens of a step: code made for the model's shape, one call for each layer.

It runs on the threads that torch computes with: a pool of its own would wait for cores on which torch's threads spin.
"""

import ctypes
from collections.abc import Callable
from collections.abc import Sequence as Rows

import torch
from llvmlite import binding

from inference_server.engine.attention.decode_code import ARGUMENTS, LANES, DecodeCode


class DecodeKernel:
    """For a cache of [2, Hkv, slots, D] bfloat16 a layer, on the CPU. Called by the engine's thread alone."""

    def __init__(self, query_heads: int, key_heads: int, head_size: int, block_size: int) -> None:
        assert head_size % 2 == 0
        self._key_heads, self._group = key_heads, query_heads // key_heads
        self._head_size, self._block_size = head_size, block_size
        self._compiled = _compile(str(DecodeCode(key_heads, self._group, head_size, block_size).module))
        self._address = self._compiled.get_function_address("decode")
        self._run = _team()
        self._score_width = self._threads = 0
        self._table = self._scratch = torch.empty(0)

    def prepare(self, tokens: Rows[tuple[int, int, list[int]]]) -> None:
        """Of each token: its row among the queries, how many keys it sees, and the blocks that they lie in."""
        longest = max((key_count for _, key_count, _ in tokens), default=0)
        width = -(-longest // self._block_size)
        lines = []
        for row, key_count, block_ids in tokens:
            blocks = block_ids[: -(-key_count // self._block_size)]
            lines.append([row, key_count, *blocks, *[0] * (width - len(blocks))])
        self._table = torch.tensor(lines, dtype=torch.int32)  # [S, 2 + blocks]
        self._score_width = (longest // LANES + 2) * LANES
        self._threads = torch.get_num_threads()
        self._scratch = torch.empty(self._threads, self._group * (2 * self._head_size + self._score_width))

    def attend(self, stored: torch.Tensor, query: torch.Tensor, seen: torch.Tensor) -> None:
        """Writes the prepared rows of `seen`, and no others. query, seen: [T, Hq, D], contiguous."""
        assert query.is_contiguous()
        assert seen.is_contiguous()
        if not len(self._table):
            return
        keys, values = stored
        numbers = (
            0, 0, keys.data_ptr(), values.data_ptr(), query.data_ptr(), seen.data_ptr(), self._table.data_ptr(),
            self._scratch.data_ptr(), len(self._table) * self._key_heads, self._table.shape[1], self._score_width,
            keys.stride(0) // 2,
        )  # fmt: skip
        self._run(self._address, (ctypes.c_int64 * len(ARGUMENTS))(*numbers), self._threads)


def _compile(code: str) -> binding.ExecutionEngine:
    """Code for this very processor."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features().flatten()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(cpu=binding.get_host_cpu_name(), features=features, opt=3)
    module = binding.parse_assembly(code)
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    compiled = binding.create_mcjit_compiler(module, machine)
    compiled.finalize_object()
    return compiled


def _team() -> Callable[[int, ctypes.Array[ctypes.c_int64], int], None]:
    """Calls a function with an argument on so many threads: torch's, or where they cannot be had the caller's alone."""
    try:
        # https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html; LLVM's library has it too
        parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        return lambda address, argument, threads: kind(address)(ctypes.addressof(argument))
    parallel.restype = None
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    return lambda address, argument, threads: parallel(address, argument, threads, 0)
