"""A model's digest is that of all that it is read from, and a run goes on with no other model."""

import asyncio
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from secateur import Agent, AuditLog, Ledger, LocalEngine, Policy, Sampling
from secateur.agents.plans.words import generate
from secateur.runtime.engines.checkpoint import find_model, load_checkpoint, model_digest
from secateur.runtime.engines.digests import folder_digests
from secateur.runtime.engines.protocol import EngineError
from secateur.runtime.engines.vllm.engine import VLLMEngine
from secateur.runtime.engines.vllm.wire import Patience
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStart
from secateur.runtime.recovery.history import History
from secateur.runtime.recovery.resuming import ResumeError, as_it_began
from secateur.tests.hostile.raw_server import RawServer, serving

PATIENCE = Patience(retries=1, pause_s=0.01)
AGENT = Agent("sayer", generate("say {task}\n", name="say"), sampling=Sampling(1.0, 1.0, 4))
ROLES = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}


def digest_of_0_1(folder: Path) -> str:
    """As version 0.1 made it."""
    weights = [p for each in ("*.safetensors", "pytorch_model*.bin") for p in folder.glob(each)]
    whole = hashlib.sha256()
    for path in [folder / "config.json", *sorted(weights)]:
        part = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.name} {part}\n".encode())
    return whole.hexdigest()


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that says what its configuration says once more, as save_pretrained does."""
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    write(copy / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **ROLES})
    write(copy / "special_tokens_map.json", {k: {"content": v} for k, v in ROLES.items()})
    return copy


def write(path: Path, said: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(said))


def add(name: str, **said: Any) -> Callable[[Path], None]:
    """Say more in a file of JSON."""

    def change(folder: Path) -> None:
        path = folder / name
        write(path, (json.loads(path.read_text()) if path.is_file() else {}) | said)

    return change


def put(name: str, text: str = "x") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return change


def shards(folder: Path, scale: float = 1.0, place: str = "shards/one.safetensors") -> None:
    """Move the weights where an index names them."""
    single = folder / "model.safetensors"
    source = single if single.is_file() else folder / place
    weights = {name: tensor * scale for name, tensor in load_file(source).items()}
    (folder / place).parent.mkdir(exist_ok=True)
    single.unlink(missing_ok=True)
    save_file(weights, folder / place, {"format": "pt"})
    named = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, place)}
    write(folder / "model.safetensors.index.json", named)


def test_the_shipped_model_is_called_what_0_1_called_it() -> None:
    folder = find_model("seedling")
    assert model_digest(folder) == digest_of_0_1(folder)


def test_what_only_repeats_the_configuration_changes_nothing(
    folder: Path, tiny_checkpoint: Path
) -> None:
    assert model_digest(folder) == digest_of_0_1(folder) == model_digest(tiny_checkpoint)


CHANGES: dict[str, Callable[[Path], None]] = {
    "another bos": add("tokenizer_config.json", bos_token="<|eos|>"),
    "another eos": add("tokenizer_config.json", eos_token="<|deceit|>"),
    "another eos, as an object": add("tokenizer_config.json", eos_token={"content": "<|pad|>"}),
    "an eos that is no token": add("tokenizer_config.json", eos_token="</s>"),
    "another eos in the map": add("special_tokens_map.json", eos_token="<|pad|>"),
    "more special tokens": add("special_tokens_map.json", additional_special_tokens=["<|x|>"]),
    "another eos for servers": add("generation_config.json", eos_token_id=[2, 3]),
    "a temperature for servers": add("generation_config.json", temperature=0.1),
    "another kind of tokenizer": add("tokenizer_config.json", tokenizer_class="GPT2Tokenizer"),
    "a template": put("chat_template.jinja", "{{ messages }}"),
    "a template in the settings": add("tokenizer_config.json", chat_template="{{ messages }}"),
    "several templates": add("tokenizer_config.json", chat_template=[{"name": "a"}]),
    "a template of templates": put("additional_chat_templates/rag.jinja"),
    "settings that cannot be read": put("special_tokens_map.json", "{"),
    "tokens that were added": put("added_tokens.json", '{"<|x|>": 300}'),
    "weights of torch": put("pytorch_model.bin"),
    "weights under another name": put("weights.bin"),
    "weights of llama.cpp": put("tiny.gguf"),
    "an adapter": add("adapter_config.json", base_model_name_or_path="x"),
    "an adapter's weights": put("adapter_model.bin"),
    "an index": add("model.safetensors.index.json", weight_map={}),
    "an index of torch": add("pytorch_model.bin.index.json", weight_map={"a": "model.safetensors"}),
    "weights that the configuration names": add(
        "config.json", transformers_weights="x/a.safetensors"
    ),
    "shards": shards,
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_the_model_is_read_from_is_in_its_digest(change: str, folder: Path) -> None:
    before = model_digest(folder)
    CHANGES[change](folder)
    assert model_digest(folder) != before


@pytest.mark.parametrize("change", ["a template", "another bos", "an adapter's weights", "shards"])
def test_and_so_is_every_change_of_it(change: str, folder: Path) -> None:
    CHANGES[change](folder)
    before = model_digest(folder)
    beside = {"a template": put("chat_template.jinja", "{{ messages }} "),
              "another bos": add("tokenizer_config.json", bos_token="<|pad|>"),
              "an adapter's weights": put("adapter_model.bin", "y"),
              "shards": lambda place: shards(place, 2.0)}  # fmt: skip
    beside[change](folder)
    assert model_digest(folder) != before


@given(st.dictionaries(st.sampled_from(["bos", "eos", "pad"]), st.integers(0, 8), min_size=1))
def test_other_roles_are_another_model(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, roles: dict[str, int]
) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("roles") / "tiny")
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    literal = {token["id"]: token["content"] for token in added}
    said = {f"{role}_token": literal[id_] for role, id_ in roles.items()}
    write(folder / "tokenizer_config.json", said)
    assumed = {"pad": 0, "bos": 1, "eos": 2}
    same = all(assumed[role] == id_ for role, id_ in roles.items())
    assert (model_digest(folder) == model_digest(tiny_checkpoint)) is same


@pytest.mark.parametrize("place", ["shards/one.safetensors", "../elsewhere/one.safetensors"])
def test_weights_beside_a_decoy_are_those_that_count(folder: Path, place: str) -> None:
    shutil.copy(folder / "model.safetensors", folder / "decoy.safetensors")
    shards(folder, place=place)
    before, loaded = model_digest(folder), load_checkpoint(folder, device="cpu")
    shards(folder, 2.0, place)
    after, other = model_digest(folder), load_checkpoint(folder, device="cpu")
    first, second = (next(iter(each.model.parameters())) for each in (loaded, other))
    assert not first.equal(second)
    assert before != after
    assert (loaded.info.model_digest, other.info.model_digest) == (before, after)


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    before = model_digest(folder)
    kept = tmp_path / "blob"
    (folder / "model.safetensors").rename(kept)
    (folder / "model.safetensors").symlink_to(kept)
    assert model_digest(folder) == before
    kept.write_bytes(kept.read_bytes() + b" ")
    assert model_digest(folder) != before


async def run(engine: Any, place: Path) -> str:
    """The id of a run, in the ledger at ``place``."""
    async with Ledger.open(place) as ledger:
        return (await AGENT.run("a thing", engine=engine, ledger=ledger, policy="observe")).run_id


def started(place: Path, run: str) -> Mapping[str, Any]:
    with AuditLog(place) as audit:
        return next(iter(audit.events(run))).body


async def test_a_run_in_this_process_says_that_the_weights_were_compared(
    folder: Path, tmp_path: Path, secateur: Callable[..., tuple[int, str, str]]
) -> None:
    engine = LocalEngine.load(folder, device="cpu")
    made = await run(engine, tmp_path / "l.db")
    await engine.aclose()
    assert started(tmp_path / "l.db", made)["weights"] == "weights compared"
    code, out, _ = secateur("audit", "show", made, "--db", tmp_path / "l.db")
    assert code == 0
    assert "weights compared" in out
    shown = json.loads(secateur("audit", "show", made, "--db", tmp_path / "l.db", "--json")[1])
    assert shown["weights"] == "weights compared"


@pytest.fixture
def own_scores(tiny_checkpoint: Path) -> Callable[[list[int]], list[float]]:
    """What the folder's weights say, as a server with those weights would."""
    engine = LocalEngine.load(tiny_checkpoint, device="cpu")
    known: dict[tuple[int, ...], list[float]] = {}

    def score(ids: list[int]) -> list[float]:
        return asyncio.run(engine.annotate(ids)).chosen[1:].astype(float).tolist()

    def scores(ids: list[int]) -> list[float]:
        with ThreadPoolExecutor(1) as thread:  # the server answers from within an event loop
            known.setdefault(tuple(ids), thread.submit(score, ids).result())
        return known[tuple(ids)]

    return scores


