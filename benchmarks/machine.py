"""What was measured on: the machine, and the versions of what ran."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

_CPU_FACTS = Path("/proc/cpuinfo")
# What decides how fast products are.
_INSTRUCTION_SETS = (
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8",
    "amx_fp16", "asimd", "asimddp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip
_PACKAGES = ("torch", "transformers", "grpcio")
_ROOT = Path(__file__).parent.parent
_PROGRAMS = ("inference_server", "http_bridge", "protos", "observability", "scripts", "requirements")


def machine() -> dict[str, object]:
    facts = _cpu_facts()
    flags = facts.get("flags", facts.get("Features", "")).split()
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in flags],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Of the service in this checkout."""
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version()} | packages | {"revision": _revision()}


def _cpu_facts() -> dict[str, str]:
    """The first core's, on Linux."""
    if not _CPU_FACTS.exists():
        return {}
    pairs = (line.partition(":") for line in _CPU_FACTS.read_text().split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _revision() -> str:
    """The commit; `-dirty` where the programs differ from it."""
    commit = _git("rev-parse", "--short=12", "HEAD").stdout.strip() or "unknown"
    return commit + ("-dirty" if _git("diff", "--quiet", "HEAD", "--", *_PROGRAMS).returncode else "")


def _git(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
