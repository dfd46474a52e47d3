# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What dashboards are drawn with: panels, variables and links of grafana-foundation-sdk, in the one way used here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models

from pgops.metrics.collectors import Metric

TAG = "pgops"
TAGS = {"grafana-postgresql-datasource": "postgresql", "prometheus": "prometheus"}
"""Of the dashboards for a kind of data source."""
DOCS = "https://github.com/pgops/fleet/tree/main/docs"
GOOD, WARNING, CRITICAL = "green", "orange", "red"
SEVERITIES = {"critical": CRITICAL, "warning": WARNING}
WIDTH = 24
"""Columns of a dashboard."""
SOURCE = "${datasource}"

Target = Any
"""A query of a panel: something with ``build()``."""


@dataclass(frozen=True)
class Limits:
    """Thresholds of a metric, None where there is none; ``below``: what is lower is worse."""

    warning: float | None = None
    critical: float | None = None
    below: bool = False

    def steps(self) -> list[Any]:
        """What Grafana draws: a colour from each value on."""
        given = [(self.warning, WARNING), (self.critical, CRITICAL)]
        known = [(value, colour) for value, colour in given if value is not None]
        if not self.below:
            return [models.Threshold(None, GOOD), *(models.Threshold(value, colour) for value, colour in known)]
        # From the worst upwards: each value ends its own colour and begins the milder one.
        worst_first = known[::-1]
        colours = [colour for _value, colour in worst_first] + [GOOD]
        bounds = [None, *(value for value, _colour in worst_first)]
        return [models.Threshold(value, colour) for value, colour in zip(bounds, colours)]


def limits_of(metric: Metric) -> Limits:
    """The thresholds that a metric is shipped with."""
    return Limits(metric.warning, metric.critical, metric.direction == "below")


@dataclass(frozen=True)
class Frame:
    """Where a panel is, and what it says of itself."""

    title: str
    unit: str = ""
    span: int = 12
    height: int = 8
    text: str = ""
    limits: Limits = Limits()
    nothing: str = "unknown"


@dataclass(frozen=True)
class Columns:
    """How columns of a table are shown: units and links by name, and which of them are coloured as severities."""

    units: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    severities: Sequence[str] = ()


class Plain:
    """An object of Grafana's that the SDK has no builder for, as it is written."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)

    def build(self) -> Plain:
        """The SDK asks builders for this."""
        return self

    def to_json(self) -> dict[str, Any]:
        """The SDK's encoder asks objects for this."""
        return self.document


# --- panels


def chart(frame: Frame, kind: str, targets: Sequence[Target], least: str = "2m") -> Any:
    """Lines over time. What was not measured is a gap; no step is shorter than ``least``."""
    panel = (
        _framed(timeseries.Panel(), frame, kind)
        .interval(least)
        .span_nulls(False)
        .line_width(1)
        .fill_opacity(5)
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    )
    if frame.limits != Limits():
        dashed = shapes.GraphThresholdsStyleMode.DASHED
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
    return _asked(panel, targets)


def numbers(frame: Frame, kind: str, targets: Sequence[Target]) -> Any:
    """The last values, large."""
    panel = _framed(stat.Panel(), frame, kind).no_value(frame.nothing).graph_mode(shapes.BigValueGraphMode.NONE)
    return _asked(panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)), targets)


def firing(frame: Frame, kind: str, targets: Sequence[Target]) -> Any:
    """How many alerts fire, as numbers that are called by their severities."""
    panel = numbers(frame, kind, targets)
    for name, colour in SEVERITIES.items():
        steps = [{"value": None, "color": GOOD}, {"value": 1, "color": colour}]
        panel = panel.override_by_name(name, [_shown("thresholds", {"mode": "absolute", "steps": steps})])
    return panel


def bars(frame: Frame, kind: str, targets: Sequence[Target]) -> Any:
    """The last values of a share of something, as bars."""
    panel = _framed(bargauge.Panel(), frame, kind).no_value(frame.nothing).min(0)
    horizontal = panel.orientation(shapes.VizOrientation.HORIZONTAL)
    return _asked(horizontal.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])), targets)


def severities(frame: Frame, kind: str, targets: Sequence[Target]) -> Any:
    """A line of time for each alert: 1 is a warning, 2 is critical, nothing where it did not fire."""
    named = {"1": ("warning", WARNING), "2": ("critical", CRITICAL)}
    shown = {
        value: models.ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, (text, colour)) in enumerate(named.items())
    }
    panel = _framed(statetimeline.Panel(), frame, kind).interval("1m").mappings([models.ValueMap(shown)])
    return _asked(panel.show_value(shapes.VisibilityMode.NEVER), targets)


