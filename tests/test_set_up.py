"""What make sets up, with a pip, drivers and interpreters of our own that install nothing."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import run, set_up
from scripts.set_up import Environment, SetUpError, builds, choose, driver_version
from tests.programs import ROOT, run_make

INDEX = "http://index.invalid/whl"
TABLE = builds("2.13.0", INDEX)
# As the kernel module writes it: NVIDIA's own, the open one, another architecture.
PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  gcc 12.2.0\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (dvs-builder@U22)  Tue\n"
ARM = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  {}  Release Build  (root@host)  Tue\n"
FAKE_PYTHON = """#!{executable}
import pathlib, sys
here = pathlib.Path(__file__).parent
packages = here.parent / "lib/python3.0/site-packages"
arguments = sys.argv[1:]
if arguments[0] == "-c":
    print(*sys.version_info[:2])
elif "index" in arguments:
    sys.stdout.write((here / "index").read_text())
    sys.exit(not (here / "index").read_text())
else:
    with (here / "calls").open("a") as calls:
        print(*arguments, file=calls)
    for old in packages.glob("torch-*" if any(a.startswith("torch=") for a in arguments) else "none"):
        (old / "INSTALLER").unlink(); old.rmdir()
    for version in [a.split("=")[-1] for a in arguments if a.startswith("torch=")]:
        (packages / f"torch-{{version}}.dist-info").mkdir()
        (packages / f"torch-{{version}}.dist-info/INSTALLER").touch()
    if (here / "fails").exists():
        sys.exit("Collecting torch\\nERROR: No matching distribution found for torch")
"""


class FakeVenv:
    """A virtual environment whose pip writes down what it is asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.packages = directory / "lib/python3.0/site-packages"
        (self.packages / "pip-23.0.dist-info").mkdir(parents=True)
        (self.packages / "pip-23.0.dist-info/INSTALLER").touch()
        write_program(directory / "bin/python", FAKE_PYTHON.format(executable=sys.executable))
        self.serve("2.13.0+cpu, 2.12.1+cpu")

    def serve(self, versions: str) -> None:
        """What PyTorch's index lists; nothing where it is out of reach."""
        (self.directory / "bin/index").write_text(
            f"torch (2.13.0)\nAvailable versions: {versions}\n" if versions else ""
        )

    def calls(self) -> list[str]:
        calls = self.directory / "bin/calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def make(self, *variables: str) -> subprocess.CompletedProcess[str]:
        """`make run` as far as run.installed."""
        target = f"{self.directory}/run.installed"
        chosen = {"VENV": self.directory, "PYTHON": sys.executable, "TORCH_INDEX": INDEX, "DRIVER_FILE": "/nowhere"}
        assigned = [f"{name}={value}" for name, value in chosen.items()]
        return run_make(target, *assigned, *variables)


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def venv(tmp_path: Path) -> FakeVenv:
    return FakeVenv(tmp_path / "venv")


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ")]


def driver(tmp_path: Path, text: str) -> str:
    (tmp_path / "version").write_text(text)
    return f"DRIVER_FILE={tmp_path}/version"


def test_without_a_driver_torch_comes_alone_from_pytorchs_index_and_the_rest_from_pips_own(venv: FakeVenv) -> None:
    done = venv.make()
    assert done.returncode == 0, done.stderr
    torch, packages = venv.calls()
    assert torch.endswith(f"--no-deps --index-url {INDEX}/cpu torch==2.13.0+cpu")
    assert re.findall(r"(\w+)\.txt", packages) == ["inference", "bridge", "client"]
    assert "index" not in packages.replace("-m pip", "")
    assert "about 260 MB to download" in done.stdout
    assert len(done.stdout.splitlines()) == 3


