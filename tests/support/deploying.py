# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Deployments to the tests' servers, as the modules do them, and collections as the agent does them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import artifact
from servers import Server

from pgops import capabilities, sources
from pgops.agent import deploy as agent
from pgops.alerting import deploy as alerts
from pgops.alerting import keeping
from pgops.instance import endpoints
from pgops.instance.configuration import Configuration
from pgops.instance.layout import Layout
from pgops.metrics import collect as collection
from pgops.metrics import collectors
from pgops.metrics.collectors import Collector
from pgops.metrics.history import Runs
from pgops.opsdb import deploy as schema
from pgops.opsdb import roles
from pgops.server.session import connect
from pgops.server.target import Target

BUNDLE = sources.shipped(str(artifact.LIBRARY))
"""The whole library, as pg_ops_agent takes it."""
SOURCES = sources.gather(str(artifact.LIBRARY), (".sql",))
SHIPPED = [
    collectors.parse(text, path)
    for path, text in sources.gather(str(artifact.LIBRARY), (".sql",), "sql/collectors").items()
]
DEFAULTS: dict[str, Any] = {
    "state": "present",
    "purge": False,
    "database": "pgops",
    "cluster": "shop",
    "node": "db1/main",
    "os_user": "pgops",
    "peers": [],
    "password": None,
    "passfile": None,
    "retention_days": 30,
    "rollup_days": 400,
    "metric_retention": {},
    "max_size_mb": 10240,
    "query_texts": True,
    "explain": False,
    "backup": False,
    "drill_interval_hours": 0.0,
    "slow_query_ms": 1000.0,
    "thresholds": {},
    "collectors": [],
    "rehearse": False,
    "remote": False,
    "sources": SOURCES,
}
AGENT: dict[str, Any] = {
    **dict.fromkeys(("ca_cert", "password", "textfile_directory")),
    **dict.fromkeys(("host", "socket_directory", "python", "superuser", "repository"), ""),
    "state": "present",
    "name": "main",
    "cluster": "shop",
    "node": "db1/main",
    "port": 5432,
    "database": "pgops",
    "peers": [],
    "ssl_mode": "require",
    "collectors": [],
    "capabilities": {},
    "owner": "postgres",
    "validate": False,
    "retired": [],
    "prefix": "/",
    "user": "nobody",
}
"""The arguments of pg_ops_agent, those of its one instance among them."""
STATEMENTS: dict[str, Any] = {
    "instance": "main",
    "state": "present",
    "database": "pgops",
    "databases": [],
    "max": 5000,
    "track": "top",
    "track_planning": False,
    "track_utility": True,
    "track_io_timing": True,
    "compute_query_id": "auto",
    "configure": True,
    "restart": "if_required",
}
"""The arguments of pg_ops_statements."""
ALERTS: dict[str, Any] = {
    "state": "present",
    "database": "pgops",
    "remote": False,
    **dict.fromkeys(("rules", "channels", "silences", "maintenance"), ()),
    "addresses": {},
    "instance": "",
    "user": "pgops",
    "prefix": "/",
    "cluster": "",
    "sources": SOURCES,
    "capabilities": ["backup", "recovery", "statements"],
    "expected_standbys": None,
    "retention_days": 400,
    "backtest_days": 0,
}
"""The arguments of pg_ops_alerts."""
OF_AN_INSTANCE = (
    *("name", "cluster", "node", "host", "port", "socket_directory", "database", "peers", "ssl_mode", "ca_cert"),
    *("password", "owner", "superuser", "repository", "capabilities"),
)


def target(server: Server, **other: Any) -> Target:
    """The server by its socket, as its superuser."""
    settings = {"host": str(server.socket_dir), "port": str(server.port), "user": server.superuser, **other}
    return Target(**settings)


def agent_arguments(*flat: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of pg_ops_agent for some instances, each as AGENT has one; what they share is the first's."""
    instances = [{name: one[name] for name in OF_AN_INSTANCE} for one in flat]
    shared = {name: value for name, value in flat[0].items() if name not in OF_AN_INSTANCE}
    return {**shared, "instances": instances}


def install(check: bool = False, **flat: Any) -> dict[str, Any]:
    """What pg_ops_agent returns for one instance; raises what it reports."""
    return agent.converge(agent_arguments({**AGENT, "sources": BUNDLE, **flat}), check)


def deploy(server: Server, check: bool = False, **params: Any) -> dict[str, Any]:
    """What pg_ops_schema returns; raises what it reports."""
    return schema.converge(target(server), {**DEFAULTS, "os_user": server.os_user, **params}, check)


def megabytes_besides(server: Server) -> int:
    """The space of all that is stored besides samples, hours and usage of statements, rounded up."""
    tables = "relnamespace = 'pgops'::regnamespace AND relkind = 'r' AND NOT relispartition"
    size = f"SELECT ceil(sum(pg_total_relation_size(oid)) / 1048576.0)::integer FROM pg_class WHERE {tables}"
    return int(str(server.value(size, "pgops")))


def rule(server: Server, check: bool = False, **params: Any) -> dict[str, Any]:
    """What pg_ops_alerts returns; raises what it reports."""
    return alerts.converge(target(server), {**ALERTS, **params}, check)


def withdraw(server: Server, database: str = "pgops") -> None:
    """Leave nothing of a deployment, whatever became of it."""
    server.value(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
    for role in (*roles.ROLES, roles.PLANNING, roles.BACKING_UP):
        server.value(f"DROP ROLE IF EXISTS {role.name}")


def configured(server: Server, state: Path, node: str = "db1/main", **settings: Any) -> tuple[Configuration, Layout]:
    """An agent's configuration and directories; ``state`` is its prefix."""
    layout = Layout("main", str(state))
    Path(layout.state).mkdir(parents=True, exist_ok=True)
    place: dict[str, Any] = {"port": server.port, "socket_directory": str(server.socket_dir)}
    parts = {
        capability: {name: settings.pop(name) for name in options if name in settings}
        for capability, options in capabilities.OPTIONS.items()
    }
    return Configuration("main", "shop", node, **place, **settings, parts=parts), layout


def collect(
    server: Server, state: Path, node: str = "db1/main", found: Sequence[Collector] = (), **settings: Any
) -> dict[str, Any]:
    """One collection of everything, or of what is ``found``, as the agent's user; ``state`` is the agent's prefix."""
    remembered = settings.pop("runs", None) or Runs()
    return collection.collect(*configured(server, state, node, **settings), found or SHIPPED, remembered)


def inspect(server: Server, state: Path, found: Sequence[Collector] = (), **settings: Any) -> dict[str, Any]:
    """What the job of the server's own user does."""
    configuration, layout = configured(server, state, superuser=server.superuser, **settings)
    for folder in (layout.keeping, layout.inspection):
        Path(folder).mkdir(exist_ok=True)
    return collection.inspect(configuration, layout, found or SHIPPED, Runs())


def keep(server: Server, state: Path, node: str = "db1/main", **settings: Any) -> dict[str, Any]:
    """What the job alerts does after the rules: scenes and events."""
    configuration, layout = configured(server, state, node, **settings)
    with connect(endpoints.agent(configuration, "alerts")) as source:
        return keeping.keep(source, configuration, layout, patience=0)
