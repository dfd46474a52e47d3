# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a server has around its data that a restore elsewhere needs: extensions, libraries, versions of collations,
and configuration files outside of the data directory. What cannot be read is named, and fails no backup."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import PgOpsError
from ..host import files
from ..host.files import Directory, File
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..repository import backups
from ..server import databases
from ..server.session import Session, connect
from .source import Source

MOST_DATABASES, MOST_FILES = 1000, 500
LARGEST_FILE = 4 * 1024 * 1024
BUDGET = 120.0
"""Seconds for all databases."""

SETTINGS = """
SELECT s.name, s.setting FROM pg_settings AS s
WHERE s.name IN ('max_connections', 'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions',
                 'max_locks_per_transaction', 'block_size', 'wal_block_size', 'server_encoding', 'data_directory',
                 'port', 'shared_buffers', 'dynamic_library_path')
"""
PRELOADED = """
SELECT trim(both ' "' FROM n.name) AS name
FROM unnest(string_to_array(current_setting('shared_preload_libraries'), ',')) AS n (name) WHERE trim(n.name) <> ''
"""
LOCALES = """
SELECT d.datname AS database, d.datlocprovider::text AS provider,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate) AS locale,
       d.datcollversion AS version
FROM pg_database AS d
"""
PROVIDERS = """
SELECT c.collprovider::text AS provider, max(pg_collation_actual_version(c.oid)) AS version
FROM pg_collation AS c WHERE c.collprovider IN ('c', 'i') AND c.collversion IS NOT NULL GROUP BY c.collprovider
"""
COLLATIONS = """
SELECT n.nspname AS schema, c.collname AS name, c.collprovider::text AS provider, c.collversion AS version
FROM pg_collation AS c JOIN pg_namespace AS n ON n.oid = c.collnamespace
WHERE c.oid >= 16384 OR c.collversion IS DISTINCT FROM pg_collation_actual_version(c.oid) ORDER BY 1, 2 LIMIT 200
"""
EXTENSIONS = "SELECT e.extname AS name, e.extversion AS version FROM pg_extension AS e ORDER BY 1"
MAIN_FILES = """
SELECT s.name, s.setting AS path FROM pg_settings AS s WHERE s.name IN ('config_file', 'hba_file', 'ident_file')
"""
INCLUDED = """
SELECT DISTINCT f.sourcefile AS path FROM pg_file_settings AS f WHERE f.sourcefile IS NOT NULL ORDER BY 1
"""
RULES = "SELECT DISTINCT h.file_name AS path FROM pg_hba_file_rules AS h WHERE h.file_name IS NOT NULL ORDER BY 1"
RULES_NAME_FILES = 16
"""From this version on, pg_hba_file_rules names files that are included."""


@dataclass(frozen=True)
class Environment:
    """``facts`` are the environment of a Manifest; ``warnings`` say what could not be read."""

    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


def read(session: Session, configuration: Configuration, source: Source, path: str) -> Environment:
    """What is around a server's data; its configuration files are copied into the directory ``path`` of a backup."""
    warnings: list[str] = []
    copied = _copied(session, source, path, warnings)
    inside = _databases(session, configuration, warnings)
    facts = {
        "data_checksums": source.data_checksums,
        "preloaded": [row["name"] for row in session.rows(PRELOADED)],
        "settings": {row["name"]: row["setting"] for row in session.rows(SETTINGS)},
        "extensions": {name: found["extensions"] for name, found in inside.items()},
        "collations": {
            "databases": session.rows(LOCALES),
            "providers": {row["provider"]: row["version"] for row in session.rows(PROVIDERS)},
            "own": {name: found["collations"] for name, found in inside.items() if found["collations"]},
        },
        "host": {"machine": platform.machine(), "libc": " ".join(platform.libc_ver()), "system": _system()},
        "configuration": copied,
        "warnings": warnings,
    }
    return Environment(facts, tuple(warnings))


def differences(recorded: Mapping[str, Any]) -> tuple[str, ...]:
    """Warnings of what orders texts on this host and is another one than where a backup with this environment was
    taken. Of collations with versions the server itself tells."""
    before, here = str(recorded.get("host", {}).get("libc", "")).strip(), " ".join(platform.libc_ver()).strip()
    if not before or not here or before == here:
        return ()
    told = f"The server of the backup had {before}, and this host has {here}."
    return (f"{told} If they order texts in another way, indexes are wrong: check them with amcheck.",)


def _system() -> str:
    """The name of the operating system, as in PRETTY_NAME of os-release(5)."""
    try:
        lines = files.contents("/etc/os-release", 65536).decode("utf-8", "replace").splitlines()
    except OSError:
        return platform.system()
    return next((line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), "")


def _databases(session: Session, configuration: Configuration, warnings: list[str]) -> dict[str, dict[str, Any]]:
    """The extensions and collations of each database, as a role that reads all data and writes none."""
    until = time.monotonic() + BUDGET
    there = databases.looked_into(session)
    found: dict[str, dict[str, Any]] = {}
    for one in there[:MOST_DATABASES]:
        if time.monotonic() > until:
            break
        try:
            target = replace(endpoints.reader(configuration, "backup"), database=one.name, statement_timeout=5.0)
            with connect(target) as inside:
                extensions = {row["name"]: row["version"] for row in inside.rows(EXTENSIONS)}
                found[one.shown] = {"extensions": extensions, "collations": inside.rows(COLLATIONS)}
        except PgOpsError as error:
            warnings.append(f"the extensions of database {one.shown} are not known: {error.message}")
    if len(found) + len(warnings) < len(there):
        warnings.append(f"the extensions of {len(there) - len(found)} databases were not looked at")
    return found


def _copied(session: Session, source: Source, path: str, warnings: list[str]) -> list[dict[str, Any]]:
    """Copy the configuration files that are outside of the data directory: what each is for, where it was, where its
    copy is in the backup, and its SHA-256."""
    named = {str(row["path"]): str(row["name"]) for row in session.rows(MAIN_FILES) if row["path"]}
    others: list[dict[str, Any]] = session.rows(INCLUDED)
    others += session.rows(RULES) if source.major >= RULES_NAME_FILES else []
    paths = list(dict.fromkeys([*named, *(str(row["path"]) for row in others)]))
    kept = []
    for outside in _outside(paths, source.data_directory)[:MOST_FILES]:
        inside = os.path.join(backups.CONFIGURATION, outside.lstrip("/"))
        try:
            content = files.contents(outside, LARGEST_FILE)
        except OSError as error:
            warnings.append(f"{outside} was not copied: {error.strerror or error}")
            continue
        target = os.path.join(path, inside)
        files.apply([Directory(os.path.dirname(target), 0o750), File(target, content, 0o640)])
        digested = hashlib.sha256(content).hexdigest()
        kept.append({"name": named.get(outside, ""), "path": outside, "file": inside, "sha256": digested})
    return kept


def _outside(paths: Iterable[str], data: str) -> list[str]:
    """Those of some paths that are not in a directory, or are links to elsewhere, which pg_basebackup skips."""
    real = os.path.realpath(data)
    return [one for one in paths if os.path.isabs(one) and os.path.commonpath([os.path.realpath(one), real]) != real]
