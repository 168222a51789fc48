"""Corpus files, read as a stream: JSONL (also gzipped) and Parquet, one record a document.

A record has ``text`` and, where there are any, ``spans``, ``given``, ``family`` and ``meta``
(:meth:`.document.Document.to_record`). Nothing is ever read whole: lines of a JSONL file pass one
by one, a Parquet file in batches of its row groups.
"""

import glob
import gzip
import io
import itertools
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ...gates.encoding import marked
from ..errors import CorpusError
from .document import Document

__all__ = ["COLUMNS", "Records", "count_records", "find_files", "format_of", "read_records"]

COLUMNS = ("text", "spans", "given", "family", "meta")
_ROWS = 1024
"""Rows of a Parquet file that are in memory at once."""

_Raw = tuple[Path, int, bytes | Mapping[str, Any]]
"""A record as it stands in a file: the file, its line (or row, from 1), and its content."""


def format_of(path: Path) -> Literal["jsonl", "jsonl.gz", "parquet"]:
    """The format that a file's name says. Raises :class:`CorpusError` for any other name."""
    if path.name.endswith(".jsonl"):
        return "jsonl"
    if path.name.endswith(".jsonl.gz"):
        return "jsonl.gz"
    if path.suffix == ".parquet":
        return "parquet"
    raise CorpusError(f"{path}: a corpus file is named .jsonl, .jsonl.gz or .parquet; rename it")


def find_files(patterns: Sequence[str | Path]) -> list[Path]:
    """The files that names and patterns (``data/*.parquet``, ``**`` for any depth) mean.

    A pattern's files stand in alphabetical order. Raises :class:`CorpusError` for a name or
    pattern that no file has.
    """
    found: list[Path] = []
    for pattern in map(str, patterns):
        named = Path(pattern)
        matches = [named] if named.is_file() else []
        if not matches:
            # Path.glob takes no pattern that begins at the root.
            names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
            matches = [path for path in map(Path, names) if path.is_file()]
        if not matches:
            raise CorpusError(
                f"{pattern}: no corpus file there; name .jsonl, .jsonl.gz or .parquet files, or a "
                "pattern such as 'data/*.parquet'"
            )
        for path in matches:
            format_of(path)
        found += matches
    if not found:
        raise CorpusError("no corpus file is named; name .jsonl, .jsonl.gz or .parquet files")
    return found


def count_records(path: Path) -> int:
    """How many records one file has; a Parquet file says so, the others are read to the end."""
    return max((passed for passed, _ in _of_file(path, sys.maxsize)), default=0)


def read_records(
    paths: Sequence[str | Path], start: int = 0, *, cycle: bool = False
) -> Iterator[Document]:
    """The documents of ``paths`` (files or patterns) in order, from record number ``start``.

    With ``cycle`` the files follow one another for ever, and ``start`` may lie in any epoch.
    Raises :class:`CorpusError` naming file and line of a record that cannot be read.
    """
    return map(_document, _raw_records(find_files(paths), start, cycle))


class Records:
    """An endless corpus of files that remembers how far it has read."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._files = find_files(paths)
        self._next = 0
        self._raw = _raw_records(self._files, 0, True)

    def take(self, start: int, count: int) -> list[Document]:
        """``count`` documents from record ``start``; going on is quick, going back begins anew."""
        if start < self._next:
            self._raw = _raw_records(self._files, start, True)
        else:
            # What other processes read is passed over without being parsed.
            next(itertools.islice(self._raw, start - self._next, start - self._next), None)
        self._next = start + count
        return [_document(raw) for raw in itertools.islice(self._raw, count)]


def _raw_records(files: Sequence[Path], start: int, cycle: bool) -> Iterator[_Raw]:
    skip, total = start, 0
    while True:
        for path in files:
            size = 0
            for passed, raw in _of_file(path, skip):
                size = passed
                if raw is not None:
                    yield raw
            total += size
            skip = max(0, skip - size)
        if not cycle:
            return
        if total == 0:
            raise CorpusError(f"{files[0]}: the corpus has no record; name files that have some")
        skip, total = skip % total, 0


def _of_file(path: Path, skip: int) -> Iterator[tuple[int, _Raw | None]]:
    """How many records have passed, and the last of them (None for those that were skipped)."""
    try:
        if format_of(path) == "parquet":
            yield from _of_parquet(path, skip)
        else:
            yield from _of_lines(path, skip)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CorpusError(f"{path}: {reason}; write the file again, or name another") from None


def _of_lines(path: Path, skip: int) -> Iterator[tuple[int, _Raw | None]]:
    passed = 0
    with gzip.open(path) if format_of(path) == "jsonl.gz" else path.open("rb") as lines:
        mark = marked(lines.peek(4)[:4])
        if mark is not None:  # JSON is read as UTF-8
            text = io.TextIOWrapper(lines, mark, newline="\n")
            lines = (line.encode() for line in text)
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            passed += 1
            if passed > skip:
                yield passed, (path, number, line)
    if passed <= skip:
        yield passed, None


def _of_parquet(path: Path, skip: int) -> Iterator[tuple[int, _Raw | None]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise CorpusError(f"{path}: Parquet needs pyarrow: pip install 'secateur[train]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in COLUMNS if name in file.schema_arrow.names]
            if "text" not in names:
                raise CorpusError(
                    f"{path}: no column 'text' (there are {', '.join(file.schema_arrow.names)}); "
                    "rename the column that holds the documents"
                )
            passed = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if passed + rows <= skip:
                    passed += rows
                    continue
                for batch in file.iter_batches(_ROWS, row_groups=[group], columns=names):
                    if passed + batch.num_rows <= skip:
                        passed += batch.num_rows
                        continue
                    for record in batch.to_pylist():
                        passed += 1
                        if passed > skip:
                            yield passed, (path, passed, record)
            if passed <= skip:
                yield passed, None
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise CorpusError(f"{path}: no Parquet ({reason}); write the file again") from None


def _document(raw: _Raw) -> Document:
    """The document of one record. Raises :class:`CorpusError` with its file and line."""
    path, number, content = raw
    try:
        record = json.loads(content) if isinstance(content, bytes) else content
        if not isinstance(record, Mapping):
            raise CorpusError(f"a record is an object with a 'text', not {type(record).__name__}")
        return Document.from_record(record)
    except CorpusError as error:
        raise CorpusError(f"{path}:{number}: {error}") from None
    except ValueError as error:
        raise CorpusError(f"{path}:{number}: not JSON ({error}); correct the line") from None