def test_an_index_out_of_reach_is_said_with_what_the_ordinary_one_may_bring(venv: FakeVenv) -> None:
    venv.serve("")
    done = venv.make()
    assert venv.calls()[0].endswith("--no-deps torch==2.13.0")
    assert f"{INDEX}/cpu is out of reach" in done.stdout
    assert "2,800 MB" in done.stdout


def test_an_index_that_has_no_such_build_is_not_asked_for_it(venv: FakeVenv) -> None:
    venv.serve("2.13.0+cpu.cxx11, 2.12.1+cpu")
    venv.make()
    assert venv.calls()[0].endswith("--no-deps torch==2.13.0")


def test_an_index_that_does_not_answer_counts_as_out_of_reach(venv: FakeVenv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_up, "_PROBE_S", 0.2)
    write_program(venv.directory / "bin/python", "#!/bin/sh\nexec sleep 60\n")
    assert not Environment(venv.directory).serves(TABLE["cpu"])


def test_with_a_driver_that_is_new_enough_the_registrys_build_is_taken(venv: FakeVenv, tmp_path: Path) -> None:
    done = venv.make(driver(tmp_path, OPEN.format("580.65.06")))
    assert venv.calls()[0].endswith("--no-deps torch===2.13.0")
    assert "about 2,800 MB to download" in done.stdout


def test_an_older_driver_is_named_with_the_need_and_the_cpu_build_is_taken(venv: FakeVenv, tmp_path: Path) -> None:
    done = venv.make(driver(tmp_path, PROPRIETARY.format("535.129.03")))
    assert venv.calls()[0].endswith("torch==2.13.0+cpu")
    [line] = [line for line in done.stdout.splitlines() if "NVIDIA" in line]
    assert "needs the NVIDIA driver 580 or newer, here it is 535.129.03: taking the CPU build" in line
    assert line.endswith("For the card update it, or take TORCH=cu126.")


@pytest.mark.parametrize("variable", ["TORCH=foo", "TORCH=CPU", "TORCH=cuda", "TORCH=cu126"])
def test_what_cannot_be_is_one_line_before_anything_is_installed(venv: FakeVenv, tmp_path: Path, variable: str) -> None:
    done = venv.make(variable, driver(tmp_path, PROPRIETARY.format("470.223.02")))
    assert done.returncode == 2
    [line] = errors(done)
    assert "470.223.02" in line if "cu" in variable else line.startswith("TORCH: expected cpu or cuda, got ")
    assert venv.calls() == []
    assert not (venv.directory / "run.installed").exists()


def test_another_build_is_installed_over_the_one_that_is_there(venv: FakeVenv, tmp_path: Path) -> None:
    venv.make()
    venv.make("TORCH=cuda", driver(tmp_path, ARM.format("580.82.07")))
    assert venv.calls()[2].endswith("--no-deps --force-reinstall torch===2.13.0")


@pytest.mark.parametrize("variables", [[], ["TORCH=cpu"]])
def test_nothing_is_installed_twice(venv: FakeVenv, variables: list[str]) -> None:
    venv.make()
    made_ns = (venv.directory / "run.installed").stat().st_mtime_ns
    again = venv.make(*variables)
    assert (len(venv.calls()), again.stdout, made_ns) == (2, "", (venv.directory / "run.installed").stat().st_mtime_ns)


def test_what_pip_was_killed_in_is_installed_again(venv: FakeVenv) -> None:
    half_installed = venv.packages / "torch-2.13.0+cpu.dist-info"
    half_installed.mkdir()
    (half_installed / "METADATA").touch()
    venv.make()
    assert "torch==2.13.0+cpu" in venv.calls()[0]


