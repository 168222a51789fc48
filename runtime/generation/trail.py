"""What a try at a thought begins with, and what it leaves behind for another one to go on from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...gates.approval import Approval
from ...gates.control import ALLOW, Control, forced_ids, tightened
from ...gates.evidence import Evidence, SentenceScore
from ...gates.vocabulary import BoundVocabulary
from ..engines.protocol import Token
from .scoring import interleaved

__all__ = ["Origin", "Trail", "tokens_of"]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a try begins with: nothing, or the accepted prefix of the try before."""

    prompt: tuple[int, ...]
    """The thought's own prompt, without anything that was written."""
    controls: Mapping[str, Control]
    """In force for the first token to come."""
    tokens: tuple[Token, ...] = ()
    forced: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Tokens that a ``force`` control wrote, by the number of the token they stand before."""
    sentences: tuple[SentenceScore, ...] = ()
    approved: tuple[Approval, ...] = ()
    """What people let pass in those tokens."""
    ended: bool = False
    """Whether the model has ended with them, so that it is not asked for more."""

    @property
    def ids(self) -> tuple[int, ...]:
        """What the model is asked: the prompt and the tokens that stay, and nothing else."""
        written = [token.id for token in self.tokens]
        return (*self.prompt, *interleaved(written, self.forced))


class Trail:
    """The tokens of one try, what was forced between them, and which controls held where."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.tokens: list[Token] = list(origin.tokens)
        self.sentences: list[SentenceScore] = list(origin.sentences)
        self.controls = origin.controls
        """Those in force now."""
        self.forced: dict[int, tuple[int, ...]] = dict(origin.forced)
        self._in_force: list[tuple[int, Mapping[str, Control]]] = [(0, origin.controls)]

    @property
    def ids(self) -> tuple[int, ...]:
        """The prompt with all that is written, forced tokens included."""
        written = [token.id for token in self.tokens]
        return (*self.origin.prompt, *interleaved(written, self.forced))

    def switch(self, at: int, after: Mapping[str, Control], vocabulary: BoundVocabulary) -> None:
        """Other controls from the token with this number on; what they force is written there."""
        newly = {
            tag: control
            for tag, control in after.items()
            if control.kind == "force" and self.controls.get(tag, ALLOW).kind != "force"
        }
        forced = forced_ids(newly, vocabulary)
        if forced:
            self.forced[at] = (*self.forced.get(at, ()), *forced)
        self.controls = after
        self._in_force.append((at, after))

    def kept(self, token: int, bounds: Mapping[str, Control]) -> Origin:
        """What a retry begins with: so many tokens, and the controls of there, tightened."""
        there = next(found for at, found in reversed(self._in_force) if at <= token)
        return Origin(
            prompt=self.origin.prompt,
            controls=tightened(there, bounds),
            tokens=tuple(self.tokens[:token]),
            forced={at: ids for at, ids in self.forced.items() if at <= token},
            sentences=tuple(s for s in self.sentences if s.end <= token),
            approved=tuple(a for a in self.origin.approved if a.tokens <= token),
        )

    def approved(self, approval: Approval, bounds: Mapping[str, Control], *, ended: bool) -> Origin:
        """What the next try begins with where a person let a crossing pass: all that is there."""
        origin = self.kept(len(self.tokens), bounds)
        return replace(origin, approved=(*origin.approved, approval), ended=ended)


def tokens_of(evidence: Evidence, text: str) -> list[Token]:
    """The tokens of a finished generation, from its evidence and its unstripped text."""
    ends = (*evidence.offsets[1:], len(text))
    return [
        Token(
            id=id_,
            text=text[start:end],
            chosen=float(evidence.chosen[place]),
            belief=_row(evidence.belief[place]),
            sampler=None if evidence.sampler is None else _row(evidence.sampler[place]),
        )
        for place, (id_, start, end) in enumerate(
            zip(evidence.token_ids, evidence.offsets, ends, strict=True)
        )
    ]


def _row(numbers: Sequence[float]) -> list[float]:
    return [float(number) for number in numbers]
