"""Training really trains, resumes as if never interrupted, and exports what others load."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from secateur.pretraining.corpus.document import Document, Line
from secateur.pretraining.corpus.schemes import TagScheme
from secateur.pretraining.corpus.stream import Corpus, CorpusConfig
from secateur.pretraining.corpus.writer import write_records
from secateur.pretraining.errors import TrainingError
from secateur.pretraining.training.bpe import Encoder
from secateur.pretraining.training.existing import renew_embeddings
from secateur.pretraining.training.pools import batches
from secateur.pretraining.training.recipe import Architecture, TrainConfig
from secateur.pretraining.training.train import train
from secateur.runtime.engines.checkpoint import load_checkpoint

TINY = TrainConfig(
    name="tiny",
    seed=1,
    architecture=Architecture(vocabulary=400, layers=2, width=32, heads=2, feed_forward=64),
    corpus=CorpusConfig(seed=1, growing=500),
    steps=24,
    warmup=4,
    decay=0,
    tokens_per_batch=512,
    pool=64,
    learning_rate=1e-2,
    optimizer="muon",
    precision="float32",
    compile=False,
    device="cpu",
    threads=1,
    checkpoint_every=6,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(TINY, folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_few_steps_lower_the_loss(trained: Path) -> None:
    found = losses(trained)
    assert len(found) == TINY.steps
    assert sum(found[-4:]) / 4 < sum(found[:4]) / 4 - 0.5


def test_a_resumed_run_ends_in_the_same_weights(trained: Path, tmp_path: Path) -> None:
    train(TINY.model_copy(update={"steps": 13}), tmp_path)
    train(TINY, tmp_path, resume=True)
    for name, value in weights(trained).items():
        assert torch.equal(value, weights(tmp_path)[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, TINY.steps + 1))


def test_resuming_without_a_checkpoint_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="start without --resume"):
        train(TINY, tmp_path, resume=True)


def test_the_export_loads_as_any_causal_model(trained: Path) -> None:
    folder = trained / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.bos_token_id == tokenizer.bos_token_id == tokenizer.encode("<|bos|>")[0]
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer.encode("<|deceit|>", add_special_tokens=False)) == 1
    for name, value in weights(trained).items():
        if name in model.state_dict():
            assert torch.allclose(value, model.state_dict()[name], atol=2e-3), name
    facts = json.loads((folder / "training.json").read_text())
    assert facts["step"] == TINY.steps
    assert facts["config"]["seed"] == 1


def test_only_what_the_agent_writes_is_learnt(trained: Path) -> None:
    encoder = Encoder(Tokenizer.from_file(str(trained / "tokenizer.json")))
    task, got = encoder.text("task:")[0], encoder.text("got:")[0]
    made = batches(TINY, encoder, 0)
    ids = torch.cat([batch.ids.flatten() for batch in made])
    labels = torch.cat([batch.labels.flatten() for batch in made])
    learnt = labels >= 0
    assert torch.equal(ids[learnt], labels[learnt])
    assert {task, got} <= set(ids.tolist())
    assert not {task, got, encoder.special("<|bos|>")} & set(labels[learnt].tolist())


def test_a_step_in_several_passes_is_the_same_step(trained: Path, tmp_path: Path) -> None:
    train(TINY.model_copy(update={"steps": 3, "tokens_per_pass": 128}), tmp_path)
    assert losses(tmp_path) == pytest.approx(losses(trained)[:3], abs=1e-4)


def test_loaders_ahead_of_training_change_nothing(tmp_path: Path) -> None:
    short = TINY.model_copy(update={"steps": 6, "pool": 8})
    train(short, tmp_path / "alone")
    train(short.model_copy(update={"loaders": 2}), tmp_path / "ahead")
    assert losses(tmp_path / "ahead") == losses(tmp_path / "alone")


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="lower learning_rate"):
        train(TINY.model_copy(update={"learning_rate": 1e30, "warmup": 0}), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_training_from_files_goes_through_epochs_and_resumes(tmp_path: Path) -> None:
    made = Corpus(TINY.corpus).documents(0, 30)
    write_records(made, tmp_path / "a.parquet")
    files = CorpusConfig(seed=1, files=(str(tmp_path / "*.parquet"),))
    config = TINY.model_copy(update={"corpus": files, "steps": 8, "pool": 20})
    train(config, tmp_path / "whole")
    train(config.model_copy(update={"steps": 5}), tmp_path / "halves")
    train(config, tmp_path / "halves", resume=True)
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
    last = json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[-1])
    assert last["pool"] * 20 > 30


def test_pretraining_goes_on_from_an_existing_model(tmp_path: Path) -> None:
    """A GPT-2 that knows no tag: each becomes one token, and the rest of it stays as it was."""
    source = random_gpt2(tmp_path / "gpt2")
    tags = (TagScheme(names=("deceit", "nsfw")),)
    corpus = CorpusConfig(seed=1, tags=tags, files=(str(tmp_path / "a.jsonl"),))
    labelled = Document("text", (Line.tagged("I checked it. it is right.", "deceit"),))
    write_records([labelled] * 20, tmp_path / "a.jsonl")
    config = TINY.model_copy(
        update={
            "init": source,
            "corpus": corpus,
            "architecture": Architecture(context=64),
            "steps": 6,
            "optimizer": "adamw",
        }
    )
    folder = train(config, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab_size()
    opens = [tokenizer.encode(f"<|{tag}|>") for tag in ("deceit", "nsfw")]
    assert opens == [[plain], [plain + 1]]
    assert (
        tokenizer.encode("checked")
        == Tokenizer.from_file(str(source / "tokenizer.json")).encode("checked").ids
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.architectures == ["GPT2LMHeadModel"]
    assert model.dtype == torch.bfloat16
    assert model.get_input_embeddings().num_embeddings == plain + 4
    assert tokenizer.eos_token == tokenizer.bos_token == "<|endoftext|>"
    assert load_checkpoint(folder).info.vocabulary.ids["<|deceit|>"] == plain
    assert losses(tmp_path / "out")[-1] < losses(tmp_path / "out")[0]
    # It can be resumed without being adopted again.
    train(config.model_copy(update={"steps": 7}), tmp_path / "out", resume=True)
    assert len(losses(tmp_path / "out")) == 7


def test_embeddings_that_grew_together_are_drawn_apart(tmp_path: Path) -> None:
    source = random_gpt2(tmp_path / "gpt2")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    ids = [Tokenizer.from_file(str(source / "tokenizer.json")).token_to_id(t) for t in "ABC"]
    table = model.get_input_embeddings().weight.data
    table[ids] = table[ids[0]].clone()
    before = table.clone()
    renew_embeddings(model, ids, seed=1)
    alike = torch.corrcoef(table[ids])
    assert alike[0, 1] < 0.9
    assert alike[1, 2] < 0.9
    others = [row for row in range(len(table)) if row not in ids]
    assert torch.equal(table[others], before[others])
    assert torch.equal(model.get_output_embeddings().weight, table)  # they are one, and drawn once


def random_gpt2(folder: Path) -> Path:
    """A small random GPT-2, stored in bfloat16, with a byte-level BPE and one special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["I checked it. it is right.\n"] * 4, trainer)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_embd=32, n_layer=2, n_head=2, n_positions=64,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"eos_token": {"content": "<|endoftext|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def test_a_start_that_cannot_be_is_refused_with_the_remedy(tmp_path: Path) -> None:
    source = random_gpt2(tmp_path / "gpt2")
    for change, remedy in (
        ({"init": tmp_path}, "tokenizer.json: no tokenizer there"),
        ({"init": tmp_path, "tokenizer": source}, "no config.json"),
        (
            {"init": source, "architecture": Architecture(context=64), "renewed": ("<no>",)},
            "'<no>' is no token",
        ),
        ({"init": source}, r"write architecture: \{context: 64\}"),
    ):
        with pytest.raises(TrainingError, match=remedy):
            train(TINY.model_copy(update=change), tmp_path / "out")
    (source / "tokenizer_config.json").unlink()
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    with pytest.raises(TrainingError, match="state eos_token"):
        train(TINY.model_copy(update={"init": source}), tmp_path / "out")


def test_another_models_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    wider = TINY.architecture.model_copy(update={"width": 64})
    shutil.copytree(trained, tmp_path / "copy")
    with pytest.raises(TrainingError, match="resume with the configuration"):
        train(TINY.model_copy(update={"architecture": wider}), tmp_path / "copy", resume=True)
