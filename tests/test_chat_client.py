"""The terminal client: in a pseudo-terminal, in a pipe, over both transports, against real servers."""

import asyncio
import re
import stat
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from inference_server.service_state import Phase
from protos.chat.v1 import chat_pb2_grpc
from tests.chat_terminal import TIMEOUT_S, ChatTerminal, clean_environment
from tests.conftest import Service
from tests.fakes import FakeRunner, InProcessService, in_process_service, until
from tests.programs import ROOT
from tests.test_cancel import expect_the_work_to_stop
from tests.test_grpc_client import request as grpc_request

STATISTICS = r"\d+ tokens? · ([\d.]+ tokens/s · )?first token after [\d,]+ ms"
T = TypeVar("T")


def in_pipe(*flags: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clients.chat", *flags]
    return subprocess.run(
        command, cwd=ROOT, env=clean_environment(), input=typed, capture_output=True, text=True, timeout=TIMEOUT_S
    )


@pytest.fixture(params=["gRPC", "HTTP"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(service: Service, way: str) -> str:
    return service.grpc_address if way == "gRPC" else service.url


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ChatTerminal]]:
    """Starts clients that share one state directory, and ends those that are left."""
    started: list[ChatTerminal] = []

    def start_one(target: str, *flags: str) -> ChatTerminal:
        started.append(ChatTerminal(target, tmp_path, *flags))
        return started[-1]

    yield start_one
    for terminal in started:
        terminal.close()


@pytest.fixture
async def gated() -> AsyncIterator[InProcessService]:
    async with in_process_service(FakeRunner(gated=True)) as service:
        yield service


async def aside(work: Callable[..., T], *arguments: str) -> T:
    """Waits for the terminal on a thread, so that the service in this event loop can answer it."""
    return await asyncio.to_thread(work, *arguments)


def test_first_line_says_who_answers_and_an_answer_streams(
    start: Callable[..., ChatTerminal], service: Service, target: str, way: str
) -> None:
    terminal = start(target, "--temperature", "0")
    opening = terminal.until_prompt()
    assert opening.startswith(f"demo answers at {target} over {way}")
    assert "demo model, not Qwen3" in opening
    shown = terminal.ask("你好，介绍一下你自己")
    with grpc.insecure_channel(service.grpc_address) as channel:
        asked = grpc_request("你好，介绍一下你自己")
        answer = chat_pb2_grpc.ChatServiceStub(channel).CreateChatCompletion(asked).choices[0].message.content
    assert len(answer) > 10
    assert "".join(answer.split()) in "".join(shown.split())
    assert re.search(STATISTICS, shown)
    terminal.send("\x04")
    assert terminal.wait() == 0


@pytest.mark.parametrize("slash", ["", "/"])
def test_commands_with_and_without_a_slash(start: Callable[..., ChatTerminal], service: Service, slash: str) -> None:
    terminal = start(service.grpc_address)
    terminal.until_prompt()
    assert "nothing has been said yet" in terminal.ask(f"{slash}history")
    terminal.ask("Hello there")
    listed = terminal.ask(f"{slash}history")
    assert re.search(r"user\s+Hello there\s+assistant\s+\w", listed)
    assert "forgotten" in terminal.ask(f"{slash}clear")
    assert "nothing has been said yet" in terminal.ask(f"{slash}history")
    assert "forgets the conversation" in terminal.ask(f"{slash}help")
    assert re.search(STATISTICS, terminal.ask(f"{slash}quit now"))


def test_every_word_for_the_end_ends_with_exit_code_0(start: Callable[..., ChatTerminal], service: Service) -> None:
    words = ["quit", "exit", "q", "/quit", "/exit", "/q"]
    terminals = [start(service.grpc_address) for _ in words]
    for terminal, word in zip(terminals, words, strict=True):
        terminal.until_prompt()
        terminal.send(f"{word}\r")
        assert terminal.wait() == 0


async def test_ctrl_c_stops_the_answer_and_the_servers_work(
    start: Callable[..., ChatTerminal], gated: InProcessService, way: str
) -> None:
    terminal = start(gated.grpc_address if way == "gRPC" else gated.url, "--max-tokens", "30")
    await aside(terminal.until_prompt)
    terminal.send("Tell me everything\r")
    await until(lambda: gated.sequence_count == 1, TIMEOUT_S)
    gated.runner.allow(7)
    await aside(terminal.until, "ggggggg")
    terminal.send("\x03")
    assert "stopped" in await aside(terminal.until_prompt)
    await expect_the_work_to_stop(gated, 7)
    listed = await aside(terminal.ask, "history")
    assert re.search(r"user\s+Tell me everything\s+assistant stopped\s+ggggggg\s", listed)
    ended = await aside(terminal.ask, "And on")
    assert "30 tokens" in ended
    assert "(length)" in ended


async def test_answer_stopped_before_it_begins_is_not_kept(
    start: Callable[..., ChatTerminal], gated: InProcessService, way: str
) -> None:
    terminal = start(gated.grpc_address if way == "gRPC" else gated.url)
    await aside(terminal.until_prompt)
    terminal.send("Hello\r")
    await until(lambda: gated.sequence_count == 1, TIMEOUT_S)
    terminal.send("\x03")
    assert "the question is not kept" in await aside(terminal.until_prompt)
    await expect_the_work_to_stop(gated, 0)
    assert "nothing has been said yet" in await aside(terminal.ask, "history")


async def test_refused_question_is_one_red_line_and_is_not_kept(
    start: Callable[..., ChatTerminal], gated: InProcessService, way: str
) -> None:
    terminal = start(gated.grpc_address if way == "gRPC" else gated.url, "--max-tokens", "5")
    await aside(terminal.until_prompt)
    gated.state.enter(Phase.DRAINING)
    terminal.send("Refused\r")
    await aside(terminal.until, r"\x1b\[31mthe server is ending\x1b\[0m\r\n")
    await aside(terminal.until_prompt)
    gated.state.enter(Phase.READY)
    gated.runner.allow(5)
    assert "5 tokens" in await aside(terminal.ask, "Answered")
    listed = await aside(terminal.ask, "history")
    assert "Answered" in listed
    assert "Refused" not in listed


async def test_client_waits_for_a_model_that_loads(
    start: Callable[..., ChatTerminal], gated: InProcessService, way: str
) -> None:
    gated.state.load_percent = 37
    gated.state.enter(Phase.LOADING)
    terminal = start(gated.grpc_address if way == "gRPC" else gated.url)
    await aside(terminal.until, "loading.*37%")
    gated.state.enter(Phase.READY)
    assert "fake answers at" in await aside(terminal.until_prompt)


async def test_ctrl_c_leaves_while_the_model_loads(start: Callable[..., ChatTerminal], gated: InProcessService) -> None:
    gated.state.enter(Phase.LOADING)
    terminal = start(gated.grpc_address)
    await aside(terminal.until, "the model is loading")
    terminal.send("\x03")
    assert await aside(terminal.wait) == 130


def test_message_of_several_lines(start: Callable[..., ChatTerminal], service: Service) -> None:
    terminal = start(service.grpc_address)
    terminal.until_prompt()
    for keys in ("one\\\rtwo", "one\x1b\rtwo", "\x1b[200~one\ntwo\x1b[201~"):
        assert re.search(STATISTICS, terminal.ask(keys))
        assert re.search(r"user\s*\n *one *\r?\n *two", terminal.ask("history"))
        terminal.ask("clear")


def test_ctrl_c_at_the_prompt_clears_the_line(start: Callable[..., ChatTerminal], service: Service) -> None:
    terminal = start(service.grpc_address)
    terminal.until_prompt()
    terminal.send("never sent\x03")
    assert "nothing has been said yet" in terminal.ask("history")
    terminal.send("\x04")
    assert terminal.wait() == 0


def test_typed_lines_are_remembered_across_runs_and_private(
    start: Callable[..., ChatTerminal], service: Service, tmp_path: Path
) -> None:
    first = start(service.grpc_address)
    first.until_prompt()
    first.ask("Hello from yesterday")
    first.send("\x04")
    assert first.wait() == 0
    second = start(service.grpc_address)
    second.until_prompt()
    assert "Hello from yesterday" in second.ask("\x1b[A")
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_bytes_that_are_no_text_do_not_end_the_client(start: Callable[..., ChatTerminal], service: Service) -> None:
    terminal = start(service.grpc_address)
    terminal.until_prompt()
    terminal.send(b"bad \xff byte\r")
    assert re.search(STATISTICS, terminal.until_prompt())


def test_picture_of_a_session_is_drawn_without_this_machines_paths(
    start: Callable[..., ChatTerminal], service: Service, tmp_path: Path
) -> None:
    picture = tmp_path / "chat.svg"
    terminal = start(service.grpc_address, "--export-svg", str(picture))
    terminal.until_prompt()
    terminal.ask("Hello")
    terminal.send("q\r")
    assert terminal.wait() == 0
    texts = xml.etree.ElementTree.parse(picture).getroot().iter("{http://www.w3.org/2000/svg}text")
    drawn = "".join(str(element.text) for element in texts).replace("\xa0", " ")
    assert "> Hello" in drawn
    assert re.search(STATISTICS, drawn)
    assert str(ROOT) not in picture.read_text()


def test_pipe_gets_the_answers_alone_and_no_control_sequences(target: str) -> None:
    done = in_pipe("--target", target, "--system", "Be brief.", typed="Hello\n\n你好\nhistory\n")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    hello, chinese, *listed = done.stdout.splitlines()
    answers = ["user: Hello", f"assistant: {hello}", "user: 你好", f"assistant: {chinese}"]
    assert listed == ["system: Be brief.", *answers]
    assert done.stderr.startswith("demo answers at")
    assert len(re.findall(STATISTICS, done.stderr)) == 2


def test_equal_seeds_give_equal_answers_and_max_tokens_ends_them(target: str) -> None:
    sampling = ("--seed", "7", "--temperature", "2", "--top-p", "0.99", "--max-tokens", "8")
    done = in_pipe("--target", target, "--model", "Qwen/demo", *sampling, typed="Hi\nclear\nHi\n")
    first, second = done.stdout.splitlines()
    assert first == second != ""
    assert done.stderr.count("\n8 tokens") == 2
    assert done.stderr.count("(length)") == 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1", "http://nowhere.invalid"])
def test_server_that_cannot_be_reached_is_one_line_and_exit_code_2(address: str) -> None:
    done = in_pipe("--target", address)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(rf"clients\.chat: no \w+ server can be reached at {re.escape(address)}\n", done.stderr)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--temperature", "2.1"), "'--temperature'"),
        (("--top-p", "nan"), "'--top-p'"),
        (("--max-tokens", "0"), "'--max-tokens'"),
        (("--target", "http://"), "--target http://: no host"),
        (("--export-svg", "chat.svg"), "--export-svg"),
        (("--model", "other"), "--model other: not served there"),
    ],
)
def test_bad_setting_is_one_line_and_exit_code_2(service: Service, flags: tuple[str, ...], said: str) -> None:
    done = in_pipe("--target", service.grpc_address, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("clients.chat: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_failed_question_in_a_pipe_is_exit_code_1_and_the_next_is_asked(service: Service) -> None:
    done = in_pipe("--target", service.grpc_address, typed="a " * 40_000 + "\nHello\n")
    assert done.returncode == 1
    assert len(re.findall(r"(?m)^clients\.chat: .*32768", done.stderr)) == 1
    assert len(re.findall(STATISTICS, done.stderr)) == 1
