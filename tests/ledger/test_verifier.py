"""The stand-alone verifier agrees with ours, on the published vectors and on every damage."""

import ast
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from secateur.gates.canonical import canonical_json
from secateur.runtime.ledger import connect, erasing
from secateur.runtime.ledger.chain import blob_digest, event_hash
from secateur.runtime.ledger.integrity import merkle
from secateur.runtime.ledger.integrity import verifier as inside
from secateur.runtime.ledger.integrity.checkpoints import Head, make_checkpoint, read_checkpoint
from secateur.runtime.ledger.integrity.links import COLUMNS, link_hash
from secateur.runtime.ledger.integrity.signing import SigningKey, signed_by
from secateur.runtime.ledger.reading.audit import AuditLog

FILE = Path(inside.__file__)
VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "ledger-vectors.json").read_text())


@pytest.fixture(scope="session")
def alone():
    """The verifier loaded from its file, as a program of its own would be."""
    spec = importlib.util.spec_from_file_location("verify_ledger", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_verifier_needs_the_standard_library_alone():
    imported = set()
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("vector", VECTORS["canonical_json"], ids=lambda v: v["text"][:20])
def test_canonical_json(alone, vector):
    assert canonical_json(vector["value"]).decode() == vector["text"]
    assert alone.canonical(vector["value"]).decode() == vector["text"]


@pytest.mark.parametrize("vector", VECTORS["events"], ids=lambda v: v["columns"]["kind"])
def test_event_hashes(alone, vector):
    columns = vector["columns"]
    assert canonical_json(columns).decode() == vector["text"]
    assert event_hash(columns) == vector["hash"]
    assert link_hash(tuple(columns.get(name) for name in COLUMNS)) == vector["hash"]
    assert alone.event_hash(columns) == vector["hash"]


@pytest.mark.parametrize("vector", VECTORS["blobs"], ids=lambda v: v["digest"][:8])
def test_blob_digests(alone, vector):
    salt, content = bytes.fromhex(vector["salt"]), bytes.fromhex(vector["bytes"])
    assert blob_digest(salt, content) == alone.blob_digest(salt, content) == vector["digest"]


@pytest.mark.parametrize("vector", VECTORS["merkle"], ids=lambda v: str(len(v["leaves"])))
def test_merkle_roots(alone, vector):
    leaves = [bytes.fromhex(leaf) for leaf in vector["leaves"]]
    assert merkle.root(leaves).hex() == alone.merkle_root(leaves).hex() == vector["root"]


def test_the_heads_of_runs_make_a_root(alone):
    given = VECTORS["heads"]
    ours = [Head(*head).leaf for head in given["heads"]]
    assert [leaf.decode() for leaf in ours] == given["leaves"]
    assert [alone.canonical(head).decode() for head in given["heads"]] == given["leaves"]
    assert merkle.root(ours).hex() == alone.merkle_root(ours).hex() == given["root"]


@pytest.mark.parametrize("size", [*range(1, 18), 100])
def test_every_leaf_is_proved_and_no_other(alone, size):
    leaves = [bytes([n]) * n for n in range(size)]
    root = merkle.root(leaves)
    assert alone.merkle_root(leaves) == root
    for index, leaf in enumerate(leaves):
        path = merkle.proof(leaves, index)
        assert merkle.proves(leaf, index, size, path, root)
        assert alone.root_from_path(leaf, index, size, path) == root
        for wrong in (
            (b"x" + leaf, index, size, path),
            (leaf, index, size, [*path, root]),
            (leaf, index, size, path[:-1]) if path else (leaf, size, size, path),
            (leaf, -1, size, path),
        ):
            assert not merkle.proves(*wrong, root)
            assert alone.root_from_path(*wrong) != root
    with pytest.raises(IndexError):
        merkle.proof(leaves, size)


@pytest.mark.parametrize("vector", VECTORS["ed25519"], ids=lambda v: v["signature"][-8:])
def test_signatures(alone, vector):
    key, message = bytes.fromhex(vector["key"]), bytes.fromhex(vector["message"])
    signature = bytes.fromhex(vector["signature"])
    assert signed_by(vector["key"], vector["signature"], message) is vector["valid"]
    assert alone.signed(key, message, signature) is vector["valid"]


def test_a_whole_checkpoint(alone, tmp_path):
    given = VECTORS["checkpoint"]
    (tmp_path / "c.json").write_text(json.dumps(given))
    ours = read_checkpoint(tmp_path / "c.json")
    assert ours.body == VECTORS["checkpoint_text"]
    assert ours.fault() is None
    assert ours.heads is not None
    assert ours.prove(ours.heads[1].run).holds
    alone.check_signed(given["body"], given["signature"], "it")
    alone.check_heads(given["body"], given["heads"], "it")
    assert alone.check_proof(ours.prove(ours.heads[2].run).as_json(), None) == given["heads"][2]
    with pytest.raises(alone.Wrong):
        alone.check_signed(given["body"] | {"events": 46}, given["signature"], "it")
    assert replace(ours, events=46).fault() is not None


@pytest.fixture
def verdict(tmp_path):
    """What the verifier says of a ledger, run as an auditor would: exit code and lines."""
    program = tmp_path / "verify_ledger.py"
    program.write_text(FILE.read_text())

    def ask(told, *words: object) -> tuple[int, list[str]]:
        given = told.url
        if "://" in given:
            given = tmp_path / "export.jsonl"
            with AuditLog(told.url) as audit:
                audit.to_jsonl(given, complete=True)
        command = [sys.executable, "-I", str(program), str(given), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    return ask


def checkpointed(told, tmp_path, heads=False):
    key = SigningKey.generate(tmp_path / "key")
    engine = connect.open_existing(told.url, read_only=False)
    made = make_checkpoint(engine, key)
    engine.dispose()
    path = tmp_path / "checkpoint.json"
    path.write_text(json.dumps(made.as_json(heads=heads)))
    return path, key


async def test_a_ledger_that_nobody_touched_is_fine(told, verdict, tmp_path):
    engine = connect.open_existing(told.url)
    with engine.connect() as connection:
        (one,) = erasing.find(connection, "b1", ("text", "prompt"), told.first)
    engine.dispose()
    await erasing.erase(told.url, one, by="ann", reason="asked for")
    kept, key = checkpointed(told, tmp_path)
    ((events,),) = told.ask("SELECT count(*) FROM event")
    fine = f"fine: {events} events of 2 runs are as they were written"
    assert verdict(told) == (0, [fine])
    code, lines = verdict(told, "--checkpoint", kept, "--key", f"{key.path}.pub")
    assert (code, lines[0]) == (0, fine)
    assert key.public in lines[1]
    with AuditLog(told.url) as audit:
        proof = audit.checkpoint().prove(told.first)
    (tmp_path / "proof.json").write_text(json.dumps(proof.as_json()))
    code, lines = verdict(told, "--run", told.first, "--proof", tmp_path / "proof.json")
    events = proof.head.seq + 1
    assert (code, lines[0]) == (0, f"fine: {events} events of 1 run are as they were written")


FIRST = "WHERE run_id = '{first}' AND seq = 3"
DAMAGES = {
    "column": (f"UPDATE event SET actor = 'x' {FIRST}", "event 3 was changed"),
    "type": (f"UPDATE event SET monotonic_ns = monotonic_ns + 1 {FIRST}", "event 3 was changed"),
    "gap": (f"DELETE FROM event {FIRST}", "event 3 is missing"),
    "blob": ("UPDATE blob SET bytes = x'00'", "the task of event 0 was changed"),
    "emptied": ("UPDATE blob SET bytes = x'', salt = x''", "no erasure says why"),
    "no blob": ("DELETE FROM blob", "the task of event 0 is missing"),
    "run": ("UPDATE run SET agent = 'x'", "agent differs from event 0"),
    "no run": ("DELETE FROM run", "the run's row is missing"),
    "policy": ("UPDATE policy SET body = '{{}}'", "was changed"),
    "no policy": ("DELETE FROM policy", "is missing"),
    "root": ("UPDATE checkpoint SET root = previous", "its columns are not what was signed"),
    "heads": ("UPDATE checkpoint SET heads = '[]'", "its heads are not those of 2 runs"),
    "blank": ("UPDATE checkpoint SET heads = heads || ' '", "its heads are written in another way"),
    "signature": ("UPDATE checkpoint SET signature = upper(signature)", "written in another way"),
    "tail": (
        "DELETE FROM event WHERE run_id = '{second}' AND seq = 3",
        "events after 2 were cut off: checkpoint 1 has more",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_both_verifiers_find_the_damage(told, verdict, tmp_path, damage):
    checkpointed(told, tmp_path)
    statement, reason = DAMAGES[damage]
    told.change(statement.format(first=told.first, second=told.second))
    code, lines = verdict(told)
    assert code == 1
    assert any(reason in line for line in lines), lines
    with AuditLog(told.url) as audit:
        assert not audit.verify().ok


def test_a_kept_checkpoint_shows_what_was_cut_off_or_whose_signature_is_not_right(
    told, verdict, tmp_path
):
    kept, key = checkpointed(told, tmp_path, heads=True)
    told.change(
        "DELETE FROM checkpoint", f"DELETE FROM event WHERE run_id = '{told.second}' AND seq = 3"
    )
    assert verdict(told)[0] == 0
    code, lines = verdict(told, "--checkpoint", kept)
    assert code == 1
    assert f"damaged: run {told.second}: events after 2 were cut off" in lines[1]
    given = json.loads(kept.read_text())
    given["body"]["events"] += 1
    kept.write_text(json.dumps(given))
    _, lines = verdict(told, "--checkpoint", kept)
    assert lines[0] == "damaged: the kept checkpoint 1: its signature does not match"
    assert key.public


@pytest.mark.parametrize("text", ["", "shears\n", '{"table": "event"}\n'])
def test_what_is_no_ledger_is_wrong_usage(alone, tmp_path, text, capsys):
    path = tmp_path / "x"
    path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        alone.main([str(path)])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
