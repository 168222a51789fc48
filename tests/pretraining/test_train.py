"""Training really trains, resumes as if never interrupted, and exports what others load."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from secateur.pretraining.corpus import CorpusConfig
from secateur.pretraining.pools import batches
from secateur.pretraining.tokenizer import Encoder
from secateur.pretraining.train import Architecture, TrainConfig, train

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


def test_a_few_steps_lower_the_loss(trained: Path) -> None:
    losses = [json.loads(line)["loss"] for line in (trained / "log.jsonl").read_text().splitlines()]
    assert len(losses) == TINY.steps
    assert sum(losses[-4:]) / 4 < sum(losses[:4]) / 4 - 0.5


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
    from tokenizers import Tokenizer

    encoder = Encoder(Tokenizer.from_file(str(trained / "tokenizer.json")))
    task, got = encoder.text("task:")[0], encoder.text("got:")[0]
    made = batches(TINY, encoder, 0)
    ids = torch.cat([batch.ids.flatten() for batch in made])
    labels = torch.cat([batch.labels.flatten() for batch in made])
    learnt = labels >= 0
    assert torch.equal(ids[learnt], labels[learnt])
    assert {task, got} <= set(ids.tolist())
    assert not {task, got, encoder.special("<|bos|>")} & set(labels[learnt].tolist())
