"""The recipe of a training run: all that decides what the model becomes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ...gates.encoding import decoded
from ...gates.vocabulary import Vocabulary
from ..corpus.stream import CorpusConfig
from ..errors import TrainingError

__all__ = ["Architecture", "Place", "TrainConfig"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Architecture(_Frozen):
    """The shape of the Llama; of an existing model (``init``), only ``context`` is chosen."""

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
    init: Path | None = None
    """A checkpoint folder to start from, instead of a fresh Llama."""
    renewed: tuple[str, ...] = ()
    """Tokens of ``init`` whose embeddings are drawn anew. Training pushes the embeddings of tokens
    that its corpus never holds together, until a model can hardly tell them apart."""
    tokenizer: Path | None = None
    """A model folder whose tokenizer is taken; by default that of ``init``, else a new one."""
    steps: int = Field(default=4000, ge=1)
    warmup: int = Field(default=150, ge=0)
    decay: int = Field(default=1000, ge=0)
    tokens_per_batch: int = Field(default=6144, ge=64)
    """Padded tokens of one step, all processes together."""
    tokens_per_pass: int | None = Field(default=None, ge=64)
    """Padded tokens that one process holds at once; more are learnt in several passes."""
    pool: int = Field(default=4096, ge=1)
    """Documents that are sorted by length together."""
    loaders: int = Field(default=0, ge=0)
    """Processes beside each training process that read and encode ahead of it."""
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
        """Read a YAML file, which may say ``base: other.yaml`` and then only what it changes.

        Raises ``FileNotFoundError`` naming a file that is missing, and ``ValidationError``.
        """
        return cls.model_validate(_read(path, ()))

    @property
    def vocabulary(self) -> Vocabulary:
        """The tags that the model learns, and the tokens that spell them."""
        return self.corpus.vocabulary(self.name)


@dataclass(frozen=True, slots=True)
class Place:
    """Where training stands: steps done, and the next batch by pool and number within it."""

    step: int = 0
    pool: int = 0
    batch: int = 0
    tokens: int = 0
    seconds: float = 0.0


def _read(path: Path, above: tuple[Path, ...]) -> Any:
    """What a file says, laid over what its base says. ``above`` are the files that lead here."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no training configuration there; name a YAML file")
    if path.resolve() in above:
        raise TrainingError(f"{path}: is its own base, through others or by itself; correct 'base'")
    said = yaml.safe_load(decoded(path.read_bytes()))
    if not isinstance(said, dict) or "base" not in said:
        return said
    base = said.pop("base")
    return _laid_over(_read(path.parent / str(base), (*above, path.resolve())), said)


def _laid_over(base: Any, said: Any) -> Any:
    """``said`` over ``base``: mappings are merged key by key, all else is replaced."""
    if not isinstance(base, dict) or not isinstance(said, dict):
        return said
    merged = {name: _laid_over(base[name], value) if name in base else value
              for name, value in said.items()}  # fmt: skip
    return {**base, **merged}
