"""The ledger as Parquet, typed: one file of steps, or a folder with a file for each table."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ....gates.reading import Reading
from ...private import written
from .. import tables
from ..chain import from_text
from ..errors import LedgerError
from . import fetch
from .export import heading

if TYPE_CHECKING:
    import pyarrow

__all__ = ["write_steps", "write_tables"]

_GROUP = 10_000
"""Rows in a row group, which is what is held in memory."""
_AT_ONCE = 500

_TIMES = ("at", "started_at", "finished_at")
_LISTS = ("parents",)


def write_tables(
    connection: Connection, runs: Sequence[str], folder: Path, counts: Counter[str]
) -> None:
    """``run``, ``thought``, ``tag_score``, ``decision`` and ``event``, each as a file.

    Raises :class:`LedgerError` without pyarrow.
    """
    arrow = _arrow()
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "run.parquet", _run_schema(arrow), _runs(connection, runs), counts, "run")
    for table in (tables.thought, tables.tag_score, tables.decision, tables.event):
        rows = _rows(connection, table, runs)
        _write(folder / f"{table.name}.parquet", _schema(arrow, table), rows, counts, table.name)


def write_steps(
    connection: Connection, runs: Sequence[str], file: Path, counts: Counter[str]
) -> None:
    """One row for each thought, with what its run was and the readings of every tag.

    Raises :class:`LedgerError` without pyarrow.
    """
    arrow = _arrow()
    scores = [arrow.field("tag", arrow.string()), arrow.field("decided", arrow.bool_())]
    scores += [arrow.field(reading.value, arrow.float64()) for reading in Reading]
    thought = _schema(arrow, tables.thought)
    names = ("context", "model", "policy", "policy_digest")
    fields = [*thought, *(arrow.field(name, arrow.string()) for name in names)]
    fields.append(arrow.field("seed", arrow.int64()))
    fields.append(arrow.field("readings", arrow.list_(arrow.struct(scores))))
    _write(file, arrow.schema(fields), _steps(connection, runs), counts, "thought")


def _steps(connection: Connection, runs: Sequence[str]) -> Iterator[dict[str, Any]]:
    for run in runs:
        (about,) = fetch.run_rows(connection, [run])
        score = tables.tag_score
        readings: dict[str, list[dict[str, Any]]] = {}
        for row in connection.execute(sa.select(score).where(score.c.run_id == run)).mappings():
            names = ("tag", "decided", *(reading.value for reading in Reading))
            readings.setdefault(row["thought_id"], []).append({name: row[name] for name in names})
        for row in _rows(connection, tables.thought, [run]):
            yield row | {
                "context": about.context,
                "model": about.model,
                "policy": about.policy,
                "policy_digest": about.policy_digest,
                "seed": about.seed,
                "readings": readings.get(row["id"], []),
            }


def _runs(connection: Connection, runs: Sequence[str]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(runs), _AT_ONCE):
        for row in fetch.run_rows(connection, runs[start : start + _AT_ONCE]):
            plain = row.as_json()
            plain["digests"] = list(plain["digests"].items())
            yield _typed(plain)


def _rows(connection: Connection, table: sa.Table, runs: Sequence[str]) -> Iterator[dict[str, Any]]:
    key = [column for column in table.c if column.primary_key]
    order = table.c.seq if table is tables.thought else key[-1]
    for run in runs:
        query = sa.select(table).where(table.c.run_id == run).order_by(order)
        found = connection.execute(query, execution_options={"yield_per": _AT_ONCE})
        for row in found.mappings():
            yield _typed(row)


def _typed(row: Mapping[Any, Any]) -> dict[str, Any]:
    typed = {str(name): value for name, value in row.items()}
    for name in _TIMES:
        if typed.get(name) is not None:
            typed[name] = datetime.fromisoformat(typed[name])
    for name in _LISTS:
        if name in typed:
            typed[name] = from_text(typed[name])
    return typed


def _schema(arrow: Any, table: sa.Table) -> "pyarrow.Schema":
    return arrow.schema([arrow.field(c.name, _type(arrow, c)) for c in table.c])


def _run_schema(arrow: Any) -> "pyarrow.Schema":
    words = ("run", "agent", "task", "context", "status", "result", "policy", "policy_digest")
    fields = [arrow.field(name, arrow.string()) for name in (*words, "engine", "model")]
    fields += [arrow.field(name, _time(arrow)) for name in ("started_at", "finished_at")]
    counts = ("seed", "thoughts", "pruned", "tokens")
    fields += [arrow.field(name, arrow.int64()) for name in counts]
    return arrow.schema([*fields, arrow.field("digests", arrow.map_(*[arrow.string()] * 2))])


def _type(arrow: Any, column: sa.Column[Any]) -> Any:
    if column.name in _TIMES:
        return _time(arrow)
    if column.name in _LISTS:
        return arrow.list_(arrow.string())
    kinds: dict[type, Callable[[], Any]] = {
        bool: arrow.bool_,
        float: arrow.float64,
        int: arrow.int64,
        str: arrow.string,
    }
    return kinds[column.type.python_type]()


def _time(arrow: Any) -> Any:
    return arrow.timestamp("us", tz="UTC")


def _write(
    path: Path,
    schema: "pyarrow.Schema",
    rows: Iterator[dict[str, Any]],
    counts: Counter[str],
    name: str,
) -> None:
    """A file that is there whole or not at all."""
    import pyarrow
    import pyarrow.parquet

    said = {f"secateur.{key}": str(value) for key, value in heading(complete=False).items()}
    schema = schema.with_metadata(said)
    with (
        written(path) as unfinished,
        pyarrow.parquet.ParquetWriter(unfinished, schema, compression="zstd") as writer,
    ):
        group: list[dict[str, Any]] = []
        for row in rows:
            counts[name] += 1
            group.append(row)
            if len(group) == _GROUP:
                writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
                group.clear()
        writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise LedgerError("Parquet needs pyarrow: pip install 'secateur[frames]'") from None
    return pyarrow
