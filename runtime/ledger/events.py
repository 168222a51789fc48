"""What a run tells the ledger: frozen values, one for each kind of thing that happens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from ...agents.prompt import Sampling
from ...agents.thought import Status
from ...agents.tool import Call
from ...gates.approval import Approval
from ...gates.control import Control
from ...gates.evidence import Evidence
from ...gates.policy import Policy
from ...gates.rule import Scope
from ...gates.sentences import Boundary
from ...gates.verdict import Crossing, Judgement
from ..engines.protocol import EngineInfo

__all__ = [
    "AFTER_THE_END",
    "About",
    "ErasedBlob",
    "EventKind",
    "ModelIntent",
    "Retry",
    "RunStart",
    "RunStatus",
    "Switch",
    "ThoughtRecord",
    "ToolOutcome",
]

About = Literal["verdict", "tool"]
"""What a person decides on: the gate's verdict, or a tool call whose end is unknown."""

ToolOutcome = Literal["done", "not done"]
"""What a person found out about such a call."""


class EventKind(StrEnum):
    """Everything that can stand in a run's chain of events."""

    RUN_STARTED = "run_started"
    MODEL_INTENDED = "model_intended"
    """A model call is about to start."""
    SWITCHED = "switched"
    """The model is about to be called again in mid-generation, with other controls."""
    JUDGED = "judged"
    """A generated thought with its evidence and the gate's verdict."""
    BACKED_UP = "backed_up"
    """A try gives way to another one, which keeps what stood before the crossing."""
    PLACED = "placed"
    """A thought that no model wrote: a split, a merge by function, a tool's result."""
    SCORED = "scored"
    """A thought that was there got a score from a function."""
    SELECTED = "selected"
    """Some thoughts go on, the others are dropped, for want of score rather than for a tag."""
    TOOL_INTENDED = "tool_intended"
    TOOL_RETURNED = "tool_returned"
    ESCALATED = "escalated"
    """A thought waits for a person."""
    NOTED = "noted"
    """Anything else worth keeping: a budget that ended, a branch that was regrown."""
    RUN_FINISHED = "run_finished"
    """How the run ended; a later ``resumed`` opens it again."""
    RESUMED = "resumed"
    """The run goes on after it was killed, or after a person decided."""
    ABANDONED = "abandoned"
    """A model call of a killed process: nobody will ever know what it said."""
    DECIDED = "decided"
    """A person decided on an escalated thought, or on a tool call whose end is unknown."""
    ERASED = "erased"
    """The bytes of some blobs are gone, for privacy; their digests stay in the chain."""


AFTER_THE_END = frozenset({EventKind.RESUMED, EventKind.DECIDED, EventKind.ERASED, EventKind.NOTED})
"""What may follow ``run_finished``."""


class RunStatus(StrEnum):
    """How a run ended: the status in its last ``run_finished``. It is *unfinished* (still going, or
    killed) where there is none, or a later ``resumed``."""

    DONE = "done"
    EMPTY = "empty"
    """Nothing survived: every branch was pruned or failed."""
    EXHAUSTED = "exhausted"
    """A budget ended first."""
    ESCALATED = "escalated"
    """A person has to decide."""
    HALTED = "halted"
    """A rule whose action is ``halt`` was reached."""
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RunStart:
    """One agent on one task, with everything its events are bound to."""

    run: str
    """From :func:`.ledger.new_run_id`."""
    agent: str
    task: str
    context: str | None
    """The policy context, such as ``fiction``; None is the base policy."""
    seed: int
    policy: Policy
    engine: EngineInfo
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else shaped the run (budgets, width), as JSON values."""


@dataclass(frozen=True, slots=True)
class ModelIntent:
    """A model call that is about to start."""

    thought: str
    operation: str
    parents: tuple[str, ...]
    prompt_ids: tuple[int, ...]
    prompt_text: str
    sampling: Sampling
    controls: Mapping[str, Control]
    seed: int
    attempt: int = 0
    accepted: int = 0
    """How many of the thought's own tokens end the prompt: those that the try before wrote."""


@dataclass(frozen=True, slots=True)
class Switch:
    """Other controls from a token on: what the model is asked again with."""

    token: int
    """So many tokens of the thought were written."""
    before: Mapping[str, Control]
    after: Mapping[str, Control]
    prompt_ids: tuple[int, ...]
    seed: int
    spent_after: int
    """Tokens that were generated beyond it, and discarded."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A way back: which tokens of a try stay, and what is asked next."""

    thought: str
    """The try that is given up."""
    attempt: int
    following: str
    """The try that goes on from there."""
    token: int
    """So many tokens stay."""
    back_to: Boundary
    discarded: int
    text: str
    """What the discarded tokens said."""
    cause: Crossing
    controls: Mapping[str, Control]
    """In force from there on."""
    seed: int
    approved: bool = False
    """Whether a person let the crossing pass, so that the next try goes on from all of it."""

    @property
    def reason(self) -> str:
        """What became of the try, in a few words."""
        if self.approved:
            return f"approved, and gone on with as {self.following}"
        where = f"from token {self.token}" if self.token else "from the prompt"
        return f"tried again {where}, as {self.following}"


@dataclass(frozen=True, slots=True)
class ThoughtRecord:
    """One node of the graph as it will be read: content, verdict, fate."""

    id: str
    parents: tuple[str, ...]
    """Ids; the first is the one the thought is drawn under."""
    operation: str
    """The operation's name in the plan."""
    kind: str
    """The operation's kind: ``generate``, ``score``, ``aggregate``, ``act`` …"""
    depth: int
    index: int
    """Which child of its parents this is, from 0."""
    status: Status
    siblings: int = 0
    """How many a function made at once, this one included; 0 where each is made by itself."""
    attempt: int = 0
    """How many tries there were before, calls that were lost with their process included."""
    retries: int = 0
    """How many of those the gate sent back: what the verdict counts."""
    text: str = ""
    """As decoded, unstripped: the evidence's offsets count its characters."""
    value: Any = None
    """What was parsed from the text, as JSON."""
    score: float | None = None
    """From a score operation; not a tag's reading."""
    tokens: int = 0
    """Tokens that were generated for it and read; what an earlier try wrote is counted there."""
    spent_after: int = 0
    """Tokens that the engine generated beyond those, after a crossing or a switch."""
    accepted: int = 0
    """How many of its tokens an earlier try wrote."""
    latency_s: float | None = None
    judgement: Judgement | None = None
    evidence: Evidence | None = None
    reason: str | None = None
    """Why it failed, was dropped, or fell with its parent; a verdict gives its own reasons."""
    hopeless: bool = False
    """Whether asking again could only fail in the same way."""
    acted: str | None = None
    """The tool that the thought calls or called."""
    scope: Scope = "thought"
    """The scope it was judged in: ``thought``, or ``action`` when it is about to call a tool."""
    call: Call | None = None
    """The tool call that it was judged for in scope ``action``."""
    cut: bool = False
    """Whether a rule that asks for a person broke it off while it was written."""
    ended: bool = False
    """Of such a thought: whether the model had come to its end with that very token."""
    approved: tuple[Approval, ...] = ()
    """What people had let pass when it was judged."""


@dataclass(frozen=True, slots=True)
class ErasedBlob:
    """One blob whose bytes and salt go."""

    digest: str
    seq: int
    """The event of the run that names it."""
    name: str
    """What that event calls it: ``prompt``, ``text``, ``evidence`` …"""
    thought: str | None = None
    """The thought that the event is about."""
