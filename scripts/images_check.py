"""Builds both images, runs them hardened, asks a question through the bridge and ends them, for `make images-check`.

On the real base images where they can be pulled, else on stand-ins (`scripts/stand_in_bases.py`). Exit code 0 where all
is as it should be. The containers use the machine's network and free ports, so nothing that runs here is disturbed.
"""

import contextlib
import json
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from scripts.docker_engine import CheckFailed, Docker, docker_engine
from scripts.stand_in_bases import make_stand_ins

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "inference_server/demo_model/checkpoint"
PREFIX = "qwen3-chat-check"  # of all images and containers made here
MOUNT = "/app/Qwen3-4B-Instruct-2507"
HARDENED = (
    "--read-only", "--user", "10001", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
    "--tmpfs", "/tmp", "--network", "host",
)  # fmt: skip
BRIDGE_LIMIT_MB = 120
PULL_S = 900.0
WAIT_S = 120.0  # a generous end, not a measurement
# Run inside a container; prints JSON.
CONTENT = """
import importlib.util, json, os
files = [os.path.relpath(os.path.join(at, name), "/app") for at, _, names in os.walk("/app") for name in names]
libraries = [name for name in ("torch", "transformers") if importlib.util.find_spec(name)]
print(json.dumps({"files": files, "libraries": libraries}))
"""
COMPILED = """
import json
from inference_server.engine.native.choice import difference_from_reference
from inference_server.engine.native.library import Library, available_variants
print(json.dumps({name: difference_from_reference(Library(name)) for name in available_variants()}))
"""
PRIVILEGES = """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/1/status").read().splitlines())
print(json.dumps([status["Uid"].split()[0], status["CapEff"], status["NoNewPrivs"], os.statvfs("/").f_flag & 1]))
"""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@dataclass
class Check:
    """The engine, the images that were built, and the containers that run."""

    docker: Docker
    containers: list[str] = field(default_factory=list)
    inference: str = f"{PREFIX}/inference"
    bridge: str = f"{PREFIX}/bridge"

    def start(self, image: str, *options: str) -> str:
        """The name of a hardened container that runs."""
        name = f"{image.replace('/', '-')}-{len(self.containers)}"
        self.containers.append(name)
        self.docker("run", "--detach", "--name", name, *HARDENED, *options, image)
        return name

    def wait_healthy(self, name: str) -> None:
        """Waits for the image's own health check."""
        began_s = time.monotonic()
        while (state := self._state(name))["Health"]["Status"] != "healthy":
            if not state["Running"] or time.monotonic() - began_s > WAIT_S:
                raise CheckFailed(f"{name} is not healthy: {json.dumps(state)}\n{self.logs(name)}")
            time.sleep(0.5)
        say(f"{name}: healthy after {time.monotonic() - began_s:.0f} s")

    def end(self, name: str) -> None:
        """SIGTERM, as `docker stop` sends it, unless it was sent; the exit code has to be 0."""
        began_s = time.monotonic()
        self.docker("stop", "-t", "60", name, timeout_s=WAIT_S)
        code = self._state(name)["ExitCode"]
        expect(code == 0, f"{name}: exit code {code} after SIGTERM\n{self.logs(name)}")
        say(f"{name}: SIGTERM, exit code 0 after {time.monotonic() - began_s:.1f} s")

    def logs(self, name: str) -> str:
        done = self.docker.run("logs", name)
        return done.stdout + done.stderr

    def _state(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.docker("inspect", "--format", "{{json .State}}", name))
        return state


def main() -> int:
    """Returns the exit code."""
    began_s = time.monotonic()
    try:
        with docker_engine() as docker, tidied(Check(docker)) as check:
            build(check)
            content(check)
            without_a_model(check)
            answers(check)
    except CheckFailed as error:
        print(f"images-check: {error}", file=sys.stderr)
        return 1
    say(f"all well after {time.monotonic() - began_s:.0f} s")
    return 0


def say(line: str) -> None:
    print(f"images-check: {line}", flush=True)


def expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise CheckFailed(otherwise)


@contextlib.contextmanager
def tidied(check: Check) -> Iterator[Check]:
    """Removes what was made, also after a failure."""
    try:
        yield check
    finally:
        for name in check.containers:
            check.docker.run("rm", "--force", name)
        images = [f"{PREFIX}/{name}" for name in ("inference", "bridge", "python", "torch", "debian")]
        check.docker.run("image", "rm", "--force", *images)


def build(check: Check) -> None:
    """Both images, on what can be had as a base."""
    bases = {name: base_of(name) for name in ("bridge", "inference")}
    compiler, cuda = base_of("inference", "COMPILER"), "1"
    if not all(is_had(check.docker, base) for base in (*bases.values(), compiler)):
        say("the base images cannot be pulled; making stand-ins of Debian and a torch for CPUs")
        began_s = time.monotonic()
        bases["bridge"], bases["inference"], compiler = make_stand_ins(check.docker, PREFIX)
        cuda = "0"
        say(f"stand-ins made in {time.monotonic() - began_s:.0f} s")
    for name, base in bases.items():
        began_s, image = time.monotonic(), f"{PREFIX}/{name}"
        given = {"BASE": base} | ({"REQUIRE_CUDA": cuda, "COMPILER": compiler} if name == "inference" else {})
        arguments = [part for key, value in given.items() for part in ("--build-arg", f"{key}={value}")]
        check.docker("build", "--network", "host", "--file", f"{ROOT}/Dockerfile.{name}", *arguments,
                     "--tag", image, str(ROOT))  # fmt: skip
        added_mb = (size(check.docker, image) - size(check.docker, base)) / 1e6
        say(f"{name}: built in {time.monotonic() - began_s:.0f} s, {added_mb:.1f} MB above {base}")
        expect(name != "bridge" or added_mb < BRIDGE_LIMIT_MB, f"the bridge adds more than {BRIDGE_LIMIT_MB} MB")


