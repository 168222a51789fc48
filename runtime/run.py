"""One agent on one task: LangGraph owns the run's life, the scheduler grows its graph of thoughts.

The run is a LangGraph ``StateGraph``: admit -> grow -> review -> deliver. Its state carries the
run's id and a cursor only; the text lives in the ledger.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from structlog.contextvars import bound_contextvars

from ..agents.spec import AgentSpec, TaskError
from ..agents.thought import Status, Thought, thought_id
from ..agents.tool import Workspace
from ..gates.errors import SecateurError
from ..gates.policy import Policy
from .attempts import Attempts
from .engines.protocol import Engine
from .ledger.events import RunStart, RunStatus
from .ledger.ledger import Ledger, new_run_id
from .logs import get_logger
from .performer import Performer
from .recording import Recording
from .scheduler import Halt, Spending, grow

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

__all__ = ["RunResult", "Session", "perform_run"]

_log = get_logger(__name__)


class RunState(TypedDict, total=False):
    """What LangGraph keeps of a run."""

    run: str
    cursor: int
    """Thoughts recorded so far."""
    status: str
    waiting: list[str]
    """Thoughts that wait for a person."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run."""

    run_id: str
    agent: str
    task: str
    policy: str
    context: str | None
    status: RunStatus
    answer: str | None
    """The result in words; None where nothing survived."""
    best: Thought | None
    """The first of the plan's own output, in the graph's order."""
    kept: tuple[Thought, ...]
    """The plan's own output."""
    thoughts: tuple[Thought, ...]
    """Every thought of the run, in the order in which they were made."""
    seconds: float
    workspace: Path
    reason: str | None = None
    """Why the run did not end with ``done``, in one line."""

    @property
    def pruned(self) -> tuple[Thought, ...]:
        """The thoughts that the gate cut."""
        return tuple(t for t in self.thoughts if t.status is Status.PRUNED)

    @property
    def tokens(self) -> int:
        """Generated tokens, pruned branches included."""
        return sum(thought.tokens for thought in self.thoughts)

    @property
    def spent_after(self) -> int:
        """Tokens that the engine generated beyond those, after a cut or a switch."""
        return sum(thought.spent_after for thought in self.thoughts)


@dataclass(slots=True)
class Session:
    """The live objects of one run, and the four nodes of its LangGraph shell."""

    agent: AgentSpec
    task: str
    policy: Policy
    engine: Engine
    ledger: Ledger
    seed: int
    sandbox: Path | None
    observe: Callable[[Thought], None]
    run: str = field(default_factory=new_run_id)
    status: RunStatus = RunStatus.DONE
    reason: str | None = None
    context: str | None = None
    kept: tuple[Thought, ...] = ()
    answer: str | None = None
    value: Any = None
    performer: Performer | None = None

    def graph(self) -> "CompiledStateGraph[RunState, Any, Any, Any]":
        """The run as a compiled LangGraph graph."""
        # LangGraph takes most of a second to import; only runs need it, audits do not.
        from langgraph.checkpoint.memory import InMemorySaver
        from langgraph.graph import END, START, StateGraph

        shell = StateGraph(RunState)
        shell.add_node("admit", self.admit)
        shell.add_node("grow", self.grow)
        shell.add_node("review", self.review)
        shell.add_node("deliver", self.deliver)
        shell.add_edge(START, "admit")
        shell.add_edge("admit", "grow")
        shell.add_edge("grow", "review")
        shell.add_edge("review", "deliver")
        shell.add_edge("deliver", END)
        return shell.compile(checkpointer=InMemorySaver())

    @property
    def admitted(self) -> Performer:
        """What performs the run's work, from ``admit`` on."""
        if self.performer is None:
            raise RuntimeError("the run is not admitted yet")
        return self.performer

    @property
    def folder(self) -> Path:
        """Where the run's tools act."""
        return self.sandbox or Path("sandbox") / self.run

    async def admit(self, state: RunState) -> RunState:
        """Read the task, lay out the folder, and tell the ledger what is about to run."""
        self.read_task()
        workspace = Workspace(self.folder.absolute())
        if self.agent.acts:
            try:
                workspace.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TaskError(
                    f"{workspace.path}: {error.strerror}; give --sandbox a folder to act in"
                ) from None
        log = await self.ledger.start(
            RunStart(
                run=self.run,
                agent=self.agent.name,
                task=self.task,
                context=self.context,
                seed=self.seed,
                policy=self.policy,
                engine=self.engine.info,
                options={"budget": _budget(self.agent), "sampling": _sampling(self.agent)},
            )
        )
        recording = Recording(
            log=log,
            spending=Spending(self.agent.budget, self.agent.sampling),
            task=self.task,
            observe=self.observe,
            thoughts={},
        )
        attempts = Attempts(
            agent=self.agent,
            policy=self.policy,
            engine=self.engine,
            context=self.context,
            seed=self.seed,
            recording=recording,
        )
        self.performer = Performer(attempts, recording, workspace)
        if self.agent.prepare is not None:
            with _blaming(self.agent, "prepare="):
                self.agent.prepare(workspace, self.task, self.seed)
        id = thought_id("task", (), prompt=[self.task, self.seed], model=self.engine.info.model)
        root = Thought(id=id, operation="task", kind="task", text=self.task, value=self.value)
        await recording.place(root, 0)
        return {"run": self.run, "cursor": 1}

    def read_task(self) -> None:
        """Let the agent read the user's text. Raises :class:`TaskError`."""
        if not self.task.strip():
            raise TaskError(f"the task is empty: say what {self.agent.name!r} shall do")
        try:
            with _blaming(self.agent, "read=", but=ValueError):
                reading = self.agent.read(self.task)
        except ValueError as error:
            raise TaskError(" ".join(str(error).split()) or "read= refuses the task") from None
        self.value, self.context = reading.value, reading.context

    async def grow(self, state: RunState) -> RunState:
        """Grow the graph of thoughts with the ready-queue scheduler."""
        performer, recording = self.admitted, self.admitted.recording
        root, *_ = recording.thoughts.values()
        try:
            grown = await grow(
                self.agent.plan,
                root,
                performer.perform,
                recording.spending,
                regrow=self.policy.regrow == "ban",
            )
            self.kept = grown.kept
            if grown.ended is not None:
                self.status = RunStatus.EXHAUSTED
                self.reason = f"{grown.ended}; {grown.left} steps were left undone"
                await recording.log.note("budget", {"ended": grown.ended, "left": grown.left})
        except Halt as halt:
            self.status = RunStatus.HALTED
            self.reason = f"thought {halt.thought.id} reached a rule whose action is halt"
        thoughts = recording.thoughts
        waiting = [t.id for t in thoughts.values() if t.status is Status.ESCALATED]
        if self.status is RunStatus.DONE and not self.kept:
            self.status = RunStatus.ESCALATED if waiting else RunStatus.EMPTY
            self.reason = _why_empty(tuple(thoughts.values()), waiting)
        return {"cursor": len(thoughts), "status": self.status.value, "waiting": waiting}

    async def review(self, state: RunState) -> RunState:
        """Stop for a person where the run cannot end without one. Nothing else happens here: an
        interrupted node runs again from its top."""
        from langgraph.types import interrupt

        if state.get("status") == RunStatus.ESCALATED:
            interrupt({"run": state.get("run"), "waiting": state.get("waiting", [])})
        return {}

    async def deliver(self, state: RunState) -> RunState:
        """Close the run in the ledger with its result."""
        if self.kept:
            best = self.kept[0]
            scene = self.admitted.recording.scene((best,))
            answer = best.text
            if self.agent.answer is not None:
                with _blaming(self.agent, "answer="):
                    answer = self.agent.answer(scene)
            if not isinstance(answer, str):
                given = type(answer).__name__
                raise TaskError(f"agent {self.agent.name!r}: answer= gave {given}; return a str")
            self.answer = answer
        await self.finish()
        return {"status": self.status.value}

    async def finish(self) -> None:
        """Write the run's last event."""
        if self.performer is not None:
            await self.performer.recording.log.finish(self.status, self.answer or self.reason)


