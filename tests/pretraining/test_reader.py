"""Corpus files come back as the documents that were written, from any record on, for ever."""

import gzip
import itertools
import json
from pathlib import Path

import pytest

from secateur.pretraining.corpus.document import Document
from secateur.pretraining.corpus.reader import (
    Records,
    count_records,
    find_files,
    read_records,
)
from secateur.pretraining.corpus.stream import Corpus, CorpusConfig
from secateur.pretraining.corpus.writer import write_records
from secateur.pretraining.errors import CorpusError

NAMES = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.parquet")
DESK = CorpusConfig(seed=3, early={"desk": 1}, late={"desk": 1})
DOCUMENTS = list(Corpus(DESK).documents(0, 40))


def lines(path: Path, count: int, first: int = 0) -> Path:
    path.write_text("".join(json.dumps({"text": f"{first + n}"}) + "\n" for n in range(count)))
    return path


def texts(found: list[Document]) -> list[int]:
    return [int(document.plain) for document in found]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep" / name
    assert write_records(DOCUMENTS, path) == 40
    assert list(read_records([path])) == DOCUMENTS
    assert count_records(path) == 40
    assert any(document.spans for document in DOCUMENTS)
    assert [found.name for found in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_reading_starts_at_any_record(tmp_path: Path, name: str) -> None:
    write_records(DOCUMENTS, tmp_path / name)
    for start in (1, 17, 39, 40, 100):
        assert list(read_records([tmp_path / name], start)) == DOCUMENTS[start:]


def test_row_groups_before_the_start_are_passed_over(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"text": [str(number) for number in range(50)]})
    parquet.write_table(table, tmp_path / "corpus.parquet", row_group_size=7)
    for start in (0, 6, 7, 8, 48):
        found = list(read_records([tmp_path / "corpus.parquet"], start))
        assert texts(found) == list(range(start, 50))


def test_files_follow_one_another_for_ever(tmp_path: Path) -> None:
    paths = [lines(tmp_path / "a.jsonl", 3), lines(tmp_path / "b.jsonl", 2, 3)]
    for start in (0, 4, 5, 13):
        found = list(itertools.islice(read_records(paths, start, cycle=True), 12))
        assert texts(found) == [(start + number) % 5 for number in range(12)]


def test_a_corpus_remembers_how_far_it_has_read(tmp_path: Path) -> None:
    records = Records([lines(tmp_path / "a.jsonl", 5)])
    assert texts(records.take(0, 3)) == [0, 1, 2]
    assert texts(records.take(3, 4)) == [3, 4, 0, 1]
    assert texts(records.take(13, 1)) == [3]
    assert texts(records.take(1, 2)) == [1, 2]


def test_patterns_mean_their_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    first, second = lines(tmp_path / "deep/1.jsonl", 1), lines(tmp_path / "deep/2.jsonl", 1)
    (tmp_path / "deep" / "notes.txt").touch()
    assert find_files([f"{tmp_path}/**/*.jsonl"]) == [first, second]
    assert find_files([second, tmp_path / "deep" / "1.jsonl"]) == [second, first]
    with pytest.raises(CorpusError, match=r"\.jsonl, \.jsonl\.gz or \.parquet"):
        find_files([tmp_path / "deep" / "*"])
    with pytest.raises(CorpusError, match="no corpus file there"):
        find_files([tmp_path / "*.parquet"])


def test_only_text_is_needed_and_blank_lines_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\\ntwo"}\n\n{"text": "three", "other": 1}\n')
    found = list(read_records([path]))
    assert [document.plain for document in found] == ["one\ntwo\n", "three\n"]
    assert not any(document.labelled for document in found)
    assert list(read_records([path], 1)) == found[1:]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": ', "not JSON"),
        ("[1]", "object with a 'text'"),
        ('{"words": "x"}', "string 'text'"),
        ('{"text": 3}', "string 'text'"),
        ('{"text": "ab", "spans": [{"start": 1, "end": 9, "tag": "deceit"}]}', "does not lie"),
        ('{"text": "ab", "spans": [{"start": 0, "end": 1}]}', "a span is"),
    ],
)
def test_a_bad_record_is_named_by_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "fine"}\n\n' + line + "\n")
    stream = read_records([path])
    assert next(stream).plain == "fine\n"
    with pytest.raises(CorpusError) as caught:
        next(stream)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: ")
    assert reason in message
    assert "\n" not in message


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"text": "fine"}\n' * 9999)[:60])
    rotten = tmp_path / "rotten.parquet"
    rotten.write_bytes(b"PAR1 no parquet")
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"text": "é"}\n'.encode("latin-1"))
    for path in (cut, rotten, latin):
        with pytest.raises(CorpusError) as caught:
            list(read_records([path]))
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_a_table_without_text_and_an_empty_corpus_are_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"content": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"no column 'text' .*content"):
        list(read_records([tmp_path / "a.parquet"]))
    (tmp_path / "empty.jsonl").touch()
    assert list(read_records([tmp_path / "empty.jsonl"])) == []
    with pytest.raises(CorpusError, match="no record"):
        next(read_records([tmp_path / "empty.jsonl"], cycle=True))