def base_of(name: str, argument: str = "BASE") -> str:
    [base] = re.findall(rf"(?m)^ARG {argument}=(\S+)$", (ROOT / f"Dockerfile.{name}").read_text())
    return str(base)


def is_had(docker: Docker, image: str) -> bool:
    """Whether the image is here, or could be pulled."""
    return not docker.run("image", "inspect", image).returncode or not docker.run("pull", image, timeout_s=PULL_S).returncode  # fmt: skip # noqa: E501


def size(docker: Docker, image: str) -> int:
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


def content(check: Check) -> None:
    """No tests, no weights but the demo's, nothing of the other program; no torch in the bridge."""
    for image, room in ((check.inference, "inference_server"), (check.bridge, "http_bridge")):
        command = ("run", "--rm", *HARDENED, "--entrypoint", "python", image, "-c", CONTENT)
        found = json.loads(check.docker(*command))
        rooms = {Path(file).parts[0] for file in found["files"]}
        expect(rooms == {"LICENSE", "protos", "observability", room}, f"{image} holds {sorted(rooms)}")
        weights = [file for file in found["files"] if file.endswith(WEIGHTS)]
        demo = ["inference_server/demo_model/checkpoint/model.safetensors"]
        expect(weights == (demo if image == check.inference else []), f"{image} holds weights: {weights}")
        tests = [file for file in found["files"] if "test" in file]
        expect(not tests, f"{image} holds tests: {tests}")
        libraries = ["torch", "transformers"] if image == check.inference else []
        expect(found["libraries"] == libraries, f"{image} has {found['libraries']}")
        say(f"{image}: {len(found['files'])} files, libraries {libraries}, no tests, weights {weights}")
    seen = check.docker("run", "--rm", *HARDENED, "--entrypoint", "python", check.inference, "-c", COMPILED)
    differences = json.loads(seen)
    is_well = differences and all(difference < 0.1 for difference in differences.values())
    expect(is_well, f"the compiled code differs from its reference: {differences}")
    say(f"{check.inference}: the compiled code differs from its reference by {differences}")


def without_a_model(check: Check) -> None:
    """One line and exit code 2."""
    began_s = time.monotonic()
    done = check.docker.run("run", "--rm", *HARDENED, check.inference)
    lines = (done.stdout + done.stderr).splitlines()
    expect(done.returncode == 2 and len(lines) == 1, f"without a model: {done.returncode}, {lines}")
    expect("no such directory" in lines[0] and "INFERENCE_MODEL=demo" in lines[0], f"without a model: {lines[0]}")
    say(f"without a model, exit code 2 after {time.monotonic() - began_s:.1f} s: {lines[0]}")


def answers(check: Check) -> None:
    """A checkpoint that is mounted, and then the demo model, behind one bridge."""
    grpc_port, http_port = free_ports(2)
    listening = ("--env", f"INFERENCE_PORT={grpc_port}", "--env", "INFERENCE_METRICS_PORT=0")
    mounted = check.start(check.inference, *listening, "--volume", f"{CHECKPOINT}:{MOUNT}:ro")
    bridge = check.start(
        check.bridge, "--env", f"BRIDGE_TARGET=127.0.0.1:{grpc_port}", "--env", f"BRIDGE_PORT={http_port}",
        "--env", "BRIDGE_METRICS_PORT=0",
    )  # fmt: skip
    for name in (mounted, bridge):
        check.wait_healthy(name)
        held = json.loads(check.docker("exec", name, "python", "-c", PRIVILEGES))
        expect(held == ["10001", "0" * 16, "1", 1], f"{name}: uid, capabilities, no new ones, read-only: {held}")
    for shown in (" threads; torch ", "loading the model: 100 %", "ready: Qwen3-4B-Instruct-2507 on cpu"):
        expect(shown in check.logs(mounted), f"{mounted} does not log {shown!r}\n{check.logs(mounted)}")
    ask(http_port)
    check.end(mounted)
    patient = ("--env", "INFERENCE_DRAIN_TIMEOUT_S=110")  # a busy machine is no failure
    demo = check.start(check.inference, *listening, *patient, "--env", "INFERENCE_MODEL=demo")
    check.wait_healthy(demo)
    ask(http_port)
    drains(check, demo, http_port)
    check.end(bridge)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("0.0.0.0", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def ask(http_port: int) -> None:
    """Asks until it is answered: the bridge may have to find the server first."""
    end_s = time.monotonic() + WAIT_S
    while True:
        try:
            with post(http_port) as answer:
                return say(f"asked Hello, answered {json.load(answer)['response']!r}")
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > end_s:
                raise CheckFailed(f"the bridge says {error.code}: {error.read().decode()}") from error
            time.sleep(0.5)


def post(http_port: int, **fields: object) -> HTTPResponse:
    body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0} | fields
    request = urllib.request.Request(
        f"http://127.0.0.1:{http_port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is for the outside
    answer: HTTPResponse = opener.open(request, timeout=WAIT_S)
    return answer


def drains(check: Check, name: str, http_port: int) -> None:
    """A stream that runs when SIGTERM comes is sent to its end."""
    with post(http_port, stream=True, max_tokens=600, ignore_eos=True) as events:
        next(events)
        check.docker("kill", "--signal", "TERM", name)
        rest = [line.decode().strip() for line in events if line.strip()]
    expect(rest[-1] == "data: [DONE]", f"a running stream ended with {rest[-1]}\n{check.logs(name)}")
    say(f"SIGTERM with a running stream: {len(rest)} more events, the last one [DONE]")
    check.end(name)


if __name__ == "__main__":
    sys.exit(main())
