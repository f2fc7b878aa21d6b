"""Starts the project's programs as a user does, and reads what they print."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_S = 60.0  # a generous end, not a measurement


def clean_environment() -> dict[str, str]:
    """This process's environment without the service's settings and without the make that runs the tests.

    A make inside another one prints the directories that it enters and the level it runs at.
    """
    settings = ("INFERENCE_", "BRIDGE_", "DOWNLOAD_", "CHAT_")
    of_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings) and name not in of_make}


def run_make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A target of the Makefile with its variables, run to its end."""
    return subprocess.run(["make", *arguments], cwd=ROOT, env=clean_environment(), capture_output=True, text=True)


class Program:
    """A child process whose output is collected line by line."""

    def __init__(self, *command: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=clean_environment() | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)

    def wait_for(self, pattern: str, timeout_s: float = START_S) -> re.Match[str]:
        """The first match in the output; fails when the program ends or the time passes without one."""
        end_s = time.monotonic() + timeout_s
        while True:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.output)
            if found:
                return found
            assert not ended, f"the program ended without printing {pattern!r}:\n{self.output}"
            assert time.monotonic() < end_s, f"{pattern!r} was not printed in {timeout_s} s:\n{self.output}"
            time.sleep(0.02)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = START_S) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        assert self.process.stdout
        self.process.stdout.close()
        return code

    def stop(self) -> int:
        """For tidying up; harmless where the program has ended."""
        if self.process.poll() is None:
            self.signal()
            try:
                return self.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.wait()


def start_server(*flags: str, env: dict[str, str] | None = None) -> tuple[Program, int]:
    """An inference server on a free port, whose port is open; it may still be loading."""
    program = Program(
        sys.executable,
        "-m",
        "inference_server",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--metrics-port",
        "0",
        *flags,
        env=env,
    )
    return program, int(program.wait_for(r"gRPC on 127\.0\.0\.1:(\d+)").group(1))


def start_bridge(target: str, *flags: str, env: dict[str, str] | None = None) -> tuple[Program, int]:
    """A bridge on a free port, without metrics unless the flags ask for them."""
    chosen = ("--target", target, "--host", "127.0.0.1", "--port", "0", "--metrics-port", "0", *flags)
    program = Program(sys.executable, "-m", "http_bridge", *chosen, env=env)
    return program, int(program.wait_for(r"HTTP on 127\.0\.0\.1:(\d+)").group(1))
