"""Compiles `forward.c`, once for each kind of processor that this machine's compiler knows.

usage: python -m inference_server.engine.native.build

A machine without a C compiler serves all the same, slower: `library.py` says what is missing.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("forward.c")
# Fastest first: the name, what /proc/cpuinfo calls what it needs, the compiler's flags.
VARIANTS = {
    "x86_64": (
        ("avx512bf16", {"avx512_bf16", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"},
         ["-march=x86-64-v4", "-mavx512bf16"]),
        ("avx512", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}, ["-march=x86-64-v4"]),
        ("avx2", {"avx2", "fma", "bmi2"}, ["-march=x86-64-v3"]),
    ),
    "aarch64": (("neon", {"asimd"}, ["-march=armv8-a"]),),
}  # fmt: skip
_FLAGS = ["-O3", "-std=gnu11", "-Wall", "-Wextra", "-Wno-psabi", "-shared", "-fPIC"]


def library_path(variant: str) -> Path:
    """Where the compiled code of a variant lies."""
    return SOURCE.with_name(f"forward-{variant}.so")


def main() -> int:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    variants = VARIANTS.get(platform.machine(), ())
    if not compiler or not variants:
        print(f"No C compiler, or none for {platform.machine()}: models run on torch's own operations.", file=sys.stderr)
        return 0
    for name, _, flags in variants:
        path = library_path(name)
        partial = path.with_suffix(f".{os.getpid()}")
        command = [compiler, *_FLAGS, *flags, str(SOURCE), "-lm", "-o", str(partial)]
        if subprocess.run(command, check=False).returncode:
            partial.unlink(missing_ok=True)
            print(f"{' '.join(command)} failed: no code for {name}", file=sys.stderr)
            continue
        partial.replace(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
