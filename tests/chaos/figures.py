"""A measured figure with its target, and the table of all."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. bound: whether the target is the most or the least that is allowed."""

    name: str
    value: float
    unit: str
    bound: Literal["most", "least"]
    target: float

    @property
    def is_met(self) -> bool:
        return self.value <= self.target if self.bound == "most" else self.value >= self.target


def at_most(name: str, value: float, target: float, unit: str = "") -> Figure:
    return Figure(name, value, unit, "most", target)


def at_least(name: str, value: float, target: float, unit: str = "") -> Figure:
    return Figure(name, value, unit, "least", target)


def lines_of(title: str, figures: Iterable[Figure]) -> list[str]:
    """Rows of a Markdown table with the columns point, figure, value, target, verdict."""
    return [
        f"| {title} | {one.name} | {_shown(one.value, one.unit)} | "
        f"{'≤' if one.bound == 'most' else '≥'} {_shown(one.target, one.unit)} | {'met' if one.is_met else 'MISSED'} |"
        for one in figures
    ]


def _shown(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".strip() if abs(value) < 1000 else f"{value:.0f} {unit}".strip()