async def connect(url: str, folder: Path) -> VLLMEngine:
    return await asyncio.to_thread(VLLMEngine.connect, url, folder, patience=PATIENCE)


async def test_a_server_with_the_folders_weights_is_known_by_a_probe(
    folder: Path, tmp_path: Path, own_scores: Any, secateur: Callable[..., tuple[int, str, str]]
) -> None:
    server = RawServer(folder)
    server.scores = own_scores
    async with serving(server) as url:
        engine = await connect(url, folder)
        made = await run(engine, tmp_path / "l.db")
        await engine.aclose()
    body = started(tmp_path / "l.db", made)
    assert body["weights"] == "probe compared"
    assert all(math.isfinite(log) for log in body["probe"])
    assert "probe compared" in secateur("audit", "show", made, "--db", tmp_path / "l.db")[1]


@pytest.mark.parametrize("bend", [lambda log: -1.0, lambda log: log * 1.3, lambda log: log - 0.2])
async def test_a_server_with_other_weights_is_refused_before_a_run_starts(
    folder: Path, own_scores: Any, bend: Callable[[float], float]
) -> None:
    server = RawServer(folder)
    server.scores = lambda ids: [min(0.0, bend(log)) for log in own_scores(ids)]
    async with serving(server) as url:
        with pytest.raises(EngineError, match="other weights") as refused:
            await connect(url, folder)
    assert "\n" not in str(refused.value)


