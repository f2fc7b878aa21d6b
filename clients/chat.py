"""`python -m clients.chat`: a conversation in the terminal or a pipe, over gRPC or HTTP."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from typing import TypeVar

import click

from clients.config import Settings, command, is_http
from clients.conversation import Conversation
from clients.line_input import LineInput, PipeInput, TerminalInput
from clients.plain import PlainScreen
from clients.screen import Screen
from clients.terminal import PROMPT, TerminalScreen
from clients.transports import AnswerEnd, AnswerOptions, ServedModel, ServiceError, Transport

_T = TypeVar("_T")
_POLL_S = 0.3
_INTERRUPTED = 128 + signal.SIGINT
_COMMANDS = ("history", "clear", "help", "quit", "exit", "q")


class Chat:
    """The loop: a message or a command, then what it brings."""

    def __init__(self, transport: Transport, screen: Screen, source: LineInput, system: str | None) -> None:
        self._transport = transport
        self._screen = screen
        self._source = source
        self._conversation = Conversation(system)
        self._has_failed = False

    async def run(self) -> bool:
        """Goes on until the user ends it. Returns whether every question was answered."""
        while (line := await self._source.read()) is not None:
            if line.strip():
                self._screen.typed(line, self._source.is_on_screen)
            match command_of(line):
                case "quit" | "exit" | "q":
                    break
                case "history":
                    self._show_history()
                case "clear":
                    self._conversation.clear()
                    self._screen.note("the conversation is forgotten")
                case "help":
                    self._screen.help()
                case None if line.strip():
                    await self._ask(line)
        return not self._has_failed

    def _show_history(self) -> None:
        self._screen.history(self._conversation.turns)
        if not self._conversation.turns:
            self._screen.note("nothing has been said yet")

    async def _ask(self, question: str) -> None:
        """A question that fails, or is stopped before its answer begins, is not kept."""
        texts: list[str] = []
        try:
            end = await unless_interrupted(self._receive(question, texts))
        except ServiceError as error:
            self._has_failed = True
            self._screen.error(str(error))
            return
        if texts or end:
            self._conversation.add(question, "".join(texts), stopped=end is None)
        if end:
            self._screen.ended(end)
        else:
            self._screen.note("stopped" if texts else "stopped; the question is not kept")

    async def _receive(self, question: str, texts: list[str]) -> AnswerEnd:
        """Collects the answer in `texts`, where it is found also when this is cancelled."""
        with self._screen.answer() as show:
            async with aclosing(self._transport.answer(self._conversation.with_question(question))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, AnswerEnd):
                        return piece
                    texts.append(piece)
                    show(piece)
        raise ServiceError("the answer broke off")


def command_of(line: str) -> str | None:
    """A command stands alone on the line, with or without a slash."""
    word = line.strip().removeprefix("/")
    return word if word in _COMMANDS else None


async def unless_interrupted(work: Coroutine[None, None, _T]) -> _T | None:
    """The result of the work; None when Ctrl-C has cancelled it. Only that: a cancelled program stays cancelled."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    interrupted = asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        task.cancel()

    previous = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(interrupt))
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted.is_set():
            return None
        raise
    finally:
        signal.signal(signal.SIGINT, previous)


async def converse(settings: Settings) -> int:
    """From the first call to the last word. Returns the exit code; raises ServiceError where nothing can be asked."""
    screen, source = _surroundings(settings)
    transport = _transport(settings)
    try:
        model = await unless_interrupted(_ready_model(transport, screen))
        if model is None:
            return _INTERRUPTED
        _check_model(settings.model, model)
        screen.opened(model, transport.place)
        all_answered = await Chat(transport, screen, source, settings.system).run()
    finally:
        await transport.close()
    if isinstance(screen, TerminalScreen):
        _save_picture(screen, settings, model)
    return 0 if all_answered or source.is_on_screen else 1


def _surroundings(settings: Settings) -> tuple[Screen, LineInput]:
    """A person's where there is a terminal on that side, a pipe's where not."""
    on_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if settings.export_svg and not on_terminal:
        raise click.ClickException("--export-svg: there is no picture of a pipe")
    screen: Screen = TerminalScreen(settings.export_svg) if on_terminal else PlainScreen()
    if not (on_terminal and sys.stdin.isatty()):
        return screen, PipeInput()
    try:
        return screen, TerminalInput(PROMPT, settings.history_file.expanduser())
    except OSError as error:
        raise click.ClickException(f"--history-file {settings.history_file}: {error.strerror}") from error


def _transport(settings: Settings) -> Transport:
    """Imports only the way that is taken: each needs a tenth of a second."""
    options = AnswerOptions(settings.model, settings.temperature, settings.top_p, settings.max_tokens, settings.seed)
    if is_http(settings.target):
        from clients.http_transport import HttpTransport

        return HttpTransport(settings.target, options)
    from clients.grpc_transport import GrpcTransport

    return GrpcTransport(settings.target, options)


async def _ready_model(transport: Transport, screen: Screen) -> ServedModel:
    model = await transport.model()
    if model.load_percent is None:
        return model
    with screen.loading() as show:
        while model.load_percent is not None:
            show(model.load_percent)
            await asyncio.sleep(_POLL_S)
            model = await transport.model()
    return model


def _check_model(wanted: str | None, model: ServedModel) -> None:
    """Says at once what else the first question would say."""
    if wanted and wanted.removeprefix("Qwen/") != model.name.removeprefix("Qwen/"):
        raise ServiceError(f'--model {wanted}: not served there; that server has "{model.name}"')


def _save_picture(screen: TerminalScreen, settings: Settings, model: ServedModel) -> None:
    try:
        screen.save_picture(title=f"Chat with {model.name}")
    except OSError as error:
        raise click.ClickException(f"--export-svg {settings.export_svg}: {error.strerror}") from error


def run(settings: Settings) -> None:
    """Ends the process with its exit code."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe's bytes and a terminal's alphabet may be any
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that the terminal is left as it was
    try:
        sys.exit(asyncio.run(converse(settings)))
    except ServiceError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on; the exit would flush again
        sys.exit(1)


def main() -> None:
    """The command line, with errors of one line."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's core would write lines of its own
    try:
        command(run).main(standalone_mode=False)
    except click.ClickException as error:
        print(f"clients.chat: {error.format_message()}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
