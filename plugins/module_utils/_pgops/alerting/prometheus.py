# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The alert rules of a cluster as a rule file of Prometheus, on the metrics that `pgops export` writes
(https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/). Pure: rules in, text out.

A value is compared in the base unit in which it is exported, so that nothing is rounded, and shown in the metric's
own. A clear threshold holds while the series itself fires, which Prometheus knows as ALERTS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ..metrics import exposition
from ..metrics.collectors import Metric
from . import texts
from .rules import Rule

HEAD = """\
# The alert rules of the cluster {cluster}, for Prometheus 2.42 or newer. pgops.fleet writes this file: change
# pgops_alert_rules in the inventory, or pgops.alert_rules, and not this.
#
# It is on the metrics that `pgops export` writes for node_exporter (docs/prometheus.md). Data that is missing ends an
# alert here, whatever the rule's missing_data is, and flapping is not damped: both are pgops.fleet's own.
"""
ALERTS = "ALERTS"
COMPARISONS = {"=": "=="}
OVER_TIME = {"avg": "avg_over_time", "min": "min_over_time", "max": "max_over_time"}
GROWTH = ("rate", "increase")
SHOWN = '{{ printf "%.6g" $value }}'


@dataclass(frozen=True)
class Known:
    """What a cluster's rules are written with: its name, the ``metrics`` that its agents know, by name, and how many
    standbys are expected, None where nobody said."""

    cluster: str
    metrics: Mapping[str, Metric]
    expected_standbys: int | None = None

    def names(self) -> dict[str, tuple[str, bool]]:
        """By metric its exported name, and whether several share that."""
        return exposition.names(self.metrics.values())


Select = Callable[[str], str]
"""The selector of a metric's series, those of the cluster that a rule is for."""


def rule_file(rules: Iterable[Rule], known: Known) -> str:
    """The text of the file. Rules that are disabled are left out, and so are those that Prometheus cannot evaluate,
    which a comment names."""
    made: list[str] = []
    left_out: list[str] = []
    names = known.names()
    for rule in sorted((one for one in rules if one.enabled), key=lambda one: (one.name, one.severity)):
        expression = condition(rule, known, names)
        if expression:
            made += _lines(rule, expression)
        else:
            left_out.append(f"#   {quoted(rule.name)} ({rule.severity}): {_why(rule)}\n")
    head = HEAD.format(cluster=quoted(known.cluster))
    if left_out:
        head += "#\n# Not among them:\n" + "".join(left_out)
    if not made:
        return f"{head}groups: []\n"
    group = f"groups:\n  - name: {quoted(f'pgops {known.cluster}')}\n    interval: 1m\n    rules:\n"
    return head + group + "".join(made)


def _why(rule: Rule) -> str:
    if rule.metric == "standby_surplus":
        return "nobody said how many standbys are expected (pgops_expected_standbys)."
    return f"the metric {quoted(rule.metric)} is not exported."


def _lines(rule: Rule, expression: str) -> list[str]:
    lines = [f"      - alert: {quoted(rule.name)}", f"        expr: {quoted(expression)}"]
    lines += [f"        for: {duration(rule.lasts)}"] if rule.lasts else []
    lines += [f"        keep_firing_for: {duration(rule.keep_firing_for)}"] if rule.keep_firing_for else []
    lines += ["        labels:", f"          severity: {quoted(rule.severity)}"]
    lines += ["        annotations:", f"          summary: {quoted(summary(rule))}"]
    return [f"{line}\n" for line in lines]


# --- expressions


def condition(rule: Rule, known: Known, names: Mapping[str, tuple[str, bool]]) -> str:
    """The expression of a rule; '' where Prometheus does not have its metric."""

    def select(name: str, labels: Mapping[str, str] = rule.labels) -> str:
        exported, shared = names[name]
        own = {"cluster": known.cluster, **({exposition.SHARED: name} if shared else {})}
        matchers = [*own.items(), *((_label(key), value or "(empty)") for key, value in sorted(labels.items()))]
        return f"{exported}{{{','.join(map(_matcher, matchers))}}}"

    if rule.metric in DERIVED:
        try:
            value = DERIVED[rule.metric](select, known)
        except KeyError:  # a collector of it is not known
            return ""
        return _compared(value, rule, known, float) if value and rule.evaluation == "last" else ""
    metric = known.metrics.get(rule.metric)
    if metric is None:
        return ""
    exported = partial(exposition.exported_value, metric)
    return _scaled(_compared(_evaluated(rule, select(rule.metric)), rule, known, exported), metric)


def _label(key: str) -> str:
    return key if key in ("cluster", "node") else exposition.label_name(key)


def _matcher(pair: tuple[str, str]) -> str:
    return f'{pair[0]}="{exposition.escaped(pair[1])}"'


def _evaluated(rule: Rule, selector: str) -> str:
    if rule.evaluation == "last":
        return selector
    function = rule.evaluation if rule.evaluation in GROWTH else OVER_TIME[rule.evaluation]
    return f"{function}({selector}[{duration(rule.window)}])"


