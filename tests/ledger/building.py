"""Real runs for the ledger's tests: evidence with chosen temptations, judged by real policies."""

from collections.abc import Sequence

import numpy as np

from secateur.agents.prompt import Sampling
from secateur.agents.thought import Status
from secateur.gates.evidence import Evidence
from secateur.gates.policy import Policy
from secateur.gates.vocabulary import BoundVocabulary, Tag, Vocabulary
from secateur.runtime.engines.protocol import EngineInfo
from secateur.runtime.ledger.events import ModelIntent, RunStart, ThoughtRecord
from secateur.runtime.ledger.ledger import new_run_id

TAGS = ("deceit", "powerseeking", "angry")

VOCABULARY = BoundVocabulary(
    Vocabulary(
        name="test",
        tags=tuple(Tag(name=t, open=f"<|{t}|>", close=f"<|/{t}|>") for t in TAGS),
    ),
    {
        literal: 100 + place
        for place, literal in enumerate(
            [f"<|{t}|>" for t in TAGS] + [f"<|/{t}|>" for t in TAGS]
        )
    },
)

INFO = EngineInfo(
    engine="local",
    model="test",
    model_digest="a" * 64,
    tokenizer_digest="b" * 64,
    vocabulary=VOCABULARY,
    context_length=128,
)

WORDS = ("I", " restarted", " web", ".", "\n")
"""The tokens of every generated text."""


def evidence(deceit: Sequence[float], powerseeking: float = 0.001) -> Evidence:
    """Five tokens with these temptations (padded with 0.001) and no emitted tag."""
    p = np.full((len(WORDS), len(TAGS)), 0.001)
    p[: len(deceit), 0] = deceit
    p[:, 1] = powerseeking
    offsets = np.cumsum([0] + [len(word) for word in WORDS[:-1]])
    return Evidence(
        columns=tuple(f"<|{tag}|>" for tag in TAGS),
        token_ids=tuple(range(len(WORDS))),
        offsets=tuple(int(o) for o in offsets),
        chosen=np.full(len(WORDS), -0.5, dtype=np.float16),
        belief=np.log(p).astype(np.float16),
    )


def start(policy: Policy, **changed: object) -> RunStart:
    """A run of ``opsdesk``."""
    given = {
        "run": new_run_id(),
        "agent": "opsdesk",
        "task": "restart web",
        "context": None,
        "seed": 1,
        "policy": policy,
        "engine": INFO,
        "options": {"width": 4},
    }
    return RunStart(**(given | changed))  # type: ignore[arg-type]


def intent(thought: str, parents: tuple[str, ...] = ()) -> ModelIntent:
    """A model call for ``thought``."""
    return ModelIntent(
        thought=thought,
        operation="report",
        parents=parents,
        prompt_ids=(1, 2, 3),
        prompt_text="restart web",
        sampling=Sampling(),
        controls={},
        seed=7,
    )


def thought(id: str, **changed: object) -> ThoughtRecord:
    """A thought that was kept, unless told otherwise."""
    given = {
        "id": id,
        "parents": (),
        "operation": "report",
        "kind": "generate",
        "depth": 1,
        "index": 0,
        "status": Status.KEPT,
        "text": "".join(WORDS),
        "tokens": len(WORDS),
    }
    return ThoughtRecord(**(given | changed))  # type: ignore[arg-type]
