"""The privileges that a role needs on a server, and the statements that grant those it lacks."""

from __future__ import annotations

import typing as t

from psycopg import sql

from target_moengage_cohort.ledger.postgres.server_tables import NAMES

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.control.database import Rows

_DATABASE, _SCHEMA, _TABLES = range(3)

# Of the catalog only, which every role may read. Without its schema a store creates one; a schema
# without tables was prepared for the role. The keys of deleted rows are in temporary tables.
_LACKED = """
    WITH place AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {schema}),
    tables AS (
        SELECT c.oid FROM pg_catalog.pg_class AS c JOIN place ON c.relnamespace = place.oid
        WHERE c.relname IN ({names})
    ),
    needed (level, privilege, is_given) AS (
        SELECT {_DATABASE}, 'CREATE', has_database_privilege(current_database(), 'CREATE')
        WHERE NOT EXISTS (SELECT 1 FROM place)
        UNION ALL
        SELECT {_DATABASE}, 'TEMPORARY', has_database_privilege(current_database(), 'TEMPORARY')
        UNION ALL
        SELECT {_SCHEMA}, 'USAGE', has_schema_privilege(oid, 'USAGE') FROM place
        UNION ALL
        SELECT {_SCHEMA}, 'CREATE', has_schema_privilege(oid, 'CREATE') FROM place
        WHERE NOT EXISTS (SELECT 1 FROM tables)
        UNION ALL
        SELECT {_TABLES}, name, bool_and(has_table_privilege(oid, name))
        FROM tables, (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS names (name)
        GROUP BY name
    )
    SELECT level, privilege, current_user::text, current_database()::text
    FROM needed WHERE NOT is_given ORDER BY level, privilege
"""


def lacked(schema: str) -> str:
    """Return the query for the privileges that the role lacks; see `grants`."""
    names = ", ".join(sql.Literal(name).as_string() for name in NAMES)
    levels = {"_DATABASE": _DATABASE, "_SCHEMA": _SCHEMA, "_TABLES": _TABLES}
    return _LACKED.format(schema=sql.Literal(schema).as_string(), names=names, **levels)


def grants(rows: Rows, schema: str) -> list[str]:
    """Return the statements that grant what the query `lacked` has found."""
    privileges: dict[tuple[str, str], list[str]] = {}
    for level, privilege, role, database in rows:
        on = (f"DATABASE {_quoted(database)}", f"SCHEMA {_quoted(schema)}")
        objects = (*on, f"ALL TABLES IN {on[_SCHEMA]}")[level]
        privileges.setdefault((objects, _quoted(role)), []).append(privilege)
    return [
        f"GRANT {', '.join(names)} ON {objects} TO {role};"
        for (objects, role), names in privileges.items()
    ]


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