def _compared(value: str, rule: Rule, known: Known, exported: Callable[[float], float]) -> str:
    """A value's comparison with thresholds that are ``exported`` as it is, so that equal ones stay equal."""
    operator = COMPARISONS.get(rule.operator, rule.operator)
    begins = f"{value} {operator} {exposition.number(exported(rule.threshold))}"
    if rule.clear_threshold is None or rule.clear_threshold == rule.threshold:
        return begins
    labels = {"alertname": rule.name, "alertstate": "firing", "severity": rule.severity, "cluster": known.cluster}
    fires = f"{ALERTS}{{{','.join(map(_matcher, labels.items()))}}}"
    goes_on = f"{value} {operator} {exposition.number(exported(rule.clear_threshold))}"
    return f"{begins} or {goes_on} and ignoring (alertname, alertstate, severity) {fires}"


def _scaled(expression: str, metric: Metric) -> str:
    """In the metric's own unit, which the texts of rules speak of."""
    base = exposition.UNITS.get(metric.unit)
    if base is None or (base.times, base.per) == (1, 1):
        return expression
    return f"({expression}) " + (f"/ {base.times:.0f}" if base.times != 1 else f"* {base.per:.0f}")


def duration(seconds: float) -> str:
    """Seconds as Prometheus writes them."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


# --- metrics that are derived in the ops database, and so are not exported, of those that are


def _share(part: str, rest: str, window: str, least: int) -> Callable[[Select, Known], str]:
    def made(select: Select, _known: Known) -> str:
        grown = f"increase({select(part)}[{window}])"
        both = f"({grown} + increase({select(rest)}[{window}]))"
        return f"(100 * {grown} / {both} and {both} >= {least})"

    return made


def _lag_not_shrinking(select: Select, _known: Known) -> str:
    lag = select("replication_lag_bytes")
    return f"({lag} and {lag} >= {lag} offset 5m)"


def _disk_full(select: Select, _known: Known) -> str:
    free = select("disk_free_mb")
    return f"({free} / -(deriv({free}[1h]) < 0) and {free} offset 15m)"


def _slot_unused(select: Select, known: Known) -> str:
    active, cluster = select("slot_active"), _of_cluster(known, "server_in_recovery")
    unused = f"1 - {active}"
    return f"({unused} and max_over_time({active}[1d]) == 1 or {unused} and on (cluster, node) {cluster} == 0)"


def _standby_surplus(select: Select, known: Known) -> str:
    if known.expected_standbys is None:
        return ""
    here, every = select("standbys_connected"), _of_cluster(known, "standbys_connected")
    total = f"0 * {here} + on (cluster) group_left () sum by (cluster) ({every})"
    primary = f"{_of_cluster(known, 'server_in_recovery')} == 0"
    return f"({total} - {known.expected_standbys} and on (cluster, node) {primary})"


def _of_cluster(known: Known, metric: str) -> str:
    return f"{known.names()[metric][0]}{{{_matcher(('cluster', known.cluster))}}}"


def _late(_select: Select, known: Known) -> str:
    """Of the agent as a whole: which collectors should run at all, the ops database alone knows."""
    collected = f"{exposition.exported_name(exposition.COLLECTED)}"
    labels = f'{_matcher(("cluster", known.cluster))},collector="agent"'
    return f"((time() - last_over_time({collected}{{{labels}}}[1h])) / 60)"


DERIVED: Mapping[str, Callable[[Select, Known], str]] = {
    "cache_hit_recent_percent": _share("blocks_hit", "blocks_read", "5m", 10_000),
    "rollback_recent_percent": _share("transactions_rolled_back", "transactions_committed", "5m", 100),
    "checkpoints_requested_percent": _share("checkpoints_requested", "checkpoints_timed", "30m", 3),
    "collector_late_ratio": _late,
    "disk_full_in_seconds": _disk_full,
    "replication_lag_not_shrinking_bytes": _lag_not_shrinking,
    "slot_unused": _slot_unused,
    "standby_surplus": _standby_surplus,
}
"""What the functions of sql/objects/alerting make of samples; '' where something is not known."""


# --- texts


def summary(rule: Rule) -> str:
    """A rule's text as a template of Prometheus."""
    text = (
        rule.text or f"{rule.metric} is {{metric_value}}, alert {texts.COMPARED[rule.operator]} {{threshold_value}}."
    )
    fixed = {
        "metric_value": SHOWN,
        "threshold_value": texts.number(str(rule.threshold)),
        "rule_name": _literal(rule.name),
        "severity": rule.severity,
        "metric": _literal(rule.metric),
    }
    parts: Sequence[str] = texts.PLACE.split(text)
    return "".join(
        _literal(part) if place % 2 == 0 else fixed.get(part, f"{{{{ $labels.{_label(part)} }}}}")
        for place, part in enumerate(parts)
    )


def _literal(text: str) -> str:
    return text.replace("{", '{{ "{" }}')


def quoted(text: str) -> str:
    """A text as a scalar of YAML, on one line and without anything that a terminal or a parser would obey."""
    shown = "".join(_escaped(one) for one in text)
    return f'"{shown}"'


def _escaped(character: str) -> str:
    if character in ('"', "\\"):
        return f"\\{character}"
    if character.isprintable() and not re.match(r"[\ud800-\udfff\ufeff]", character):
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
