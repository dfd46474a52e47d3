# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/alerts.md has a section for each rule that is shipped, which alerts link to, with what the rule says."""

from __future__ import annotations

import re

import artifact
import pytest

from pgops.alerting.rules import DEFAULTS, Rule

PAGE = artifact.ROOT / "docs" / "alerts.md"
NAMES = list(dict.fromkeys(rule.name for rule in DEFAULTS))


def amount(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:,g}"


def time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds and not seconds % size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:g}"


def condition(rule: Rule) -> str:
    of = "" if rule.evaluation == "last" else f" ({rule.evaluation} of {time(rule.window)})"
    where = "".join(f", {label} {value}" for label, value in rule.labels.items())
    return f"`{rule.metric}`{of}{where} {rule.operator} {amount(rule.threshold)}"


def table(name: str) -> str:
    """The table of a rule's section."""
    lines = ["| severity | condition | for | ends at |", "|---|---|---|---|"]
    for rule in (one for one in DEFAULTS if one.name == name):
        clear = "" if rule.clear_threshold is None else amount(rule.clear_threshold)
        kept = f"{clear} after {time(rule.keep_firing_for)}".strip() if rule.keep_firing_for else clear
        lines.append(f"| {rule.severity} | {condition(rule)} | {time(rule.lasts)} | {kept} |")
    return "\n".join(lines)


def test_each_rule_has_its_section_in_their_order() -> None:
    assert re.findall(r"^### (\S+)$", PAGE.read_text(), re.MULTILINE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_what_its_rule_does(name: str) -> None:
    section = PAGE.read_text().partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    assert table(name) in section
    assert "*Do:*" in section or name == "database_size"
