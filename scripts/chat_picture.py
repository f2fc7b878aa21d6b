"""Draws docs/chat.svg (make chat-picture): the terminal client in a conversation with the demo model."""

import tempfile
from pathlib import Path

from tests.chat_terminal import ChatTerminal
from tests.programs import ROOT, start_server

_PICTURE = ROOT / "docs/chat.svg"
_TYPED = ("你好，介绍一下你自己", "Tell me a story about a robot", "/help")
_SHOWN_PORT = "50051"


def main() -> None:
    """Serves the demo on a free port, and shows the usual one."""
    server, port = start_server()
    try:
        server.wait_for("ready: demo")
        with tempfile.TemporaryDirectory() as state:
            flags = ("--temperature", "0", "--export-svg", str(_PICTURE))
            terminal = ChatTerminal(f"localhost:{port}", Path(state), *flags)
            terminal.until_prompt()
            for line in _TYPED:
                terminal.ask(line)
            terminal.send("quit\r")
            terminal.wait()
    finally:
        server.stop()
    drawn = _PICTURE.read_text(encoding="utf-8")
    _PICTURE.write_text(drawn.replace(f"localhost:{port:05}", f"localhost:{_SHOWN_PORT}"), encoding="utf-8")


if __name__ == "__main__":
    main()
