"""Other families of causal LMs: shared heads, absolute positions, sliding windows."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
)

from secateur.agents.prompt import Sampling, Special, Text
from secateur.runtime.engines.checkpoint import load_checkpoint
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.engines.protocol import EngineError, Request, Token

IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FAMILIES = {
    "llama": lambda vocab: LlamaConfig(vocab_size=vocab, **SIZE, **IDS),
    "gpt2": lambda vocab: GPT2Config(
        vocab_size=vocab, n_embd=32, n_layer=2, n_head=4, n_positions=256, **IDS
    ),
    "mistral": lambda vocab: MistralConfig(vocab_size=vocab, sliding_window=8, **SIZE, **IDS),
    "gemma3": lambda vocab: Gemma3TextConfig(
        vocab_size=vocab,
        sliding_window=8,
        head_dim=8,
        layer_types=["sliding_attention", "full_attention"],
        **SIZE,
        **IDS,
    ),
}


def saved(config: PreTrainedConfig, like: Path, to: Path) -> Path:
    torch.manual_seed(1)
    for name in ("tokenizer.json", "vocabulary.json"):
        shutil.copy(like / name, to / name)
    AutoModelForCausalLM.from_config(config).save_pretrained(to)
    return to


@pytest.mark.parametrize("family", FAMILIES)
async def test_rows_of_unequal_length_read_as_in_a_plain_forward(
    family: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    vocab = load_checkpoint(tiny_checkpoint, device="cpu").width
    folder = saved(FAMILIES[family](vocab), tiny_checkpoint, tmp_path)
    engine = LocalEngine.load(folder, device="cpu")

    async def generate(n: int) -> tuple[list[int], list[Token]]:
        prompt = engine.encode([Special("<|bos|>"), Text("it is up. " * (1 + n % 4))])
        request = Request(tuple(prompt), Sampling(1.0, 1.0, 6 + 5 * n, ()), seed=n)
        return prompt, [token async for token in engine.stream(request)]

    answers = await asyncio.gather(*(generate(n) for n in range(8)))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for prompt, tokens in answers:
        text = [*prompt, *(token.id for token in tokens)]
        with torch.no_grad():
            log_p = torch.log_softmax(plain(torch.tensor([text])).logits[0].double(), dim=-1)
        expected = log_p[len(prompt) - 1 : -1, engine.info.vocabulary.column_ids]
        np.testing.assert_allclose([t.belief for t in tokens], expected, atol=1e-3)
        total = sum(token.chosen for token in tokens)
        [score] = await engine.score([(prompt, text[len(prompt) :])])
        assert total == pytest.approx(score, abs=1e-3)
        # Two that share a context go through a cache of it.
        longer = (prompt, [*text[len(prompt) :], 20, 30, 40])
        [score, _] = await engine.score([(prompt, text[len(prompt) :]), longer])
        assert total == pytest.approx(score, abs=1e-3)
    await engine.aclose()


def test_a_recurrent_model_is_refused_with_another_way(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    vocab = load_checkpoint(tiny_checkpoint, device="cpu").width
    config = MambaConfig(vocab_size=vocab, hidden_size=32, num_hidden_layers=1)
    with pytest.raises(EngineError, match=r"recurrent state.*vLLM"):
        load_checkpoint(saved(config, tiny_checkpoint, tmp_path), device="cpu")