async def perform_run(session: Session) -> RunResult:
    """Run a session to its end, or to the point where a person has to decide.

    Raises :class:`SecateurError` for what a user can mend; the ledger then says ``failed``,
    or ``cancelled`` where the run was interrupted.
    """
    began = time.monotonic()
    with bound_contextvars(run=session.run, agent=session.agent.name):
        _log.info("run started", policy=session.policy.name, seed=session.seed)
        try:
            final = await session.graph().ainvoke(
                {}, {"configurable": {"thread_id": session.run}}, durability="sync"
            )
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
                session.status, session.reason = RunStatus.CANCELLED, "interrupted"
            else:
                session.status = RunStatus.FAILED
                session.reason = str(error) or type(error).__name__
            await _finish_if_possible(session)
            raise
        if "__interrupt__" in final:
            await session.finish()
        _log.info("run ended", status=session.status.value)
    performer = session.performer
    thoughts = () if performer is None else tuple(performer.recording.thoughts.values())
    return RunResult(
        run_id=session.run,
        agent=session.agent.name,
        task=session.task,
        policy=session.policy.name,
        context=session.context,
        status=session.status,
        answer=session.answer,
        best=session.kept[0] if session.kept else None,
        kept=session.kept,
        thoughts=thoughts,
        seconds=time.monotonic() - began,
        workspace=session.folder,
        reason=session.reason,
    )


@contextmanager
def _blaming(
    agent: AgentSpec, function: str, but: type[Exception] = SecateurError
) -> Iterator[None]:
    """Say in one line which of the agent's own functions raised; ``but`` passes as it is."""
    try:
        yield
    except (SecateurError, but):
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise TaskError(f"agent {agent.name!r}: {function} raised {said}") from error


async def _finish_if_possible(session: Session) -> None:
    """The error that ended the run is what the caller must see, also when the ledger is gone."""
    try:
        await session.finish()
    except Exception as error:
        _log.error("the ledger could not record the end of the run", reason=str(error))


def _why_empty(thoughts: tuple[Thought, ...], waiting: list[str]) -> str:
    if waiting:
        return f"a person has to decide on thought {waiting[0]}"
    failed = [t for t in thoughts if t.status is Status.FAILED]
    pruned = sum(t.status is Status.PRUNED for t in thoughts)
    if failed and not pruned:
        return f"every branch failed: {failed[0].reason}"
    if failed:
        return f"no branch survived: {pruned} pruned, {len(failed)} failed ({failed[0].reason})"
    return f"no branch survived: {pruned} pruned" if pruned else "the plan gave no thought"


def _budget(agent: AgentSpec) -> dict[str, Any]:
    budget = agent.budget
    return {name: getattr(budget, name) for name in ("tokens", "thoughts", "seconds", "in_flight")}


def _sampling(agent: AgentSpec) -> dict[str, Any]:
    sampling = agent.sampling
    return {"temperature": sampling.temperature, "top_p": sampling.top_p}
