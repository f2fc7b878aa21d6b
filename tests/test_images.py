"""What can be said about the images without building them; `make images-check` builds and runs them."""

import re
import shlex
import subprocess
from pathlib import PurePosixPath
from typing import Any

import click
import pytest
import yaml

import http_bridge.config
import inference_server.config
from tests.programs import ROOT

PROGRAMS = {"inference": "inference_server", "bridge": "http_bridge"}
COMMANDS = {"INFERENCE_": inference_server.config.command(print), "BRIDGE_": http_bridge.config.command(print)}


def instructions(name: str) -> list[tuple[str, str]]:
    """Keyword and arguments, comments left out and continued lines joined."""
    text = (ROOT / f"Dockerfile.{name}").read_text()
    lines = re.sub(r"(?m)^#.*\n", "", text).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(None, 1)[1].strip()) for line in lines if line.strip()]


def arguments(name: str, keyword: str) -> list[str]:
    return [argument for found, argument in instructions(name) if found == keyword]


def environment(name: str) -> dict[str, str]:
    pairs = [pair for argument in arguments(name, "ENV") for pair in shlex.split(argument)]
    return dict(pair.split("=", 1) for pair in pairs)


def setting_names() -> set[str]:
    return {str(option.envvar) for command in COMMANDS.values() for option in command.params if isinstance(option, click.Option)}  # fmt: skip # noqa: E501


def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return parsed


def is_sent(path: str, ignored: str) -> bool:
    """Whether .dockerignore lets the path into a build: the last pattern for it, or for a folder above, decides."""
    places = [path, *(str(parent) for parent in PurePosixPath(path).parents if str(parent) != ".")]
    sent = True
    for line in ignored.splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, place) for place in places):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize("name", PROGRAMS)
def test_base_is_a_pinned_argument(name: str) -> None:
    assert instructions(name)[0] == ("ARG", arguments(name, "ARG")[0])
    assert arguments(name, "FROM") == [*(["${COMPILER} AS native"] if name == "inference" else []), "${BASE}"]
    image, tag = re.fullmatch(r"BASE=([a-z/]+):(\S+)", arguments(name, "ARG")[0]).groups()  # type: ignore[union-attr]
    assert tag != "latest"
    assert re.match(r"\d+\.\d+", tag)
    assert (image, tag) == ("python", "3.11-slim") or (image == "pytorch/pytorch" and "cuda" in tag)


def test_base_of_the_inference_image_has_a_torch_that_is_new_enough() -> None:
    major, minor = re.search(r"pytorch:(\d+)\.(\d+)", arguments("inference", "ARG")[0]).groups()  # type: ignore[union-attr]
    assert (int(major), int(minor)) >= (2, 11)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_runs_unprivileged_and_gets_its_signals(name: str) -> None:
    assert arguments(name, "USER") == ["10001"]
    assert arguments(name, "ENTRYPOINT") == [f'["python", "-m", "{PROGRAMS[name]}"]']
    assert arguments(name, "CMD") == []
    assert "STOPSIGNAL" not in dict(instructions(name))


@pytest.mark.parametrize("name", PROGRAMS)
def test_health_check_is_a_program_of_ours(name: str) -> None:
    [check] = arguments(name, "HEALTHCHECK")
    assert check.endswith(f'CMD ["python", "-m", "{PROGRAMS[name]}.probe"]')
    assert (ROOT / PROGRAMS[name] / "probe.py").is_file()


@pytest.mark.parametrize("name", PROGRAMS)
def test_image_has_labels(name: str) -> None:
    labels = shlex.split(" ".join(arguments(name, "LABEL")))
    for label in ("title", "description", "licenses"):
        assert any(pair.startswith(f"org.opencontainers.image.{label}=") for pair in labels)


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_fetched_but_pinned_packages(name: str) -> None:
    assert "ADD" not in dict(instructions(name))
    assert not re.search(r"https?://|curl|wget|apt-get", (ROOT / f"Dockerfile.{name}").read_text())
    for command in arguments(name, "RUN"):
        if "pip install" in command:
            assert "--no-cache-dir -r " in command


@pytest.mark.parametrize("name", PROGRAMS)
def test_image_takes_the_rooms_that_its_program_imports(name: str) -> None:
    last = max(place for place, (keyword, _) in enumerate(instructions(name)) if keyword == "FROM")
    copies = [argument for keyword, argument in instructions(name)[last:] if keyword == "COPY"]
    copied = [source for argument in copies for source in argument.split()[:-1]]
    rooms = {source for source in copied if source.endswith("/")}
    assert rooms == {"protos/", "observability/", f"{PROGRAMS[name]}/"}
    assert f"requirements/{name}.txt" in copied


