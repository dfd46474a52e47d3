# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables and indexes of many shapes, by which estimates of bloat are compared with what writing them anew gives back.

Each has more than a megabyte, and loses every other row: where nothing is free, an estimate that is too low would
show nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

ROWS = 50_000

COLUMNS: dict[str, str] = {
    "bigints": "g::bigint AS a, g::bigint AS b",
    "booleans": "g AS a, TRUE AS b, g % 2 = 0 AS c, FALSE AS d, 1::smallint AS e, TRUE AS f",
    "bytes": "g AS a, decode(md5(g::text), 'hex') AS b",
    "characters": "'x'::\"char\" AS a, g AS b, 'y'::\"char\" AS c, g::bigint AS d",
    "codes": "g AS a, 'value ' || g AS b",
    "dates": "current_date + g % 1000 AS a, now() + g * interval '1 s' AS b, localtime AS c",
    "digests": "md5(g::text) AS a, md5((-g)::text) AS b",
    "documents": "g AS a, jsonb_build_object('id', g, 'name', md5(g::text), 'on', g % 2 = 0) AS b",
    "fixed_texts": "g AS a, lpad(g::text, 10, '0') AS b",
    "generated": "g AS a, g::text AS b, (g * 2)::numeric AS c, repeat('x', g % 7) AS d",
    "intervals": "g AS a, g * interval '1 minute' AS b, TRUE AS c",
    "keys_and_texts": "gen_random_uuid() AS a, repeat('x', 1 + g % 60) AS b, g AS c",
    "lists": "g AS a, ARRAY[g, g + 1, g + 2] AS b",
    "long_texts": "g AS a, repeat(md5(g::text), 1 + g % 20) AS b",
    "many_columns": ", ".join(f"CASE WHEN g % 3 = 0 THEN g END AS c{n}" for n in range(20)),
    "networks": "g AS a, ('10.' || g % 250 || '.' || g / 250 || '.1')::inet AS b",
    "nulls_at_the_end": "g AS a, NULL::text AS b, NULL::bigint AS c, NULL::numeric AS d",
    "numbers": "g AS a, (g * 1.5)::numeric AS b, (g / 7.0)::numeric(12, 4) AS c",
    "padded_texts": "g AS a, g::text::char(20) AS b",
    "places": "g AS a, point(g, g) AS b, TRUE AS c",
    "rare_texts": "g AS a, CASE WHEN g % 10 = 0 THEN md5(g::text) END AS b, g::bigint AS c",
    "singles": "g AS a",
    "smallints_and_texts": "(g % 100)::smallint AS a, 'k' || g AS b, (g % 7)::smallint AS c, 'v' || g % 9 AS d",
    "sometimes_short": "g AS a, repeat('x', 90 + g % 60) AS b, g AS c",
    "words": "to_tsvector('simple', md5(g::text) || ' ' || g) AS a",
}
"""Expressions of a table's columns, of the numbers g from 1 to ROWS, by the tables' names."""

INDEXES: dict[str, str] = {
    "of_bigints": "bigints (a)",
    "of_booleans": "booleans (c, a)",
    "of_bytes": "bytes (b)",
    "of_codes": "codes (b)",
    "of_codes_and_numbers": "codes (b, a)",
    "of_dates_and_times": "dates (a, b)",
    "of_digests": "digests (a)",
    "of_both_digests": "digests (a, b)",
    "of_fixed_texts": "fixed_texts (b)",
    "of_keys": "keys_and_texts (a)",
    "of_networks": "networks (b)",
    "of_numbers": "numbers (b)",
    "of_padded_texts": "padded_texts (b)",
    "of_singles": "singles (a)",
    "of_loose_singles": "singles (a) WITH (fillfactor = 50)",
    "of_small_keys": "smallints_and_texts (c, b)",
    "of_texts_and_numbers": "smallints_and_texts (b, a)",
    "of_times": "dates (b)",
}
"""Table and columns of indexes, by their names."""


HALVES = (sorted(COLUMNS)[::2], sorted(COLUMNS)[1::2])
"""The names of the tables in two parts: estimates name 20 of a database."""


def statements(tables: Sequence[str]) -> list[str]:
    """The statements that make some of the tables, and their indexes."""
    rows = f"FROM generate_series(1, {ROWS}) AS g"
    made = [f"CREATE TABLE {name} AS SELECT g AS place, {COLUMNS[name]} {rows}" for name in tables]
    made += [f"CREATE INDEX {name} ON {on}" for name, on in INDEXES.items() if on.partition(" ")[0] in tables]
    return [*made, *(f"DELETE FROM {name} WHERE place % 2 = 0" for name in tables)]
