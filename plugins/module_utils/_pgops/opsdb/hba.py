# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules of pg_hba.conf by their meaning: whether the present ones already let a user in.

Source: PostgreSQL, src/backend/libpq/hba.c, check_hba(): the first rule that fits a connection decides.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..server.session import READS_FILES, Session

ALL = "all"
REPLICATION = "replication"
"""In place of a database: connections for replication, which `all` does not name."""
TYPES = {"local": ("local",), "hostssl": ("host", "hostssl", "hostnogssenc")}
"""By the type of a rule that is needed, the types of rules that apply to its connections."""

EQUIVALENT = {"peer": ("peer", "trust"), "scram-sha-256": ("scram-sha-256", "md5")}
"""By the method that is needed, the methods that let the same user in. With md5, a SCRAM verifier is used for
SCRAM."""

READ = """
SELECT type, database AS databases, user_name AS users, address, netmask, auth_method AS method,
       coalesce(options, '{}') AS options
FROM pg_hba_file_rules
WHERE error IS NULL
"""


@dataclass(frozen=True)
class Rule:
    """A rule; ``network`` is empty for local ones, otherwise ``all``, a network, or a name of hosts."""

    type: str
    databases: tuple[str, ...]
    users: tuple[str, ...]
    network: str
    method: str
    options: tuple[str, ...] = ()


def read(session: Session) -> tuple[Rule, ...]:
    """The rules in the files as they are on disk, in their order; needs a superuser."""
    with session.answering(READS_FILES):
        rows = session.rows(READ)
    return tuple(
        Rule(
            type=row["type"],
            databases=tuple(row["databases"]),
            users=tuple(row["users"]),
            network=_network(row["address"], row["netmask"]),
            method=row["method"],
            options=tuple(row["options"]),
        )
        for row in rows
    )


def _network(address: str | None, netmask: str | None) -> str:
    if not address or not netmask:
        return address or ""
    length = bin(int(ipaddress.ip_address(netmask))).count("1")
    return str(ipaddress.ip_network(f"{address.partition('%')[0]}/{length}", strict=False))


def admit(present: Iterable[Rule], wanted: Rule) -> bool:
    """Whether the present rules certainly let in everybody whom ``wanted`` would.

    ``wanted`` names one user, one database or all, and a network.
    """
    for rule in present:
        fits = _fits(rule, wanted)
        if fits is False:
            continue
        if not _same_outcome(rule, wanted):
            return False
        if fits:
            return True
    return False


def _same_outcome(rule: Rule, wanted: Rule) -> bool:
    if rule.method == "trust":
        return wanted.type == "local"
    return rule.method in EQUIVALENT[wanted.method] and sorted(rule.options) == sorted(wanted.options)


def _fits(rule: Rule, wanted: Rule) -> bool | None:
    """Whether a rule is for the connections of another; None: for some, or unknown."""
    if rule.type not in TYPES[wanted.type]:
        return False
    parts = (
        _database(rule.databases, wanted.databases[0]),
        _user(rule.users, wanted.users[0]),
        _address(rule.network, wanted.network),
    )
    if False in parts:
        return False
    return None if None in parts else True


def _database(names: Sequence[str], wanted: str) -> bool | None:
    if wanted == REPLICATION:
        return REPLICATION in names
    if ALL in names or wanted in names:
        return True
    others = [name for name in names if name != REPLICATION]
    special = any(name in ("sameuser", "samerole", "samegroup") or name.startswith("/") for name in others)
    return None if others and (special or wanted == ALL) else False


def _user(names: Sequence[str], wanted: str) -> bool | None:
    if ALL in names or wanted in names:
        return True
    return None if any(name.startswith(("+", "/")) for name in names) else False


def _address(network: str, wanted: str) -> bool | None:
    if network in (ALL, wanted):
        return True
    try:
        listed, needed = ipaddress.ip_network(network), ipaddress.ip_network(wanted)
    except ValueError:  # the name of a host or of a domain, samehost or samenet
        return None
    if listed.version != needed.version or not listed.overlaps(needed):
        return False
    return True if listed.supernet_of(needed) else None  # type: ignore[arg-type]  # of the same version by now
