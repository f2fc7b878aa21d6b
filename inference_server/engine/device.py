"""Where the model runs, in what type, and whether it fits there. Asked once, before the weights are read."""

import math
import os
from pathlib import Path

import psutil
import torch

from inference_server.engine import control_groups
from inference_server.errors import StartupError

_GPU_DRIVER = Path("/proc/driver/nvidia/version")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # torch obeys them
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def choose_device(asked: str) -> torch.device:
    """asked: auto, cuda or cpu; auto is cuda where it is usable. Raises StartupError for a cuda that is not."""
    if asked != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    if asked == "cuda":
        driver = f"driver {_GPU_DRIVER.read_text().split()[7]}" if _GPU_DRIVER.is_file() else "no NVIDIA driver"
        raise StartupError(f"--device cuda: no usable GPU; found {driver} and {_torch_build()}")
    return torch.device("cpu")


def choose_threads() -> str:
    """Set the number of threads that compute on the CPU, and return it with the reason for the log.

    torch's own choice (CPUs of the affinity mask, or cores of one thread each) is cut to the CPU quota of the control
    groups, rounded up: threads beyond it are throttled together, often while the others wait for them.
    """
    own = torch.get_num_threads()
    if named := [name for name in _THREAD_VARIABLES if os.environ.get(name)]:
        return f"{_threads(own)} by {named[0]}"
    usable, quota = usable_cpus(), control_groups.cpu_quota()
    threads = max(min(own, usable, math.ceil(quota or usable)), 1)
    if threads != own:
        torch.set_num_threads(threads)
    limit = f"a quota of {quota:g}" if quota else "no quota"
    return f"{_threads(threads)} for {usable} usable CPU{'' if usable == 1 else 's'} and {limit}"


def usable_cpus() -> int:
    """CPUs of the affinity mask; all of the machine's on systems that have none."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(count: int) -> str:
    return f"{count} thread" + ("" if count == 1 else "s")


def describe(device: torch.device) -> str:
    """For the log: `cuda: NVIDIA H200 with 139.7 GiB; torch 2.13.0+cu126 for CUDA 12.6`."""
    if device.type == "cuda":
        of_gpu = torch.cuda.get_device_properties(device)
        hardware = f"{of_gpu.name} with {of_gpu.total_memory / 2**30:.1f} GiB"
    else:
        hardware = f"{torch.get_num_threads()} threads"
    return f"{device.type}: {hardware}; {_torch_build()}"


def _torch_build() -> str:
    cuda = torch.version.cuda
    return f"torch {torch.__version__} " + (f"for CUDA {cuda}" if cuda else "without CUDA")


def choose_dtype(asked: str, device: torch.device, published: str | torch.dtype | None) -> torch.dtype:
    """asked: auto, bfloat16 or float32; auto is bfloat16 on cuda, elsewhere what the checkpoint says."""
    if asked != "auto":
        return _DTYPES[asked]
    if device.type == "cuda":
        return torch.bfloat16
    return _DTYPES.get(str(published).removeprefix("torch."), torch.float32)


def require_memory(parameter_count: int, dtype: torch.dtype, device: torch.device) -> None:
    """Raises StartupError where the weights alone do not fit."""
    needed_bytes, available_bytes = parameter_count * dtype.itemsize, free_bytes(device)
    if needed_bytes > available_bytes:
        arithmetic = f"{parameter_count / 1e9:.2f} B parameters x {dtype.itemsize} bytes = {needed_bytes / 1e9:.2f} GB"
        raise StartupError(
            f"--model: too little memory for the weights: {arithmetic}, "
            f"{available_bytes / 1e9:.2f} GB free on {device.type}"
        )


def free_bytes(device: torch.device) -> int:
    """Memory that can still be used: the GPU's, or the machine's within the limits of its control groups."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    available: int = psutil.virtual_memory().available
    within_limits = control_groups.free_memory()
    return available if within_limits is None else min(available, within_limits)
