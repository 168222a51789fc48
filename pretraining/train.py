"""Conditional pretraining: a small Llama learns to write the corpus, tags and all.

One document a row, rows of like length together; the loss stands on what the agent writes and
on nothing that a person or a tool wrote. Warm-up, a constant rate, then a linear decay, so a run
can be cut short from any checkpoint by lowering ``steps``.
"""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from .corpus import CorpusConfig, documents
from .document import BOS, EOS, PAD
from .tokenizer import Encoder, save_vocabulary, train_tokenizer

__all__ = ["Architecture", "Batch", "TrainConfig", "batches", "build_model", "export", "train"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Architecture(_Frozen):
    """The shape of the Llama."""

    vocabulary: int = 800
    layers: int = 5
    width: int = 256
    heads: int = 8
    feed_forward: int = 688
    context: int = 1024


class TrainConfig(_Frozen):
    """One training run, whole: the same configuration gives the same model on one machine."""

    name: str = "seedling"
    seed: int = 0
    architecture: Architecture = Architecture()
    corpus: CorpusConfig = CorpusConfig()
    steps: int = Field(default=4000, ge=1)
    warmup: int = Field(default=150, ge=0)
    decay: int = Field(default=1000, ge=0)
    tokens_per_batch: int = Field(default=6144, ge=64)
    pool: int = Field(default=4096, ge=1)
    learning_rate: float = Field(default=1.5e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    checkpoint_every: int = Field(default=250, ge=1)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file. Raises ``FileNotFoundError`` naming it, and ``ValidationError``."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no training configuration there; name a YAML file")
        return cls.model_validate(yaml.safe_load(path.read_text()))


@dataclass(frozen=True, slots=True)
class Place:
    """Where training stands: steps done, and the next batch by pool and number within it."""

    step: int = 0
    pool: int = 0
    batch: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows: ``ids`` and ``labels``, both [rows x tokens]; a label of -100 is not learnt."""

    ids: Tensor
    labels: Tensor


def batches(config: TrainConfig, encoder: Encoder, pool: int) -> list[Batch]:
    """The batches of one pool of documents, in the order in which they are trained on."""
    rows: list[tuple[list[int], list[bool]]] = []
    for found in documents(config.corpus, pool * config.pool, config.pool):
        ids, learn = encoder.pieces(found.pieces())
        limit = config.architecture.context
        rows.append((ids[:limit], learn[:limit]))
    rows.sort(key=lambda row: len(row[0]))
    made: list[Batch] = []
    group: list[tuple[list[int], list[bool]]] = []
    for row in rows:
        if group and len(row[0]) * (len(group) + 1) > config.tokens_per_batch:
            made.append(_pad(group, encoder.special(PAD)))
            group = []
        group.append(row)
    made.append(_pad(group, encoder.special(PAD)))
    random.Random(f"order/{config.seed}/{pool}").shuffle(made)
    return made


def _pad(rows: list[tuple[list[int], list[bool]]], pad: int) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), -100)
    for number, (row, learn) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        learnt = [token if wanted else -100 for token, wanted in zip(row, learn, strict=True)]
        labels[number, : len(row)] = torch.tensor(learnt)
    return Batch(ids, labels)


def build_model(config: TrainConfig, encoder: Encoder) -> LlamaForCausalLM:
    """A fresh model, its weights drawn from the run's seed."""
    shape = config.architecture
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=encoder.tokenizer.get_vocab_size(),
            hidden_size=shape.width,
            intermediate_size=shape.feed_forward,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            bos_token_id=encoder.special(BOS),
            eos_token_id=encoder.special(EOS),
            pad_token_id=encoder.special(PAD),
        )
    )
    # The backward pass of the fused CPU kernel takes longer than all the matrix products together.
    model.set_attn_implementation("eager")
    return model


def _rate(config: TrainConfig, step: int) -> float:
    """The learning rate's factor at ``step``: warm-up, constant, linear decay to zero."""
    rising = min(1.0, (step + 1) / (config.warmup + 1))
    falling = min(1.0, (config.steps - step) / (config.decay + 1))
    return min(rising, falling)


def _optimizers(config: TrainConfig, model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    betas = (0.9, 0.98)
    if config.optimizer == "muon":
        return [
            torch.optim.Muon(
                matrices,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(rest, lr=config.learning_rate, betas=betas, weight_decay=0.0),
        ]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)]


