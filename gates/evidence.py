"""What was seen while one thought was generated: the numbers every verdict is made from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["GATE", "LOG_FLOOR", "Evidence", "SentenceScore"]

_HEAD = json.JSONEncoder(separators=(",", ":"))

LOG_FLOOR = -60000.0
"""The log-probability that stands for zero: finite in float16, so that infinities stay errors."""

GATE = 2
"""How evidence is judged now: locked rules keep their consequence beside others, a threshold is
reached within the rounding, and a prefix tag without mass is Broken. 1 is how Secateur 0.1 did."""


@dataclass(frozen=True, slots=True)
class SentenceScore:
    """The posterior's terms for one sentence x after its context c (natural logarithms).

    ``tagged[k]`` is log P(x, close | c, open_k), or None where the scoring pass was skipped
    because even P(x, close | c, open_k) = 1 could not lift the posterior to notice.
    """

    start: int
    """First token of the sentence."""
    end: int
    """One past its last token."""
    untagged: float
    """log P(x | c, untagged): the free model's own probability of the sentence."""
    opens: dict[str, float]
    """log p_open per tag, at the sentence's first position."""
    tagged: dict[str, float | None]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Tag log-probabilities of one generation, quantised to float16 before anything reads them.

    Shapes: T generated tokens, K evidence columns (see ``Vocabulary.columns``).
    """

    columns: tuple[str, ...]
    """The K tokens that were read, in order."""
    token_ids: tuple[int, ...]
    """The T sampled tokens."""
    offsets: tuple[int, ...]
    """Character at which each token starts in the decoded text; length T."""
    chosen: NDArray[np.float16]
    """[T] log-probability of the sampled token under the free model, temperature 1."""
    belief: NDArray[np.float16]
    """[T, K] log p of each column before controls, at temperature 1."""
    sampler: NDArray[np.float16] | None = None
    """[T, K] the same at the sampler's own temperature and top-p, where they differ from 1."""
    sentences: tuple[SentenceScore, ...] = field(default=())
    weighed: bool = False
    """Whether the posterior's terms were made. There may be none: a sentence that carries its own
    tag, or nothing at all, has no other story to weigh."""
    starts: tuple[int, ...] = ()
    """Tokens before which a sentence or line starts; where the ``prefix`` scheme is read. After a
    tag at such a place, the next token is one too."""
    lines: tuple[int, ...] | None = None
    """Those of ``starts`` where a line starts. None where that was not kept: then every start is
    read for every tag."""
    forced: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Tag tokens that a control wrote, by the number of the token that they stand before."""
    fault: str | None = None
    """Why the generation was broken off where no rule was reached; such a thought never passes.
    Where a token could not be stored, what was said of it; its row, if it has one, is NaN."""
    gate: int = GATE
    """How it is judged (:data:`GATE`): what was judged in one way is judged again in that way."""

    def with_sentences(self, sentences: tuple[SentenceScore, ...]) -> "Evidence":
        """The same evidence with the posterior's terms added."""
        return replace(self, sentences=sentences, weighed=True)

    def to_bytes(self) -> bytes:
        """One self-describing blob: a JSON line, then the float16 arrays, little endian."""
        head = {
            "columns": self.columns,
            "token_ids": self.token_ids,
            "offsets": self.offsets,
            "starts": self.starts,
            "weighed": self.weighed,
            "sampler": self.sampler is not None,
            "sentences": [
                {
                    "start": s.start,
                    "end": s.end,
                    "untagged": s.untagged,
                    "opens": s.opens,
                    "tagged": s.tagged,
                }
                for s in self.sentences
            ],
        }
        if self.lines is not None:
            head["lines"] = self.lines
        if self.forced:
            head["forced"] = list(self.forced.items())
        if self.fault is not None:
            head["fault"] = self.fault
        if self.gate != 1:  # which said nothing
            head["gate"] = self.gate
        arrays = [self.chosen, self.belief] + ([] if self.sampler is None else [self.sampler])
        body = b"".join(np.ascontiguousarray(a, dtype="<f2").tobytes() for a in arrays)
        return _HEAD.encode(head).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Evidence":
        """Read what :meth:`to_bytes` wrote. Raises ``ValueError`` on a damaged blob."""
        line, _, body = blob.partition(b"\n")
        head = json.loads(line)
        rows, width = len(head["token_ids"]), len(head["columns"])
        sizes = [rows, rows * width] + ([rows * width] if head["sampler"] else [])
        numbers = np.frombuffer(body, dtype="<f2")
        if numbers.size != sum(sizes):
            raise ValueError(f"evidence holds {numbers.size} numbers, expected {sum(sizes)}")
        chosen, belief, *rest = np.split(numbers, np.cumsum(sizes)[:-1])
        return cls(
            columns=tuple(head["columns"]),
            token_ids=tuple(head["token_ids"]),
            offsets=tuple(head["offsets"]),
            chosen=chosen,
            belief=belief.reshape(rows, width),
            sampler=rest[0].reshape(rows, width) if rest else None,
            sentences=tuple(SentenceScore(**sentence) for sentence in head["sentences"]),
            weighed=head["weighed"],
            starts=tuple(head["starts"]),
            lines=tuple(head["lines"]) if "lines" in head else None,
            forced={place: tuple(ids) for place, ids in head.get("forced", ())},
            fault=head.get("fault"),
            gate=head.get("gate", 1),
        )
