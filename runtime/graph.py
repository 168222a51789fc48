"""An agent as a compiled LangGraph graph: admit -> grow -> review -> deliver.

LangGraph owns the run's life: interrupts for people, streaming, drawing, embedding. Its state
carries the task, the run's id and a cursor. What was thought lies in the ledger, from which
``grow`` goes on when it is run again from its top. A task begins a new run, also on a thread that
has had one; only ``run`` without a task, ``None`` and an answer go on with what is there.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from inspect import signature
from typing import Annotated, Any, Literal, TypedDict, cast

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.channels import EphemeralValue, UntrackedValue
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot, interrupt

from ..agents.spec import AgentSpec
from ..agents.thought import Thought
from ..gates.errors import SecateurError
from .executor.blocking import Background
from .executor.session import Session, read_task
from .ledger.events import RunStatus
from .ledger.ledger import Ledger, new_run_id
from .recovery.history import History
from .recovery.resuming import read_run
from .review.decisions import DecisionError, check_decision, decide

__all__ = ["Connect", "ConnectLedger", "GraphError", "RunState", "Task", "compile_graph"]


class GraphError(SecateurError):
    """The graph's interrupt was answered with what is no decision, or contrary to one."""


class RunState(TypedDict, total=False):
    """What LangGraph keeps of a run."""

    task: Annotated[str | None, EphemeralValue]
    """What to do; not needed where ``run`` names one to go on with. What one invocation is given is
    no part of the next."""
    run: str
    asked: str | None
    """The run's task; None where it goes on with one of the ledger."""
    cursor: int
    """Thoughts recorded so far."""
    status: str
    waiting: list[str]
    """Thoughts that wait for a person."""
    result: Annotated[str | None, UntrackedValue]
    """The answer in words, or the reason for having none. It is handed out, and in no
    checkpoint."""


class Task(TypedDict, total=False):
    """What the graph takes."""

    task: Annotated[str | None, EphemeralValue]
    run: str


class Outcome(TypedDict, total=False):
    """What the graph gives."""

    run: str
    status: str
    waiting: list[str]
    result: str | None


Connect = Callable[[Mapping[str, Any]], AbstractAsyncContextManager[Session]]
"""Opens what one invocation needs, by its ``configurable``; the run is not begun yet."""

ConnectLedger = Callable[[Mapping[str, Any]], AbstractAsyncContextManager[Ledger]]
"""The same for the ledger alone."""


@dataclass(frozen=True, slots=True)
class _Nodes:
    agent: AgentSpec
    connect: Connect
    ledger: ConnectLedger
    new: set[str] = field(default_factory=set)
    """Runs that were admitted in this process, and are not in the ledger yet."""

    async def admit(self, state: RunState) -> RunState:
        """Refuse what the agent cannot take, and name the run."""
        task, run = state.get("task"), state.get("run")
        asked = None
        if task is not None or not run:
            asked = task or ""
            read_task(self.agent, asked)
            run = new_run_id()
            self.new.add(run)
        return {"run": run, "asked": asked, "cursor": 0, "status": "", "waiting": []}

    async def grow(self, state: RunState, config: RunnableConfig) -> RunState:
        """Start the run, or go on with it where the ledger has it, to its end."""
        run, task = state.get("run", ""), state.get("asked")
        writer = get_stream_writer()
        async with self.connect(config.get("configurable", {})) as session:
            session.run = run
            watched = session.observe

            def observe(thought: Thought) -> None:
                writer(_said(thought))
                return watched(thought)

            session.observe = observe
            if run in self.new:
                self.new.discard(run)
            elif task is not None:
                # An earlier process had this task: how far it came stands in the ledger.
                history = await session.recorded()
                if history is not None and not history.open:
                    return _ended(history)
                task = task if history is None else None
            await session.perform(task)
            return {
                "cursor": len(session.thoughts),
                "status": session.status.value,
                "waiting": session.waiting,
                "result": session.answer or session.reason,
            }

    async def review(self, state: RunState, config: RunnableConfig) -> RunState:
        """Stop for a person where the run cannot end without one.

        Before the interrupt nothing happens: an interrupted node runs again from its top. An answer
        that is no decision is asked for again, with what is wrong. What the person decided is in
        the ledger before the run goes on.
        """
        if state.get("status") != RunStatus.ESCALATED:
            return {}
        run, waiting = state.get("run", ""), state.get("waiting", [])
        asked: dict[str, Any] = {"run": run, "waiting": waiting}
        async with self.ledger(config.get("configurable", {})) as ledger:
            while True:
                # What was answered before comes again, in order, when the node is run again.
                answer = interrupt(asked)
                try:
                    decisions = _decisions(answer, waiting)
                    # Those that are written were written before a crash, after this very answer.
                    history = await read_run(ledger, run)
                    decisions = [each for each in decisions if not _stands(each, history)]
                    for each in decisions:
                        await ledger.ask(lambda c, each=each: check_decision(c, run=run, **each))
                except (GraphError, DecisionError) as error:
                    asked = {"run": run, "waiting": waiting, "error": str(error)}
                    continue
                for each in decisions:
                    await decide(ledger, run=run, **each)
                return {"status": "decided"}

    async def deliver(self, state: RunState, config: RunnableConfig) -> RunState:
        """Hand out the result; where another process came to it, from the ledger."""
        if "result" in state:
            return {"result": state["result"]}
        async with self.ledger(config.get("configurable", {})) as ledger:
            return {"result": (await read_run(ledger, state.get("run", ""))).result}

    async def late(self, answer: Any, state: StateSnapshot, config: RunnableConfig | None) -> None:
        """Refuse an answer to a thread that waits for none, but where it says again what was said.

        Raises :class:`GraphError`.
        """
        run = state.values.get("run")
        if state.next or not run:
            return
        async with self.ledger((config or {}).get("configurable", {})) as ledger:
            history = await read_run(ledger, run)
        decided = list(history.decisions)
        if not decided:
            raise GraphError(f"run {run} waits for nobody: there is nothing to answer")
        for each in _decisions(answer, decided):
            _stands(each, history)  # each is on a thought that was decided on


