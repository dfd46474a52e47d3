# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The schema's objects as the server has them, each with a fingerprint that shows whether it was edited."""

from __future__ import annotations

CATALOGUE = """
SELECT object, pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(definition, 'UTF8')), 'hex') AS sha256
FROM (
    SELECT 'function ' || p.oid::regprocedure::text AS object,
           CASE WHEN p.prokind = 'a' THEN 'aggregate' ELSE pg_get_functiondef(p.oid) END
           || ' owner ' || p.proowner::regrole::text || ' rights ' || coalesce((
               SELECT string_agg(concat_ws(' ', a.grantee::regrole, a.privilege_type, a.is_grantable), ', '
                                 ORDER BY a.grantee::regrole::text COLLATE "C", a.privilege_type)
               FROM aclexplode(p.proacl) AS a), 'default') AS definition
    FROM pg_proc AS p WHERE p.pronamespace = (SELECT to_regnamespace('pgops'))
    UNION ALL
    SELECT CASE c.relkind WHEN 'v' THEN 'view ' ELSE 'table ' END || c.oid::regclass::text,
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
               (SELECT string_agg(concat_ws(' ', a.grantee::regrole, a.privilege_type, a.is_grantable), ', '
                                  ORDER BY a.grantee::regrole::text COLLATE "C", a.privilege_type)
                FROM aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner))
    FROM pg_class AS c
    WHERE c.relnamespace = (SELECT to_regnamespace('pgops')) AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
) AS found (object, definition)
"""
"""Every function, view and table of the schema with the SHA-256 of its definition, owner and rights."""
