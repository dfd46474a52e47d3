# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measured figures, and how they are told: medians with their quartiles and spread, and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figures:
    """What one benchmark measured, by case and contestant."""

    name: str
    what: str
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    """What does not hold that has to."""

    def add(self, case: str, contestant: str, value: float) -> None:
        """One more value."""
        self.values.setdefault(case, {}).setdefault(contestant, []).append(value)

    def ratio(self, case: str) -> float:
        """The peer's median over ours."""
        medians = {name: statistics.median(values) for name, values in self.values[case].items()}
        return medians["peer"] / medians["ours"]

    def promise(self, least: Mapping[str, float]) -> None:
        """The ratios that docs/performance.md promises, by case; what is missed makes the benchmark fail."""
        for case, promised in least.items():
            if self.ratio(case) < promised:
                self.missed.append(f"{case}: {self.ratio(case):.2f} times as fast as the peer, not {promised:g}")

    def data(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {"name": self.name, "what": self.what, "values": self.values, "missed": self.missed}

    def table(self) -> str:
        """As a table of Markdown; the ratio is the peer's median over ours."""
        lines = [
            f"### {self.name}: {self.what}",
            "",
            "| case | who | median | quartiles | least to most | peer / ours |",
            "|---|---|---|---|---|---|",
        ]
        for case, found in self.values.items():
            medians = {name: statistics.median(values) for name, values in found.items()}
            for name, values in found.items():
                ratio = f"{self.ratio(case):.2f}" if name == "ours" and "peer" in medians else ""
                spread = f"{min(values):.3g} to {max(values):.3g}"
                first, _median, third = statistics.quantiles(
                    values * 2 if len(values) < 2 else values, method="inclusive"
                )
                lines.append(
                    f"| {case} | {name} | {medians[name]:.3g} | {first:.3g}, {third:.3g} | {spread} | {ratio} |"
                )
        lines += ["", *(f"**Missed**: {missed}" for missed in self.missed)]
        return "\n".join([*lines, ""])
