"""Parts that several rooms' tests share."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

TAGS = ("deceit", "powerseeking", "angry")


@pytest.fixture(scope="session")
def lacking() -> Callable[[str, str], NoReturn]:
    """Skip for want of something, or fail where ``SECATEUR_REQUIRE`` (a,b,c) names it."""

    def lack(what: str, reason: str) -> NoReturn:
        if what in os.environ.get("SECATEUR_REQUIRE", "").split(","):
            pytest.fail(f"SECATEUR_REQUIRE names {what}: {reason}")
        pytest.skip(reason)

    return lack


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer Llama with a byte-level BPE and three span tags."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    specials = ["<|pad|>", "<|bos|>", "<|eos|>"]
    specials += [f"<|{slash}{tag}|>" for tag in TAGS for slash in ("", "/")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["I restarted web and probed it. it is up.\n"] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = {
        "name": "tiny",
        "tags": [
            {"name": tag, "scheme": "span", "open": f"<|{tag}|>", "close": f"<|/{tag}|>"}
            for tag in TAGS
        ],
    }
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