def listing(frame: Frame, kind: str, targets: Sequence[Target], columns: Columns) -> Any:
    """A table."""
    panel = _asked(_framed(table.Panel(), frame, kind).no_value("none"), targets)
    for name, unit in columns.units.items():
        panel = panel.override_by_name(name, [_shown("unit", unit)])
    for name, url in columns.links.items():
        panel = panel.override_by_name(name, [_shown("links", [{"title": "Open", "url": url}])])
    for name in columns.severities:
        coloured = {one: {"color": colour, "index": place} for place, (one, colour) in enumerate(SEVERITIES.items())}
        mappings = [{"type": "value", "options": coloured}]
        cells = _shown("custom.cellOptions", {"type": "color-text"})
        panel = panel.override_by_name(name, [_shown("mappings", mappings), cells])
    return panel


def _framed(panel: Any, frame: Frame, kind: str) -> Any:
    panel = panel.title(frame.title).span(frame.span).height(frame.height).datasource(source(kind))
    panel = panel.thresholds(
        dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(frame.limits.steps())
    )
    panel = panel.unit(frame.unit) if frame.unit else panel
    return panel.description(frame.text) if frame.text else panel


def _asked(panel: Any, targets: Sequence[Target]) -> Any:
    for target in targets:
        panel = panel.with_target(target)
    return panel


def _shown(key: str, value: Any) -> Any:
    return models.DynamicConfigValue(id_val=key, value=value)


# --- dashboards


def source(kind: str) -> Any:
    """The data source that is chosen at the top."""
    return models.DataSourceRef(type_val=kind, uid=SOURCE)


@dataclass(frozen=True)
class About:
    """What a dashboard is: its name in addresses, its title, page of the docs, and the kind of its data source."""

    uid: str
    title: str
    page: str
    text: str
    kind: str


def empty(about: About) -> Any:
    """A dashboard without panels: its links to the others of its data source, and to its page of the docs."""
    tags = [TAG, TAGS[about.kind]]
    others = (
        dashboard.DashboardLink("pgops")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(tags)
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
    docs = (
        dashboard.DashboardLink("Docs")
        .type(models.DashboardLinkType.LINK)
        .url(f"{DOCS}/{about.page}")
        .target_blank(True)
    )
    return (
        dashboard.Dashboard(about.title)
        .uid(about.uid)
        .description(about.text)
        .tags(tags)
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("1m")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .links([others, docs])
    )


def finished(board: Any) -> Any:
    """A dashboard whose panels stand side by side as far as they fit, and have numbers for their addresses."""
    made = board.build()
    x = y = highest = 0
    for place, panel in enumerate(made.panels, 1):
        at = panel.grid_pos
        if x + at.w > WIDTH:
            x, y, highest = 0, y + highest, 0
        panel.id_val, at.x, at.y = place, x, y
        x, highest = x + at.w, max(highest, at.h)
    return made


def sources(kind: str, name: str = "", several: bool = False) -> Any:
    """The variable of data sources, those whose names match ``name`` only."""
    made = dashboard.DatasourceVariable("datasource").label("data source").type(kind)
    made = made.regex(name) if name else made
    return made.multi(True).include_all(True) if several else made


def choice(name: str, kind: str, query: str, every: bool = False) -> Any:
    """A variable whose values a query gives; ``every``: several of them may be chosen, or all."""
    made = dashboard.QueryVariable(name).query(query).datasource(source(kind))
    made = made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    return made.multi(True).include_all(True).current(EVERYTHING) if every else made


def options(name: str, values: Sequence[str]) -> Any:
    """A variable with fixed values, of which the first is chosen."""
    first = models.VariableOption(text=values[0], value=values[0], selected=True)
    return dashboard.CustomVariable(name).values(",".join(values)).current(first)


def events(name: str, kind: str, target: Target, colour: str = "blue") -> Any:
    """Annotations: what a query finds is drawn into all charts."""
    made = dashboard.AnnotationQuery().name(name).datasource(source(kind)).enable(True).icon_color(colour)
    return made.target(target)


EVERYTHING = models.VariableOption(text=["All"], value=["$__all"], selected=True)
