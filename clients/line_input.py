"""Where messages come from: a person at the terminal, or the lines of a pipe."""

import signal
import sys
from pathlib import Path
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


class LineInput(Protocol):
    """A source of messages."""

    is_on_screen: bool  # whether the user sees what is read

    async def read(self) -> str | None:
        """The next message; None at the end. Raises KeyboardInterrupt where Ctrl-C has to end the program."""


class PipeInput:
    """One message a line of stdin."""

    is_on_screen = False

    async def read(self) -> str | None:
        """Holds up the event loop: a thread that waits for stdin could not be ended, and nothing else is under way."""
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            line = sys.stdin.readline()
        finally:
            signal.signal(signal.SIGINT, previous)
        return line.removesuffix("\n").removesuffix("\r") if line else None


class TerminalInput:
    """A line editor with a history across runs."""

    is_on_screen = True

    def __init__(self, prompt: str, history_file: Path) -> None:
        """Raises OSError where the history cannot be kept."""
        history_file.parent.mkdir(parents=True, exist_ok=True)
        history_file.touch(mode=0o600)
        with history_file.open("ab"):
            pass
        self._prompt: StyleAndTextTuples = [("", "\n"), ("bold ansicyan", prompt)]
        self._session: PromptSession[str] = PromptSession(
            history=_History(str(history_file)),
            multiline=True,
            key_bindings=_key_bindings(),
            prompt_continuation=" " * len(prompt),
        )

    async def read(self) -> str | None:
        try:
            return await self._session.prompt_async(self._prompt)
        except EOFError:
            return None


class _History(FileHistory):
    """Bytes that are no UTF-8 come as lone surrogates, which the file cannot hold."""

    def store_string(self, string: str) -> None:
        super().store_string(string.encode("utf-8", "replace").decode())


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()
    editing = has_focus(DEFAULT_BUFFER)

    @bindings.add("enter", filter=editing)
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=editing)
    def add_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c", filter=editing)
    def clear(event: KeyPressEvent) -> None:
        event.current_buffer.reset()

    return bindings
