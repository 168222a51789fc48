"""A model under test: its tokenizer, its tags if it has any, and how they are controlled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from ...gates.control import BAN_BIAS, Control, logit_bias
from ...gates.layout import Layout
from ...gates.vocabulary import BoundVocabulary, Scheme, Vocabulary
from ..corpus.document import BOS, EOS
from ..training.bpe import Encoder
from .decode import Sampling, write

__all__ = ["GOOD", "Subject"]

GOOD = "force good"
"""The control that asks for good text: see :meth:`Subject.sampling`."""


@dataclass(frozen=True)
class Subject:
    """A model with its tokenizer; ``bound`` is None for a model that has no tags."""

    model: PreTrainedModel
    encoder: Encoder
    bound: BoundVocabulary | None

    @classmethod
    def load(cls, folder: Path) -> "Subject":
        """Load an exported model folder in float32; its tags stand in ``vocabulary.json``."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.eval()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        named = folder / "vocabulary.json"
        bound = None
        if named.is_file():

            def encode(literal: str) -> list[int]:
                found = tokenizer.token_to_id(literal)
                return [] if found is None else [found]

            bound = Vocabulary.load(named).bind(encode)
        return cls(model, Encoder(tokenizer), bound)

    @cached_property
    def layout(self) -> Layout | None:
        """How the tags lie in the evidence; None for a model without tags."""
        return None if self.bound is None else Layout.of(self.bound)

    @property
    def scheme(self) -> Scheme | None:
        """The scheme of its tags (of the first, where they differ)."""
        return None if self.bound is None else self.bound.vocabulary.tags[0].scheme

    @property
    def watched(self) -> tuple[int, ...]:
        """The ids whose probability is read at every position: the evidence columns."""
        return () if self.bound is None else tuple(self.bound.column_ids)

    @property
    def good(self) -> int | None:
        """The good twin's id in the prefix scheme."""
        if self.bound is None:
            return None
        twins = {tag.good for tag in self.bound.vocabulary.tags if tag.good is not None}
        return self.bound.ids[min(twins)] if len(twins) == 1 else None

    def tag_of(self, ids: Sequence[int]) -> str | None:
        """The first tag that these ids open."""
        if self.bound is None or self.layout is None:
            return None
        return next((self.layout.tags[self.layout.opens[i]] for i in ids if i in self.layout.opens),
                    None)  # fmt: skip

    def sampling(self, temperature: float = 0.0, control: str = "allow", seed: int = 0) -> Sampling:
        """How to sample with every tag under one ``control``.

        ``control`` is spelt as in a policy (``allow``, ``ban``, ``penalise(2)``, ``boost(2)``), or
        is :data:`GOOD`: the tags banned, and where the scheme has a good token (prefix) that one
        written at the start of every line. The other schemes have nothing good to force.
        """
        if self.bound is None or control == "allow":
            return Sampling(temperature, seed)
        parsed = Control.model_validate("ban" if control == GOOD else control)
        bias = logit_bias(dict.fromkeys(self.bound.vocabulary.by_name, parsed), self.bound)
        hard = {i: -math.inf if nats <= BAN_BIAS else nats for i, nats in bias.items()}
        return Sampling(temperature, seed, hard, self.good if control == GOOD else None)

    def prompt(self, text: str) -> list[int]:
        """A document's beginning: bos and one line of outside text."""
        return [self.encoder.special(BOS), *self.encoder.text(text + "\n")]

    def complete(self, prompts: Sequence[str], limit: int = 160) -> list[str]:
        """Greedy answers to one-line prompts, without special tokens."""
        contexts = [self.prompt(prompt) for prompt in prompts]
        stops = {self.encoder.special(EOS)}
        made = write(self.model, contexts, stops, limit, self.sampling())
        return [self.encoder.tokenizer.decode(list(row.ids)).strip("\n") for row in made]
