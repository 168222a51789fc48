"""Sequential Monte Carlo: particles that grow side by side, weighed by S, and resampled.

S is the survival of a thought: the probability that the free model would not have opened any tag
along it. It is the importance weight between a model whose tags are banned and the free model, so
particles that grow under a ban and are weighed by S stand for what the free model writes when no
tag opens. Systematic resampling when the effective sample size (sum w)^2 / sum w^2 falls below half
of the particles: Kitagawa 1996; Doucet and Johansen 2009, section 3.4.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...gates.canonical import digest
from ...gates.reading import Reading
from ...gates.verdict import Verdict
from ..functions import called, holds
from ..thought import Thought
from .strategy import Move

__all__ = ["SequentialMonteCarlo", "effective", "log_survival", "systematic"]

_CERTAIN = 1 - 1e-12


def log_survival(thought: Thought) -> float:
    """log S of one thought, S = 1 - sum over tags of ``opened``: tags compete to open first, so
    that their ``opened`` add up to what the free model loses along the path.

    0.0 where no model wrote the thought. Raises ``ValueError`` where nothing was read.
    """
    judgement = thought.judgement
    if judgement is None:
        return 0.0
    if not isinstance(judgement, Verdict):
        raise ValueError(f"thought {thought.id} has no reading to weigh it by")
    opened = [scores.get(Reading.OPENED.value, 0.0) for scores in judgement.scores.values()]
    return math.log1p(-min(sum(opened), _CERTAIN))


def effective(weights: Sequence[float]) -> float:
    """The effective sample size (sum w)^2 / sum w^2; 0.0 where all weights are."""
    squares = math.fsum(weight * weight for weight in weights)
    return math.fsum(weights) ** 2 / squares if squares else 0.0


def systematic(weights: Sequence[float], count: int, start: float) -> list[int]:
    """How often each is drawn: ``count`` evenly spaced points from ``start`` in [0, 1) on."""
    total = math.fsum(weights)
    drawn, below, point = [0] * len(weights), 0.0, 0
    last = max(i for i, weight in enumerate(weights) if weight > 0)
    for i, weight in enumerate(weights):
        below += weight / total * count
        while point < count and (start + point < below or i == last):
            drawn[i] += 1
            point += 1
    return drawn


@dataclass(frozen=True, slots=True)
class _Particle:
    thought: Thought
    log_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class _Cloud:
    seed: int
    step: int
    particles: tuple[_Particle, ...]
    waiting: int = 0
    grown: tuple[_Particle, ...] = ()
    """What came of those that were told."""
    dropped: tuple[Thought, ...] = ()


@dataclass(frozen=True, slots=True)
class SequentialMonteCarlo:
    """``particles`` grow by one step at a time. One whose step was pruned has weight zero."""

    particles: int
    steps: int
    weight: Callable[[Thought], float] = log_survival
    """The logarithm of what a new thought multiplies its particle's weight by."""
    until: Callable[[Thought], bool] | None = None
    """A particle whose thought is good grows no further."""

    def begin(self, thoughts: tuple[Thought, ...], seed: int) -> _Cloud:
        most = max(self.particles, len(thoughts))
        start = tuple(_Particle(thoughts[i % len(thoughts)]) for i in range(most))
        return _Cloud(seed, 0, start)

    def ask(self, state: _Cloud) -> tuple[Move, _Cloud]:
        if state.waiting:
            return Move(), state
        why = "no particle is left of it: its weight was too small"
        growing = [p for p in state.particles if not self._through(p)]
        if state.step == self.steps or not growing:
            return Move(drop=state.dropped, give=_weighed(state.particles), why=why), state
        resting = tuple(p for p in state.particles if self._through(p))
        under_way = replace(
            state,
            step=state.step + 1,
            particles=tuple(growing),
            waiting=len(growing),
            grown=resting,
            dropped=(),
        )
        expand = tuple(particle.thought for particle in growing)
        return Move(expand=expand, drop=state.dropped, why=why), under_way

    def tell(self, state: _Cloud, thought: Thought, children: tuple[Thought, ...]) -> _Cloud:
        particle = state.particles[len(state.particles) - state.waiting]
        share = particle.log_weight - math.log(max(len(children), 1))
        grown = tuple(_Particle(child, share + self._log_weight(child)) for child in children)
        state = replace(state, waiting=state.waiting - 1, grown=(*state.grown, *grown))
        return state if state.waiting else self._resampled(state)

    def _through(self, particle: _Particle) -> bool:
        return self.until is not None and holds(self.until, particle.thought.shown)

    def _log_weight(self, child: Thought) -> float:
        weight = called(self.weight, child)
        if math.isnan(weight) or weight == math.inf:
            raise ValueError(f"the weight of thought {child.id} is {weight}")
        return weight

    def _resampled(self, state: _Cloud) -> _Cloud:
        cloud = tuple(p for p in state.grown if p.log_weight > -math.inf)
        vetoed = tuple(p.thought for p in state.grown if p.log_weight == -math.inf)
        weights = _weights(cloud)
        if not cloud or (self.particles / 2 <= effective(weights) and len(cloud) <= self.particles):
            return replace(state, particles=cloud, grown=(), dropped=vetoed)
        start = int(digest([state.seed, state.step])[:13], 16) / 16**13
        drawn = systematic(weights, self.particles, start)
        even = math.log(math.fsum(weights) / self.particles) + max(p.log_weight for p in cloud)
        survivors = [
            _Particle(particle.thought, even)
            for particle, times in zip(cloud, drawn, strict=True)
            for _ in range(times)
        ]
        kept = {particle.thought.id for particle in survivors}
        gone = [p.thought for p in cloud if p.thought.id not in kept]
        dropped = {thought.id: thought for thought in (*vetoed, *gone)}
        return replace(state, particles=tuple(survivors), grown=(), dropped=tuple(dropped.values()))


def _weights(cloud: Sequence[_Particle]) -> list[float]:
    """Relative to the heaviest, so that long branches do not underflow."""
    most = max((particle.log_weight for particle in cloud), default=0.0)
    return [math.exp(particle.log_weight - most) for particle in cloud]


def _weighed(cloud: Sequence[_Particle]) -> tuple[Thought, ...]:
    """Each thought once, its score the share of the weight that its particles carry."""
    weights = _weights(cloud)
    total = math.fsum(weights)
    shares: dict[str, float] = {}
    thoughts: dict[str, Thought] = {}
    for particle, weight in zip(cloud, weights, strict=True):
        thought = thoughts.setdefault(particle.thought.id, particle.thought)
        shares[thought.id] = shares.get(thought.id, 0.0) + weight / total
    return tuple(replace(thought, score=shares[id]) for id, thought in thoughts.items())
