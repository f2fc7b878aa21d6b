"""The compiled code as a build makes it, and which models get it."""

import dataclasses
import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_server.engine.native import build, choice, library
from inference_server.engine.native.choice import choose_library
from inference_server.engine.native.library import BLOCK
from inference_server.engine.native.runner import NativeRunner
from inference_server.engine.types import NO_SAMPLING, Chunk, Sequence
from inference_server.loading import load_parts
from tests.checkpoints import write_checkpoint
from tests.fakes import settings
from tests.test_native import SHAPE, VARIANTS, model_of, needs_code


@needs_code
def test_code_that_differs_from_the_reference_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    differences = {VARIANTS[0]: float("nan")}
    monkeypatch.setattr(choice, "difference_from_reference", lambda library: differences.get(library.variant, 0.2))
    assert choose_library(model_of(tmp_path)) is None
    assert f"the compiled code for {VARIANTS[0]} differs from its reference by nan" in caplog.text
    differences[VARIANTS[-1]] = 0.01
    library = choose_library(model_of(tmp_path))
    assert library
    assert library.variant == VARIANTS[-1]


UNFIT = {
    "float32": {"dtype": "float32"},
    "hidden size": {"hidden": 80},
    "intermediate size": {"intermediate": 72},
    "head size": {"head_size": 48},
    "long heads": {"heads": 2, "head_size": 288},
}


@needs_code
@pytest.mark.parametrize("name", UNFIT)
def test_models_that_do_not_fit_run_on_torchs_operations(name: str, tmp_path: Path) -> None:
    (tmp_path / "fit").mkdir()
    assert choose_library(model_of(tmp_path / "fit")) is not None
    (tmp_path / "unfit").mkdir()
    assert choose_library(model_of(tmp_path / "unfit", dataclasses.replace(SHAPE, **UNFIT[name]))) is None  # type: ignore[arg-type]


def test_processors_with_matrix_units_keep_torchs_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "processor_flags", lambda: {"amx_bf16"})
    assert choose_library(model_of(tmp_path)) is None


def test_without_compiled_code_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(choice, "available_variants", list)
    with caplog.at_level(logging.WARNING):
        assert choose_library(model_of(tmp_path)) is None
    assert "no compiled code for this processor" in caplog.text


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def path(variant: str) -> Path:
        return tmp_path / f"{variant}.so"

    monkeypatch.setattr(build, "library_path", path)
    return path


@pytest.mark.parametrize(("compiler", "told"), [("false", "returned non-zero"), ("no-such-compiler", "No such file")])
def test_a_compiler_that_fails_leaves_nothing_behind(
    compiler: str, told: str, elsewhere: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("CC", compiler)
    assert build.main([]) == 0
    assert build.main(["--strict"]) == 1
    assert told in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert build.main([]) == 0
    assert build.main(["--strict"]) == 1
    assert "No C compiler" in capfd.readouterr().err


def test_where_there_is_a_compiler_there_is_code() -> None:
    assert VARIANTS or not shutil.which("cc")


@needs_code
@pytest.mark.parametrize("what", ["of other sources", "silent", "no library"])
def test_code_that_is_not_of_these_sources_is_not_used(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model").mkdir()
    other = tmp_path / "other.so"
    if what == "no library":
        other.write_bytes(b"cut off")
    else:
        (tmp_path / "other.c").write_text(
            'const char source_digest[] = "of yesterday";' if what == "of other sources" else ""
        )
        subprocess.run(["cc", "-shared", "-o", str(other), str(tmp_path / "other.c")], check=True)
    monkeypatch.setattr(
        library, "library_path", lambda name: other if name == VARIANTS[0] else build.library_path(name)
    )
    chosen = choose_library(model_of(tmp_path / "model"))
    assert chosen is None or chosen.variant != VARIANTS[0]
    assert f"the compiled code for {VARIANTS[0]} is not used" in caplog.text


@needs_code
def test_a_server_runs_a_bfloat16_model_through_compiled_code(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SHAPE)
    asked = settings(model=str(tmp_path), device="cpu", kv_cache_gib=0.001, max_context_tokens=200)
    parts = load_parts(tmp_path, asked, lambda share: None)
    runner, cache = parts.runner, parts.scheduler.cache
    assert isinstance(runner, NativeRunner)
    assert runner._cache.shape[2] == cache.use.total_blocks + 1
    runner.warm_up()
    last = Sequence((5, 6, 7), NO_SAMPLING, block_ids=[cache.use.total_blocks])
    assert runner.forward([Chunk(last, 0, 3)]).likeliest != [None]
    assert runner._cache[:, :, -1].any()
    with pytest.raises(IndexError, match="1 blocks, 2 are needed"):
        runner.forward([Chunk(last, 0, BLOCK + 1)])
