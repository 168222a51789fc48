"""An agent as a compiled LangGraph graph: admit -> grow -> review -> deliver.

LangGraph owns the run's life: interrupts for people, streaming, drawing, embedding. Its state
carries the task, the run's id and a cursor. What was thought lies in the ledger, from which
``grow`` goes on when it is run again from its top.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.channels import UntrackedValue
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StreamWriter, interrupt

from ..agents.spec import AgentSpec
from ..agents.thought import Thought
from ..gates.errors import SecateurError
from .deciding import DecisionError, check_decision, decide
from .history import History
from .ledger.events import RunStatus
from .ledger.ledger import Ledger, new_run_id
from .ledger.waiting import waiting as wait
from .resuming import read_run
from .run import Session, read_task

__all__ = ["Connect", "ConnectLedger", "GraphError", "RunState", "Task", "compile_graph"]


class GraphError(SecateurError):
    """The graph's interrupt was answered with what is no decision."""


class RunState(TypedDict, total=False):
    """What LangGraph keeps of a run."""

    task: str
    """What to do; not needed where ``run`` names one to go on with."""
    run: str
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

    task: str
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
        if state.get("run"):
            return {"cursor": 0, "status": "", "waiting": []}
        read_task(self.agent, state.get("task", ""))
        run = new_run_id()
        self.new.add(run)
        return {"run": run, "cursor": 0, "status": "", "waiting": []}

    async def grow(self, state: RunState, config: RunnableConfig, writer: StreamWriter) -> RunState:
        """Start the run, or go on with it where the ledger has it, to its end."""
        run, task = state.get("run", ""), state.get("task")
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
                    open_ = {each.thought for each in await ledger.ask(lambda c: wait(c, run))}
                    decisions = [each for each in decisions if each["thought"] in open_]
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
    shell = StateGraph(RunState, input_schema=Task, output_schema=Outcome)
    shell.add_node("admit", nodes.admit)
    shell.add_node("grow", nodes.grow)
    shell.add_node("review", nodes.review)
    shell.add_node("deliver", nodes.deliver)
    shell.add_edge(START, "admit")
    shell.add_edge("admit", "grow")
    shell.add_edge("grow", "review")
    shell.add_conditional_edges("review", _next)
    shell.add_edge("deliver", END)
    return shell.compile(checkpointer=checkpointer, name=agent.name)


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
    return [_decision(each, waiting) for each in given]


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
        raise GraphError(f'say which "thought" the decision is on: {", ".join(waiting)} wait')
    decision = {"thought": waiting[0], **given}
    if decision["thought"] not in waiting:
        raise GraphError(f"thought {decision['thought']} does not wait; {', '.join(waiting)} do")
    return decision
