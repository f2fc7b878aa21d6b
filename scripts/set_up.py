"""Sets up .venv for make: a build of torch that fits the machine, then the pinned packages. Imports nothing of them.

Run again after a failure or Ctrl-C, it goes on from there. The CUDA build is taken where the NVIDIA driver is new
enough; TORCH decides otherwise.
"""

import argparse
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.meter import Meter

REQUIREMENTS = Path(__file__).parents[1] / "requirements"
PACKAGES_MB = 70  # beside torch; the registry's sizes for Linux on x86_64, as those below
_PROBE_S = 10.0
_LOOK_S = 0.3
_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


class SetUpError(Exception):
    """One line for a person."""


@dataclass(frozen=True, slots=True)
class Build:
    """One build of torch. index None: pip's own."""

    requirement: str
    index: str | None
    size: str  # of torch and all that it brings
    least_driver: int | None = None

    @property
    def version(self) -> str:
        return self.requirement.split("=")[-1]


def builds(version: str, index: str) -> dict[str, Build]:
    """What TORCH may say.

    `===` takes the registry's build although a local 2.13.0+cpu would satisfy `==`. Drivers: NVIDIA's table of CUDA's
    minor version compatibility.
    """
    return {
        "cpu": Build(f"torch=={version}+cpu", f"{index}/cpu", f"about {190 + PACKAGES_MB} MB"),
        "cuda": Build(f"torch==={version}", None, f"about {2730 + PACKAGES_MB:,} MB", least_driver=580),
        "cu126": Build(f"torch=={version}+cu126", f"{index}/cu126", "some 3,000 MB", least_driver=525),
    }


def driver_version(driver_file: Path) -> str | None:
    """The NVIDIA driver's version by the kernel's word, or by nvidia-smi's, as on WSL; None without a driver."""
    if driver_file.exists():
        found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", driver_file.read_text())
        return found.group(1) if found else "of an unknown version"
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True)
    found = re.match(r"\d+\.[\d.]+", asked.stdout) if asked.returncode == 0 else None
    return found.group() if found else None


def choose(wanted: str, driver: str | None, table: dict[str, Build]) -> tuple[str, str]:
    """The name of a build and a sentence for where it is not the expected one. Raises SetUpError."""
    if wanted and wanted not in table:
        raise SetUpError(f'TORCH: expected cpu or cuda, got "{wanted}"')
    if sys.platform == "darwin":
        return _chosen_on_a_mac(wanted)
    name = wanted or ("cuda" if driver else "cpu")
    least = table[name].least_driver
    if least is None or (driver and _major(driver) >= least):
        return name, ""
    need = f"torch {table[name].version} for CUDA needs the NVIDIA driver {least} or newer"
    if driver is None:
        return name, f"{need}, and none is found here."
    older = [f"TORCH={other}" for other, build in table.items() if _major(driver) >= (build.least_driver or least)]
    if wanted:
        raise SetUpError(f"{need}, here it is {driver}: update it, or take {' or '.join(['TORCH=cpu', *older])}")
    instead = "".join(f", or take {other}" for other in older)
    return "cpu", f"{need}, here it is {driver}: taking the CPU build. For the card update it{instead}."


def _chosen_on_a_mac(wanted: str) -> tuple[str, str]:
    if wanted not in ("", "cpu"):
        raise SetUpError(f"TORCH={wanted}: there is no CUDA on a Mac")
    if platform.machine() != "arm64":
        raise SetUpError("torch has builds for Apple silicon only, not for Intel Macs")
    return "mac", ""


def _major(driver: str) -> int:
    digits = driver.split(".")[0]
    return int(digits) if digits.isdigit() else 0


