"""Corpus files, written as a stream; :mod:`.reader` reads them back as the same documents."""

import gzip
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import CorpusError
from .document import Document
from .reader import format_of

__all__ = ["write_records"]

_ROWS = 1024
"""Rows of a Parquet file's row group."""


def write_records(documents: Iterable[Document], path: Path) -> int:
    """Write ``documents`` to ``path``, in the format of its name; how many there were.

    The file appears when it is whole. Raises :class:`CorpusError` for a folder that cannot be
    written to.
    """
    kind = format_of(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "parquet":
            count = _write_parquet(documents, partial)
        else:
            count = _write_lines(documents, partial, kind == "jsonl.gz")
        partial.replace(path)
    except OSError as error:
        raise CorpusError(
            f"{path}: {error.strerror or error}; name a file in a folder that you may write to"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return count


def _write_lines(documents: Iterable[Document], path: Path, packed: bool) -> int:
    count = 0
    with (
        gzip.open(path, "wt", encoding="utf-8")
        if packed
        else path.open("w", encoding="utf-8") as file
    ):
        for found in documents:
            count += 1
            file.write(json.dumps(found.to_record(), ensure_ascii=False, sort_keys=True) + "\n")
    return count


def _write_parquet(documents: Iterable[Document], path: Path) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise CorpusError(f"{path}: Parquet needs pyarrow: pip install 'secateur[train]'") from None
    schema = _schema(pyarrow)
    count = 0
    stream = iter(documents)
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        while records := [_row(found) for found in itertools.islice(stream, _ROWS)]:
            file.write_table(pyarrow.Table.from_pylist(records, schema))
            count += len(records)
    return count


def _row(found: Document) -> dict[str, Any]:
    record = found.to_record()
    return {**record, "meta": list(record["meta"].items())}


def _schema(pyarrow: Any) -> Any:
    span = pyarrow.struct(
        [
            ("start", pyarrow.int64()),
            ("end", pyarrow.int64()),
            ("tag", pyarrow.string()),
            ("band", pyarrow.int64()),
        ]
    )
    return pyarrow.schema(
        [
            ("text", pyarrow.string()),
            ("spans", pyarrow.list_(span)),
            ("given", pyarrow.list_(pyarrow.list_(pyarrow.int64()))),
            ("family", pyarrow.string()),
            ("meta", pyarrow.map_(pyarrow.string(), pyarrow.string())),
        ]
    )
