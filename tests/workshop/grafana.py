# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""grafana/, the dashboards that are shipped: JSON, made with grafana-foundation-sdk, so that users need none of it.

python tests/workshop/grafana.py          write it
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import artifact

FOLDER = artifact.ROOT / "grafana"
COLLECTORS = artifact.LIBRARY / "sql" / "collectors"


def files() -> Iterator[tuple[Path, str]]:
    """Each file as it should be. Raises ImportError without the SDK, which needs Python 3.11."""
    artifact.link_library()
    sys.path.insert(0, str(artifact.BUILD / "lib"))
    from dashboards import charted, postgresql, prometheus
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    from pgops.metrics import collectors

    shipped = [collectors.parse(path.read_text(), path.name) for path in sorted(COLLECTORS.glob("*.sql"))]
    charts = charted.Charts([*shipped, *collectors.SELF.values()])
    for source in (postgresql, prometheus):
        folder = FOLDER / source.__name__.rpartition(".")[2]
        for name, one in source.dashboards(charts).items():
            yield folder / f"{name}.json", JSONEncoder(sort_keys=True, indent=1).encode(one) + "\n"


if __name__ == "__main__":
    for path, text in files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
