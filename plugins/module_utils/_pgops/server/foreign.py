# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What others hold on our roles, and have put where our sessions would run it: both stop them before it runs.

A session that has become ``pgops_owner`` can go back to whom it logged in as, and so can a function that runs in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import Conflict
from .names import AGENT, MARK, OPERATOR, OPTIONAL, OWNER, READER
from .session import Session

TABLES = (
    *("migration", "fingerprint", "object_source", "setting", "node", "metric", "threshold", "retention", "series"),
    *("shape", "shape_series", "epoch", "round", "round_class", "rollup", "rollup_due", "collector", "generation"),
    *("wal_file", "wal_directory", "wal_gap", "query_text", "statement", "query_interval", "slow_query"),
    *("query_plan", "query_usage", "backup", "dump", "expiry", "recovery_point", "recovery_window"),
    *("alert_rule", "alert", "alert_transition", "alert_state", "alert_evaluation", "alert_notice", "silence"),
    *("notification_channel", "alertmanager_state", "notification", "notification_alert", "notification_attempt"),
    *("notification_group", "scene", "alert_scene", "event", "drill"),
)
"""Those that our sessions read and write: a view of such a name would run its functions."""

SHOWN = 5
"""How many of them a message names."""

# Members of pgops_reader read the views, and those of pgops_operator ask for backups, for which the roles are there;
# who may grant one on may also change it.
MEMBERS = f"""
SELECT format('%s is a member of %s%s', m.oid::regrole, g.oid::regrole,
              CASE WHEN bool_or(a.admin_option) THEN ' with ADMIN OPTION' ELSE '' END) AS what,
       string_agg(format('REVOKE %s FROM %s%s CASCADE', g.oid::regrole, m.oid::regrole,
                         CASE WHEN current_setting('server_version_num')::integer >= 160000
                              THEN format(' GRANTED BY %s', a.grantor::regrole) ELSE '' END), '; ') AS mend
FROM pg_auth_members AS a JOIN pg_roles AS g ON g.oid = a.roleid JOIN pg_roles AS m ON m.oid = a.member
WHERE g.rolname = ANY (:names) AND NOT m.rolsuper AND m.rolname <> session_user
  AND (g.rolname NOT IN ('{READER}', '{OPERATOR}') OR a.admin_option)
  AND (g.rolname NOT IN {OPTIONAL} OR shobj_description(g.oid, 'pg_authid') = '{MARK}')
  AND NOT (:service AND pg_has_role(session_user, m.oid, 'MEMBER'))
GROUP BY g.oid, m.oid ORDER BY 1
"""

EVENT_TRIGGERS = """
SELECT format('event trigger %I, which calls %s of %s', v.evtname, p.oid::regprocedure, p.proowner::regrole) AS what,
       format('ALTER EVENT TRIGGER %I DISABLE', v.evtname) AS mend
FROM pg_event_trigger AS v JOIN pg_proc AS p ON p.oid = v.evtfoid
WHERE v.evtenabled <> 'D'
  AND p.proowner NOT IN (SELECT r.oid FROM pg_roles AS r WHERE r.rolsuper OR r.rolname = session_user)
ORDER BY 1
"""

