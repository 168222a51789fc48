"""What an engine must offer: tokens with the temptations that stood before each of them."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ...agents.prompt import Piece, Sampling
from ...gates.control import Control
from ...gates.errors import SecateurError
from ...gates.evidence import Evidence
from ...gates.vocabulary import BoundVocabulary

__all__ = [
    "Compared",
    "Engine",
    "EngineError",
    "EngineInfo",
    "Request",
    "RequestError",
    "Token",
    "Usage",
]


Compared = Literal["weights compared", "probe compared", "name only"]
"""The weights were loaded here; or a server gives a fixed text the probabilities that the weights
here give it; or it names the model and splits text as that does, and there is no more to go by."""


class EngineError(SecateurError):
    """The model could not be loaded, reached, or asked this."""


class RequestError(EngineError):
    """A request that is refused whenever it is asked: too long for the context, say."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Which model answers, as digests that every hashed event binds."""

    engine: str
    model: str
    model_digest: str
    tokenizer_digest: str
    vocabulary: BoundVocabulary
    context_length: int
    """Most tokens of prompt and generation together."""
    bos: str | None = None
    """The token that starts every document, for ``Special(info.bos)``; engines never add it."""
    eos: str | None = None
    """The token that ends a document, and a generation."""
    former_digest: str | None = None
    """What version 0.1 made of the same model, whose runs go on with it."""
    compared: Compared = "name only"
    """How it is known that this model answers."""
    probe: tuple[float, ...] = ()
    """Of a server, log p of a fixed text's tokens: a resumed run compares them."""


@dataclass(slots=True)
class Usage:
    """What one generation takes; the engine keeps it up to date, whether it is read or not."""

    generated: int = 0
    """Tokens that the engine drew for it, or received from its server, those not yielded too."""


@dataclass(frozen=True, slots=True)
class Request:
    """One generation."""

    prompt: tuple[int, ...]
    sampling: Sampling
    seed: int
    controls: Mapping[str, Control] = field(default_factory=dict)
    """Per tag; tags that are not named are allowed."""
    usage: Usage = field(default_factory=Usage, compare=False, repr=False)
    """Written by the engine. What it says beyond the tokens that were read was spent in vain."""


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token and what the model would have liked to open instead."""

    id: int
    text: str
    """What it adds to the decoded text; empty for the end-of-sequence token."""
    chosen: float
    """log p of this token under the free model at temperature 1."""
    belief: Sequence[float]
    """[K] log p of every evidence column before controls, at temperature 1."""
    sampler: Sequence[float] | None
    """[K] the same at the sampler's temperature and top-p; None where equal to belief."""
    finish: Literal["stop", "length"] | None = None
    """Set on the last token."""


class Engine(Protocol):
    """A tag-pretrained model that can be asked and read."""

    @property
    def info(self) -> EngineInfo: ...

    def encode(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of a prompt: outside text with special tokens disabled, our own tokens kept."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        ...

    def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        """Generate; ``aclose()`` on the iterator cancels. Raises :class:`EngineError`."""
        ...

    async def annotate(self, ids: Sequence[int]) -> Evidence:
        """Temptations along given text (tool results, task text, corpora)."""
        ...

    async def score(self, batch: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        """log P(continuation | context) for each (context, continuation), temperature 1."""
        ...

    async def aclose(self) -> None:
        """Let go of the model or the connection."""
        ...
