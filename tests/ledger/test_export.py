"""Exports: every row is there, typed or to be hashed again, and the file is whole or not there."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from secateur.runtime.ledger import tables
from secateur.runtime.ledger.chain import blob_digest, event_hash
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.integrity import verifier
from secateur.runtime.ledger.reading import export
from secateur.runtime.ledger.reading.audit import AuditLog


def read(path: Path) -> tuple[dict, list[dict]]:
    """The heading, and the lines below it."""
    heading, *rows = (json.loads(line) for line in path.read_text().splitlines())
    return heading, rows


def test_a_run_is_exported_as_lines(told, tmp_path):
    out = tmp_path / "run.jsonl"
    with AuditLog(told.url) as audit:
        counts = audit.to_jsonl(out, told.first)
        thoughts, events = audit.thoughts(told.first), audit.events(told.first)
    assert counts == {"run": 1, "thought": 7, "event": len(events)}
    heading, rows = read(out)
    assert heading == {
        "export": "secateur",
        "schema": export.SCHEMA,
        "revision": tables.HEAD,
        "complete": False,
    }
    by = {kind: [row for row in rows if row["record"] == kind] for kind in counts}
    assert by["run"][0]["task"] == "restart web"
    assert [row["thought"] for row in by["thought"]] == [thought.id for thought in thoughts]
    assert by["thought"][1]["judgement"]["crossings"][0]["tag"] == "deceit"
    assert [row["hash"] for row in by["event"]] == [event.hash for event in events]
    assert by["event"][0]["body"]["agent"] == "opsdesk"


def test_a_complete_export_holds_every_row_as_it_stands(told, tmp_path):
    out = tmp_path / "all.jsonl"
    with AuditLog(told.url) as audit:
        counts = audit.to_jsonl(out, complete=True)
    heading, rows = read(out)
    assert heading["complete"]
    for table in ("policy", "blob", "run", "event", "thought", "tag_score"):
        ((there,),) = told.ask(f"SELECT count(*) FROM {table}")
        assert counts[table] == there == sum(row["table"] == table for row in rows), table
    heads = {}
    for row in rows:
        if row["table"] == "event":
            event = {name: value for name, value in row.items() if name != "table"}
            assert event_hash(event) == row["hash"]
            assert row["prev_hash"] == heads.get(row["run_id"], "0" * 64)
            heads[row["run_id"]] = row["hash"]
        elif row["table"] == "blob":
            salt, content = (base64.b64decode(row[name]) for name in ("salt", "bytes"))
            assert blob_digest(salt, content) == row["digest"]


def test_a_complete_export_is_what_the_stand_alone_verifier_reads(told, tmp_path):
    out = tmp_path / "all.jsonl"
    with AuditLog(told.url) as audit:
        audit.to_jsonl(out, complete=True)
    words = [sys.executable, "-I", verifier.__file__]
    done = subprocess.run([*words, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    bent = out.read_text().replace("opsdesk", "opsdeck", 1)
    out.write_text(bent)
    done = subprocess.run([*words, out], capture_output=True, text=True, check=False)
    assert done.returncode == 1


def test_a_complete_export_of_one_run_holds_what_belongs_to_it_alone(told, tmp_path):
    out = tmp_path / "run.jsonl"
    with AuditLog(told.url) as audit:
        counts = audit.to_jsonl(out, told.second, complete=True)
    _, rows = read(out)
    runs = {
        row.get("run_id", row.get("id")) for row in rows if row["table"] not in ("policy", "blob")
    }
    assert runs - {row["id"] for row in rows if row["table"] == "thought"} == {told.second}
    named = {
        digest
        for row in rows
        if row["table"] == "event"
        for digest in json.loads(row["blobs"]).values()
    }
    assert {row["digest"] for row in rows if row["table"] == "blob"} == named
    assert (counts["run"], counts["policy"], counts["thought"]) == (1, 1, 3)


def test_parquet_is_typed(told, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    with AuditLog(told.url) as audit:
        audit.to_parquet(tmp_path / "steps.parquet")
        counts = audit.to_parquet(tmp_path / "tables")
        rows = audit.thoughts(told.first)
    steps = pq.read_table(tmp_path / "steps.parquet")
    assert steps.schema.metadata[b"secateur.schema"] == str(export.SCHEMA).encode()
    assert steps.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert steps.schema.field("parents").type == pa.list_(pa.string())
    assert steps.schema.field("reached").type == pa.float64()
    found = {(row["run_id"], row["id"]): row for row in steps.to_pylist()}
    assert len(found) == 10
    cut = found[told.first, "b1"]
    assert (cut["tag"], cut["parents"], cut["policy"]) == ("deceit", ["a0"], "test")
    readings = {each["tag"]: each for each in cut["readings"]}
    assert readings["deceit"]["peak"] == pytest.approx(0.5, abs=0.01)
    assert [tag for tag, each in readings.items() if each["decided"]] == ["deceit"]
    assert cut["at"].isoformat() == rows[1].at.replace("Z", "+00:00")
    assert counts == {"run": 2, "thought": 10, "tag_score": 21, "event": 22}
    for name, number in counts.items():
        table = pq.read_table(tmp_path / "tables" / f"{name}.parquet")
        assert table.num_rows == number
    run = pq.read_table(tmp_path / "tables" / "run.parquet").to_pylist()
    assert dict(run[-1]["digests"]).keys() >= {"policy", "model"}


def test_an_export_that_fails_leaves_no_file(told, tmp_path):
    told.change("UPDATE thought SET parents = 'no JSON' WHERE id = 'd1'")
    with AuditLog(told.url) as audit:
        with pytest.raises(LedgerError, match="damaged"):
            audit.to_jsonl(tmp_path / "x.jsonl")
        with pytest.raises(LedgerError, match="damaged"):
            audit.to_parquet(tmp_path / "x.parquet")
    assert list(tmp_path.glob("x.*")) == []


def test_the_command_writes_what_it_is_asked_for(command, told, tmp_path):
    words = ("audit", "export", "--db", told.url)
    code, out, _ = command(*words, told.first)
    assert code == 0
    assert json.loads(out.splitlines()[0])["schema"] == export.SCHEMA
    code, out, _ = command(*words, "--all", "--complete", "--out", tmp_path / "a.jsonl", "--json")
    assert (code, json.loads(out)["rows"]["event"]) == (0, 22)
    code, out, _ = command(*words, "--all", "--format", "parquet", "--out", tmp_path / "p")
    assert code == 0
    assert "10 of thought" in out
    for wrong in (
        [],
        ["--all", told.first],
        ["--all", "--format", "parquet"],
        ["--all", "--format", "parquet", "--out", tmp_path / "x.parquet", "--complete"],
        ["--all", "--out", tmp_path / "no" / "such" / "folder.jsonl"],
    ):
        code, _, err = command(*words, *wrong)
        assert code == 2, wrong
        assert len(err.splitlines()) == 1