class Environment:
    """The directory of a virtual environment, which may be absent, broken off or another Python's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "bin/python"
        self._log = directory / "set_up.log"

    def require_maker(self) -> None:
        """Raises SetUpError where this Python lacks what `make` needs, as Debian's does without python3-venv."""
        modules = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name)]
        if len(modules) < 2 and not (self._is_this_pythons() and self._packages("pip-*")):
            package = f"python3.{sys.version_info.minor}-venv"
            raise SetUpError(f"{sys.executable} cannot make an environment: apt install {package}, then run this again")

    def make(self) -> None:
        """Makes it, or repairs it. Raises SetUpError."""
        if not self._is_this_pythons():
            self._venv("--clear")
        elif not self._packages("pip-*"):
            self._venv()

    def torch_version(self) -> str | None:
        """None also where `make` is going to clear it away."""
        if not self._is_this_pythons():
            return None
        versions = [path.name.removeprefix("torch-").removesuffix(".dist-info") for path in self._packages("torch-*")]
        return versions[0] if versions else None

    def serves(self, build: Build) -> bool:
        """Whether the index can be reached in seconds and has that build for this Python."""
        command = [*self._pip, "index", "versions", "torch", "--index-url", str(build.index)]
        try:
            asked = subprocess.run(
                [*command, "--timeout", "5", "--retries", "0"],
                capture_output=True,
                text=True,
                timeout=_PROBE_S,
                env=self._environ(),
            )
        except subprocess.TimeoutExpired:
            return False
        return asked.returncode == 0 and build.version in re.split(r"[\s,()]+", asked.stdout)

    def install(self, what: str, *arguments: str) -> None:
        """pip, with one line about it. Raises SetUpError."""
        with self._temporary_files() as downloads, self._log.open("wb") as log, Meter(what, downloads) as meter:
            command = [*self._pip, "install", "--progress-bar", "off", *arguments]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self._environ(downloads))
            try:
                while not _has_ended(process):
                    meter.tick(is_unpacking=b"\nInstalling collected" in self._log.read_bytes())
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
                process.wait()
        if process.returncode:
            lines = self._log.read_text(errors="replace").splitlines()
            errors = [line for line in lines if line.startswith("ERROR")] or lines
            raise SetUpError("\n".join([*errors[-3:], f"pip failed ({self._log}); the same command goes on from here"]))

    @property
    def _pip(self) -> list[str]:
        return [str(self.python), "-m", "pip"]

    def _venv(self, *flags: str) -> None:
        made = subprocess.run(
            [sys.executable, "-m", "venv", *flags, str(self.directory)], capture_output=True, text=True
        )
        if made.returncode:
            lines = (made.stdout + made.stderr).strip().splitlines()
            raise SetUpError(f"{sys.executable} -m venv {self.directory} failed: {lines[-1] if lines else ''}")

    def _is_this_pythons(self) -> bool:
        """Whether it is there and of the same minor version."""
        try:
            command = [str(self.python), "-c", "import sys; print(*sys.version_info[:2])"]
            asked = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            return False
        return asked.stdout.split() == list(map(str, sys.version_info[:2]))

    def _packages(self, pattern: str) -> list[Path]:
        return list(self.directory.glob(f"lib/python3*/site-packages/{pattern}.dist-info"))

    def remove_half_installed(self) -> None:
        """pip takes for installed what has METADATA, and writes INSTALLER at the end: it may be killed in between."""
        for package in self._packages("*"):
            if not (package / "INSTALLER").exists():
                shutil.rmtree(package)

    @contextmanager
    def _temporary_files(self) -> Iterator[Path]:
        """Where pip downloads to: /tmp may be small, and what lies here can be counted."""
        directory = self.directory / "downloads"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _environ(self, downloads: Path | None = None) -> dict[str, str]:
        always = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0"}
        return os.environ | always | ({"TMPDIR": str(downloads.absolute())} if downloads else {})


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Waits a little for it."""
    try:
        process.wait(_LOOK_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def install_torch(environment: Environment, name: str, table: dict[str, Build], step: str) -> None:
    """One build alone: PyTorch's index answers for torch and nothing else, what torch needs comes from pip's own."""
    version = table["cuda"].version
    build = table.get(name) or Build(f"torch=={version}", None, "")
    if build.index and not environment.serves(build):
        print(f"{build.index} is out of reach or has no {build.version}.", end=" ")
        if environment.torch_version():
            print(f"torch {environment.torch_version()} stays.")
            return
        print("The ordinary index's torch may bring CUDA along, 2,800 MB.")
        build = Build(f"torch=={version}", None, "")
    source = build.index or "the ordinary index"
    index = ["--index-url", build.index] if build.index else []
    again = ["--force-reinstall"] if environment.torch_version() else []
    environment.install(f"{step} torch {build.version} from {source}", "--no-deps", *index, *again, build.requirement)


def set_up(options: argparse.Namespace) -> None:
    """Raises SetUpError."""
    environment, stamp = Environment(options.venv), options.venv / f"{options.stamp}.installed"
    files = [REQUIREMENTS / f"{name}.txt" for name in options.requirements]
    version = re.findall(r"(?m)^torch==(\S+)$", (REQUIREMENTS / "constraints.txt").read_text())[0]
    table = builds(version, options.torch_index.rstrip("/"))
    name, notice = choose(options.torch, driver_version(options.driver_file), table)
    environment.remove_half_installed()
    environment.require_maker()
    there = environment.torch_version()
    wants_torch = there is None or (bool(options.torch) and name in table and there != table[name].version)
    if not wants_torch and stamp.exists() and all(stamp.stat().st_mtime >= f.stat().st_mtime for f in files):
        return
    if wants_torch:
        python, size = platform.python_version(), table[name].size if name in table else "some 200 MB"
        print(f"Setting up {options.venv} with Python {python} and torch's {name} build, once: {size} to download.")
        print(notice, end="\n" if notice else "", flush=True)
    environment.make()
    if wants_torch:
        install_torch(environment, name, table, "[1/2]")
    what = f"{'[2/2] ' if wants_torch else ''}the packages for {', '.join(options.requirements)}"
    environment.install(what, *(argument for file in files for argument in ("-r", str(file))))
    stamp.touch()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv", type=Path)
    parser.add_argument("requirements", nargs="+")
    parser.add_argument("--stamp", required=True)
    parser.add_argument("--torch", default="")
    parser.add_argument("--torch-index", required=True)
    parser.add_argument("--driver-file", type=Path, required=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        set_up(parser.parse_args())
    except SetUpError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