CODE = f"""
WITH trusted AS MATERIALIZED (
    SELECT r.oid FROM pg_roles AS r WHERE r.rolsuper OR r.rolname IN ('{OWNER}', session_user)
),

relation AS MATERIALIZED (
    SELECT c.oid, c.relname, c.relkind, c.relowner,
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                          WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END AS kind
    FROM pg_class AS c
    WHERE c.relnamespace = (SELECT to_regnamespace('pgops')) AND c.relkind NOT IN ('i', 'I', 't')
),

calling (classid, objid, relation, mend) AS MATERIALIZED (
    SELECT 'pg_attrdef'::regclass, d.oid, r.oid, 'ALTER COLUMN ... DROP DEFAULT'
    FROM relation AS r JOIN pg_attrdef AS d ON d.adrelid = r.oid
    UNION ALL
    SELECT 'pg_constraint'::regclass, k.oid, r.oid, 'DROP CONSTRAINT ' || quote_ident(k.conname)
    FROM relation AS r JOIN pg_constraint AS k ON k.conrelid = r.oid
    UNION ALL
    SELECT 'pg_class'::regclass, i.indexrelid, i.indexrelid, NULL
    FROM relation AS r JOIN pg_index AS i ON i.indrelid = r.oid
    UNION ALL
    SELECT 'pg_class'::regclass, r.oid, r.oid, 'ALTER COLUMN ... TYPE ...'
    FROM relation AS r WHERE r.relkind IN ('r', 'p')
),

called AS MATERIALIZED (
    SELECT g.classid, g.objid, g.relation, g.mend, e.refclassid, e.refobjid, coalesce(
        (SELECT p.proowner FROM pg_proc AS p WHERE e.refclassid = 'pg_proc'::regclass AND p.oid = e.refobjid),
        (SELECT t.typowner FROM pg_type AS t WHERE e.refclassid = 'pg_type'::regclass AND t.oid = e.refobjid),
        (SELECT o.oprowner FROM pg_operator AS o WHERE e.refclassid = 'pg_operator'::regclass AND o.oid = e.refobjid),
        (SELECT o.opcowner FROM pg_opclass AS o WHERE e.refclassid = 'pg_opclass'::regclass AND o.oid = e.refobjid)
    ) AS owner
    FROM calling AS g JOIN pg_depend AS e ON e.classid = g.classid AND e.objid = g.objid
    WHERE e.refobjid >= 16384
      AND e.refclassid IN ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass)
      -- A row of built-in types has no code of its own.
      AND NOT EXISTS (
          SELECT FROM pg_type AS t
          WHERE e.refclassid = 'pg_type'::regclass AND t.oid = e.refobjid AND t.typtype = 'c' AND NOT EXISTS (
              SELECT FROM pg_attribute AS b WHERE b.attrelid = t.typrelid AND b.attnum > 0 AND b.atttypid >= 16384)
      )
)

SELECT found.what, found.mend FROM (
    SELECT 1, format('schema pgops, which belongs to %s', n.nspowner::regrole),
           'ALTER SCHEMA pgops OWNER TO {OWNER}'
    FROM pg_namespace AS n WHERE n.nspname = 'pgops' AND n.nspowner NOT IN (SELECT t.oid FROM trusted AS t)
    UNION ALL
    SELECT 2, format('trigger %I on pgops.%I', t.tgname, r.relname),
           format('DROP TRIGGER %I ON pgops.%I', t.tgname, r.relname)
    FROM relation AS r JOIN pg_trigger AS t ON t.tgrelid = r.oid
    WHERE NOT t.tgisinternal
      AND NOT (r.relname = 'system_metrics' AND r.relkind = 'v' AND t.tgname = 'record_sample'
               AND t.tgfoid = to_regprocedure('pgops.record_sample()'))
      AND NOT (r.relname = 'alert_rules' AND r.relkind = 'v' AND t.tgname = 'write_rule'
               AND t.tgfoid = to_regprocedure('pgops.write_rule()'))
    UNION ALL
    SELECT 3, format('rule %I on pgops.%I', w.rulename, r.relname),
           format('DROP RULE %I ON pgops.%I', w.rulename, r.relname)
    FROM relation AS r JOIN pg_rewrite AS w ON w.ev_class = r.oid
    WHERE NOT (r.relkind IN ('v', 'm') AND w.rulename = '_RETURN')
    UNION ALL
    SELECT 4, format('policy %I on pgops.%I', p.polname, r.relname),
           format('DROP POLICY %I ON pgops.%I', p.polname, r.relname)
    FROM relation AS r JOIN pg_policy AS p ON p.polrelid = r.oid
    UNION ALL
    SELECT 5, format('%s pgops.%I, which belongs to %s', lower(r.kind), r.relname, r.relowner::regrole),
           format('DROP %s pgops.%I', r.kind, r.relname)
    FROM relation AS r WHERE r.relowner NOT IN (SELECT t.oid FROM trusted AS t)
    UNION ALL
    SELECT 6, format('%s pgops.%I in place of a table', lower(r.kind), r.relname),
           format('DROP %s pgops.%I', r.kind, r.relname)
    FROM relation AS r WHERE r.relname = ANY (:tables) AND r.relkind NOT IN ('r', 'p')
    UNION ALL
    SELECT 7, format('function %s, which belongs to %s', p.oid::regprocedure, p.proowner::regrole),
           format('DROP ROUTINE %s', p.oid::regprocedure)
    FROM pg_proc AS p
    WHERE p.pronamespace = (SELECT to_regnamespace('pgops')) AND p.proowner NOT IN (SELECT t.oid FROM trusted AS t)
    UNION ALL
    SELECT 8, format('table %s, which inherits from pgops.%I', i.inhrelid::regclass, r.relname),
           format('ALTER TABLE %s NO INHERIT pgops.%I', i.inhrelid::regclass, r.relname)
    FROM relation AS r JOIN pg_inherits AS i ON i.inhparent = r.oid
    JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE c.relkind NOT IN ('i', 'I') AND c.relnamespace <> to_regnamespace('pgops')
    UNION ALL
    SELECT DISTINCT 9, format('%s, which calls %s of %s', pg_describe_object(d.classid, d.objid, 0),
                              pg_describe_object(d.refclassid, d.refobjid, 0), d.owner::regrole),
           coalesce(format('ALTER TABLE %s ', d.relation::regclass) || d.mend,
                    format('DROP INDEX %s', d.relation::regclass))
    FROM called AS d
    WHERE d.owner NOT IN (SELECT r.oid FROM pg_roles AS r WHERE r.rolsuper OR r.rolname = session_user)
    UNION ALL
    SELECT 10, v.what, v.mend FROM ({EVENT_TRIGGERS}) AS v
) AS found (place, what, mend)
ORDER BY found.place, found.what
"""
"""Whatever belongs to a superuser, or to who runs this, may run; in the schema also what belongs to its owner."""

