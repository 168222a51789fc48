"""The agent that a user makes and runs."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..agents.plan import Plan
from ..agents.spec import AgentSpec
from ..agents.thought import Thought
from ..gates.policy import Policy
from .engines.opening import open_engine
from .engines.protocol import Engine
from .ledger.ledger import Ledger
from .run import RunResult, Session, perform_run
from .settings import Settings

__all__ = ["Agent"]


def _ignore(thought: Thought) -> None:
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
    ) -> RunResult:
        """Run one task.

        What is not given comes from the settings (``SECATEUR_DB``, ``secateur.toml`` …): the
        shipped model in process, and ``./secateur.db``. ``observe`` is told of every thought as
        it is recorded. ``sandbox`` is the folder the tools act in; default ``sandbox/RUN``.

        Raises :class:`SecateurError` in one line that names the remedy.
        """
        settings = Settings()
        async with AsyncExitStack() as held:
            if engine is None or isinstance(engine, str):
                engine = open_engine(engine or settings.engine, settings.model)
                held.push_async_callback(engine.aclose)
            if not isinstance(ledger, Ledger):
                ledger = await held.enter_async_context(Ledger.open(ledger or settings.db))
            if not isinstance(policy, Policy):
                policy = policy or settings.policy or self.policy
            if not isinstance(policy, Policy):
                policy = Policy.load(policy, engine.info.vocabulary.vocabulary)
            policy.check(engine.info.vocabulary.vocabulary)
            return await perform_run(
                Session(self, task, policy, engine, ledger, seed, sandbox, observe)
            )