class _Graph(CompiledStateGraph[RunState, Any, Task, Outcome]):
    """An agent's graph, which drops no answer: LangGraph itself says nothing of one that comes when
    the thread has ended."""

    nodes_: _Nodes
    background: Background

    async def astream(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        if self._answers(input):
            state = await self.aget_state(config or {})
            await self.nodes_.late(input.resume, state, config)
        async for chunk in super().astream(input, config, **options):
            yield chunk

    def stream(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> Iterator[Any]:
        if self._answers(input):
            state = self.get_state(config or {})
            self.background.run(self.nodes_.late(input.resume, state, config))
        yield from super().stream(input, config, **options)

    def _answers(self, input: Any) -> bool:
        kept = isinstance(self.checkpointer, BaseCheckpointSaver)
        return kept and isinstance(input, Command) and input.resume is not None


def _ended(history: History) -> RunState:
    """The end that a run came to in a process that could not tell LangGraph of it."""
    return {
        "cursor": len(history.thoughts),
        "status": "" if history.ended is None else history.ended.value,
        "waiting": history.waiting,
        "result": history.result,
    }


def _next(state: RunState) -> Literal["grow", "deliver"]:
    return "grow" if state.get("status") == "decided" else "deliver"


def compile_graph(
    agent: AgentSpec,
    connect: Connect,
    ledger: ConnectLedger,
    checkpointer: Any = None,
) -> CompiledStateGraph[RunState, Any, Task, Outcome]:
    """The graph of one agent. ``checkpointer`` is any of LangGraph's; None takes that of a graph
    which this one is a node of."""
    nodes = _Nodes(agent, connect, ledger)
    background = Background()
    shell = StateGraph(RunState, input_schema=Task, output_schema=Outcome)
    for node in (nodes.admit, nodes.grow, nodes.review, nodes.deliver):
        shell.add_node(node.__name__, _both_ways(node, background))
    shell.add_edge(START, "admit")
    shell.add_edge("admit", "grow")
    shell.add_edge("grow", "review")
    shell.add_conditional_edges("review", _next)
    shell.add_edge("deliver", END)
    compiled = shell.compile(checkpointer=checkpointer, name=agent.name)
    compiled.__class__ = _Graph  # LangGraph builds what it compiles; only how it is called differs
    graph = cast(_Graph, compiled)
    graph.nodes_, graph.background = nodes, background
    return graph


def _both_ways(
    node: Callable[..., Coroutine[Any, Any, RunState]], background: Background
) -> RunnableLambda[RunState, RunState]:
    """A node for ``ainvoke`` and ``astream``, and for ``invoke`` and ``stream``."""
    if "config" not in signature(node).parameters:
        return RunnableLambda(lambda state: background.run(node(state)), node, node.__name__)

    def blocking(state: RunState, config: RunnableConfig) -> RunState:
        return background.run(node(state, config))

    return RunnableLambda(blocking, node, node.__name__)


def _said(thought: Thought) -> dict[str, Any]:
    """A thought as it goes over the ``custom`` stream."""
    return {
        "thought": thought.id,
        "parents": list(thought.parents),
        "operation": thought.operation,
        "status": thought.status.value,
        "text": thought.text,
        "score": thought.score,
        "tokens": thought.tokens,
        "reason": thought.reason,
    }


_FIELDS = {"thought", "approve", "by", "reason", "outcome"}


def _decisions(answer: Any, waiting: list[str]) -> list[dict[str, Any]]:
    """What ``Command(resume=…)`` said, as keywords of :func:`decide`.

    One decision, or a list of them; ``"decided"`` where they were taken with ``secateur audit``.
    Raises :class:`GraphError` for anything else.
    """
    if answer == "decided":
        return []
    given = answer if isinstance(answer, list) else [answer]
    decisions = [_decision(each, waiting) for each in given]
    for thought, times in Counter(each["thought"] for each in decisions).items():
        if times > 1:
            raise GraphError(f"thought {thought} is decided on {times} times: decide once")
    return decisions


def _decision(given: Any, waiting: list[str]) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not given.keys() <= _FIELDS:
        raise GraphError(
            'a decision is Command(resume={"approve": True, "by": NAME, "reason": TEXT}), with '
            '"thought" where several wait and "outcome" for a tool call; or "decided" where it was '
            "taken with `secateur audit decide`"
        )
    for name, kind in (("approve", bool), ("by", str), ("reason", str)):
        if not isinstance(given.get(name), kind):
            raise GraphError(f"the decision lacks {name!r}: give a {kind.__name__}")
    if "thought" not in given and len(waiting) != 1:
        raise GraphError(f'say which "thought" the decision is on: {", ".join(waiting)}')
    decision = {"thought": waiting[0], **given}
    if decision["thought"] not in waiting:
        raise GraphError(f"thought {decision['thought']} does not wait; {', '.join(waiting)} do")
    return decision


def _stands(decision: Mapping[str, Any], history: History) -> bool:
    """Whether a decision is written already. Raises :class:`GraphError` for one that is contrary to
    what is written."""
    known = history.decisions.get(decision["thought"])
    if known is None:
        return False
    if (known.approve, known.outcome) == (decision["approve"], decision.get("outcome")):
        return True
    word = "approved" if known.approve else "refused"
    raise GraphError(
        f"thought {decision['thought']} was {word} by {known.by} before ({known.reason}): a "
        'decision is taken once; answer "decided" to go on with that one'
    )