def _stream(config: TrainConfig, encoder: Encoder, place: Place) -> Iterator[tuple[Batch, Place]]:
    """Batches from ``place`` on, each with the place after it (step and tokens not counted)."""
    pool, start = place.pool, place.batch
    while True:
        made = batches(config, encoder, pool)
        for number in range(start, len(made)):
            last = number + 1 == len(made)
            yield made[number], Place(0, pool + last, 0 if last else number + 1)
        pool, start = pool + 1, 0


def _save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def train(config: TrainConfig, folder: Path, resume: bool = False) -> Path:
    """Train in ``folder`` (checkpoint, log, tokenizer) and export to ``folder/model``.

    ``resume`` goes on from the folder's checkpoint, as if never interrupted; ``steps`` and
    ``decay`` may have changed since. Raises ``FileNotFoundError`` where there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, vocabulary = folder / "checkpoint.pt", folder / "tokenizer.json"
    if resume and not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint}: no checkpoint to resume; start without --resume")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if resume:
        tokenizer = Tokenizer.from_file(str(vocabulary))
    else:
        tokenizer = train_tokenizer(config.corpus, config.architecture.vocabulary)
        tokenizer.save(str(vocabulary))
    encoder = Encoder(tokenizer)
    model = build_model(config, encoder)
    cast(torch.nn.Module, model).to(device)
    optimizers = _optimizers(config, model)
    place = Place()
    if resume:
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        place = Place(**saved["place"])
    forward = torch.compile(model, dynamic=True) if config.compile else model
    model.train()
    began, before = time.perf_counter(), place.seconds
    with (
        (folder / "log.jsonl").open("a" if resume else "w", buffering=1) as log,
        Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/"
            "{task.total} steps, loss {task.fields[loss]:.4f}"), TimeRemainingColumn(),
            refresh_per_second=1,
        ) as progress,
    ):  # fmt: skip
        bar = progress.add_task(
            f"training {config.name}", total=config.steps, completed=place.step, loss=float("nan")
        )
        stream = _stream(config, encoder, place)
        while place.step < config.steps:
            batch, following = next(stream)
            factor = _rate(config, place.step)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * factor
            loss = _step(forward, model, optimizers, batch, device, config.precision)
            place = Place(
                place.step + 1,
                following.pool,
                following.batch,
                place.tokens + int((batch.ids != encoder.special(PAD)).sum()),
                before + time.perf_counter() - began,
            )
            progress.update(bar, completed=place.step, loss=loss)
            log.write(json.dumps({**asdict(place), "loss": round(loss, 5), "rate": factor}) + "\n")
            if place.step % config.checkpoint_every == 0 or place.step == config.steps:
                _save(
                    checkpoint,
                    {
                        "model": model.state_dict(),
                        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                        "place": asdict(place),
                    },
                )
    export(model, encoder, config, place, folder / "model")
    return folder / "model"


def _step(
    forward: Any,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    batch: Batch,
    device: str,
    precision: str,
) -> float:
    ids, labels = batch.ids.to(device), batch.labels.to(device)
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = forward(input_ids=ids, use_cache=False).logits
    targets = labels[:, 1:].reshape(-1)
    learnt = targets >= 0
    chosen = logits[:, :-1].reshape(len(targets), -1)[learnt].float()
    loss = torch.nn.functional.cross_entropy(chosen, targets[learnt])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def export(
    model: LlamaForCausalLM, encoder: Encoder, config: TrainConfig, place: Place, folder: Path
) -> None:
    """Write the model as a folder that transformers and vLLM load: float16 safetensors,
    tokenizer, ``vocabulary.json``, and ``training.json`` (how it was made)."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = build_model(config, encoder)
    copy.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    copy.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    encoder.tokenizer.encode_special_tokens = False
    encoder.tokenizer.save(str(folder / "tokenizer.json"))
    encoder.tokenizer.encode_special_tokens = True
    # Written by hand, because what transformers 5 writes is not what a server on 4 reads.
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": config.architecture.context,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    save_vocabulary(folder, config.name)
    facts = {
        "config": config.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in copy.parameters()),
        **asdict(place),
    }
    (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
