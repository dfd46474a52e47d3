# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The schema's objects as the server has them, each with a fingerprint that shows whether it was edited.

Writing definitions takes a new session longer than all the rest of a report. So an object whose rows of the catalogue
are those that were there when it was installed (their ``xmin``, the transaction that wrote them) has the fingerprint
that was recorded then; only the definitions of others are written. Of what follows from an edit elsewhere (a view's
text, where a column of its table was renamed) only the edited object itself shows.
"""

from __future__ import annotations


def _rights(acl: str, but: str = "") -> str:
    return f"""
        SELECT string_agg(concat_ws(' ', a.grantee::regrole, a.privilege_type, a.is_grantable), ', '
                          ORDER BY a.grantee::regrole::text COLLATE "C", a.privilege_type)
        FROM aclexplode({acl}) AS a {but}
    """


_FUNCTION = "'function ' || p.oid::regprocedure::text"
_RELATION = "CASE c.relkind WHEN 'v' THEN 'view ' ELSE 'table ' END || c.oid::regclass::text"
_FUNCTIONS = "FROM pg_proc AS p WHERE p.pronamespace = (SELECT to_regnamespace('pgops'))"
_RELATIONS = """
    FROM pg_class AS c
    WHERE c.relnamespace = (SELECT to_regnamespace('pgops')) AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
"""


def _definitions(chosen: str = "true") -> str:
    """Each object whose row of the catalogue, ``{}``, fulfils a condition, with the SHA-256 of its definition, owner
    and rights."""
    return f"""
SELECT object, pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(definition, 'UTF8')), 'hex') AS sha256
FROM (
    SELECT {_FUNCTION} AS object,
           CASE WHEN p.prokind = 'a' THEN 'aggregate' ELSE pg_get_functiondef(p.oid) END
           || ' owner ' || p.proowner::regrole::text || ' rights '
           || coalesce(({_rights("p.proacl")}), 'default') AS definition
    {_FUNCTIONS} AND {chosen.format("p")}
    UNION ALL
    SELECT {_RELATION},
           concat_ws(E'\n',
               CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
               'owner ' || c.relowner::regrole::text,
               (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                                            a.attidentity, pg_get_expr(d.adbin, d.adrelid)), ', ' ORDER BY a.attnum)
                FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
               (SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY pg_get_constraintdef(k.oid) COLLATE "C")
                FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype <> 'n'),
               (SELECT string_agg(pg_get_indexdef(i.indexrelid), ', '
                                  ORDER BY pg_get_indexdef(i.indexrelid) COLLATE "C")
                FROM pg_index AS i WHERE i.indrelid = c.oid),
               (SELECT string_agg(pg_get_triggerdef(t.oid), ', ' ORDER BY t.tgname)
                FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
               ({_rights("c.relacl", "WHERE a.grantee <> c.relowner")}))
    {_RELATIONS} AND {chosen.format("c")}
) AS found (object, definition)
"""


# Of a relation's row not the transaction: the first partition, or a column's statistics, would be an edit.
_FUNCTION_MARK = "concat_ws(' ', 'function', p.oid, p.xmin)"
_RELATION_MARK = """
    concat_ws(' ', 'relation', c.oid, c.relname, c.relowner, c.relacl, (
        SELECT string_agg(r.mark, ' ' ORDER BY r.mark) FROM (
            SELECT a.xmin::text FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0
            UNION ALL SELECT d.xmin::text FROM pg_attrdef AS d WHERE d.adrelid = c.oid
            UNION ALL SELECT k.xmin::text FROM pg_constraint AS k WHERE k.conrelid = c.oid
            UNION ALL SELECT concat_ws(' ', i.xmin, x.xmin)
            FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid
            UNION ALL SELECT t.xmin::text FROM pg_trigger AS t WHERE t.tgrelid = c.oid
            UNION ALL SELECT w.xmin::text FROM pg_rewrite AS w WHERE w.ev_class = c.oid
        ) AS r (mark)
    ))
"""

MARKS = f"""
SELECT {_FUNCTION} AS object, {_FUNCTION_MARK} AS mark {_FUNCTIONS}
UNION ALL SELECT {_RELATION}, {_RELATION_MARK} {_RELATIONS}
"""
"""Each object with what changes where it is edited: above all the transactions that wrote its catalogue rows."""

CATALOGUE = _definitions()
"""Every function, view and table of the schema with its fingerprint."""


def present(recorded: str) -> str:
    """The query for the same, by what is ``recorded`` (pgops.fingerprint, or the view of it that readers may use; an
    older version has no column ``mark``) for objects that have not been touched since: their names are not even
    written."""
    return f"""
WITH seen AS MATERIALIZED (
    SELECT 'p' AS kind, p.oid, {_FUNCTION_MARK} AS mark {_FUNCTIONS}
    UNION ALL SELECT 'c', c.oid, {_RELATION_MARK} {_RELATIONS}
),

untouched AS MATERIALIZED (
    SELECT s.kind, s.oid, i.object, i.sha256 FROM {recorded} AS i JOIN seen AS s ON s.mark = to_jsonb(i) ->> 'mark'
    WHERE i.server_major = current_setting('server_version_num')::integer / 10000
)

SELECT u.object, u.sha256 FROM untouched AS u
UNION ALL
{_definitions("{0}.oid NOT IN (SELECT u.oid FROM untouched AS u WHERE u.kind = '{0}')")}
"""