def test_inference_image_gets_compiled_code_and_no_compiler() -> None:
    assert "--from=native /app/inference_server/engine/native/*.so inference_server/engine/native/" in arguments(
        "inference", "COPY"
    )
    [build] = [command for command in arguments("inference", "RUN") if "native.build" in command]
    assert build.endswith("--strict")
    assert instructions("inference").index(("RUN", build)) < instructions("inference").index(("FROM", "${BASE}"))


def test_torch_of_the_base_is_kept() -> None:
    [install] = [command for command in arguments("inference", "RUN") if "pip install" in command]
    assert "sed -i '/^# torch:/,$d'" in install
    assert install.index("torch==") < install.index("pip install")
    assert "--system-site-packages" in install


@pytest.mark.parametrize("name", PROGRAMS)
def test_environment_of_the_image_names_real_settings(name: str) -> None:
    named = {key for key in environment(name) if key.startswith(tuple(COMMANDS))}
    assert named <= setting_names()
    assert named


def test_model_is_looked_for_where_it_is_mounted() -> None:
    [volume] = compose()["services"]["inference-gpu"]["volumes"]
    assert volume["target"] == environment("inference")["INFERENCE_MODEL"] == "/app/Qwen3-4B-Instruct-2507"
    assert volume["read_only"] is True


@pytest.mark.parametrize(("name", "ports"), [("inference", ["50051", "9464"]), ("bridge", ["8000", "9465"])])
def test_ports_are_named(name: str, ports: list[str]) -> None:
    assert " ".join(arguments(name, "EXPOSE")).split() == ports


def test_only_the_programs_go_into_a_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text()
    assert next(line for line in ignored.splitlines() if not line.startswith("#")) == "*"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    sent = {path for path in listed.stdout.splitlines() if is_sent(path, ignored)}
    assert {PurePosixPath(path).parts[0] for path in sent} == {
        "LICENSE", "requirements", "protos", "observability", "http_bridge", "inference_server",
    }  # fmt: skip
    assert {path for path in sent if path.endswith(".safetensors")} == {
        "inference_server/demo_model/checkpoint/model.safetensors"
    }
    assert not [path for path in sent if "test" in path]
    code = {path for path in listed.stdout.splitlines() if re.match(r"(inference_server|http_bridge)/.*\.py$", path)}
    assert code <= sent


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        "models/Qwen3-4B-Instruct-2507/model-00001-of-00003.safetensors",
        "inference_server/model.safetensors",
        "inference_server/demo_model/checkpoint/other.safetensors",
        "http_bridge/pytorch_model.bin",
        "http_bridge/__pycache__/app.cpython-311.pyc",
        "tests/test_images.py",
        "key.pem",
    ],
)
def test_weights_tests_and_secrets_stay_out(path: str) -> None:
    assert not is_sent(path, (ROOT / ".dockerignore").read_text())


def test_compose_runs_the_bridge_with_one_of_two_servers() -> None:
    services = compose()["services"]
    assert {name: service.get("profiles") for name, service in services.items()} == {
        "inference-gpu": ["gpu"],
        "inference-demo": ["demo"],
        "bridge": None,
    }
    assert "COMPOSE_PROFILES=demo" in (ROOT / ".env").read_text()
    [device] = services["inference-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    host, port = services["bridge"]["environment"]["BRIDGE_TARGET"].split(":")
    for name in ("inference-gpu", "inference-demo"):
        assert services[name]["networks"]["default"]["aliases"] == [host]
        assert services[name]["ports"] == [f"{port}:{port}"]


@pytest.mark.parametrize("name", ["inference-gpu", "inference-demo", "bridge"])
def test_services_of_compose_are_hardened(name: str) -> None:
    service = compose()["services"][name]
    assert service["user"] == "10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]
    assert int(service["stop_grace_period"].removesuffix("s")) > 30  # the drain
    assert set(service["environment"]) <= setting_names()
    assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_names_of_the_images_are_the_same_everywhere() -> None:
    makefile, services = (ROOT / "Makefile").read_text(), compose()["services"]
    for name, service in (("inference", "inference-demo"), ("bridge", "bridge")):
        image = f"qwen3-chat/{name}"
        assert f"{name.upper()}_IMAGE ?= {image}\n" in makefile
        assert services[service]["image"] == image
        assert f'org.opencontainers.image.title="{image}"' in (ROOT / f"Dockerfile.{name}").read_text()
