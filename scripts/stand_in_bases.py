"""Base images made here, where the real ones cannot be pulled.

They are stand-ins: Debian's Python instead of the official image's, and a torch as this machine's pip finds it. What is
built on them shows that the Dockerfiles work, not that the real bases do. Packages are fetched by this machine's pip,
with its own settings, and lie in the base; so the build itself needs no network.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.docker_engine import CheckFailed, Docker

ROOT = Path(__file__).resolve().parent.parent
_DEBIAN = "bookworm"  # its Python is 3.11, as in python:3.11-slim
_PACKAGES = "python3,python3-pip,ca-certificates,gcc,libc6-dev"
_PYTHON = "3.11"
_FETCH_S = 1800
_COMMON = r"""
FROM {debian}
COPY wheels /wheels
RUN ln -s python3 /usr/bin/python && printf '[global]\nno-index = true\nfind-links = /wheels\n' > /etc/pip.conf
"""
# Debian keeps pip away from its Python, as Ubuntu does in pytorch/pytorch; the official Python image does not.
_FOR_PYTHON = _COMMON + "RUN rm /usr/lib/python3*/EXTERNALLY-MANAGED\n"
_FOR_TORCH = _COMMON + "RUN python3 -m pip install --no-cache-dir --break-system-packages torch\n"


def make_stand_ins(docker: Docker, prefix: str) -> tuple[str, str, str]:
    """Names of a base with Python, of one with torch, and of an image with a compiler. Raises CheckFailed."""
    debian, python, torch = f"{prefix}/debian", f"{prefix}/python", f"{prefix}/torch"
    with tempfile.TemporaryDirectory(prefix="stand-ins-") as directory:
        context = Path(directory)
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", _DEBIAN, f"{context}/debian.tar")
        docker("import", f"{context}/debian.tar", debian)
        (context / "debian.tar").unlink()
        _run(sys.executable, "-m", "pip", "-qq", "download", "--dest", f"{context}/wheels",
             "--only-binary=:all:", "--python-version", _PYTHON,
             "-r", f"{ROOT}/requirements/inference.txt", "-r", f"{ROOT}/requirements/bridge.txt")  # fmt: skip
        for name, dockerfile in ((python, _FOR_PYTHON), (torch, _FOR_TORCH)):
            (context / "Dockerfile").write_text(dockerfile.format(debian=debian))
            docker("build", "--network", "host", "--tag", name, directory)
    return python, torch, debian


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, timeout=_FETCH_S)
    except FileNotFoundError as error:
        raise CheckFailed(f"the bases cannot be pulled, and stand-ins for them want {command[0]}") from error
    except subprocess.SubprocessError as error:
        raise CheckFailed(f"no stand-in for a base image: {error}") from error