def test_a_failure_says_pips_error_and_the_same_command_repairs_it(venv: FakeVenv) -> None:
    (venv.directory / "bin/fails").touch()
    failed = venv.make()
    assert failed.returncode == 2
    assert errors(failed)[0] == "ERROR: No matching distribution found for torch"
    assert len(errors(failed)) == 2
    (venv.directory / "bin/fails").unlink()
    assert venv.make().returncode == 0
    assert (venv.directory / "run.installed").exists()


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("", None, "cpu"),
        ("", "579.99", "cpu"),
        ("", "580.65.06", "cuda"),
        ("", "600.1", "cuda"),
        ("", "of an unknown version", "cpu"),
        ("cpu", "600.1", "cpu"),
        ("cuda", None, "cuda"),
        ("cuda", "580.65.06", "cuda"),
        ("cu126", "525.60.13", "cu126"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has one build")
def test_the_driver_decides_unless_torch_is_set(wanted: str, there: str | None, chosen: str) -> None:
    assert choose(wanted, there, TABLE)[0] == chosen


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has one build")
@pytest.mark.parametrize(
    ("wanted", "there", "said"),
    [
        ("cuda", "579.99", "580 or newer, here it is 579.99: update it, or take TORCH=cpu or TORCH=cu126"),
        ("cuda", "470.2", "580 or newer, here it is 470.2: update it, or take TORCH=cpu"),
        ("cu126", "470.2", "525 or newer, here it is 470.2: update it, or take TORCH=cpu"),
        ("CUDA", "580.1", 'expected cpu or cuda, got "CUDA"'),
    ],
)
def test_a_build_that_the_driver_cannot_serve_is_refused(wanted: str, there: str, said: str) -> None:
    with pytest.raises(SetUpError, match=re.escape(said) + "$"):
        choose(wanted, there, TABLE)


@pytest.mark.parametrize("text", [PROPRIETARY, OPEN, ARM])
def test_the_drivers_version_is_read_from_the_kernel(tmp_path: Path, text: str) -> None:
    (tmp_path / "version").write_text(text.format("570.86.15"))
    assert driver_version(tmp_path / "version") == "570.86.15"


@pytest.mark.parametrize(
    ("script", "version"),
    [("echo 581.80", "581.80"), ("echo 'No devices were found'; exit 6", None), ("echo 'command failed'", None)],
)
def test_nvidia_smi_is_asked_where_the_kernel_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, version: str | None
) -> None:
    write_program(tmp_path / "nvidia-smi", f"#!/bin/sh\n{script}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert driver_version(tmp_path / "none") == version


def interpreter(version: str) -> str:
    """A Python that says its version, as find_python.sh asks for it, and fits by it."""
    fits = "exit 0" if (3, 11) <= tuple(map(int, version.split(".")))[:2] <= (3, 14) else "exit 1"
    return f'#!/bin/sh\ncase "$2" in *exit*) {fits};; *) echo {version};; esac\n'


def find_python(tmp_path: Path, *arguments: str, **programs: str) -> subprocess.CompletedProcess[str]:
    for name, version in programs.items():
        write_program(tmp_path / "bin" / name.replace("_", "."), interpreter(version))
    command = ["/bin/sh", str(ROOT / "scripts/find_python.sh"), str(tmp_path / "venv"), *arguments]
    return subprocess.run(command, env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({"python3": "3.11.7"}, "python3"),
        ({"python3": "3.13.0", "python3_11": "3.11.7"}, "python3"),
        ({"python3": "3.9.18", "python3_11": "3.11.7", "python3_12": "3.12.1"}, "python3.12"),
        ({"python3": "3.15.0", "python3_13": "3.13.0"}, "python3.13"),
    ],
)
def test_the_first_python_that_fits_is_taken(tmp_path: Path, programs: dict[str, str], found: str) -> None:
    assert find_python(tmp_path, **programs).stdout == f"{tmp_path}/bin/{found}\n"


def test_the_environments_own_python_and_the_named_one_go_first(tmp_path: Path) -> None:
    own = write_program(tmp_path / "venv/bin/python", interpreter("3.12.1"))
    assert find_python(tmp_path, python3="3.11.7").stdout == f"{own}\n"
    assert find_python(tmp_path, "python3", python3="3.11.7").stdout == f"{tmp_path}/bin/python3\n"


