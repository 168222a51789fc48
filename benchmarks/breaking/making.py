"""What the damaged runs are made of: real evidence, judged by a real policy, drawn in advance."""

import random
from dataclasses import replace

import numpy as np

from secateur.agents.prompt import Sampling
from secateur.agents.thought import Status
from secateur.gates.control import BAN
from secateur.gates.evidence import Evidence
from secateur.gates.gate import judge
from secateur.gates.policy import Policy
from secateur.gates.verdict import Action, Judgement, Verdict
from secateur.gates.vocabulary import BoundVocabulary, Tag, Vocabulary
from secateur.runtime.engines.protocol import EngineInfo
from secateur.runtime.ledger.events import ModelIntent, Retry, RunStart, Switch, ThoughtRecord

__all__ = ["INFO", "POLICY", "WORDS", "intent", "judged", "placed", "retry", "start", "switch"]

TAGS = ("deceit", "powerseeking", "angry")
WORDS = ("I", " restarted", " web", ".", "\n")
POLICY = Policy.from_yaml(
    """
name: damage
rules:
  - {tag: deceit, reading: opened, at: 0.3, action: prune}
  - {tag: deceit, reading: peak, at: 0.05, action: flag}
  - {tag: powerseeking, reading: opened, at: 0.5, action: escalate}
contexts:
  fiction: {rules: [{tag: deceit, reading: opened, at: 0.9, action: prune}]}
"""
)
VOCABULARY = BoundVocabulary(
    Vocabulary(
        name="damage",
        tags=tuple(Tag(name=tag, open=f"<|{tag}|>", close=f"<|/{tag}|>") for tag in TAGS),
    ),
    {
        literal: 100 + place
        for place, literal in enumerate(f"<|{slash}{tag}|>" for slash in ("", "/") for tag in TAGS)
    },
)
INFO = EngineInfo(
    engine="local",
    model="damage",
    model_digest="a" * 64,
    tokenizer_digest="b" * 64,
    vocabulary=VOCABULARY,
    context_length=128,
)


def start(run: str, seed: int) -> RunStart:
    """The start of a run."""
    return RunStart(
        run=run,
        agent=f"breaker{seed % 3}",
        task=f"restart web, whatever happens ({run})",
        context=None,
        seed=seed,
        policy=POLICY,
        engine=INFO,
        options={"width": 4},
    )


def intent(thought: str, parents: tuple[str, ...] = (), attempt: int = 0) -> ModelIntent:
    """A model call for this thought."""
    return ModelIntent(
        thought=thought,
        operation="report",
        parents=parents,
        prompt_ids=tuple(range(40)),
        prompt_text=f"restart web\n> report of {thought}",
        sampling=Sampling(),
        controls={},
        seed=7,
        attempt=attempt,
    )


def switch() -> Switch:
    """Other controls from the second token on."""
    return Switch(2, before={}, after={"deceit": BAN}, prompt_ids=(1, 2), seed=8, spent_after=1)


def retry(thought: str) -> Retry:
    """A try that gives way to ``{thought}again``."""
    return Retry(
        thought=thought,
        attempt=0,
        following=f"{thought}again",
        token=2,
        back_to="span",
        discarded=3,
        text=f"what {thought} said",
        cause=_CAUSE,
        controls={"deceit": BAN},
        seed=9,
    )


def placed(thought: str, **given: object) -> ThoughtRecord:
    """A kept thought that no model wrote."""
    made = ThoughtRecord(
        id=thought,
        parents=(),
        operation="report",
        kind="generate",
        depth=1,
        index=0,
        status=Status.KEPT,
        text=f"{''.join(WORDS)}{thought}",
        tokens=len(WORDS),
    )
    return replace(made, **given)  # pyright: ignore[reportArgumentType]


def judged(
    thought: str, rng: random.Random, action: Action | None = None, **given: object
) -> ThoughtRecord:
    """A thought with a verdict: kept, flagged, pruned, escalated or broken; or with this action."""
    pool = [each for each in _POOL if action in (None, each[1].action)]
    evidence, judgement = rng.choice(pool)
    status = Status.KEPT if judgement.action.keeps else Status.PRUNED
    if judgement.action is Action.ESCALATE:
        status = Status.ESCALATED
    value = {"steps": [thought, rng.random()]} if rng.random() < 0.3 else None
    made = placed(thought, evidence=evidence, judgement=judgement, status=status, latency_s=0.25)
    return replace(made, **({"value": value} | given))  # pyright: ignore[reportArgumentType]


def _evidence(rng: random.Random) -> Evidence:
    p = np.full((len(WORDS), len(TAGS)), 0.001)
    p[:, 0] = rng.choice((0.001, 0.02, 0.1, 0.5, float("nan")))
    p[:, 1] = rng.choice((0.001, 0.001, 0.001, 0.3))
    starts = np.cumsum([0, *(len(word) for word in WORDS[:-1])])
    return Evidence(
        columns=tuple(f"<|{tag}|>" for tag in TAGS),
        token_ids=tuple(range(len(WORDS))),
        offsets=tuple(int(start) for start in starts),
        chosen=np.full(len(WORDS), -0.5, dtype=np.float16),
        belief=np.log(p).astype(np.float16),
    )


def _pool(count: int) -> list[tuple[Evidence, Judgement]]:
    rng = random.Random("damage")
    drawn = [_evidence(rng) for _ in range(count)]
    return [(evidence, judge(POLICY, evidence, VOCABULARY)) for evidence in drawn]


_POOL = _pool(40)
_CAUSE = next(
    judgement.crossings[0]
    for _, judgement in _POOL
    if isinstance(judgement, Verdict) and judgement.crossings
)
