"""Results as they are kept: one JSON file for each server, shape and day."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.conversation import ConversationFigures
from benchmarks.load import LoadFigures

RESULTS_DIR = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Result:
    """What one server did with one shape."""

    name: str  # of the server
    shape: str
    date: str  # ISO 8601, UTC
    machine: dict[str, Any]
    versions: dict[str, str]  # empty where the server was somebody else's
    start_s: float | None  # from start to healthy; None where it ran already
    loads: list[LoadFigures]
    conversations: list[ConversationFigures]

    @property
    def file_name(self) -> str:
        name = re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")
        return f"{self.date[:10]}-{name}-{self.shape}.json"

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / self.file_name
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        kept = json.loads(path.read_text(encoding="utf-8"))
        kept["loads"] = [LoadFigures(**figures) for figures in kept["loads"]]
        kept["conversations"] = [ConversationFigures(**figures) for figures in kept["conversations"]]
        return cls(**kept)


def comparable(results: Iterable[Result]) -> list[Result]:
    """The newest of each server and shape on the machine that was measured last, small shapes and own service first."""
    newest: dict[tuple[str, str], Result] = {}
    by_date = sorted(results, key=lambda result: result.date)
    for result in by_date:
        if _hardware(result) == _hardware(by_date[-1]):
            newest[result.name, result.shape] = result
    return sorted(newest.values(), key=lambda result: (_size(result.shape), not result.versions, result.name))


def _hardware(result: Result) -> tuple[Any, ...]:
    return tuple(result.machine[fact] for fact in ("cpu", "cores", "gpu"))


def _size(shape: str) -> float:
    """In billions of parameters."""
    return 0.0 if shape == "tiny" else float(shape.removesuffix("b"))
