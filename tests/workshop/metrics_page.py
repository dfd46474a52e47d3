"""docs/metrics.md, made of what the collectors say of themselves.

python tests/workshop/metrics_page.py          write it
"""

from __future__ import annotations

import sys
from typing import Any

import artifact

MB = 1024 * 1024
PAGE = artifact.ROOT / "docs" / "metrics.md"
FOLDER = artifact.LIBRARY / "sql" / "collectors"
HEAD = """# Metrics

All metrics, by collector. To read them: [Monitoring](monitoring.md).

```sql
SELECT * FROM pgops.metrics;                                                  -- this list, with your own metrics
SELECT * FROM pgops.metric_values('database_size_mb', now() - interval '1 day', now(), '1 hour');
SELECT * FROM pgops.metric_rates('wal_bytes', now() - interval '1 day', now(), '5 min');
```

* A counter counts since its statistics were reset: read it with `pgops.metric_rates()`.
* An unknown value is no sample, never 0.
* Scope database: the collector runs in every database.
* `inspect`: the job of that name runs the collector, as the server's own user, since the agent may not read that.
* 1 MB is 1048576 bytes.

`python tests/workshop/metrics_page.py` makes this page of the collectors' files.

"""


def page() -> str:
    """The page as it should be."""
    artifact.link_library()
    sys.path.insert(0, str(artifact.BUILD / "lib"))
    from pgops.metrics import collectors

    found = [collectors.parse(path.read_text(), path.name) for path in sorted(FOLDER.glob("*.sql"))]
    return HEAD + "\n".join(_section(one) for one in [*found, *collectors.SELF.values()])


def _section(collector: Any) -> str:
    said = [f"Scope {collector.scope}", f"every {collector.interval} s"]
    said += [] if collector.role == "any" else [{"primary": "primaries", "standby": "standbys"}[collector.role]]
    said += [f"PostgreSQL {collector.oldest} and newer"] if collector.oldest else []
    said += [f"PostgreSQL {collector.newest} and older"] if collector.newest < 999 else []
    said += ["`inspect`"] if collector.rights == "all_data" else []
    table = ["| metric | unit | kind | warning, critical | |", "|---|---|---|---|---|"]
    table += [_row(metric) for metric in collector.metrics]
    return "\n".join([f"## {collector.name}", "", f"{', '.join(said)}.", "", *table, ""])


def _row(metric: Any) -> str:
    given = [_number(metric.unit, value) for value in (metric.warning, metric.critical) if value is not None]
    thresholds = f"{metric.direction or 'above'} {', '.join(given)}" if given else ""
    text = metric.help.replace("|", "\\|")
    return f"| `{metric.name}` | {metric.unit} | {metric.kind} | {thresholds} | {text} |"


def _number(unit: str, value: float) -> str:
    if unit == "bytes" and value >= MB:
        return f"{value / MB:g} MB" if value < 1024 * MB else f"{value / 1024 / MB:g} GB"
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


if __name__ == "__main__":
    PAGE.write_text(page())