BOTH = f"""
WITH everything AS MATERIALIZED (
    SELECT m.what, m.mend FROM ({MEMBERS}) AS m
    UNION ALL SELECT c.what, c.mend FROM ({CODE}) AS c
)

SELECT e.what, e.mend FROM everything AS e
UNION ALL
SELECT NULL, set_config('role', :become, :local) WHERE :become <> '' AND NOT EXISTS (SELECT FROM everything)
"""


def refuse_members(
    session: Session, names: Sequence[str] = (OWNER, READER, OPERATOR, AGENT), service: bool = False
) -> None:
    """Refuse roles of ours that others are members of: they could act as it, and change what is its.

    Superusers may, and who runs this. On a managed ``service`` also the groups of who runs this, through which it
    gives its customers their rights.

    Raises Conflict, with the statements that mend it.
    """
    found = _rows(session, MEMBERS, names=list(names), service=service)
    _refuse(found, "Others can act for the roles of pgops.fleet", "No run goes on before a superuser has run")


def refuse_code(session: Session) -> None:
    """Refuse an ops database in which code of others would run with the rights of this session.

    Raises Conflict, with the statements that mend it.
    """
    found = _rows(session, CODE, tables=list(TABLES))
    _refuse(found, f"In database {session.database}, code of others would run", "Look at it, then run there")


def refuse_event_triggers(session: Session) -> None:
    """Refuse a database in which a change of ours would run code of a role that is no superuser.

    Raises Conflict, with the statements that mend it.
    """
    found = session.rows(EVENT_TRIGGERS)
    _refuse(found, f"In database {session.database}, code of others would run", "Look at it, then run there")


def refuse(session: Session, become: str = "", local: bool = False) -> None:
    """All that is asked of the ops database before a session with more rights than its owner works in it, and where
    nothing is found, the role that it becomes, with ``local`` for the transaction only; in one query.

    Raises Conflict.
    """
    names = [OWNER, READER, OPERATOR, AGENT, *OPTIONAL]
    found = _rows(session, BOTH, names=names, tables=list(TABLES), service=False, become=become, local=local)
    words = f"Others can act for the roles of pgops.fleet, or have code in database {session.database} that would run"
    _refuse([one for one in found if one["what"]], words, "Look at it, then a superuser has to run there")


def _rows(session: Session, query: str, **values: Any) -> list[dict[str, Any]]:
    """The rows of a query in which ``:name`` stands for a value, since ``%`` is that of format()."""
    text = query.replace("%", "%%")
    for name in values:
        text = re.sub(rf"(?<!:):{name}\b", f"%({name})s", text)
    return session.rows(text, values)


def _refuse(found: Sequence[dict[str, Any]], words: str, then: str) -> None:
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        named = "; ".join(one["what"] for one in found[:SHOWN])
        raise Conflict(f"{words}: {named}{more}.", f"{then}: {'; '.join(one['mend'] for one in found[:SHOWN])};")
