"""An existing model as the start: its tokenizer learns the tags, its embeddings grow for them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer

from ...gates.vocabulary import Vocabulary
from ...runtime.engines.checkpoint import load_model
from ...runtime.engines.protocol import EngineError
from ..corpus.document import BOS, EOS, PAD
from ..errors import TrainingError
from .bpe import Encoder

__all__ = ["adopt_tokenizer", "grown_model", "renew_embeddings"]


def adopt_tokenizer(folder: Path, vocabulary: Vocabulary) -> Encoder:
    """The tokenizer of a model folder, each tag of ``vocabulary`` a single special token of it.

    Tags that it has already keep their ids, the others get new ones. Where it names no token for
    the beginning of a document or for padding, the one that ends documents stands in.
    Raises :class:`TrainingError` for a folder without ``tokenizer.json`` or without an end token.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise TrainingError(
            f"{path}: no tokenizer there; save the model's fast tokenizer there "
            "(tokenizer.save_pretrained)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise TrainingError(f"{path}: not a tokenizer.json ({error}); save it again") from None
    named = _named(folder, tokenizer)
    end = named["eos"]
    if end is None:
        raise TrainingError(
            f"{folder}: neither tokenizer_config.json nor config.json names the token that ends a "
            "document; state eos_token in tokenizer_config.json"
        )
    tokenizer.add_special_tokens(
        [AddedToken(literal, special=True, normalized=False) for literal in vocabulary.literals]
    )
    return Encoder(tokenizer, {BOS: named["bos"] or end, EOS: end, PAD: named["pad"] or end})


def _named(folder: Path, tokenizer: Tokenizer) -> dict[str, str | None]:
    """The tokens for ``bos``, ``eos`` and ``pad``, as the folder's files state them."""
    stated = _json(folder / "tokenizer_config.json")
    config = _json(folder / "config.json")
    found: dict[str, str | None] = {}
    for role in ("bos", "eos", "pad"):
        token = stated.get(f"{role}_token")
        literal = token.get("content") if isinstance(token, dict) else token
        if literal is None:
            ids = config.get(f"{role}_token_id")
            first = ids[0] if isinstance(ids, list) and ids else ids
            literal = tokenizer.id_to_token(first) if isinstance(first, int) else None
        known = literal is not None and tokenizer.token_to_id(literal) is not None
        found[role] = literal if known else None
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise TrainingError(f"{path}: not JSON ({error}); save it again") from None


def grown_model(folder: Path, tokens: int, context: int, seed: int) -> tuple[Any, torch.dtype]:
    """Any causal language model's folder, in float32, with room for ``tokens`` token ids.

    Returns the model and the precision that it was stored in. New embeddings are drawn around
    the mean of the old ones (Hewitt 2021), so that they change little about what the model
    predicts; the draw follows ``seed``. Nothing is downloaded. Raises :class:`TrainingError`.
    """
    if not (folder / "config.json").is_file():
        raise TrainingError(f"{folder}: no model there (no config.json); name a checkpoint folder")
    try:
        model = load_model(folder, "float32")
    except EngineError as error:
        raise TrainingError(str(error)) from error
    stored = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).dtype
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and context > longest:
        raise TrainingError(
            f"architecture.context is {context}, and {folder} reads at most {longest} tokens; "
            f"write architecture: {{context: {longest}}}"
        )
    if tokens > model.get_input_embeddings().num_embeddings:
        torch.manual_seed(seed)
        model.resize_token_embeddings(tokens)
    return model, stored if isinstance(stored, torch.dtype) else torch.float32


def renew_embeddings(model: Any, ids: Sequence[int], seed: int) -> None:
    """Draw the embeddings of some tokens anew, with the mean and the spread of all others.

    Input and output embeddings both, where they are not one. The draw follows ``seed``.
    """
    draw = torch.Generator().manual_seed(seed)
    for layer in {model.get_input_embeddings(), model.get_output_embeddings()} - {None}:
        weight = layer.weight.data
        kept = torch.ones(len(weight), dtype=torch.bool)
        kept[list(ids)] = False
        noise = torch.randn((len(ids), weight.shape[1]), generator=draw)
        weight[list(ids)] = weight[kept].mean(0) + noise * weight[kept].std(0)
