"""Compiles `forward.c`, once for each kind of processor that this machine's compiler knows.

usage: python -m inference_server.engine.native.build [--strict]

A machine without a C compiler serves all the same, slower; with --strict that is a failure. CC names the compiler.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("forward.c")
_AVX2 = ("avx2", "fma", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")
# Fastest first: the name, what /proc/cpuinfo calls what it needs, the compiler's flags.
VARIANTS = {
    "x86_64": (
        ("avx512bf16", {*_AVX512, "avx512_bf16"}, [*(f"-m{name}" for name in _AVX512), "-mavx512bf16"]),
        ("avx512", set(_AVX512), [f"-m{name}" for name in _AVX512]),
        ("avx2", set(_AVX2), [f"-m{name}" for name in _AVX2]),
    ),
    "aarch64": (("neon", {"asimd"}, ["-march=armv8-a"]),),
}
_FLAGS = ["-O3", "-std=gnu11", "-Wall", "-Wextra", "-Wno-psabi", "-shared", "-fPIC"]


def library_path(variant: str) -> Path:
    """Where the compiled code of a variant lies."""
    return SOURCE.with_name(f"forward-{variant}.so")


def source_digest() -> str:
    """Of everything that is compiled; a library says which one it was made from."""
    sources = sorted(SOURCE.parent.glob("*.[ch]"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def main(arguments: list[str]) -> int:
    failure = 1 if "--strict" in arguments else 0
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    variants = VARIANTS.get(platform.machine(), ())
    if not compiler or not variants:
        what = f"code for {platform.machine()}" if compiler else "C compiler"
        print(f"No {what}: bfloat16 models on the CPU run on torch's operations, slowly.", file=sys.stderr)
        return failure
    return failure if sum(not _compile(compiler, name, flags) for name, _, flags in variants) else 0


def _compile(compiler: str, variant: str, flags: list[str]) -> bool:
    path = library_path(variant)
    partial = path.with_suffix(f".{os.getpid()}")
    digest = f'-DSOURCE_DIGEST="{source_digest()}"'
    command = [*compiler.split(), *_FLAGS, *flags, digest, str(SOURCE), "-lm", "-o", str(partial)]
    print(f"Compiling {path.name}", file=sys.stderr)
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        partial.unlink(missing_ok=True)
        print(f"{error}; processors of this kind run bfloat16 models on torch's operations, slowly", file=sys.stderr)
        return False
    partial.replace(path)  # a server that runs keeps what it has
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
