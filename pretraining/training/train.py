"""Conditional pretraining: a causal language model learns to write the corpus, tags and all.

One document a row, rows of like length together; the loss stands on what the agent writes and
on nothing that a person or a tool wrote. Warm-up, a constant rate, then a linear decay, so a run
can be cut short from any checkpoint by lowering ``steps``.

Any number of processes (``torchrun``) train the same model: all of them make the same global
batches, each learns its share of every batch, and the sum of the gradients is divided by the
tokens that the whole batch teaches, so the number of processes changes nothing but the time.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from ..corpus.document import BOS, EOS, PAD
from ..errors import TrainingError
from .bpe import Encoder, save_vocabulary, train_tokenizer
from .existing import adopt_tokenizer, grown_model, renew_embeddings
from .export import export, load_tokenizer, save_tokenizer
from .processes import Processes, joined
from .recipe import TrainConfig
from .run import Run

__all__ = ["build_model", "train"]


def build_model(config: TrainConfig, encoder: Encoder) -> LlamaForCausalLM:
    """A fresh model, its weights drawn from the run's seed."""
    shape = config.architecture
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=encoder.size,
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


def train(config: TrainConfig, folder: Path, resume: bool = False) -> Path:
    """Train in ``folder`` (checkpoint, log, tokenizer) and export to ``folder/model``.

    ``resume`` goes on from the folder's checkpoint, as if never interrupted; ``steps``, ``decay``
    and the number of processes may have changed since. Raises ``FileNotFoundError`` where there
    is none, and :class:`TrainingError` for what cannot be trained as asked.
    """
    checkpoint = folder / "checkpoint.pt"
    if resume and not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint}: no checkpoint to resume; start without --resume")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with joined(config.device) as processes:
        _check_share(config, processes)
        folder.mkdir(parents=True, exist_ok=True)
        encoder = load_tokenizer(folder) if resume else _tokenizer(config, processes, folder)
        model, dtype = _start(config, encoder)
        if processes.device.type == "cpu":
            # The backward pass of the fused kernel takes longer there than all matrix products.
            model.set_attn_implementation("eager")
        model.to(processes.device)
        run = Run(config, processes, encoder, model)
        if resume:
            run.load(checkpoint)
        run.learn(folder)
        if processes.first:
            place = asdict(run.place)
            export(model, encoder, dtype, config.architecture.context, folder / "model")
            save_vocabulary(folder / "model", config.vocabulary)
            facts = {
                "config": config.model_dump(mode="json"),
                "parameters": sum(p.numel() for p in model.parameters()),
                **place,
            }
            (folder / "model" / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    return folder / "model"


def _check_share(config: TrainConfig, processes: Processes) -> None:
    """Refuse a batch whose longest rows are fewer than the processes that share them."""
    context = config.architecture.context
    if processes.size > 1 and config.tokens_per_batch // context < processes.size:
        raise TrainingError(
            f"tokens_per_batch {config.tokens_per_batch} holds "
            f"{config.tokens_per_batch // context} rows of {context} tokens, too few for "
            f"{processes.size} processes; set it to {processes.size * context} or more, or start "
            "fewer processes"
        )


def _tokenizer(config: TrainConfig, processes: Processes, folder: Path) -> Encoder:
    """The run's tokenizer, the same in every process; the first one saves it in ``folder``."""
    source = config.tokenizer or config.init
    if source is not None:
        encoder = adopt_tokenizer(source, config.vocabulary)
    else:
        made = ""
        if processes.first:
            made = train_tokenizer(config.corpus, config.architecture.vocabulary).to_str()
        encoder = Encoder(Tokenizer.from_str(processes.told(made)))
    if processes.first:
        save_tokenizer(encoder, config.architecture.context, folder)
    return encoder


def _start(config: TrainConfig, encoder: Encoder) -> tuple[Any, torch.dtype]:
    """The model to train, and the precision that it is exported in."""
    if config.init is None:
        return build_model(config, encoder), torch.float16
    model, dtype = grown_model(config.init, encoder.size, config.architecture.context, config.seed)
    renew_embeddings(model, [_known(encoder, token) for token in config.renewed], config.seed)
    return model, dtype


def _known(encoder: Encoder, token: str) -> int:
    id = encoder.tokenizer.token_to_id(token)
    if id is None:
        raise TrainingError(
            f"renewed: {token!r} is no token of the model to start from; leave it out"
        )
    return id