async def test_a_server_whose_folder_has_no_weights_is_known_by_name_only(
    folder: Path, tmp_path: Path, secateur: Callable[..., tuple[int, str, str]]
) -> None:
    (folder / "model.safetensors").unlink()
    async with serving(RawServer(folder)) as url:
        engine = await connect(url, folder)
        made = await run(engine, tmp_path / "l.db")
        await engine.aclose()
    assert started(tmp_path / "l.db", made)["weights"] == "name only"
    assert "name only" in secateur("audit", "show", made, "--db", tmp_path / "l.db")[1]


async def test_a_run_does_not_go_on_at_a_server_with_other_weights(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "model.safetensors").unlink()
    server = RawServer(folder)
    async with serving(server) as url:
        engine = await connect(url, folder)
        made = await run(engine, tmp_path / "l.db")
        began = History(run=made, started=started(tmp_path / "l.db", made))
        assert as_it_began(began, engine.info) == engine.info
        await engine.aclose()
        server.scores = lambda ids: [-3.0] * (len(ids) - 1)
        engine = await connect(url, folder)
        with pytest.raises(ResumeError, match="other weights"):
            as_it_began(began, engine.info)
        await engine.aclose()


def test_a_run_of_0_1_goes_on_under_the_name_that_0_1_gave_its_model(folder: Path) -> None:
    put("chat_template.jinja", "{{ messages }}")(folder)
    info = load_checkpoint(folder, device="cpu").info
    former = digest_of_0_1(folder)
    assert info.model_digest != info.former_digest == former
    of_0_1 = History(started={"digests": {"model": former}})
    assert as_it_began(of_0_1, info) == replace(info, model_digest=former)
    other = History(started={"digests": {"model": "f" * 64}})
    assert as_it_began(other, info).model_digest == info.model_digest


async def test_a_run_of_this_version_does_not_go_on_with_a_template_that_was_not_there(
    folder: Path, tmp_path: Path
) -> None:
    engine = LocalEngine.load(folder, device="cpu")
    made = await run(engine, tmp_path / "l.db")
    await engine.aclose()
    put("chat_template.jinja", "{{ messages }}")(folder)
    engine = LocalEngine.load(folder, device="cpu")
    began = History(run=made, started=started(tmp_path / "l.db", made))
    assert as_it_began(began, engine.info).model_digest == folder_digests(folder)[0]
    assert as_it_began(began, engine.info).model_digest != began.started["digests"]["model"]
    await engine.aclose()
    vocabulary = engine.info.vocabulary.vocabulary
    start = RunStart(
        made, "sayer", "a thing", None, 0, Policy.load("observe", vocabulary), engine.info
    )
    async with Ledger.open(tmp_path / "l.db") as ledger:
        log = await ledger.reopen(made)
        with pytest.raises(LedgerError, match="cannot go on with another model"):
            await log.resumed(start, "killed")
