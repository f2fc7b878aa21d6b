"""A Docker engine for a check: the one that runs here, else a private one that ends with the check."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_START_S = 60.0
_COMMAND_S = 1800.0  # a build on a slow line


class CheckFailed(Exception):
    """What is not as it should be, for a person."""


class Docker:
    """Runs the docker client against one engine. host: a socket's address; None is what the client finds by itself."""

    def __init__(self, host: str | None = None) -> None:
        self._client = ["docker", *(("--host", host) if host else ())]

    def __call__(self, *arguments: str, timeout_s: float = _COMMAND_S) -> str:
        """The command's output. Raises CheckFailed where it fails."""
        done = self.run(*arguments, timeout_s=timeout_s)
        if done.returncode:
            raise CheckFailed(f"docker {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def run(self, *arguments: str, timeout_s: float = _COMMAND_S) -> "subprocess.CompletedProcess[str]":
        """The ended command, whatever its exit code."""
        try:
            return subprocess.run([*self._client, *arguments], capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise CheckFailed(f"docker {' '.join(arguments)}: not done in {timeout_s:.0f} s") from error

    def is_there(self) -> bool:
        """Whether an engine answers."""
        return self.run("version", timeout_s=30).returncode == 0


@contextlib.contextmanager
def docker_engine() -> Iterator[Docker]:
    """Raises CheckFailed where no engine can run."""
    if not shutil.which("docker"):
        raise CheckFailed("no Docker engine: there is no docker command")
    docker = Docker()
    if docker.is_there():
        yield docker
        return
    if not shutil.which("dockerd") or os.geteuid() != 0:
        raise CheckFailed("no Docker engine: none answers, and starting one wants root and the dockerd command")
    with (
        tempfile.TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True) as directory,
        _private_engine(Path(directory)) as private,
    ):
        yield private


@contextlib.contextmanager
def _private_engine(directory: Path) -> Iterator[Docker]:
    """Without networks of its own, so that it changes nothing on this machine: containers use the machine's."""
    host = f"unix://{directory}/socket"
    command = [
        "dockerd", "--host", host, "--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec",
        "--pidfile", f"{directory}/pid", "--bridge=none", "--iptables=false", "--ip6tables=false",
    ]  # fmt: skip
    log = directory / "log"
    with log.open("wb") as output:
        engine = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        docker, end_s = Docker(host), time.monotonic() + _START_S
        while not docker.is_there():
            if engine.poll() is not None or time.monotonic() > end_s:
                raise CheckFailed(f"no Docker engine: dockerd does not start here\n{log.read_text()[-2000:]}")
            time.sleep(0.5)
        yield docker
    finally:
        engine.terminate()
        engine.wait(_START_S)
        _unmount(directory)


def _unmount(directory: Path) -> None:
    """What dockerd leaves mounted there would keep the directory from being removed."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed(places):
        if place.startswith(f"{directory}/"):
            subprocess.run(["umount", place], check=False)
