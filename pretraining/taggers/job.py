"""Tagging a corpus file by file: read, tagged, written and counted as a stream."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..corpus.document import Document
from ..corpus.reader import read_records
from ..corpus.writer import write_records
from .apply import Failure, Given, Tally, in_batches, tag_documents
from .tagger import Tagger

__all__ = ["TaggingResult", "tag_corpus", "tag_stream", "untagged_path"]

Tell = Callable[[int], None]
"""Told how many more documents have passed."""


@dataclass(frozen=True, slots=True)
class TaggingResult:
    """What became of a corpus; ``untagged`` names the file of what could not be tagged."""

    tally: Tally
    out: Path
    untagged: Path | None


def untagged_path(out: Path) -> Path:
    """Where the documents go that could not be tagged: ``corpus.untagged.jsonl``."""
    return out.with_name(f"{out.name.split('.')[0]}.untagged.jsonl")


def tag_corpus(
    tagger: Tagger,
    paths: Sequence[str | Path],
    out: Path,
    given: Given = "skip",
    batch: int = 64,
    tell: Tell = lambda passed: None,
) -> TaggingResult:
    """Tag the documents of ``paths`` (files or patterns) into ``out``.

    A document that could not be tagged is left out of it, and stands in :func:`untagged_path`
    with the reason in its ``meta``. Raises ``CorpusError`` and ``TaggerError``.
    """
    return tag_stream(tagger, read_records(paths), out, given, batch, tell)


def tag_stream(
    tagger: Tagger,
    read: Iterable[Document],
    out: Path,
    given: Given = "skip",
    batch: int = 64,
    tell: Tell = lambda passed: None,
) -> TaggingResult:
    """:func:`tag_corpus` for documents that are read already."""
    tally = Tally()
    failures: list[Document] = []

    def tagged() -> Iterator[Document]:
        for documents in in_batches(read, batch):
            for before, after in zip(
                documents, tag_documents(tagger, documents, given), strict=True
            ):
                tally.add(before, after)
                if isinstance(after, Failure):
                    meta = {**before.meta, "untagged": after.reason}
                    failures.append(replace(before, meta=meta).without_labels())
                else:
                    yield after
            tell(len(documents))

    write_records(tagged(), out)
    untagged = untagged_path(out)
    if failures:
        write_records(failures, untagged)
    else:
        untagged.unlink(missing_ok=True)  # an earlier try's
    return TaggingResult(tally, out, untagged if failures else None)
