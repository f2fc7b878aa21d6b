"""The terminal client in a pseudo-terminal of its own, typed into and read as a person would."""

import os
import re
import subprocess
import sys
import termios
from pathlib import Path

import pexpect
from pexpect.fdpexpect import fdspawn

from tests.programs import ROOT

PROMPT_STARTS = r"\x1b\[\?2004h"  # the line editor turns bracketed paste on
CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
TIMEOUT_S = 30.0  # a generous end, not a measurement
WITH_CONTROLLING_TERMINAL = """
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("clients.chat", run_name="__main__", alter_sys=True)
"""


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}


class ChatTerminal:
    """The client as a person has it before them.

    Not pexpect's own spawn: it forks, and gRPC's threads in this process do not bear that.
    """

    def __init__(self, target: str, state: Path, *flags: str) -> None:
        environment = clean_environment() | {
            "TERM": "xterm-256color",
            "XDG_STATE_HOME": str(state),
            "PROMPT_TOOLKIT_NO_CPR": "1",  # nothing here answers questions about the cursor
        }
        self.keyboard, client_side = os.openpty()
        termios.tcsetwinsize(client_side, (24, 120))
        self.process = subprocess.Popen(
            [sys.executable, "-c", WITH_CONTROLLING_TERMINAL, "--target", target, *flags],
            cwd=ROOT,
            env=environment,
            stdin=client_side,
            stdout=client_side,
            stderr=client_side,
            start_new_session=True,
        )
        os.close(client_side)
        self._output = fdspawn(self.keyboard, timeout=TIMEOUT_S, encoding="utf-8")

    def until_prompt(self) -> str:
        """What was shown before the next prompt."""
        return self.until(PROMPT_STARTS)

    def until(self, pattern: str) -> str:
        self._output.expect(pattern)
        return CONTROL_SEQUENCE.sub("", f"{self._output.before}{self._output.after}")

    def send(self, keys: str | bytes) -> None:
        os.write(self.keyboard, keys.encode() if isinstance(keys, str) else keys)

    def ask(self, text: str) -> str:
        self.send(f"{text}\r")
        return self.until_prompt()

    def wait(self) -> int:
        self._output.expect(pexpect.EOF)
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        os.close(self.keyboard)
        self.process.kill()
        self.process.wait(TIMEOUT_S)
