"""The agent that a user makes and runs."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agents.plans.composition import Plan
from ..agents.spec import AgentSpec
from ..agents.thought import Thought
from ..gates.policy import Policy
from .engines.protocol import Engine
from .executor.resources import Parts
from .executor.session import RunResult, Session
from .ledger.ledger import Ledger

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from .graph import Task

__all__ = ["Agent"]


def _ignore(told: object) -> None:
    pass


class Agent(AgentSpec):
    """An agent that can run::

        agent = Agent("haiku", plan=generate("Write a haiku about {task}.", n=5))
        result = await agent.run("pruning shears")

    Takes the fields of :class:`AgentSpec`.
    """

    def __init__(self, name: str, plan: Plan, **options: Any) -> None:
        super().__init__(name=name, plan=plan, **options)

    @classmethod
    def of(cls, spec: AgentSpec) -> "Agent":
        """The same agent, able to run."""
        if isinstance(spec, cls):
            return spec
        return cls(**{f.name: getattr(spec, f.name) for f in fields(spec)})

    async def run(
        self,
        task: str,
        *,
        policy: Policy | str | Path | None = None,
        engine: Engine | str | None = None,
        ledger: Ledger | str | Path | None = None,
        seed: int = 0,
        sandbox: Path | None = None,
        observe: Callable[[Thought], None] = _ignore,
        started: Callable[[str], None] = _ignore,
        origin: Mapping[str, Any] | None = None,
    ) -> RunResult:
        """Run one task.

        What is not given comes from the settings (``SECATEUR_DB``, ``secateur.toml`` …): the
        shipped model in process, and ``./secateur.db``. ``observe`` is told of every thought as
        it is recorded, and ``started`` the run's id once the ledger has it. ``sandbox`` is the
        folder the tools act in; default ``sandbox/RUN``. ``origin`` goes into the ledger: where
        agent and model are found again.

        Raises :class:`SecateurError` in one line that names the remedy.
        """
        parts = Parts(self, policy, engine, ledger, seed, sandbox, observe, started, origin or {})
        async with parts.session() as session:
            return await self._invoke(session, {"task": task})

    async def resume(
        self,
        run: str,
        *,
        task: str | None = None,
        policy: Policy | str | Path | None = None,
        engine: Engine | str | None = None,
        ledger: Ledger | str | Path | None = None,
        sandbox: Path | None = None,
        observe: Callable[[Thought], None] = _ignore,
        started: Callable[[str], None] = _ignore,
    ) -> RunResult:
        """Go on with a run that was killed or interrupted, or on which a person has decided.

        What is finished is taken from the ledger and not asked again; a model call that was open is
        made anew, as another attempt; a tool call that was open waits for a person, unless its tool
        is idempotent. Task, policy, seed and sandbox are the run's own; a task or policy that is
        given must be the same. Budgets count what was spent before.

        Raises :class:`RunOverError` for a run that has come to its end, and
        :class:`SecateurError`, in one line, for one that cannot go on.
        """
        parts = Parts(self, policy, engine, ledger, 0, sandbox, observe, started)
        async with parts.session() as session:
            session.task = task
            return await self._invoke(session, {"run": run})

    def graph(
        self,
        *,
        policy: Policy | str | Path | None = None,
        engine: Engine | str | None = None,
        ledger: Ledger | str | Path | None = None,
        seed: int = 0,
        sandbox: Path | None = None,
        checkpointer: Any = None,
    ) -> "CompiledStateGraph[Any, Any, Any, Any]":
        """The agent as a compiled LangGraph graph: ``{"task": …}`` in, ``result``, ``status`` and
        ``run`` out.

        One invocation may have settings of its own:
        ``config={"configurable": {"secateur": {"seed": 7, "policy": "strict"}}}``. See
        ``docs/langgraph.md``.
        """
        from .graph import compile_graph

        parts = Parts(self, policy, engine, ledger, seed, sandbox, kept={})
        return compile_graph(
            self,
            lambda configurable: parts.configured(configurable).session(),
            lambda configurable: parts.configured(configurable).open_ledger(),
            checkpointer,
        )

    async def _invoke(self, session: Session, given: "Task") -> RunResult:
        # LangGraph takes most of a second to import; only runs need it, audits do not.
        from langgraph.checkpoint.memory import InMemorySaver

        from .graph import compile_graph

        shell = compile_graph(
            self,
            lambda _: nullcontext(session),
            lambda _: nullcontext(session.ledger),
            InMemorySaver(),
        )
        await shell.ainvoke(given, {"configurable": {"thread_id": "1"}}, durability="sync")
        return session.result()
