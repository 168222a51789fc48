"""Whether a ledger's tables, triggers and views are those that the migrations make.

Triggers refuse changes of the record, and views answer questions: whoever owns the tables can drop
the ones and redefine the others, and no hash tells. What the migrations make is kept beside this
file, in ``schema.json``, as each kind of database describes it itself.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Final

from .. import tables
from .damage import Damage, DamageKind
from .sweep import Sweep

__all__ = ["described", "expected", "schema_damages", "statements"]

Schema = Mapping[str, Mapping[str, str]]
"""By kind (``trigger``, ``view`` …) and name: the definition."""

_MEND: Final = "run `secateur db rebuild` as the owner, and find out who could change it"
_GRANT: Final = "run docs/postgresql-roles.sql again as the owner, and find out who could change it"
_RESTORE: Final = "restore the ledger from a backup, and find out who could change it"
_MENDED: Final = ("function", "index", "trigger", "view")
"""Kinds that ``secateur db rebuild`` makes anew, in the order in which they need one another."""

_OURS: Final = (*tables.metadata.tables, "passage_words", "alembic_version")
_VIEWS: Final = ("pruned_branch", "why_pruned", "run_summary", "step")

_GUARDED: Final = (
    "SELECT 1 FROM pg_roles WHERE rolname = 'secateur_writer' "
    "AND has_table_privilege(oid, 'event', 'INSERT')"
)
"""Whether docs/postgresql-roles.sql was run: then what it adds must be there."""

_SQLITE: Final = (
    "SELECT type, CASE type WHEN 'trigger' THEN name || ' on ' || tbl_name ELSE name END, sql "
    "FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'passage\\_words\\_%' ESCAPE '\\'"
)

_HOME: Final = "(SELECT relnamespace FROM pg_class WHERE oid = to_regclass('alembic_version'))"
_RELATIONS: Final = (
    f"SELECT c.oid FROM pg_class c WHERE c.relnamespace = {_HOME} AND c.relname = ANY(%s)"
)
_POSTGRESQL: Final = {
    "table": (
        "SELECT c.relname, concat_ws(', ', VARIADIC ARRAY(SELECT a.attname || ' ' || "
        "format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' "
        "END || CASE WHEN a.atthasdef OR a.attidentity <> '' THEN ' DEFAULT' ELSE '' END "
        "FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "ORDER BY a.attnum)) || CASE c.relkind WHEN 'r' THEN '' ELSE ', no table' END || "
        "CASE c.relpersistence WHEN 'p' THEN '' ELSE ', not logged' END || "
        "CASE WHEN c.relrowsecurity OR c.relforcerowsecurity THEN ', row security' ELSE '' END || "
        "CASE WHEN EXISTS (SELECT 1 FROM pg_inherits i WHERE c.oid IN (i.inhparent, i.inhrelid)) "
        "THEN ', inherits' ELSE '' END "
        f"FROM pg_class c WHERE c.oid IN ({_RELATIONS}) AND c.relkind <> 'v'"
    ),
    "constraint": (
        "SELECT o.conname || ' on ' || o.conrelid::regclass, pg_get_constraintdef(o.oid) || "
        "CASE WHEN EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgconstraint = o.oid "
        "AND t.tgenabled <> 'O') THEN ', disabled' ELSE '' END "
        f"FROM pg_constraint o WHERE o.conrelid IN ({_RELATIONS}) AND o.contype <> 'n'"
    ),
    "index": (
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) || "
        "CASE WHEN i.indisvalid THEN '' ELSE ', not valid' END "
        f"FROM pg_index i WHERE i.indrelid IN ({_RELATIONS})"
    ),
    "view": (
        "SELECT c.relname, CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) ELSE 'no view' END "
        f"FROM pg_class c WHERE c.relnamespace = {_HOME} AND c.relname = ANY(%s)"
    ),
    "function": (
        f"SELECT CASE p.pronamespace WHEN {_HOME} THEN '' "
        "ELSE p.pronamespace::regnamespace || '.' END || p.proname, p.prosrc || "
        "CASE WHEN p.prosecdef THEN ', as its definer' ELSE '' END || "
        "CASE WHEN p.proconfig IS NULL OR array_to_string(p.proconfig, ';') = "
        "'search_path=pg_catalog, ' || (SELECT nspname FROM pg_namespace "
        f"WHERE oid = {_HOME}) || ', pg_temp' "
        "THEN '' ELSE ', with ' || array_to_string(p.proconfig, ';') END "
        f"FROM pg_proc p WHERE p.prorettype = 'trigger'::regtype AND (p.pronamespace = {_HOME} OR "
        f"p.oid IN (SELECT t.tgfoid FROM pg_trigger t WHERE t.tgrelid IN ({_RELATIONS}) "
        "AND NOT t.tgisinternal))"
    ),
    "trigger": (
        "SELECT t.tgname || ' on ' || t.tgrelid::regclass, pg_get_triggerdef(t.oid) || "
        "CASE t.tgenabled WHEN 'O' THEN '' ELSE ', disabled' END "
        f"FROM pg_trigger t WHERE t.tgrelid IN ({_RELATIONS}) AND NOT t.tgisinternal"
    ),
    "rule": (
        "SELECT r.rulename || ' on ' || r.ev_class::regclass, pg_get_ruledef(r.oid) "
        f"FROM pg_rewrite r WHERE r.ev_class IN ({_RELATIONS}) AND r.rulename <> '_RETURN'"
    ),
    "row policy": (
        "SELECT p.polname || ' on ' || p.polrelid::regclass, 'row security' "
        f"FROM pg_policy p WHERE p.polrelid IN ({_RELATIONS})"
    ),
}
_SHADOWS: Final = (
    "SELECT c.relname, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    f"WHERE c.relname = ANY(%s) AND n.nspname = ANY(current_schemas(true)) AND n.oid <> {_HOME}"
)
_SETTINGS: Final = (
    "SELECT coalesce(r.rolname, 'the database'), setting FROM pg_db_role_setting s "
    "CROSS JOIN unnest(s.setconfig) setting LEFT JOIN pg_roles r ON r.oid = s.setrole "
    "WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) "
    "AND setting LIKE 'session_replication_role=%' AND setting NOT LIKE '%=origin'"
)


def described(sweep: Sweep) -> dict[str, dict[str, str]]:
    """What the database itself says of its tables and of all that stands on them."""
    found: dict[str, dict[str, str]] = {}
    if not sweep.postgresql:
        for kind, name, sql in sweep.rows(_SQLITE):
            found.setdefault(kind, {})[name] = sql
        return found
    for kind, query in _POSTGRESQL.items():
        names = list(_VIEWS if kind == "view" else (*_OURS, *_VIEWS) if kind == "rule" else _OURS)
        found[kind] = dict(sweep.rows(query, (names,)))
    return found


@cache
def expected(of: str) -> Schema:
    """What a new ledger says of itself: ``sqlite``, ``postgresql``; ``roles`` for what
    docs/postgresql-roles.sql adds, and ``roles 0.1`` for what it added in that version."""
    text = (
        resources.files("secateur.runtime.ledger.integrity")
        .joinpath("schema.json")
        .read_text(encoding="utf-8")
    )
    return json.loads(text)[of]


def schema_damages(sweep: Sweep) -> list[Damage]:
    """What is missing, changed or put in, by name."""
    found = described(sweep)
    known = _known(sweep, found)
    return [*_differences(sweep, found, known), *(_beside(sweep) if sweep.postgresql else ())]


def statements(sweep: Sweep) -> list[str]:
    """What makes functions, indexes, triggers and views as the migrations do, where they are not;
    and takes triggers away that nobody knows."""
    found, plain, made = described(sweep), _plainly(sweep), list[str]()
    for kind in _MENDED:
        there = found.get(kind, {})
        for name, definition in expected(_kind(sweep)).get(kind, {}).items():
            if name not in there or plain(there[name]) != plain(definition):
                made += _made(kind, name, definition, sweep.postgresql)
    put_in = found.get("trigger", {}).keys() - _known(sweep, found).get("trigger", {}).keys()
    return [*made, *(_dropped("trigger", name, sweep.postgresql) for name in sorted(put_in))]


def _kind(sweep: Sweep) -> str:
    return "postgresql" if sweep.postgresql else "sqlite"


def _known(sweep: Sweep, found: Schema) -> Schema:
    """What should be there; with what the documented groups need, where they may write."""
    known = expected(_kind(sweep))
    if not sweep.postgresql or not sweep.rows(_GUARDED):
        return known
    earlier = expected("roles 0.1")
    if all(
        found[kind].get(name) == made for kind, of in earlier.items() for name, made in of.items()
    ):
        by_role = earlier
    else:
        by_role = expected("roles")
    return {kind: {**of, **by_role.get(kind, {})} for kind, of in known.items()}


def _differences(sweep: Sweep, found: Schema, known: Schema) -> Iterator[Damage]:
    plain = _plainly(sweep)
    for kind in dict.fromkeys([*known, *found]):
        should, there = known.get(kind, {}), found.get(kind, {})
        remedy = _MEND if kind in _MENDED else _RESTORE
        made = expected(_kind(sweep)).get(kind, {})
        for name, definition in should.items():
            mend = remedy if name in made else _GRANT
            if name not in there:
                yield _damage(DamageKind.MISSING, f"the {kind} {name} is missing: {mend}")
            elif plain(there[name]) != plain(definition):
                how = "is disabled" if there[name].endswith(", disabled") else "was changed"
                yield _damage(DamageKind.CHANGED, f"the {kind} {name} {how}: {mend}")
        for name in sorted(there.keys() - should.keys()):
            # Somebody's own table in a file, or function, does nothing without a trigger.
            if kind == "trigger" or (sweep.postgresql and kind != "function"):
                yield _damage(DamageKind.CHANGED, f"the {kind} {name} was put in: {remedy}")


def _beside(sweep: Sweep) -> Iterator[Damage]:
    """What leads around the tables and their triggers."""
    for name, where in sweep.rows(_SHADOWS, ([*_OURS, *_VIEWS],)):
        yield _damage(
            DamageKind.CHANGED,
            f"the table {name} is shadowed by one in the schema {where}: drop that one, or take "
            "the schema out of search_path",
        )
    for whose, setting in sweep.rows(_SETTINGS):
        yield _damage(
            DamageKind.CHANGED,
            f"{whose} has the setting {setting}, with which no trigger fires: reset it",
        )


def _damage(kind: DamageKind, reason: str) -> Damage:
    return Damage(None, None, kind, reason)


def _plainly(sweep: Sweep) -> Callable[[str], str]:
    """How definitions are compared: without the schema that the ledger is in."""
    if not sweep.postgresql:
        return _plain
    ((home,),) = sweep.rows(f"SELECT nspname FROM pg_namespace WHERE oid = {_HOME}")
    return lambda definition: _plain(re.sub(rf"\b({re.escape(home)}|public)\.", "", definition))


def _plain(definition: str) -> str:
    """Without what versions of a database or library spell in another way: blanks, quotes around
    names, and whose column it is where there is one table."""
    text = re.sub(r"\s*([(),])\s*", r"\1", " ".join(definition.replace('"', "").split()))
    if "ARRAY[" in text:  # restored from a dump, a list of texts has its casts elsewhere
        text = re.sub(r"::[a-z ]+(\[\])?|[()]", "", text)
    if len(re.findall(r"\b(?:FROM|JOIN)\b", text)) == 1:
        text = re.sub(r"\bt\.(?=\w)", "", text)
    return text


def _made(kind: str, name: str, definition: str, postgresql: bool) -> list[str]:
    if kind == "function":
        return [
            f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql "
            f"AS $made${definition}$made$"
        ]
    make = f"CREATE VIEW {name} AS {definition}" if postgresql and kind == "view" else definition
    return [_dropped(kind, name, postgresql), make]


def _dropped(kind: str, name: str, postgresql: bool) -> str:
    name, _, table = name.partition(" on ")
    on = f' ON "{table}"' if kind == "trigger" and postgresql else ""
    return f'DROP {kind.upper()} IF EXISTS "{name}"{on}'