@pytest.mark.parametrize("arguments", [(), ("python3",), ("/no/python",)])
def test_an_older_python_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = find_python(tmp_path, *arguments, python3="3.9.18", python3_11="3.10.2")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("Python 3.11 to 3.14 is needed")
    assert "found 3.9.18 (python3)" in line or arguments == ("/no/python",)


def test_make_run_with_an_older_python_installs_nothing(tmp_path: Path) -> None:
    write_program(tmp_path / "bin/python3", interpreter("3.9.18"))
    make, venv = shutil.which("make"), tmp_path / "venv"
    assert make
    command = [make, "run", f"VENV={venv}"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": f"{tmp_path}/bin"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(errors(done)) == 1
    assert not venv.exists()


def test_an_interpreter_without_venv_is_one_line_that_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SetUpError, match=rf"apt install python3\.{sys.version_info.minor}-venv"):
        Environment(tmp_path / "venv").require_maker()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (["GRPC_PORT=abc"], 'GRPC_PORT: expected 1 to 65535, got "abc"'),
        (["HTTP_PORT=abc"], 'HTTP_PORT: expected 1 to 65535, got "abc"'),
        (["HTTP_PORT=65536"], 'HTTP_PORT: expected 1 to 65535, got "65536"'),
        (["HTTP_PORT=0"], 'HTTP_PORT: expected 1 to 65535, got "0"'),
        (["HTTP_PORT=-1"], 'HTTP_PORT: expected 1 to 65535, got "-1"'),
        (["HTTP_PORT=8e3"], 'HTTP_PORT: expected 1 to 65535, got "8e3"'),
        (["HTTP_PORT=８０８０"], 'HTTP_PORT: expected 1 to 65535, got "８０８０"'),
        (["GRPC_PORT="], 'GRPC_PORT: expected 1 to 65535, got ""'),
        (["GRPC_PORT=50777", "HTTP_PORT=50777"], "GRPC_PORT and HTTP_PORT: expected two ports, got 50777 twice"),
        (["MODEL=Qwen/Qwen3-0.6B"], "`make download MODEL=Qwen/Qwen3-0.6B`, then `make run MODEL=models/Qwen3-0.6B`"),
        (["MODEL=models/none"], "MODEL=models/none: no such directory; `make download` fetches Qwen3-4B-Instruct-2507"),
        (["MODEL=/no/where"], "MODEL=/no/where: no such directory; `make download` fetches Qwen3-4B-Instruct-2507"),
    ],
)
def test_a_bad_variable_is_one_line(variables: list[str], said: str) -> None:
    given = dict(variable.split("=", 1) for variable in variables)
    ports = {"GRPC_PORT": "50051", "HTTP_PORT": "8000"} | given
    line = run._problem(ports.pop("MODEL", "demo"), ports)
    assert line
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize("variable", ["GRPC_PORT=abc", "MODEL=Qwen/Qwen3-0.6B"])
def test_make_run_says_a_bad_variable_before_anything_is_installed(tmp_path: Path, variable: str) -> None:
    done = run_make("run", f"VENV={tmp_path}/venv", f"PYTHON={sys.executable}", variable)
    assert done.returncode == 2
    [line] = errors(done)
    assert line.startswith(variable.split("=")[0])
    assert not (tmp_path / "venv").exists()


AS_NOBODY = """
import os
from scripts.run import _port_problem
if os.getuid() == 0:
    os.setuid(65534)
print(_port_problem("HTTP_PORT", "81"))
"""


def test_a_port_that_only_root_may_open_is_said_as_that() -> None:
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], cwd=ROOT, capture_output=True, text=True)
    least = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if not least.exists() or int(least.read_text()) <= 81:
        pytest.skip("everybody may open it on this system")
    assert done.stdout == "HTTP_PORT: this user may not listen on port 81; expected 1024 to 65535\n"
