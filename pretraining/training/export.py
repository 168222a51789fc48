"""The trained model as a folder that transformers and vLLM load."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from ..corpus.document import BOS, EOS, PAD
from .bpe import Encoder

__all__ = ["export", "load_tokenizer", "save_tokenizer"]


def export(model: Any, encoder: Encoder, dtype: torch.dtype, context: int, folder: Path) -> None:
    """Write ``model.safetensors`` (as ``dtype``), ``config.json`` and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    # A copy, because the model that is being trained keeps its float32 weights.
    copy = type(model)(model.config)
    copy.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    copy.to(dtype).save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)
    save_tokenizer(encoder, context, folder)


def save_tokenizer(encoder: Encoder, context: int, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
    encoder.tokenizer.encode_special_tokens = False
    encoder.tokenizer.save(str(folder / "tokenizer.json"))
    encoder.tokenizer.encode_special_tokens = True
    # Written by hand, because what transformers 5 writes is not what a server on 4 reads.
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": encoder.roles[BOS],
        "eos_token": encoder.roles[EOS],
        "pad_token": encoder.roles[PAD],
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def load_tokenizer(folder: Path) -> Encoder:
    """Read what :func:`save_tokenizer` wrote."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    named = json.loads((folder / "tokenizer_config.json").read_bytes())
    roles = {BOS: named["bos_token"], EOS: named["eos_token"], PAD: named["pad_token"]}
    return Encoder(tokenizer, roles)
