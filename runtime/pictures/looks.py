"""What a picture says of one thought: what became of it, and why, in words and one mark."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, assert_never

from ...agents.thought import Status
from ...gates.verdict import Action, Broken, Crossing, Judgement, Verdict
from ...gates.visible import visible

__all__ = ["Cut", "Drawn", "Fate", "because", "cut_by", "fate_of", "shortened", "tally"]


class Drawn(Protocol):
    """What a picture needs of a thought; both a live one and a row of the ledger have it."""

    @property
    def id(self) -> str: ...
    @property
    def parents(self) -> tuple[str, ...]: ...
    @property
    def operation(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def status(self) -> Status: ...
    @property
    def text(self) -> str: ...
    @property
    def score(self) -> float | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def attempt(self) -> int: ...
    @property
    def judgement(self) -> Judgement | None: ...


class Fate(StrEnum):
    """What became of a thought, as a picture tells it; the value is the word for it."""

    KEPT = "kept"
    FLAGGED = "flagged"
    """Kept, and a rule was reached."""
    CUT = "cut"
    AGAIN = "tried again"
    """A try that gave way to the next."""
    FAILED = "failed"
    WAITS = "waits for a person"
    DROPPED = "dropped"

    @property
    def mark(self) -> str:
        """One character, so that colour is not the only sign."""
        match self:
            case Fate.KEPT | Fate.FLAGGED:
                return "✓"
            case Fate.CUT:
                return "✗"
            case Fate.AGAIN:
                return "↺"
            case Fate.FAILED:
                return "!"
            case Fate.WAITS:
                return "?"
            case Fate.DROPPED:
                return "·"
            case unknown:
                assert_never(unknown)


@dataclass(frozen=True, slots=True)
class Cut:
    """What a thought was cut for."""

    tag: str
    reading: str
    score: float


def fate_of(thought: Drawn) -> Fate:
    """What became of the thought."""
    match thought.status:
        case Status.KEPT:
            crossed = isinstance(thought.judgement, Verdict) and thought.judgement.cause
            return Fate.FLAGGED if crossed else Fate.KEPT
        case Status.PRUNED:
            # A try that gave way to another has a reason; one that no budget was left for has none.
            judged = thought.judgement
            asked = isinstance(judged, Verdict) and judged.action is Action.RESAMPLE
            return Fate.AGAIN if asked and thought.reason is not None else Fate.CUT
        case Status.FAILED:
            return Fate.FAILED
        case Status.ESCALATED:
            return Fate.WAITS
        case Status.DROPPED:
            return Fate.DROPPED
        case unknown:
            assert_never(unknown)


def because(thought: Drawn) -> str | None:
    """Why the thought is not simply kept, in a few words; None when there is nothing to say."""
    judgement = thought.judgement
    if thought.status is Status.FAILED:
        return thought.reason
    match judgement:
        case Broken():
            return f"could not be read: {judgement.reason}"
        case Verdict(cause=Crossing() as cause):
            if cause.reading == "emitted":  # always 1 against 1; what it stood at says more
                peak = judgement.scores.get(cause.tag, {}).get("peak")
                return f"{cause.tag} emitted" + ("" if peak is None else f", at p {peak:.2f}")
            return f"{cause.tag} {cause.reading} {cause.score:.2f} ≥ {cause.threshold:g}"
        case _:
            return thought.reason


def cut_by(thought: Drawn) -> Cut | None:
    """The tag, reading and score that cut it; None where no rule did."""
    judgement = thought.judgement
    if thought.status is not Status.PRUNED or not isinstance(judgement, Verdict):
        return None
    if (cause := judgement.cause) is None:
        return None
    if cause.reading == "emitted":
        peak = judgement.scores.get(cause.tag, {}).get("peak", cause.score)
        return Cut(cause.tag, "p", peak)
    return Cut(cause.tag, str(cause.reading), cause.score)


def tally(thoughts: Iterable[Drawn]) -> str:
    """Dead thoughts in a few words: ``9 cut (deceit 7, angry 2; highest deceit p 0.98), 3
    dropped``. One that was kept led nowhere."""
    fates: dict[Fate, int] = {}
    tags: dict[str, int] = {}
    highest: Cut | None = None
    for thought in thoughts:
        fate = fate_of(thought)
        fates[fate] = fates.get(fate, 0) + 1
        if (cut := cut_by(thought)) is not None:
            tags[cut.tag] = tags.get(cut.tag, 0) + 1
            highest = cut if highest is None or cut.score > highest.score else highest
    said: list[str] = []
    for fate in (Fate.CUT, Fate.AGAIN, Fate.FAILED, Fate.WAITS, Fate.DROPPED):
        if fate in fates:
            said.append(f"{fates[fate]} {fate}")
        if fate is Fate.AGAIN and highest is not None:
            often = sorted(tags, key=lambda tag: (-tags[tag], tag))
            why = ", ".join(f"{tag} {tags[tag]}" if len(tags) > 1 else tag for tag in often)
            said[-1] += f" ({why}; highest {highest.tag} {highest.reading} {highest.score:.2f})"
    if nowhere := fates.get(Fate.KEPT, 0) + fates.get(Fate.FLAGGED, 0):
        said.append(f"{nowhere} that led nowhere")
    return ", ".join(said)


def shortened(text: str, width: int) -> str:
    """On one line, spelt, with an ellipsis where it was cut."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
