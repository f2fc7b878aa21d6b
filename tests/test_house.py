"""The house itself: floors, generated code, documents that are true."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import ROOT

# A file imports only from lower floors; longer prefixes win.
FLOORS = {
    "protos": 0,
    "inference_server.errors": 0,
    "inference_server.engine.types": 0,
    "inference_server.chat.types": 0,
    "inference_server.demo_model": 0,
    "inference_server.checkpoint.advice": 1,
    "inference_server.checkpoint.quantization": 1,
    "inference_server.checkpoint.weight_files": 1,
    "inference_server.checkpoint.check": 2,
    "inference_server.engine.attention": 1,
    "inference_server.engine.attention.gathered": 2,
    "inference_server.engine.attention.in_place": 3,
    "inference_server.engine.attention.paged": 3,
    "inference_server.engine.extents": 1,
    "inference_server.engine.kv_cache": 2,
    "inference_server.engine.waiting": 1,
    "inference_server.engine.scheduler": 3,
    "inference_server.engine.pace": 1,
    "inference_server.engine.control_groups": 0,
    "inference_server.engine.thread_times": 0,
    "inference_server.engine.gumbel": 1,
    "inference_server.engine.penalties": 1,
    "inference_server.engine.draw": 2,
    "inference_server.engine.sampler": 3,
    "inference_server.chat": 3,
    "inference_server.chat.added_tokens": 1,
    "inference_server.chat.template": 1,
    "inference_server.chat.control_tokens": 2,
    "inference_server.chat.text_tokenizer": 2,
    "inference_server.engine.device": 1,
    "inference_server.engine.linear": 1,
    "inference_server.engine.models": 2,
    "inference_server.engine.model_loader": 3,
    "inference_server.engine.decode_graphs": 3,
    "inference_server.engine.model_runner": 4,
    "inference_server.engine.cache_memory": 5,
    "inference_server.engine.native.build": 1,
    "inference_server.engine.native.library": 2,
    "inference_server.engine.native.draws": 3,
    "inference_server.engine.native.weights": 4,
    "inference_server.engine.native.runner": 5,
    "inference_server.engine.native.choice": 6,
    "inference_server.engine.step": 4,
    "inference_server.engine.mail": 1,
    "inference_server.engine.engine": 5,
    "inference_server.admission": 1,
    "inference_server.caller": 2,
    "inference_server.encode_queue": 4,
    "inference_server.completion": 6,
    "inference_server.config": 6,
    "inference_server.download": 6,
    "inference_server.download.config": 7,
    "inference_server.download.hubs": 7,
    "inference_server.download.selection": 7,
    "inference_server.download.local_files": 7,
    "inference_server.download.byte_progress": 7,
    "inference_server.download.wait": 7,
    "inference_server.download.transfer": 8,
    "inference_server.download.__main__": 9,
    "inference_server.service_state": 6,
    "inference_server.progress": 6,
    "inference_server.status": 6,
    "inference_server.reflection": 6,
    "inference_server.wire_format": 6,
    "inference_server.boundary": 7,
    "inference_server.convert": 7,
    "inference_server.health": 7,
    "inference_server.probe": 7,
    "inference_server.watchdog": 7,
    "inference_server.metrics": 7,
    "inference_server.accounting": 8,
    "inference_server.servicer": 9,
    "inference_server.listener": 10,
    "inference_server.generation_config": 7,
    "inference_server.loading": 10,
    "inference_server.server": 11,
    "inference_server.__main__": 12,
}
# What must not be imported by a room, whatever the floor.
FORBIDDEN = {
    "inference_server.engine": {"grpc", "protos", "inference_server.chat", "google"},
    "inference_server.engine.scheduler": {"torch", "transformers"},
    "inference_server.engine.kv_cache": {"torch", "transformers"},
    "inference_server.engine.waiting": {"torch", "transformers"},
    "inference_server.engine.extents": {"torch", "transformers"},
    "inference_server.engine.pace": {"torch", "transformers"},
    "inference_server.engine.control_groups": {"torch", "transformers"},
    "inference_server.engine.thread_times": {"torch", "transformers"},
    "inference_server.chat": {"grpc", "protos", "torch", "google"},
    "inference_server.errors": {"grpc", "torch", "transformers"},
    "inference_server.checkpoint": {"grpc", "protos", "torch", "transformers", "safetensors", "google"},
    "inference_server.download": {"grpc", "protos", "torch", "transformers", "google"},
    "inference_server.status": {"torch", "transformers"},
    "inference_server.probe": {"torch", "transformers"},
    "inference_server.convert": {"torch", "transformers", "grpc"},
    "inference_server.servicer": {"torch", "transformers"},
    "inference_server": {"http_bridge", "clients", "tests"},
    "http_bridge": {"inference_server", "torch", "transformers", "clients", "tests"},
    "clients": {"inference_server", "http_bridge", "torch", "transformers", "tests"},
    "protos": {"inference_server", "http_bridge", "clients", "torch", "transformers"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(p for room in ("protos", "inference_server", "http_bridge", "clients") for p in ROOT.joinpath(room).rglob("*.py")):  # fmt: skip # noqa: E501
        if "_pb2" not in path.name:
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def floor_of(name: str) -> int | None:
    rooms = [room for room in FLOORS if is_in(name, room)]
    return FLOORS[max(rooms, key=len)] if rooms else None


def wrong_imports(module: str, source: str) -> list[str]:
    """What the module must not import."""
    own_floor, wrong = floor_of(module), []
    for imported in sorted(imports(source)):
        floor, room = floor_of(imported), ".".join(module.split(".")[:-1])
        if floor is not None and own_floor is not None and floor >= own_floor and not is_in(imported, module):
            same_room = floor == own_floor and is_in(imported, room) and room.endswith("demo_model")
            if not same_room:
                wrong.append(f"{module} (floor {own_floor}) imports {imported} (floor {floor})")
        wrong += [
            f"{module} imports {imported}"
            for place, banned in FORBIDDEN.items()
            if is_in(module, place) and any(is_in(imported, ban) for ban in banned)
        ]
    return wrong


def test_every_file_imports_only_from_lower_floors() -> None:
    assert [wrong for module, path in modules() for wrong in wrong_imports(module, path.read_text())] == []


def test_every_module_of_the_server_has_a_floor() -> None:
    rooms = {f"inference_server{room}" for room in ("", ".engine", ".engine.native", ".chat", ".checkpoint")}
    assert {m for m, _ in modules() if m.startswith("inference_server") and floor_of(m) is None} <= rooms


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("inference_server.engine.sampler", "import grpc"),
        ("inference_server.engine.sampler", "from inference_server.engine.engine import Engine"),
        ("inference_server.chat.prompt", "import torch"),
        ("inference_server.chat.prompt", "from inference_server.chat.reply import Reply"),
        ("http_bridge.app", "from inference_server import errors"),
        ("clients.chat", "import torch.nn"),
    ],
)
def test_the_floor_test_finds_wrong_imports(module: str, source: str) -> None:
    assert wrong_imports(module, source)


def test_bridge_runs_without_torch_and_transformers() -> None:
    banned = ("torch", "transformers", "inference_server")
    code = f"import http_bridge.__main__, sys; print([m for m in {banned} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_generated_code_is_current(tmp_path: Path) -> None:
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out", "mypy_grpc_out")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, "protos/chat/v1/chat.proto"]
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run(command, cwd=ROOT, check=True, env=path, capture_output=True)
    for made in (tmp_path / "protos/chat/v1").iterdir():
        assert (ROOT / "protos/chat/v1" / made.name).read_text() == made.read_text(), f"{made.name}: run `make protos`"


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_file_names_a_path_of_one_machine() -> None:
    places = re.compile(rb"/(work|root|home)/[a-z.]")
    named = [
        path.relative_to(ROOT)
        for path in tracked()
        if places.search(path.read_bytes()) and path.name != "test_house.py"
    ]
    assert named == []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_that_a_document_names_is_there(name: str) -> None:
    text = (ROOT / name).read_text()
    named = set(
        re.findall(
            r"`((?:protos|inference_server|http_bridge|clients|scripts|docs|tests|requirements)/[\w./-]*)`", text
        )
    )
    missing = {path for path in named if not (ROOT / path).exists() and not (ROOT / "inference_server" / path).exists()}
    assert named
    assert not missing


def test_every_pinned_package_is_pinned_exactly() -> None:
    pins = [
        line for line in (ROOT / "requirements/constraints.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    for name in ("inference", "bridge", "client", "bench", "dev"):
        wanted = [line for line in (ROOT / f"requirements/{name}.txt").read_text().splitlines() if line[:1].isalpha()]
        assert set(wanted) <= pinned
